"""Separate means for each of several networks that are trained in parallel."""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums
from zoo.precision import float64


class SeedMeans(Sums):
    """Mean of a number per seed over all vectors on all ranks; NaN if there are no vectors.

    Args:
        n_seeds: Number of networks.
    """

    total: Tensor
    n: Tensor

    def __init__(self, n_seeds: int) -> None:
        super().__init__({"total": (n_seeds,), "n": ()})

    def update(self, means: Tensor, n: int) -> None:
        """Add the means of a batch, (n_seeds,), over `n` vectors of each seed."""
        self.add({"total": float64(means) * n, "n": torch.tensor(float(n), dtype=torch.float64)})

    def compute(self) -> Tensor:
        """Return the means, (n_seeds,) float64."""
        return self.total / self.n
