"""Least squares on the support of given codes, which removes the shrinkage that a penalty causes."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding.problem import as_problem
from zoo.models.sparse_coding.rows import csr

NUMBERS_AT_ONCE = 1 << 24  # numbers in the atoms that are gathered for a part of the rows
RIDGE = 1e-12  # share of an atom's squared norm; equal atoms then get equal codes


@torch.no_grad()
def least_squares_on_support(X: Tensor, D: Tensor, codes: Tensor) -> Tensor:
    """Return codes that minimise |x - aD|² on the support of given codes (debiasing, if these are from the lasso).

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d).
        codes: Codes whose support is kept, (N, K) in compressed rows.

    Returns:
        Codes with the same support, (N, K) in compressed rows, computed in float64 and returned in X's precision. Their
        signs may differ from those of the given codes.

    Raises:
        ZooError: If the arguments do not fit together.
    """
    X, D = as_problem(X, D)
    if codes.layout != torch.sparse_csr or codes.shape != (len(X), len(D)):
        expected = f"{[len(X), len(D)]} in compressed rows (torch.sparse_csr)"
        raise ZooError(f"codes are {codes.layout} {list(codes.shape)}; expected {expected}")
    starts, atoms = codes.crow_indices(), codes.col_indices()
    values = torch.empty(len(atoms), dtype=torch.float64, device=X.device)
    counts = starts.diff()
    order = counts.argsort(stable=True)
    if X.device.type == "cpu" and len(X) >= len(D):  # otherwise the Gram matrix costs more than it saves
        from zoo.models.sparse_coding import gram_solvers  # slow to import

        poor = gram_solvers.refit(X, D, starts, atoms, values)
        order = poor[counts[poor].argsort(stable=True)]
    for rows in order.split(_rows_at_once(int(counts.max()) if len(counts) else 0, X.shape[1])):
        n = counts[rows]
        if not n.any():
            continue
        place = starts[rows].unsqueeze(1) + torch.arange(int(n.max()), device=X.device)  # (rows, most)
        used = place < (starts[rows] + n).unsqueeze(1)
        chosen = D.double()[atoms[place.where(used, 0)]] * used.unsqueeze(2)  # (rows, most, d)
        values[place[used]] = _solve(chosen, X[rows].double(), used)[used]
    return csr(starts, atoms, values.to(X.dtype), (len(codes), codes.shape[1]))


def _solve(chosen: Tensor, x: Tensor, used: Tensor) -> Tensor:
    """Return the least-squares codes (n, m) of each x (n, d) on its own atoms (n, m, d); unused atoms are 0."""
    gram = chosen @ chosen.mT
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1 + RIDGE).add_((diagonal == 0).double())
    factor = torch.linalg.cholesky_ex(gram).L
    a = torch.zeros_like(used, dtype=torch.float64)
    for _ in range(2):  # the second pass removes the rounding error of the first
        r = x - (a.unsqueeze(1) @ chosen).squeeze(1)
        a = a + torch.cholesky_solve(chosen @ r.unsqueeze(2), factor).squeeze(2)
    return a


def _rows_at_once(most: int, d: int) -> int:
    return max(1, NUMBERS_AT_ONCE // max(1, most * max(most, d)))
