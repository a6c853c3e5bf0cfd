"""P-values by random draws, and how surprising they are when there are several."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DRAWS_AT_ONCE = 250
ENOUGH = 50  # draws as high as what was found: a p-value that large is not sharpened
DRAWS_PER_TEST = 200  # 10 / 0.05: the least p-value, times the number of tests, is a tenth of 5 %


class Drawn(NamedTuple):
    """Comparison of a statistic with draws of it under a null hypothesis."""

    p_value: float  # (1 + draws as high) / (1 + draws)
    mean: float  # of the draws


def monte_carlo(draw: Callable[[int], Tensor], found: float, most: int) -> Drawn:
    """Draw a statistic until 50 draws are as high as what was found, or so often as is allowed.

    Stopping early costs nothing where p is above any level of interest (Besag and Clifford 1991, Sequential Monte Carlo
    p-values, Biometrika 78).

    Args:
        draw: Makes so many draws, (count,).
        found: What they are compared with.
        most: Draws, at most.
    """
    as_high, tried, total = 0, 0, 0.0
    while tried < most and as_high < ENOUGH:
        values = draw(min(DRAWS_AT_ONCE, most - tried))
        as_high += int((values >= found - 1e-9 * abs(found)).sum())
        tried, total = tried + len(values), total + float(values.sum(dtype=torch.float64))
    return Drawn((1 + as_high) / (1 + tried), total / max(tried, 1))


def draws_needed(n_tests: int) -> int:
    """Draws with which each of so many tests can be significant at 5 % after Holm's correction, tenfold."""
    return DRAWS_PER_TEST * max(n_tests, 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values (n,) of n tests (Holm 1979); NaN stays NaN and is not counted.

    Calling a finding what is at most α here, the chance of a single false finding among all n is at most α, however the
    tests depend on each other.
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
    """Exact one-sided upper limit of a rate (Clopper and Pearson 1934).

    Args:
        count: Times that it happened.
        trials: Of so many, at least 1.
        level: Chance that the limit is above the rate, at least.
    """
    from scipy import stats

    return float(stats.binomtest(count, trials, alternative="less").proportion_ci(level, "exact").high)
