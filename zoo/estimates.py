"""Estimates of means, shares, differences and rates, with 95 % confidence intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Sample = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, written as 0.413 [0.352, 0.474].

    By default it is written with three digits after the point; a format such as f"{x:.2f}" changes this.

    Args:
        mean: The number.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of independent values from which it was estimated.
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
        """Whether the whole interval lies below 0 or above 0."""
        return "below" if self.high < 0 else "above" if self.low > 0 else "undecided"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def mean(values: Sample, least: float | None = None, most: float | None = None) -> Estimate:
    """Return the mean of independent values with Student's t interval.

    The result is `UNKNOWN` for fewer than two values, or if a value is not finite.

    Args:
        values: Values, (n,).
        least: Smallest possible value of the measured quantity, such as 0 for a share of a variance. The interval does
            not extend below it.
        most: Largest possible value of the measured quantity. The interval does not extend above it.
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


def with_values(rows: Iterable[list[Any]]) -> list[list[Any]]:
    """Return the rows of a table that have a number besides the label, which is the first cell."""

    def known(cell: Any) -> bool:
        return cell is not None and not math.isnan(cell.mean if isinstance(cell, Estimate) else cell)

    return [row for row in rows if any(map(known, row[1:]))]


def share(values: Sample) -> Estimate:
    """Return the mean of shares of a variance, with an interval that does not extend below 0."""
    return mean(values, 0.0)


def difference_from_draws(values: Sample, null: Sample) -> Estimate:
    """Return a matrix's mean minus the mean over draws of its null model.

    The interval tests whether the matrix differs from one more draw of the null model. The values are measured on one
    matrix, and vary only by how they were measured (variance s²). Every null value belongs to a separate draw, and
    varies by the draw as well (variance t²). If the matrix is itself a draw, the difference has variance
    s²/n + t² (1 + 1/m), and the interval contains 0 with a chance of at least 95 %. The interval is Student's with the
    smaller of n - 1 and m - 1 degrees of freedom, which are fewer than Welch's. A confidence interval of the mean
    difference would contain 0 less often, because it ignores that any single draw differs from the mean of draws.

    Args:
        values: Values of the matrix, (n,).
        null: One value per draw of the null model, (m,).
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
    """Return the embedding's mean minus its null model's mean.

    With several runs of pretraining, the interval is that of the mean of paired differences over runs. With one run, it
    tests whether the embedding differs from one more draw of the null model, see `difference_from_draws`.

    Args:
        values: Values of the embedding, one per seed, or one per run of pretraining if there are several.
        null: Values of the null model, one per draw, or one per run of pretraining if there are several.
        runs: Number of runs of pretraining.
    """
    if runs > 1:
        return mean(np.asarray(values, float) - np.asarray(null, float))
    return difference_from_draws(values, null)


def change(values: Sequence[Sample], null: Sequence[Sample], runs: int = 1) -> Estimate:
    """Return the mean of a matrix minus that of an earlier matrix, paired by seed or by run of pretraining.

    With several runs, the interval is that of the mean over runs. With one run, it tests whether the two matrices
    differ more than two independent draws of their null models: to the variance s²/n of the mean, the variances between
    the draws of both null models are added. The interval is Student's with n - 1 degrees of freedom.

    Args:
        values: Values of the earlier and of the later matrix, (n,) each, with the same seeds or runs.
        null: Values of the null models of both matrices, one per draw, (n,) each.
        runs: Number of runs of pretraining.
    """
    from scipy import stats

    changes = np.asarray(values[1], float) - np.asarray(values[0], float)
    plain, n = mean(changes), len(changes)
    if runs > 1 or not math.isfinite(plain.mean):
        return plain
    variance = float(np.var(changes, ddof=1)) / n + sum(float(np.var(one, ddof=1)) for one in null)
    half = float(stats.t.ppf(0.975, n - 1)) * variance**0.5
    return Estimate(plain.mean, plain.mean - half, plain.mean + half, n)


def rate(successes: int, n: int) -> Estimate:
    """Return the share of successes in n independent trials, with Wilson's interval."""
    from scipy import stats

    ends = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(ends.low), float(ends.high), n)


def rates(successes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return many shares of successes in n independent trials, with lower and upper ends of 95 % intervals, (m,) each.

    Intervals are Wilson's, as in `rate`. For 0 successes the interval is one-sided and exact: it extends from 0 to
    1 - 0.05^(1/n), which is nearly 3 / n.

    Args:
        successes: Numbers of successes, (m,).
        n: Number of trials.
    """
    k, z2 = np.asarray(successes, float), 1.959963984540054**2
    centre = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    none = k == 0
    low = np.where(none, 0.0, centre - half)
    high = np.where(none, -np.expm1(np.log(0.05) / n), centre + half)
    return k / n, np.clip(low, 0, 1), np.clip(high, 0, 1)
