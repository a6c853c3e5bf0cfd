"""Triton kernels for the computations of sparse autoencoders on CUDA. `dispatch` decides when they are used.

A tile is as wide as the threads of a program with 16 bytes each, so that a thread can sum over the rows of a tile on
its own. The order of additions is fixed.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.precision import precise_dtype

PAIRS, COLUMNS = 16, 256  # size of a tile of gathered rows
CHUNK = 128  # number of consecutive pairs that a separate program sums, if they all belong to one group
DENSE_ROWS, DENSE_COLUMNS, ROWS_OF_A_PROGRAM = 8, 1024, 128  # size of a tile of codes, and rows per program
LARGEST_TILE = 4096  # largest number of candidates in `top_k`


def weighted_sums(values: Tensor, rows: Tensor, index: Tensor, starts: Tensor) -> Tensor:
    """See `gathered_rows.weighted_sums`."""
    (n,), (N,), d = starts.shape, index.shape, rows.shape[1]
    sums = values.new_empty(n, d)
    of_chunks = values.new_empty(N // CHUNK, d)
    columns = min(COLUMNS, triton.next_power_of_2(d))
    blocks, warps = triton.cdiv(d, columns), _warps(columns, rows)
    arguments = (values.contiguous(), rows.contiguous(), index.contiguous(), starts, of_chunks)
    if n and len(of_chunks):
        _sums_of_chunks[len(of_chunks), blocks](*arguments, N, n, d, CHUNK, PAIRS, columns, num_warps=warps)
    if n:
        _weighted_sums[n, blocks](*arguments, sums, N, n, d, CHUNK, PAIRS, columns, num_warps=warps)
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


def can_select(K: int, k: int, dtype: torch.dtype) -> bool:
    """Whether `top_k` can select k of K entries of this dtype."""
    groups, size = _groups(K, k)
    fits = max(groups, size * triton.next_power_of_2(k)) <= LARGEST_TILE
    return fits and dtype in (torch.float16, torch.bfloat16, torch.float32)


def top_k(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """See `selection.top_k`."""
    B, K = pre.shape
    groups, size = _groups(K, k)
    values, indices = pre.new_empty(B, k), pre.new_empty(B, k, dtype=torch.int64)
    if B:
        sizes = (triton.cdiv(K, groups), size, groups, triton.next_power_of_2(k))
        _top_k[B,](pre.contiguous(), values, indices, K, k, *sizes, num_warps=2)
    return values, indices


def relu_with_sums(pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `support.relu_with_sums`."""
    (B, K), precise = pre.shape, precise_dtype(pre)
    columns = min(DENSE_COLUMNS, triton.next_power_of_2(K))
    parts = triton.cdiv(B, ROWS_OF_A_PROGRAM)
    sums, counts = pre.new_empty(2, parts, K, dtype=precise)
    grid = (parts, triton.cdiv(K, columns))
    sizes = (ROWS_OF_A_PROGRAM, DENSE_ROWS, columns)
    _relu_with_sums[grid](pre, sums, counts, B, K, *sizes, num_warps=_warps(columns, pre))
    return pre, sums.sum(0), counts.sum(0).long()


def relu_backward(grad: Tensor, codes: Tensor, of_sums: Tensor) -> Tensor:
    """See `support.relu_backward`."""
    (B, K), made = codes.shape, torch.empty_like(codes)
    columns = min(DENSE_COLUMNS, triton.next_power_of_2(K))
    grid = (triton.cdiv(B, DENSE_ROWS), triton.cdiv(K, columns))
    arguments = (grad.contiguous(), codes, of_sums.contiguous(), made)
    _relu_backward[grid](*arguments, B, K, DENSE_ROWS, columns, num_warps=_warps(columns, codes))
    return made


