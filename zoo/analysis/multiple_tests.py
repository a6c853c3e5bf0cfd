"""How surprising p-values are when there are several of them."""

from collections.abc import Sequence

import numpy as np


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
