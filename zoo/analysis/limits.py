"""Estimates the limit of a training curve, and whether the curve falls or rises in the end."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from zoo.errors import ZooError

EXPONENTS = np.geomspace(0.05, 4, 80)
LIMITS = 401  # candidates near the values


class Limit(NamedTuple):
    """The limit of a curve that approaches it as a power of the step, its interval, and the rest of the power law.

    The power law is value + slope (step / first)^-exponent, where `first` is the first step.
    """

    value: float
    low: float
    high: float
    exponent: float
    slope: float
    first: float

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return the power law at steps above 0, (n,)."""
        return self.value + self.slope * (np.asarray(steps, float) / self.first) ** -self.exponent


def limit(steps: np.ndarray, values: np.ndarray, level: float = 0.95) -> Limit:
    """Fit value = limit + b step^-c by least squares, and return the limit with its confidence interval.

    The interval contains every limit whose best fit has a sum of squares below S (1 + F / (n - 3)). S is the smallest
    sum of squares, and F the quantile of the F distribution with 1 and n - 3 degrees of freedom. This is a profile
    likelihood interval for independent errors of equal size. A side of the interval is unbounded if limits as far from
    the values as 10 times their range still fit; this happens for a curve that still changes fast.

    Args:
        steps: Steps, (n,), above 0; n at least 5.
        values: Values of the curve, (n,).
        level: Confidence level of the interval.

    Raises:
        ZooError: If there are fewer than 5 points, or steps are not above 0.
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    if len(steps) < 5 or len(steps) != len(values) or steps.min() <= 0:
        raise ZooError(f"a limit requires at least 5 steps above 0, with one value each; got {len(steps)} steps")
    if np.ptp(values) == 0:
        return Limit(values[0], values[0], values[0], 1.0, 0.0, steps.min())
    span = np.ptp(values)
    middle = np.linspace(values.min() - span, values.max() + span, LIMITS)
    far = span * np.geomspace(1, 10, 40)
    candidates = np.concatenate([(values.min() - far)[::-1], middle, values.max() + far])
    powers = (steps / steps.min()) ** -EXPONENTS[:, None]  # (exponents, n)
    rest = values - candidates[:, None]  # (candidates, n)
    slope = rest @ powers.T / (powers**2).sum(1)  # (candidates, exponents)
    squares = (rest**2).sum(1)[:, None] - slope**2 * (powers**2).sum(1)
    best = squares.min(1)
    at = int(best.argmin())
    quantile = stats.f.ppf(level, 1, len(values) - 3)
    fitting = np.flatnonzero(best <= max(best[at], 1e-12 * span**2) * (1 + quantile / (len(values) - 3)))
    low = candidates[fitting[0]] if fitting[0] > 0 else -np.inf
    high = candidates[fitting[-1]] if fitting[-1] < len(candidates) - 1 else np.inf
    power = int(squares[at].argmin())
    law = float(EXPONENTS[power]), float(slope[at, power]), float(steps.min())
    return Limit(float(candidates[at]), float(low), float(high), *law)


class LastTrend(NamedTuple):
    """The part of a curve up to its end that only falls or only rises, apart from noise."""

    start: int  # index of its first point, which is its largest if it falls, and its smallest if it rises
    rises: bool
    turned: bool  # whether the curve falls before it rises, or rises before it falls


def last_trend(curves: np.ndarray, between: float = 0.0, level: float = 0.95) -> LastTrend | None:
    """Return whether a curve falls or rises in the end, and from where on.

    The curve is measured several times at the same steps, for example with several seeds. Every measurement may be
    higher or lower as a whole; the rest is noise, independent and of equal size. Two points differ if the difference of
    their means is significant by a t-test, corrected for all pairs of points (Bonferroni). The last trend is the
    longest part up to the end in which all points that differ do so in the same direction.

    Args:
        curves: Values, (n steps, m measurements); both at least 2.
        between: Variance of every point by chance that all its measurements share, such as that of a matrix that was
            drawn at random.
        level: Confidence level of all differences together.

    Returns:
        The last trend; None if no two points of this part differ.
    """
    n, m = curves.shape
    means = curves.mean(1)
    noise = curves - means[:, None] - curves.mean(0) + curves.mean()
    freedom, pairs = (n - 1) * (m - 1), n * (n - 1) / 2
    error = np.sqrt(2 * ((noise**2).sum() / freedom / m + between))
    changes = means - means[:, None]  # (from, to)
    least = stats.t.isf((1 - level) / (2 * pairs), freedom) * error + 1e-12
    signs = np.triu(np.sign(changes) * (np.abs(changes) > least))
    for start in range(n):
        found = set(signs[start:, start:].ravel().tolist()) - {0.0}
        if len(found) == 1:
            rises, part = found == {1.0}, means[start:]
            return LastTrend(start + int(part.argmin() if rises else part.argmax()), rises, start > 0)
    return None
