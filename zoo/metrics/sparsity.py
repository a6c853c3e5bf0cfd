"""Metrics of sparsity: the number of latents that fire, and the firing frequency of each latent."""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums, weights_of
from zoo.precision import float64


def fires(codes: Tensor) -> Tensor:
    """Return where a latent fires, bool: where its code is not zero, positive or negative."""
    return codes != 0


def count_active(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of nonzero codes of each row, (B,), and of each latent, (d_sae,), float64.

    If a row has a NaN, the numbers of this row and of every latent are NaN.

    Args:
        codes: Codes, (B, d_sae).
    """
    active = fires(codes).float()
    broken = codes.sum(1, dtype=torch.float32).isnan()
    per_row = float64(active.sum(1).masked_fill(broken, float("nan")))
    return per_row, float64(active.sum(0)) + 0 * per_row.sum()


class L0(Sums):
    """Mean number of nonzero codes per row, sum w|z|_0 / sum w, with weights w of the rows."""

    active: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__({"active": (), "weight": ()})

    def update(self, codes: Tensor, weight: Tensor | None = None) -> None:
        """Add rows.

        Args:
            codes: Codes, (B, d_sae).
            weight: Weights of the rows, (B,); 1 each by default.
        """
        w = weights_of(codes, weight)
        self.add({"active": w @ count_active(codes)[0], "weight": w.sum()})

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return self.active / self.weight


class FiringFrequency(Sums):
    """Share of rows in which each latent is nonzero. All rows have equal weight.

    Args:
        d_sae: Number of latents.
    """

    fired: Tensor
    rows: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__({"fired": (d_sae,), "rows": ()})

    def update(self, codes: Tensor) -> None:
        """Add rows.

        Args:
            codes: Codes, (B, d_sae).
        """
        fired = count_active(codes)[1]
        self.add({"fired": fired, "rows": weights_of(codes, None).sum()})

    def compute(self) -> Tensor:
        """Return the shares, (d_sae,) float64."""
        return self.fired / self.rows


def dead_share(frequency: Tensor) -> Tensor:
    """Return the share of latents that never fire, a float64 scalar.

    Args:
        frequency: Firing frequency of each latent, (d_sae,).
    """
    return _share(frequency == 0, frequency)


def dense_share(frequency: Tensor, above: float = 0.1) -> Tensor:
    """Return the share of dense latents, which fire in more than a given share of rows, a float64 scalar.

    Args:
        frequency: Firing frequency of each latent, as a share of rows, (d_sae,).
        above: Share of rows above which a latent is dense.
    """
    return _share(frequency > above, frequency)


def _share(chosen: Tensor, frequency: Tensor) -> Tensor:
    return float64(chosen).masked_fill(frequency.isnan(), float("nan")).mean()
