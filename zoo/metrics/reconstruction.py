"""How well rows are reconstructed.

Rows are x and x̂, (B, d) of any floating type; B may be 0 and may differ between ranks. A row's weight w is 1 unless
given. With no rows at all a metric is NaN, and a NaN among the rows stays one.
"""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums, weights_of
from zoo.precision import float64

# Share of sum w|x|² below which the spread of rows is no longer told from the rounding of float64 sums.
ROUNDING = 1e-12


def row_sums(x_hat: Tensor, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Sums over rows that the metrics here are ratios of, under several weightings at once.

    Args:
        x_hat: Reconstructions, (B, d).
        x: Rows, (B, d).
        weights: Weights of the rows, one weighting per line, (S, B) float64.

    Returns:
        (S,) float64 each: `weight` sum w, `square` sum w|x|², `square_hat` sum w|x̂|², `inner` sum w x·x̂, `error`
        sum w|x - x̂|², `cosine` sum w cos(x, x̂); and `x` sum w x, (S, d).
    """
    x, x_hat = float64(x), float64(x_hat)
    difference = x - x_hat
    square, square_hat = torch.linalg.vecdot(x, x), torch.linalg.vecdot(x_hat, x_hat)
    inner, error = torch.linalg.vecdot(x, x_hat), torch.linalg.vecdot(difference, difference)
    # A zero vector has inner product 0, hence cosine 0.
    cosine = inner / (square * square_hat).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    per_row = torch.stack((square, square_hat, inner, error, cosine), dim=1)  # (B, 5)
    names = ("square", "square_hat", "inner", "error", "cosine")
    sums = dict(zip(names, (weights @ per_row).unbind(1), strict=True))
    return {"weight": weights.sum(1), "x": weights @ x, **sums}


def unexplained(error: Tensor, weight: Tensor, x: Tensor, square: Tensor) -> Tensor:
    """FVU from its sums: `error` / (`square` - |`x`|² / `weight`), the last the sum of squares around the mean.

    The subtraction cancels, and float64 affords it: where the mean is r times the spread, the variance is off by
    about r² * 1e-16 (at most 7e-10 at r = 1000 and 3e-4 at a million), and rows in float32 are rounded to no better
    themselves. Rows constant to within `ROUNDING` have no variance: the FVU is then infinite, or NaN if they
    are reconstructed exactly.

    Args:
        error: sum w|x - x̂|², (S,).
        weight: sum w, (S,).
        x: sum w x, (S, d).
        square: sum w|x|², (S,).
    """
    total = square - torch.linalg.vecdot(x, x) / weight
    return error / total.masked_fill(total <= ROUNDING * square, 0.0)


class _Ratio(Sums):
    """A quotient of sums over rows.

    Args:
        names: The sums that the quotient needs, by their names in `row_sums`.
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

    One quotient for the whole data, in which x̄ is the mean of all rows, not of a batch. Reconstructing every row as x̄
    gives 1. One minus this is the R² of multivariate regression (for uniform weights, SAELens's `explained_variance`).
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("error", "weight", "x", "square")

    def compute(self) -> Tensor:
        """The fraction, a float64 scalar."""
        return unexplained(self.error, self.weight, self.x, self.square).squeeze()


class NMSEVariance(FVU):
    """Mean squared error over the variance around the mean, sum|x - x̂|² / sum|x - x̄|²: `FVU` under uniform weights.

    Several quantities go by the name of normalised MSE. Divided by the variance, as here, it is the one that Gao et
    al. (2024, arXiv 2406.04093) report: the error relative to that of always predicting the mean. Divided by the mean
    square it is `NMSEMeanSquare`, which is smaller whenever the rows have a mean: 1 - NMSE is then flattered by what
    a constant explains. A third is the mean over rows of |x - x̂|² / |x|², in which short rows count as much as long
    ones; the loss in the code released with that paper (openai/sparse_autoencoder, `loss.py`) is this one, and
    SAELens's `explained_variance_legacy` averages per-row ratios too, over |x - x̄|² with the batch's mean.
    dictionary_learning's `frac_variance_explained` is one minus a fourth: the residual's variance around its own
    mean, so that a constant error is free.
    """

    def update(self, x_hat: Tensor, x: Tensor, weight: Tensor | None = None) -> None:
        """Add rows.

        Args:
            x_hat: Reconstructions, (B, d).
            x: Rows, (B, d).
            weight: Left out of account; `FVU` is the weighted quantity.
        """
        super().update(x_hat, x)


class NMSEMeanSquare(_Ratio):
    """Mean squared error over the mean square, sum w|x - x̂|² / sum w|x|²; reconstructing 0 gives 1.

    The normalised MSE of signal processing and compressed sensing. `NMSEVariance` tells it from the others of that
    name.
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("error", "square")

    def compute(self) -> Tensor:
        """The quotient, a float64 scalar."""
        return (self.error / self.square).squeeze()


class CosineSimilarity(_Ratio):
    """Mean cosine between a row and its reconstruction, sum w cos(x, x̂) / sum w; a zero vector has cosine 0."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__("cosine", "weight")

    def compute(self) -> Tensor:
        """The mean, a float64 scalar."""
        return (self.cosine / self.weight).squeeze()


class RelativeReconstructionBias(_Ratio):
    """How much reconstructions shrink: γ = E|x̂|² / E[x·x̂] (Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 10).

    γ minimises E|x̂/γ - x|², so 1/γ is the factor by which reconstructions would best be stretched. 1 is unbiased,
    below 1 is shrinkage.
    """

    def __init__(self) -> None:
        super().__init__("square_hat", "inner")

    def compute(self) -> Tensor:
        """γ, a float64 scalar."""
        return (self.square_hat / self.inner).squeeze()
