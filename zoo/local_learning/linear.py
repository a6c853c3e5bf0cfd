"""Losses of linear networks from second moments, so that no step of a chain reads the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.local_learning.losses import Loss

Product = Callable[[nn.Module], Tensor]  # model -> the matrix M (d_out, d_in) of the linear map x -> M x


def squared_error(product: Product, x: Tensor, y: Tensor) -> Loss:
    """Return the loss mean |y - M x|² / 2 as a function of the model alone.

    It equals 1/2 tr(M Sxx Mᵀ) - tr(M Sxy) + 1/2 tr(Syy), where S are second moments. Use it without data, and give n::

        loss = squared_error(lambda model: model.B @ model.A, x, y)
        local_learning_coefficient(model, loss, n=len(x))

    Args:
        product: Function of the model that returns M, (d_out, d_in).
        x: Inputs, (n, d_in).
        y: Outputs, (n, d_out).

    Raises:
        ZooError: If x and y differ in their number of rows.
    """
    if len(x) != len(y):
        raise ZooError(f"x has {len(x)} rows and y {len(y)}: they must have the same number")
    n, (u, v) = len(x), (x.double(), y.double())
    xx, xy, yy = ((moment / n).to(x.dtype) for moment in (u.T @ u, u.T @ v, v.square().sum()))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        M = product(model)
        return ((M @ xx) * M).sum() / 2 - (M * xy.T).sum() + yy / 2

    return loss


def population_error(product: Product, true: Tensor, covariance: Tensor | None = None) -> Loss:
    """Return the population loss K = E|M x - M0 x|² / 2 = 1/2 tr((M - M0) Σ (M - M0)ᵀ) as a function of the model.

    It is the Kullback-Leibler divergence of regression with standard normal noise. Use it without data, and give nβ.

    Args:
        product: Function of the model that returns M, (d_out, d_in).
        true: M0, (d_out, d_in).
        covariance: Covariance Σ of the inputs, (d_in, d_in). By default the identity.
    """
    sigma = torch.eye(true.shape[1], dtype=true.dtype, device=true.device) if covariance is None else covariance

    def loss(model: nn.Module, batch: Any) -> Tensor:
        difference = product(model) - true
        return ((difference @ sigma) * difference).sum() / 2

    return loss
