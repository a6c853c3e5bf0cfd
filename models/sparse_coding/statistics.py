"""Compiled sums of products of sparse codes with each other and with the rows, for dictionary steps."""

import numpy as np
from torch import Tensor

from zoo.models.sparse_coding.threads import compiled


def add_products(codes: Tensor, x: Tensor, mean: Tensor, weight: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Add AᵀWA to `gram` (K, K) and AᵀW(X - mean) to `cross` (K, d), both float64.

    Args:
        codes: Codes A, (B, K) in compressed rows.
        x: Rows X, (B, d).
        mean: Mean of the rows, (d,), in the type of the rows.
        weight: Weights W of the rows, (B,) float64.
        gram: Symmetric sums over earlier rows; they are overwritten with the new sums.
        cross: The same for `cross`.
    """
    entries = codes.crow_indices().numpy(), codes.col_indices().numpy(), codes.values().numpy()
    _add(*entries, x.contiguous().numpy(), mean.numpy(), weight.numpy(), gram.numpy(), cross.numpy())


@compiled
def _add(starts, atoms, values, X, mean, weight, gram, cross):  # type: ignore[no-untyped-def]
    centred = np.empty(X.shape[1])
    for i in range(len(X)):
        if starts[i] == starts[i + 1]:
            continue
        for j in range(len(centred)):
            centred[j] = X[i, j] - mean[j]
        for p in range(starts[i], starts[i + 1]):
            gram_k, cross_k, value = gram[atoms[p]], cross[atoms[p]], weight[i] * values[p]
            for q in range(starts[i], p + 1):
                gram_k[atoms[q]] += value * values[q]
            for j in range(len(centred)):
                cross_k[j] += value * centred[j]
    for k in range(len(gram)):
        for j in range(k):
            gram[j, k] = gram[k, j]
