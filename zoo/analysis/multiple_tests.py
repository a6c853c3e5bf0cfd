"""P-values by random draws, and their correction for several tests."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DRAWS_AT_ONCE = 250
ENOUGH = 50  # draws at least as high as the statistic, after which drawing stops
DRAWS_PER_TEST = 200  # 10 / 0.05: the smallest p-value, times the number of tests, is a tenth of 5 %


class Drawn(NamedTuple):
    """Comparison of a statistic with random draws of it under a null hypothesis."""

    p_value: float  # (1 + draws at least as high) / (1 + draws)
    mean: float  # of the draws


def monte_carlo(draw: Callable[[int], Tensor], found: float, most: int) -> Drawn:
    """Compare a statistic with random draws of it under a null hypothesis.

    Drawing stops when 50 draws are at least as high as the statistic, and after `most` draws at the latest. An early
    stop only reduces the precision of p-values that are above any level of interest (Besag and Clifford 1991,
    Sequential Monte Carlo p-values, Biometrika 78).

    Args:
        draw: Function that makes `count` draws, (count,).
        found: The statistic.
        most: Largest number of draws.
    """
    as_high, tried, total = 0, 0, 0.0
    while tried < most and as_high < ENOUGH:
        values = draw(min(DRAWS_AT_ONCE, most - tried))
        as_high += int((values >= found - 1e-9 * abs(found)).sum())
        tried, total = tried + len(values), total + float(values.sum(dtype=torch.float64))
    return Drawn((1 + as_high) / (1 + tried), total / max(tried, 1))


def draws_needed(n_tests: int) -> int:
    """Return ten times the draws with which one of n tests can be significant at 5 % after Holm's correction."""
    return DRAWS_PER_TEST * max(n_tests, 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for n tests, (n,) (Holm 1979). NaN stays NaN and does not count as a test.

    If tests with an adjusted p-value of at most α are called findings, the chance of any false finding among all n is
    at most α, however the tests depend on each other.
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def rate_limit(count: int, trials: int, level: float = 0.95) -> float:
    """Return the exact one-sided upper confidence limit of a rate (Clopper and Pearson 1934).

    Args:
        count: Number of trials with the event.
        trials: Number of trials, at least 1.
        level: Confidence level.
    """
    from scipy import stats

    return float(stats.binomtest(count, trials, alternative="less").proportion_ci(level, "exact").high)
