"""Functions on sparse codes, stored as a matrix in compressed rows (CSR)."""

import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def csr(starts: Tensor, atoms: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a matrix (N, K) in compressed rows.

    Args:
        starts: Index of the first entry of every row, followed by the number of entries, (N + 1,) int64.
        atoms: Column of every entry, ascending within a row, (n,) int64.
        values: The entries, (n,).
        shape: N and K.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, atoms, values, shape, check_invariants=False)


def csr_of(codes: Tensor) -> Tensor:
    """Return dense codes (n, K) in compressed rows."""
    if codes.device.type == "cpu":
        from zoo.models.sparse_coding.compression import compress  # slow to import

        return csr(*compress(codes), (len(codes), codes.shape[1]))
    rows, atoms = codes.nonzero(as_tuple=True)
    starts = F.pad(codes.count_nonzero(1).cumsum(0), (1, 0))
    return csr(starts, atoms, codes[rows, atoms], (len(codes), codes.shape[1]))


def stack(parts: Sequence[Tensor]) -> Tensor:
    """Return the vertical concatenation of matrices in compressed rows."""
    counts = torch.cat([part.crow_indices().diff() for part in parts])
    atoms, values = torch.cat([part.col_indices() for part in parts]), torch.cat([part.values() for part in parts])
    return csr(F.pad(counts.cumsum(0), (1, 0)), atoms, values, (len(counts), parts[0].shape[1]))


def row_range(codes: Tensor, start: int, stop: int) -> Tensor:
    """Return rows `start` to `stop` of codes (N, K) in compressed rows, in the same format."""
    starts = codes.crow_indices()[start : stop + 1]
    first, last = int(starts[0]), int(starts[-1])
    entries = codes.col_indices()[first:last], codes.values()[first:last]
    return csr(starts - first, *entries, (stop - start, codes.shape[1]))


def chosen_rows(codes: Tensor, rows: Tensor) -> Tensor:
    """Return the rows with indices (n,), in any order, of codes (N, K) in compressed rows, in the same format."""
    first, counts = codes.crow_indices()[rows], codes.crow_indices().diff()[rows]
    starts = F.pad(counts.cumsum(0), (1, 0))
    place = torch.arange(int(starts[-1]), device=codes.device) + (first - starts[:-1]).repeat_interleave(counts)
    return csr(starts, codes.col_indices()[place], codes.values()[place], (len(rows), codes.shape[1]))


def dense_parts(codes: Tensor, size: int) -> Iterator[Tensor]:
    """Yield codes (N, K), dense or sparse, as dense matrices of `size` rows each."""
    if codes.layout == torch.strided:
        yield from codes.split(size)
        return
    codes = codes.to_sparse_csr() if codes.layout != torch.sparse_csr else codes
    for start in range(0, max(1, len(codes)), size):
        yield row_range(codes, start, min(start + size, len(codes))).to_dense()


def rows_at_once(on_cpu: int, size: int, device: torch.device) -> int:
    """Return the number of rows to process at a time: `on_cpu`, and on CUDA at least as many as fill half the memory.

    `size` is the number of bytes per row. Only free memory is counted.
    """
    if device.type != "cuda":
        return on_cpu
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(on_cpu, (torch.cuda.mem_get_info(device)[0] + unused) // (2 * size))
