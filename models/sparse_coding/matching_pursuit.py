"""Orthogonal matching pursuit: greedy sparse coding with a given number of atoms per row."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding.problem import as_problem
from zoo.models.sparse_coding.rows import chosen_rows, csr, csr_of, rows_at_once, stack
from zoo.models.sparse_coding.support_least_squares import least_squares_on_support

ROWS_AT_ONCE = 1024
GRAM_FROM = 8  # the Gram matrix is used from K / 8 rows on
MATRICES = 4  # number of float64 matrices of the codes' shape that are held at a time
EXACT = 1e-7  # |residual| / |x| up to which a row needs no more atoms
DEPENDENT = 1e-7  # norm of a unit atom outside the span of the chosen atoms up to which it is not added


@torch.no_grad()
def orthogonal_matching_pursuit(X: Tensor, D: Tensor, l0: int) -> Tensor:
    """Return codes with `l0` atoms per row (Pati, Rezaiifar & Krishnaprasad 1993), computed in float64.

    Atoms are added one by one. Each is the atom most correlated with the residual, after which all codes of the row are
    fitted again. Codes may be negative. A row that is reproduced exactly by fewer atoms gets no more.

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d), of any norm but 0.
        l0: Number of atoms per row, at most d and K.

    Returns:
        Codes, (N, K) in compressed rows, in X's precision.

    Raises:
        ZooError: If the arguments do not fit together, or `l0` is out of range.
    """
    X, D = as_problem(X, D)
    if not 1 <= l0 <= min(D.shape):
        raise ZooError(f"l0 is {l0}; it must be at least 1 and at most {min(D.shape)}")
    atoms = F.normalize(D.double(), eps=1e-30)
    if X.device.type != "cpu" or len(X) < len(D) // GRAM_FROM:  # few rows are not worth a Gram matrix
        return _by_projections(X, D, atoms, l0)
    from zoo.models.sparse_coding import gram_solvers  # slow to import

    chosen, rest = gram_solvers.pursued_atoms(X.double(), atoms, l0, EXACT)
    codes = least_squares_on_support(X, D, _ones(chosen, X.dtype, len(D)))
    if not len(rest):
        return codes
    place = torch.arange(len(X))
    place[rest] = len(X) + torch.arange(len(rest))
    return chosen_rows(stack([codes, _by_projections(X[rest], D, atoms, l0)]), place)


def _ones(chosen: Tensor, dtype: torch.dtype, n_atoms: int) -> Tensor:
    """Return ones at the chosen atoms (n, l0), of which -1 is none, as a matrix (n, K) in compressed rows."""
    ordered = chosen.sort(1).values
    starts = F.pad((chosen >= 0).sum(1).cumsum(0), (1, 0))
    atoms = ordered[ordered >= 0]
    return csr(starts, atoms, torch.ones(len(atoms), dtype=dtype), (len(chosen), n_atoms))


def _by_projections(X: Tensor, D: Tensor, atoms: Tensor, l0: int) -> Tensor:
    """Return the codes of rows (N, d) in atoms D (K, d), given also as unit vectors."""
    norms = D.double().norm(dim=1).clamp(min=1e-30)
    at_once = rows_at_once(ROWS_AT_ONCE, 8 * (MATRICES * len(D) + 4 * l0 * X.shape[1]), X.device)
    return stack([csr_of((_pursue(x.double(), atoms, l0) / norms).to(X.dtype)) for x in X.split(at_once)])


def _pursue(x: Tensor, atoms: Tensor, l0: int) -> Tensor:
    """Return the codes of rows (n, d) in unit atoms (K, d), (n, K)."""
    basis = x.new_zeros(len(x), l0, x.shape[1])  # orthonormal basis of the chosen atoms; 0 where none was chosen
    chosen = x.new_zeros(len(x), l0, dtype=torch.int64)
    left, needed = x, x.norm(dim=1) * EXACT
    for step in range(l0):
        chosen[:, step] = (left @ atoms.T).abs().argmax(1)
        new, so_far = atoms[chosen[:, step]].unsqueeze(1), basis[:, :step]  # (n, 1, d)
        for _ in range(2):  # the second pass removes the rounding error of the first
            new = new - (new @ so_far.mT) @ so_far
        wanted = (left.norm(dim=1) > needed) & (new.squeeze(1).norm(dim=1) > DEPENDENT)
        basis[:, step] = F.normalize(new.squeeze(1)) * wanted.unsqueeze(1)
        along = torch.linalg.vecdot(left, basis[:, step]).unsqueeze(1)
        left = left - along * basis[:, step]
    triangle = (basis @ atoms[chosen].mT).triu()  # basis = triangle⁻ᵀ atoms
    nowhere = triangle.diagonal(dim1=1, dim2=2) == 0
    triangle.diagonal(dim1=1, dim2=2).add_(nowhere)
    coefficients = torch.linalg.solve_triangular(triangle, basis @ x.unsqueeze(2), upper=True).squeeze(2)
    return torch.zeros(len(x), len(atoms), dtype=x.dtype, device=x.device).scatter_add_(
        1, chosen, coefficients.masked_fill(nowhere, 0.0)
    )
