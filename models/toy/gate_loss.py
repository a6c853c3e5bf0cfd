"""Loss of many Boolean gates, computed fast because the inputs of nearly all gates are 00."""

from typing import Any

import torch
from torch import Tensor


def gate_losses(y: Tensor, place: Tensor, target: Tensor, weight: Tensor, weight_of_00: Tensor, p: float) -> Tensor:
    """Return the mean over gates of weight times |y - t|^p, for each seed, (S,).

    The arguments list only the gates whose inputs are not 00; all other gates have target 0. This takes one pass over
    the outputs instead of about twelve.

    Args:
        y: Outputs, (S, B, P).
        place: Indices of the listed gates in the flattened outputs, each at most once, (K,) int64.
        target: Targets of the listed gates, (K,).
        weight: Weights of the listed gates, (K,).
        weight_of_00: Weight of every other gate, ().
        p: Exponent, at least 1.
    """
    losses: Tensor = _GateLosses.apply(y, place, target, weight, weight_of_00, p)
    return losses


class _GateLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, place: Tensor, target: Tensor, weight: Tensor, weight_of_00: Tensor, p: float
    ) -> Tensor:
        gates = y[0].numel()
        listed = y.reshape(-1)[place]
        error = listed - target
        zero_part = (power(y, p) if p in (2, 4, 6) else power(y.abs(), p)).sum((1, 2), dtype=y.dtype) * weight_of_00
        change = weight * power(error.abs(), p) - weight_of_00 * power(listed.abs(), p)
        ctx.save_for_backward(y, place, error, weight, weight_of_00)
        ctx.p = p
        return zero_part.index_add(0, place // gates, change.to(y.dtype)) / gates

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        y, place, error, weight, weight_of_00 = ctx.saved_tensors
        scale = ctx.p * grad_outputs[0] / y[0].numel()  # (S,)
        gradient = slope(y, ctx.p).mul_((scale * weight_of_00).view(-1, 1, 1))
        gradient.view(-1)[place] = (slope(error, ctx.p) * weight * scale[place // y[0].numel()]).to(y.dtype)
        return gradient, None, None, None, None, None


def power(size: Tensor, p: float) -> Tensor:
    """Return size ** p. If p is a small whole number, products are used, which is much faster."""
    if p == 1:
        return size.clone()
    if p not in (2, 3, 4, 6):
        return size**p
    square = size * size
    if p == 3:
        return square.mul_(size)
    return square if p == 2 else square * square if p == 4 else square * square * square


def slope(error: Tensor, p: float) -> Tensor:
    """Return the derivative of |error| ** p / p, which is |error| ** (p - 1) with the sign of the error."""
    if p == 2:
        return error.clone()
    return power(error, 3) if p == 4 else power(error.abs(), p - 1).mul_(error.sign())
