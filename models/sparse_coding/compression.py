"""Compiled conversion of dense codes to compressed rows."""

import numpy as np
import torch
from torch import Tensor

from zoo.models.sparse_coding.threads import compiled, over_rows


def compress(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row starts (n + 1,), atoms and values of the nonzero entries of dense codes (n, K)."""
    dense, starts = codes.contiguous().numpy(), np.zeros(len(codes) + 1, np.int64)
    over_rows(lambda rows: _count(dense[rows], starts[1:][rows]), len(codes))
    np.cumsum(starts, out=starts)
    atoms, values = np.empty(starts[-1], np.int64), np.empty(starts[-1], dense.dtype)
    over_rows(lambda rows: _fill(dense[rows], starts[:-1][rows], atoms, values), len(codes))
    return torch.from_numpy(starts), torch.from_numpy(atoms), torch.from_numpy(values)


@compiled
def _count(dense, counts):  # type: ignore[no-untyped-def]
    for i in range(len(dense)):
        n = 0
        for k in range(dense.shape[1]):
            n += dense[i, k] != 0
        counts[i] = n


@compiled
def _fill(dense, starts, atoms, values):  # type: ignore[no-untyped-def]
    for i in range(len(dense)):
        place = starts[i]
        for k in range(dense.shape[1]):
            if dense[i, k] != 0:
                atoms[place], values[place] = k, dense[i, k]
                place += 1
