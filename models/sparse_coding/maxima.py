"""Largest correlations of many vectors with many atoms, compiled."""

import numpy as np
import torch
from torch import Tensor

from zoo.models.sparse_coding.threads import compiled, over_rows


def exact(approximate: Tensor, margin: float, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    """Largest <r_i, d_k> over k, or |<r_i, d_k>|, where a matrix says about how large each is.

    Args:
        approximate: About <r_i, d_k> in any unit of the row's, (n, K).
        margin: By how much two approximate values of a row can be off together.
        r: (n, d) float64.
        D: (K, d) float64.
        positive: Whether signs matter.
    """
    largest = np.empty(len(r))
    c, vectors, atoms = approximate.numpy(), r.contiguous().numpy(), D.contiguous().numpy()

    def part(rows: slice) -> None:
        _maxima(c[rows], margin, vectors[rows], atoms, positive, largest[rows])

    over_rows(part, len(r))
    return torch.from_numpy(largest)


@compiled
def _maxima(approximate, margin, r, D, positive, largest):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        c, r_i, top = approximate[i], r[i], -np.inf
        for k in range(len(c)):
            top = max(top, c[k] if positive else abs(c[k]))
        best = -np.inf
        for k in range(len(c)):
            if (c[k] if positive else abs(c[k])) >= top - margin:
                d_k, dot = D[k], 0.0
                for j in range(len(d_k)):
                    dot += d_k[j] * r_i[j]
                best = max(best, dot if positive else abs(dot))
        largest[i] = best