def _warps(columns: int, rows: Tensor) -> int:
    return min(8, max(1, columns * rows.element_size() // 512))


def _groups(K: int, k: int) -> tuple[int, int]:
    """Return the number of groups into which `top_k` divides K entries, and an upper bound on the size of a group."""
    wanted = triton.next_power_of_2(k)
    groups = triton.next_power_of_2(max(wanted, math.isqrt(K * wanted)))
    return groups, triton.next_power_of_2(triton.cdiv(K, groups))


@triton.jit
def _add_pairs(  # type: ignore[no-untyped-def]
    total, values, rows, index, first, end, column, d: tl.constexpr, PAIRS: tl.constexpr
):
    """Add to a total (COLUMNS,) the sum of value times row over the pairs `first` to `end` - 1."""
    pair = first + tl.arange(0, PAIRS)
    row = tl.load(index + pair, mask=pair < end, other=0)
    value = tl.load(values + pair, mask=pair < end, other=0.0)
    while first < end:
        there = (pair < end)[:, None] & (column < d)[None, :]
        tile = tl.load(rows + row[:, None] * d + column[None, :], mask=there, other=0.0).to(total.dtype)
        weighted = value[:, None] * tile
        pair += PAIRS
        row = tl.load(index + pair, mask=pair < end, other=0)  # for the next tile, while the present one is loading
        value = tl.load(values + pair, mask=pair < end, other=0.0)
        total += tl.sum(weighted, 0)
        first += PAIRS
    return total


@triton.jit
def _sums_of_chunks(  # type: ignore[no-untyped-def]
    values,
    rows,
    index,
    starts,
    of_chunks,
    n_pairs,
    n,
    d: tl.constexpr,
    CHUNK: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute the weighted sum of every chunk that lies in one group, so that large groups are summed in parallel."""
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = chunk * CHUNK
    group, beyond = 0, n  # binary search for the last group that starts at or before the first pair of the chunk
    while beyond - group > 1:
        middle = (group + beyond) // 2
        before = tl.load(starts + middle) <= first
        group = tl.where(before, middle, group)
        beyond = tl.where(before, beyond, middle)
    end = tl.load(starts + group + 1, mask=group + 1 < n, other=n_pairs)
    if end >= first + CHUNK:
        total = tl.zeros((COLUMNS,), of_chunks.dtype.element_ty)
        total = _add_pairs(total, values, rows, index, first, first + CHUNK, column, d, PAIRS)
        tl.store(of_chunks + chunk * d + column, total, mask=column < d)


@triton.jit
def _weighted_sums(  # type: ignore[no-untyped-def]
    values,
    rows,
    index,
    starts,
    of_chunks,
    sums,
    n_pairs,
    n,
    d: tl.constexpr,
    CHUNK: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start, end = tl.load(starts + i), tl.load(starts + i + 1, mask=i + 1 < n, other=n_pairs)
    total = tl.zeros((COLUMNS,), sums.dtype.element_ty)
    chunk, chunks_end = (start + CHUNK - 1) // CHUNK, end // CHUNK  # the chunks that lie in this group
    head = end
    if chunk < chunks_end:
        head = chunk * CHUNK
    total = _add_pairs(total, values, rows, index, start, head, column, d, PAIRS)
    if chunk < chunks_end:
        while chunk < chunks_end:
            some = chunk + tl.arange(0, PAIRS)
            there = (some < chunks_end)[:, None] & (column < d)[None, :]
            total += tl.sum(tl.load(of_chunks + some[:, None] * d + column[None, :], mask=there, other=0.0), 0)
            chunk += PAIRS
        total = _add_pairs(total, values, rows, index, chunks_end * CHUNK, end, column, d, PAIRS)
    tl.store(sums + i * d + column, total, mask=column < d)


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


@triton.jit
def _keys(x, there):  # type: ignore[no-untyped-def]
    """Map floating-point entries to integers in the same order; entries that are not there get the smallest integer."""
    if x.dtype.primitive_bitwidth == 16:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32)
        keys = tl.where(there, bits ^ ((bits >> 31) & 0x7FFF), -(2**15))
    else:
        bits = x.to(tl.int32, bitcast=True)
        keys = tl.where(there, bits ^ ((bits >> 31) & 0x7FFFFFFF), -(2**31))
    return keys


@triton.jit
def _ranks(keys, k, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a different number below k for each of the k largest keys, and k or more for the other keys.

    Of equal keys, the first are taken.
    """
    least = tl.where(tl.sum((keys >= 0).to(tl.int32), 0) >= k, 0, -(2**BITS))  # k-th largest key, found bit by bit
    for bit in tl.static_range(BITS):
        higher = least + (1 << (BITS - 1 - bit))
        least = tl.where(tl.sum((keys >= higher).to(tl.int32), 0) >= k, higher, least)
    above, equal = (keys > least).to(tl.int32), (keys == least).to(tl.int32)
    places = tl.cumsum(above, 0) - 1
    of_equal = tl.sum(above, 0) + tl.cumsum(equal, 0) - 1
    return tl.where(above > 0, places, tl.where(equal > 0, of_equal, k))


@triton.jit
def _top_k(  # type: ignore[no-untyped-def]
    pre,
    values,
    indices,
    K,
    k,
    MEMBERS: tl.constexpr,
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    WANTED: tl.constexpr,
):
    """Select the k largest entries of a row, which lie in the k groups with the largest maxima.

    Group g has the entries g, g + GROUPS, g + 2 GROUPS, ...
    """
    BITS: tl.constexpr = pre.dtype.element_ty.primitive_bitwidth - 1
    row = tl.program_id(0).to(tl.int64)
    pre += row * K
    indices += row * k
    values += row * k
    group = tl.arange(0, GROUPS)
    best = tl.full((GROUPS,), float("-inf"), tl.float32)
    for first in range(0, MEMBERS, 8):
        place = (first + tl.arange(0, 8))[:, None] * GROUPS + group[None, :]
        tile = tl.load(pre + place, mask=place < K, other=float("-inf"))
        best = tl.maximum(best, tl.max(tile.to(tl.float32), 0))
    rank = _ranks(_keys(best.to(pre.dtype.element_ty), group < K), k, BITS)
    tl.store(indices + rank, group.to(tl.int64), mask=rank < k)
    tl.debug_barrier()
    slot = tl.arange(0, WANTED)
    chosen = tl.load(indices + slot, mask=slot < k, other=0).to(tl.int32)
    candidate = chosen[:, None] + tl.arange(0, SIZE)[None, :] * GROUPS
    there = (slot < k)[:, None] & (candidate < K)
    candidate, there = tl.reshape(candidate, [WANTED * SIZE]), tl.reshape(there, [WANTED * SIZE])
    value = tl.load(pre + candidate, mask=there, other=0.0)
    rank = _ranks(_keys(value, there), k, BITS)
    tl.debug_barrier()
    tl.store(indices + rank, candidate.to(tl.int64), mask=rank < k)
    tl.store(values + rank, value, mask=rank < k)


@triton.jit
def _relu_with_sums(  # type: ignore[no-untyped-def]
    pre,
    sums,
    counts,
    B,
    K,
    ROWS_OF_A_PROGRAM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    part = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), sums.dtype.element_ty)
    on = tl.zeros((COLUMNS,), sums.dtype.element_ty)
    for first in range(0, ROWS_OF_A_PROGRAM, ROWS):
        row = part * ROWS_OF_A_PROGRAM + first + tl.arange(0, ROWS)
        there = (row < B)[:, None] & (column < K)[None, :]
        places = pre + row[:, None] * K + column[None, :]
        tile = tl.load(places, mask=there, other=0.0).to(total.dtype)
        tile = tl.where(tile <= 0, 0.0, tile)  # keeps NaN
        tl.store(places, tile.to(pre.dtype.element_ty), mask=there)
        total += tl.sum(tile, 0)
        on += tl.sum((tile > 0).to(total.dtype), 0)
    tl.store(sums + part * K + column, total, mask=column < K)
    tl.store(counts + part * K + column, on, mask=column < K)


@triton.jit
def _relu_backward(  # type: ignore[no-untyped-def]
    grad, codes, of_sums, made, B, K, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < B)[:, None] & (column < K)[None, :]
    places = row[:, None] * K + column[None, :]
    of_sum = tl.load(of_sums + column, mask=column < K, other=0.0)
    code = tl.load(codes + places, mask=there, other=0.0)
    total = tl.load(grad + places, mask=there, other=0.0).to(of_sum.dtype) + of_sum[None, :]
    tl.store(made + places, tl.where(code > 0, total, 0.0).to(code.dtype), mask=there)
