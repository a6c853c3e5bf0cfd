"""Search for the nearest other rows of every row of a matrix."""

import torch
from torch import Tensor

ROWS_AT_ONCE = 1024


def nearest(rows: Tensor, k: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distances and the indices of the k nearest other rows.

    Args:
        rows: Rows, (V, D).
        k: Number of neighbours, below V.
        queries: Indices of the rows whose neighbours are returned, (n,). By default all.

    Returns:
        Distances (n, k) float32, ascending, and indices (n, k) int64.
    """
    squares = rows.square().sum(1)
    queries = torch.arange(len(rows)) if queries is None else queries
    distances, indices = [], []
    for part in queries.split(ROWS_AT_ONCE):
        d = torch.addmm(squares, rows[part], rows.T, alpha=-2)  # (part, V), without the query's own square
        d[torch.arange(len(part)), part] = torch.inf
        least = d.topk(k, largest=False)
        distances.append((least.values + squares[part].unsqueeze(1)).clamp(min=0).sqrt())
        indices.append(least.indices)
    return torch.cat(distances), torch.cat(indices)
