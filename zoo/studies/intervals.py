"""Uncertainty of means over seeds."""

import numpy as np
from scipy import stats


def interval(values: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """Mean of independent values and its Student t confidence interval."""
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}
