"""Uncertainty of means over seeds."""

import numpy as np
from scipy import stats


def interval(values: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """Mean of independent values and its Student t confidence interval."""
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def difference_from_draws(values: np.ndarray, null: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """A matrix's mean less that of draws of its null model, and the interval that tells it from one more draw.

    The values are measured on one matrix, and vary by how they were measured; each null value is of a draw of its own,
    and varies by the draw as well. If the matrix is itself such a draw, the difference has variance
    s²/n + t² (1 + 1/m). The interval is Student's with the smaller of n - 1 and m - 1 degrees of freedom, which are
    fewer than Welch's, so that it holds 0 with the given chance or a higher one. A confidence interval of the mean
    difference would hold it less often: it leaves out that the one matrix differs from the mean of draws as any draw
    does.

    Args:
        values: Of the matrix, (n,), n at least 2.
        null: One of every draw, (m,), m at least 2.
        level: Of the interval.
    """
    own, draws = float(np.var(values, ddof=1)) / len(values), float(np.var(null, ddof=1)) * (1 + 1 / len(null))
    mean, variance = float(np.mean(values) - np.mean(null)), own + draws
    half = float(stats.t.ppf(0.5 + level / 2, min(len(values), len(null)) - 1)) * variance**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}
