"""Estimates with intervals: of means, shares, differences and rates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Sample = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; as text 0.413 [0.352, 0.474], to three digits or as a format says: f"{x:.2f}".

    Args:
        mean: The number.
        low: Lower end of the interval.
        high: Upper end.
        n: Independent values that it rests on.
    """

    mean: float
    low: float
    high: float
    n: int = 0

    def __format__(self, spec: str) -> str:
        if not math.isfinite(self.mean):
            return "-"
        if spec.endswith("%"):
            mean, low, high = (format(100 * v, f"{spec[:-1]}f") for v in (self.mean, self.low, self.high))
            return f"{mean} % [{low}, {high}]"
        mean, low, high = (format(v, spec or ".3f") for v in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)

    @property
    def sign(self) -> Literal["below", "above", "undecided"]:
        """On which side of 0 the interval lies."""
        return "below" if self.high < 0 else "above" if self.low > 0 else "undecided"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def mean(values: Sample, least: float | None = None, most: float | None = None) -> Estimate:
    """The mean of independent values with Student's t interval; unknown where a value is, or with fewer than two.

    Args:
        values: (n,).
        least: Value that what is measured cannot be below, such as 0 for a share of a variance; nor is the interval.
        most: Value that it cannot be above, likewise.
    """
    from scipy import stats

    array = np.asarray(values, float)
    if len(array) < 2 or not np.isfinite(array).all():
        return UNKNOWN
    centre, error = float(array.mean()), float(stats.sem(array))
    half = float(stats.t.ppf(0.975, len(array) - 1)) * error
    low = centre - half if least is None else max(centre - half, least)
    high = centre + half if most is None else min(centre + half, most)
    return Estimate(centre, low, high, len(array))


def share(values: Sample) -> Estimate:
    """The mean of shares of a variance, whose interval is not below 0."""
    return mean(values, 0.0)


def difference_from_draws(values: Sample, null: Sample) -> Estimate:
    """A matrix's mean less that of draws of its null model, and the interval that tells it from one more draw.

    The values are measured on one matrix, and vary by how they were measured; each null value is of a draw of its own,
    and varies by the draw as well. If the matrix is itself such a draw, the difference has variance
    s²/n + t² (1 + 1/m). The interval is Student's with the smaller of n - 1 and m - 1 degrees of freedom, which are
    fewer than Welch's, so that it holds 0 with a chance of 95 % or more. A confidence interval of the mean difference
    would hold it less often: it leaves out that the one matrix differs from the mean of draws as any draw does.

    Args:
        values: Of the matrix, (n,).
        null: One of every draw, (m,).
    """
    from scipy import stats

    values, null = np.asarray(values, float), np.asarray(null, float)
    if min(len(values), len(null)) < 2 or not (np.isfinite(values).all() and np.isfinite(null).all()):
        return UNKNOWN
    own, draws = float(np.var(values, ddof=1)) / len(values), float(np.var(null, ddof=1)) * (1 + 1 / len(null))
    centre, variance, n = float(np.mean(values) - np.mean(null)), own + draws, min(len(values), len(null))
    half = float(stats.t.ppf(0.975, n - 1)) * variance**0.5
    return Estimate(centre, centre - half, centre + half, n)


def difference(values: Sample, null: Sample, runs: int = 1) -> Estimate:
    """The embedding's mean less its null model's, with the interval that tells the two apart.

    Args:
        values: Of the embedding, one per seed, or per run of pretraining where there are several.
        null: Of draws of the null model, likewise.
        runs: Runs of pretraining. With several the interval is that of the mean of paired differences over runs, and
            otherwise that in which one more draw of the null model would lie, see `difference_from_draws`.
    """
    if runs > 1:
        return mean(np.asarray(values, float) - np.asarray(null, float))
    return difference_from_draws(values, null)


def rate(successes: int, n: int) -> Estimate:
    """A share of independent trials, with Wilson's interval."""
    from scipy import stats

    ends = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(ends.low), float(ends.high), n)
