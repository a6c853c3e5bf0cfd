"""Weighted sums of rows that are gathered from a matrix, and dot products with such rows.

`Support` computes all products with sparse codes by these two functions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.sae import dispatch


def gathered_dtype(values: Tensor) -> torch.dtype:
    """Return the dtype in which rows are gathered, for sums and products in the dtype of `values`.

    It is bfloat16 under autocast to bfloat16, if there are kernels, which sum such rows in float32. Otherwise it is the
    dtype of `values`.
    """
    device = values.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if autocast and dispatch.by_kernels(values.device) else values.dtype


def weighted_sums(values: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
    """Sum value times row over groups of consecutive pairs (value, row).

    Args:
        values: Value of each pair, (N,).
        rows: Matrix from which each pair takes a row, (m, d).
        index: Row of each pair, (N,) int64.
        starts: First pair of each group, ascending, (n,) int64.

    Returns:
        The sum of each group, (n, d) in the dtype of `values`; 0 for groups without pairs.
    """

    def plain(values: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
        return F.embedding_bag(index, rows.to(values.dtype), starts, mode="sum", per_sample_weights=values)

    return dispatch.by_kernel("weighted_sums", plain, values.device, values, rows, index, starts)


def dot_products(left: Tensor, rows: Tensor, index: Tensor, starts: Tensor, group: Tensor) -> Tensor:
    """Compute the dot product of each pair's row with the vector of the pair's group.

    Args:
        left: A vector per group, (n, d).
        rows: Matrix from which each pair takes a row, (m, d).
        index: Row of each pair, (N,) int64.
        starts: First pair of each group, ascending, (n,) int64.
        group: Group of each pair, (N,) int64.

    Returns:
        A product per pair, (N,) in the dtype of `left`.
    """

    def plain(left: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
        rows = rows.to(left.dtype)
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(left, rows, index, starts, group, 0)

    return dispatch.by_kernel("dot_products", plain, left.device, left, rows, index, starts)
