"""Whether two quantities order the same items in the same way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations of two quantities over n items.

    Args:
        spearman: Spearman's rank correlation with its 95 % interval; unknown if a quantity is the same for all items.
        kendall: Kendall's tau-b.
        p_value: Share of shuffled pairings whose |Spearman| is at least as large, two-sided.
    """

    spearman: Estimate
    kendall: float
    p_value: float


def rank_agreement(x: Sequence[float], y: Sequence[float], draws: int = 20_000, seed: int = 0) -> RankAgreement:
    """Return the rank correlations of two quantities, compared with shuffled pairings of the items.

    Tied values have their mean rank. The interval is that of Bonett and Wright 2000, "Sample size requirements for
    estimating Pearson, Kendall and Spearman correlations", Psychometrika 65: Fisher's z of Spearman's correlation r has
    the variance (1 + r²/2) / (n - 3). As z of 1 is infinite, |r| counts as at most 1 - 12 / (n³ - n) in the interval,
    which is the correlation of two orders that differ by one exchange of neighbours.

    Args:
        x: One value for each item, (n,).
        y: The other quantity of the same items, (n,).
        draws: Number of shuffled pairings.
        seed: Seed of the shuffles.

    Raises:
        ZooError: If the quantities differ in their number of items, there are fewer than 5, or one is not finite.
    """
    from scipy import stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 5:
        raise ZooError(f"there are {len(a)} and {len(b)} values; both must have the same number, at least 5")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ZooError("a value is not finite; leave such items out first")
    n = len(a)
    ranks_a, ranks_b = (stats.rankdata(one) - (n + 1) / 2 for one in (a, b))
    size = math.sqrt(float(ranks_a @ ranks_a) * float(ranks_b @ ranks_b))
    if size == 0:
        return RankAgreement(UNKNOWN, math.nan, math.nan)
    r = float(ranks_a @ ranks_b) / size
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks_b, (draws, 1)), axis=1) @ ranks_a / size
    p_value = (1 + int((abs(shuffled) >= abs(r) - 1e-9).sum())) / (1 + draws)
    most = 1 - 12 / (n**3 - n)
    clipped = float(np.clip(r, -most, most))
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + clipped**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(clipped) + sign * half) for sign in (-1, 1))
    interval = Estimate(r, min(low, r), max(high, r), n)
    return RankAgreement(interval, float(stats.kendalltau(a, b).statistic), p_value)
