"""Losses whose local learning coefficients are known, as modules."""

import torch
from torch import nn


class Vector(nn.Module):
    """A module whose only parameter is a vector w."""

    def __init__(self, *values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))
        self.eval()


class TwoMatrices(nn.Module):
    """x -> B A x with a true map of some rank; `generic` makes A of full rank, which leaves the function the same."""

    def __init__(self, hidden, rank, generic=False, width=5):
        super().__init__()
        keep = torch.arange(hidden) < rank
        eye = torch.eye(hidden, width, dtype=torch.float64)
        self.A = nn.Parameter(eye.clone() if generic else eye * keep[:, None])
        self.B = nn.Parameter((eye * keep[:, None]).T.clone())
        self.eval()

    def forward(self, x):
        return x @ self.A.T @ self.B.T


def product(model):
    """The matrix B A."""
    return model.B @ model.A


def monomial(*powers):
    """The loss that is the product of w_i to these powers."""
    return lambda model, batch: torch.stack([w**p for w, p in zip(model.w, powers, strict=True)]).prod()
