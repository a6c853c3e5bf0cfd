"""Compiled search for the largest correlation of each of many vectors with many atoms."""

import numpy as np
import torch
from torch import Tensor

from zoo.models.sparse_coding.threads import compiled, over_rows


def exact(approximate: Tensor, margin: Tensor, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    """Return the largest |<r_i, d_k>| over k, or <r_i, d_k> if `positive`, given approximate values of all of them.

    Args:
        approximate: Approximate <r_i, d_k>, (n, K). Every row may have its own scale.
        margin: Largest sum of the errors of two approximate values of row i, (n,) float64.
        r: Vectors, (n, d) float64.
        D: Atoms, (K, d) float64.
        positive: Whether signed correlations are compared instead of absolute ones.

    Returns:
        (n,) float64, NaN where an approximate value is not finite.
    """
    largest = np.empty(len(r))
    margins = margin.numpy()
    c, vectors, atoms = approximate.numpy(), r.contiguous().numpy(), D.contiguous().numpy()

    def part(rows: slice) -> None:
        _maxima(c[rows], margins[rows], vectors[rows], atoms, positive, largest[rows])

    over_rows(part, len(r))
    return torch.from_numpy(largest)


@compiled
def _maxima(approximate, margin, r, D, positive, largest):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        c, r_i, top, bad = approximate[i], r[i], approximate[i, 0] if positive else abs(approximate[i, 0]), 0.0
        for k in range(len(c)):
            top = max(top, c[k] if positive else abs(c[k]))
            bad += c[k] * 0
        best = -np.inf if bad == 0 else np.nan
        for k in range(len(c)):
            if (c[k] if positive else abs(c[k])) >= top - margin[i]:
                d_k, dot = D[k], 0.0
                for j in range(len(d_k)):
                    dot += d_k[j] * r_i[j]
                best = max(best, dot if positive else abs(dot))
        largest[i] = best
