"""The nearest rows of every row of a matrix."""

import torch
from torch import Tensor

ROWS_AT_ONCE = 1024


def nearest(rows: Tensor, k: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances and indices of the k nearest other rows, by Euclidean distance.

    Args:
        rows: (V, D).
        k: Neighbours, below V.
        queries: Indices of the rows whose neighbours are wanted, (n,); all by default.

    Returns:
        Distances (n, k) float32, ascending, and indices (n, k) int64.
    """
    squares = rows.square().sum(1)
    queries = torch.arange(len(rows)) if queries is None else queries
    distances, indices = [], []
    for part in queries.split(ROWS_AT_ONCE):
        d = torch.addmm(squares, rows[part], rows.T, alpha=-2)  # (part, V), short of the query's own square
        d[torch.arange(len(part)), part] = torch.inf
        least = d.topk(k, largest=False)
        distances.append((least.values + squares[part].unsqueeze(1)).clamp(min=0).sqrt())
        indices.append(least.indices)
    return torch.cat(distances), torch.cat(indices)
