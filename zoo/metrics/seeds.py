"""Means that are kept apart for each of several networks trained side by side."""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums
from zoo.precision import float64


class SeedMeans(Sums):
    """Mean of a number per seed over all vectors, those of all ranks; NaN without any.

    Args:
        n_seeds: Networks.
    """

    total: Tensor
    n: Tensor

    def __init__(self, n_seeds: int) -> None:
        super().__init__({"total": (n_seeds,), "n": ()})

    def update(self, means: Tensor, n: int) -> None:
        """Add a batch's means (n_seeds,) over `n` vectors of each seed."""
        self.add({"total": float64(means) * n, "n": torch.tensor(float(n), dtype=torch.float64)})

    def compute(self) -> Tensor:
        """Means (n_seeds,) float64."""
        return self.total / self.n
