"""Metrics of how well rows are reconstructed.

Rows are x and their reconstructions are x̂, (B, d) of any floating type; B may be 0 and may differ between ranks. The
weight w of a row is 1 by default. A metric is NaN if there are no rows at all, or if an entry of a row is NaN.
"""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums, weights_of
from zoo.precision import float64

# Share of sum w|x|² below which the variance of rows cannot be distinguished from the rounding of float64 sums.
ROUNDING = 1e-12


def row_sums(x_hat: Tensor, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return the sums over rows from which the metrics of this module are computed, under several weightings.

    Args:
        x_hat: Reconstructions, (B, d).
        x: Rows, (B, d).
        weights: Weights of the rows under S weightings, (S, B) float64.

    Returns:
        (S,) float64 each: `weight` sum w, `square` sum w|x|², `square_hat` sum w|x̂|², `inner` sum w x·x̂, `error`
        sum w|x - x̂|², `cosine` sum w cos(x, x̂); and `x` sum w x, (S, d).
    """
    x, x_hat = float64(x), float64(x_hat)
    difference = x - x_hat
    square, square_hat = torch.linalg.vecdot(x, x), torch.linalg.vecdot(x_hat, x_hat)
    inner, error = torch.linalg.vecdot(x, x_hat), torch.linalg.vecdot(difference, difference)
    # A zero vector has inner product 0, and therefore cosine 0.
    cosine = inner / (square * square_hat).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    per_row = torch.stack((square, square_hat, inner, error, cosine), dim=1)  # (B, 5)
    names = ("square", "square_hat", "inner", "error", "cosine")
    sums = dict(zip(names, (weights @ per_row).unbind(1), strict=True))
    return {"weight": weights.sum(1), "x": weights @ x, **sums}


def unexplained(error: Tensor, weight: Tensor, x: Tensor, square: Tensor) -> Tensor:
    """Return the FVU from its sums, `error` / (`square` - |`x`|² / `weight`).

    The denominator is the sum of squares around the mean. Its subtraction loses digits, but float64 has enough: if the
    mean is r times the standard deviation, the relative error of the variance is about r² * 1e-16 (at most 7e-10 at
    r = 1000 and 3e-4 at a million), and the rounding of float32 rows is no smaller. Rows that are constant to within
    `ROUNDING` count as having no variance: the FVU is then infinite, or NaN if they are reconstructed exactly.

    Args:
        error: sum w|x - x̂|², (S,).
        weight: sum w, (S,).
        x: sum w x, (S, d).
        square: sum w|x|², (S,).
    """
    total = square - torch.linalg.vecdot(x, x) / weight
    return error / total.masked_fill(total <= ROUNDING * square, 0.0)


class _Ratio(Sums):
    """Base class of metrics that are a quotient of sums over rows.

    Args:
        names: Names, as in `row_sums`, of the sums that the quotient needs.
    """

    error: Tensor
    weight: Tensor
    x: Tensor
    square: Tensor
    square_hat: Tensor
    inner: Tensor
    cosine: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__({name: (1, 1) if name == "x" else (1,) for name in names})

    def update(self, x_hat: Tensor, x: Tensor, weight: Tensor | None = None) -> None:
        """Add rows.

        Args:
            x_hat: Reconstructions, (B, d).
            x: Rows, (B, d).
            weight: Weights of the rows, (B,); 1 each by default.
        """
        self.add(row_sums(x_hat, x, weights_of(x, weight)[None]))


class FVU(_Ratio):
    """Fraction of variance unexplained, sum w|x - x̂|² / sum w|x - x̄|², where x̄ = sum w x / sum w.

    It is one quotient for the whole data: x̄ is the mean of all rows, not that of a batch. If every row is reconstructed
    as x̄, the FVU is 1. One minus the FVU is the R² of multivariate regression (for uniform weights, SAELens's
    `explained_variance`).
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("error", "weight", "x", "square")

    def compute(self) -> Tensor:
        """Return the fraction, a float64 scalar."""
        return unexplained(self.error, self.weight, self.x, self.square).squeeze()


class NMSEVariance(FVU):
    """Mean squared error divided by the variance, sum|x - x̂|² / sum|x - x̄|²: `FVU` under uniform weights.

    Several different quantities are called normalised MSE:

    - Divided by the variance, as here, it is the error relative to that of always predicting the mean. Gao et al.
      (2024, arXiv 2406.04093) report this quantity.
    - Divided by the mean square, it is `NMSEMeanSquare`. It is smaller if the mean of the rows is not 0, because one
      minus the NMSE then includes what a constant explains.
    - The mean over rows of |x - x̂|² / |x|² gives short rows the same weight as long rows. It is the loss in the code
      released with that paper (openai/sparse_autoencoder, `loss.py`). SAELens's `explained_variance_legacy` also
      averages ratios of rows, but divides by |x - x̄|² with the mean of the batch.
    - dictionary_learning's `frac_variance_explained` is 1 minus the variance of the residual around its own mean, as a
      share of the variance, so that a constant error does not count.
    """

    def update(self, x_hat: Tensor, x: Tensor, weight: Tensor | None = None) -> None:
        """Add rows.

        Args:
            x_hat: Reconstructions, (B, d).
            x: Rows, (B, d).
            weight: Ignored; `FVU` is the weighted quantity.
        """
        super().update(x_hat, x)


class NMSEMeanSquare(_Ratio):
    """Mean squared error divided by the mean square, sum w|x - x̂|² / sum w|x|²; the reconstruction 0 gives 1.

    It is the normalised MSE of signal processing and compressed sensing. `NMSEVariance` lists the other quantities of
    this name.
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("error", "square")

    def compute(self) -> Tensor:
        """Return the quotient, a float64 scalar."""
        return (self.error / self.square).squeeze()


class CosineSimilarity(_Ratio):
    """Mean cosine between a row and its reconstruction, sum w cos(x, x̂) / sum w; a zero vector has cosine 0."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__("cosine", "weight")

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return (self.cosine / self.weight).squeeze()


class RelativeReconstructionBias(_Ratio):
    """Shrinkage of reconstructions, γ = E|x̂|² / E[x·x̂] (Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 10).

    γ minimises E|x̂/γ - x|², so that 1/γ is the best factor by which to multiply reconstructions. γ = 1 means that they
    are unbiased, γ < 1 that they are too small.
    """

    def __init__(self) -> None:
        super().__init__("square_hat", "inner")

    def compute(self) -> Tensor:
        """Return γ, a float64 scalar."""
        return (self.square_hat / self.inner).squeeze()
