"""The sums and products of gathered rows as Triton kernels, for CUDA; `gathered_rows` says what they compute."""

import triton
import triton.language as tl
from torch import Tensor

PAIRS, COLUMNS = 16, 256  # of a tile


def weighted_sums(values: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
    """See `gathered_rows.weighted_sums`."""
    n, d = len(starts), rows.shape[1]
    sums = values.new_empty(n, d)
    columns = min(COLUMNS, triton.next_power_of_2(d))
    arguments = (values.contiguous(), rows.contiguous(), index.contiguous(), starts, sums)
    if n:
        _weighted_sums[n, triton.cdiv(d, columns)](*arguments, len(index), n, d, PAIRS, columns)
    return sums


def dot_products(left: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
    """See `gathered_rows.dot_products`."""
    n, d = left.shape
    products = left.new_empty(len(index))
    columns = min(COLUMNS, triton.next_power_of_2(d))
    if n:
        arguments = (left.contiguous(), rows.contiguous(), index.contiguous(), starts, products)
        _dot_products[n,](*arguments, len(index), n, d, PAIRS, columns)
    return products


@triton.jit
def _weighted_sums(  # type: ignore[no-untyped-def]
    values, rows, index, starts, sums, n_pairs, n, d: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start, end = tl.load(starts + i), tl.load(starts + i + 1, mask=i + 1 < n, other=n_pairs)
    total = tl.zeros((PAIRS, COLUMNS), sums.dtype.element_ty)
    first = start
    while first < end:
        pair = first + tl.arange(0, PAIRS)
        row = tl.load(index + pair, mask=pair < end, other=0)
        value = tl.load(values + pair, mask=pair < end, other=0.0)
        there = (pair < end)[:, None] & (column < d)[None, :]
        tile = tl.load(rows + row[:, None] * d + column[None, :], mask=there, other=0.0)
        total += value[:, None] * tile.to(total.dtype)
        first += PAIRS
    tl.store(sums + i * d + column, tl.sum(total, 0), mask=column < d)


@triton.jit
def _dot_products(  # type: ignore[no-untyped-def]
    left, rows, index, starts, products, n_pairs, n, d: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64)
    start, end = tl.load(starts + i), tl.load(starts + i + 1, mask=i + 1 < n, other=n_pairs)
    first = start
    while first < end:
        pair = first + tl.arange(0, PAIRS)
        row = tl.load(index + pair, mask=pair < end, other=0)
        total = tl.zeros((PAIRS, COLUMNS), products.dtype.element_ty)
        for column in range(0, d, COLUMNS):
            column = column + tl.arange(0, COLUMNS)
            there = (pair < end)[:, None] & (column < d)[None, :]
            tile = tl.load(rows + row[:, None] * d + column[None, :], mask=there, other=0.0)
            of_left = tl.load(left + i * d + column, mask=column < d, other=0.0)
            total += of_left[None, :] * tile.to(total.dtype)
        tl.store(products + pair, tl.sum(total, 1), mask=pair < end)
        first += PAIRS
