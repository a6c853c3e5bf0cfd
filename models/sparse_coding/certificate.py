"""How far codes are from the optimum at most, whoever found them."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding.problem import check_problem, penalties
from zoo.models.sparse_coding.rows import csr_of, row_range

ROWS_AT_ONCE = 2048
ROUNDING = 1e-12  # share of |x|²/2 below which float64 does not tell a gap from 0


@torch.no_grad()
def duality_gap(
    X: Tensor, D: Tensor, codes: Tensor, penalty: float | Tensor, positive: bool = False
) -> tuple[Tensor, Tensor]:
    """Objective 1/2 |x - aD|² + penalty |a|₁ of every row's codes, and a bound on its distance from the optimum.

    For any a, with r = x - aD and t = penalty / max(penalty, max_k |<d_k, r>|), t r is feasible in the dual problem
    max_v <v, x> - |v|²/2 subject to |<d_k, v>| <= penalty, so that objective - (t <r, x> - t² |r|² / 2) is at least the
    distance to the optimum (Fercoq, Gramfort & Salmon 2015, section 2). With `positive` only correlations above 0
    count. Where the penalty is 0, the dual point is the part of x that no atom reaches, and the bound is exact. All
    sums are in float64, whatever the arguments are in.

    Args:
        X: Rows, (N, d).
        D: Atoms, (K, d), of any norm.
        codes: Codes, (N, K), dense or sparse.
        penalty: The penalty, or one for every row (N,).
        positive: Whether codes must not be negative; a row with a negative one has an infinite objective.

    Returns:
        Objective and gap of every row, (N,) float64 each.

    Raises:
        ZooError: If the shapes do not fit, or a number is NaN, infinite or, of the penalty, negative.
    """
    check_problem(X, D)
    lam, atoms = penalties(X, penalty), D.double()
    sparse = codes if codes.layout == torch.sparse_csr else csr_of(codes.to_dense())
    if sparse.shape != (len(X), len(D)):
        raise ZooError(f"codes are {list(codes.shape)}; expected {[len(X), len(D)]}, a code per row and atom")
    span = _span(atoms) if (lam == 0).any() else None
    objective, gap = torch.empty_like(lam), torch.empty_like(lam)
    for start in range(0, len(X), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        a = row_range(sparse, start, min(start + ROWS_AT_ONCE, len(X))).double()
        objective[part], gap[part] = _bound(X[part].double(), atoms, a, lam[part], positive, span)
    return objective, gap


def certify(X: Tensor, objective: Tensor, gap: Tensor, tolerance: float) -> Tensor:
    """Whether the gap of each row of X (N, d) is at most the tolerance's share of the objective, or rounding, (N,)."""
    small = (gap <= tolerance * objective) | (gap <= ROUNDING * X.double().square().sum(1) / 2)
    return small & gap.isfinite()


def _bound(x: Tensor, D: Tensor, a: Tensor, lam: Tensor, positive: bool, span: Tensor | None) -> tuple[Tensor, Tensor]:
    r = x - a @ D
    largest = largest_correlations(r, D, positive)
    t = torch.where(lam > 0, lam / torch.maximum(lam, largest), 0.0)
    rr, rows = r.square().sum(1), torch.arange(len(x), device=x.device).repeat_interleave(a.crow_indices().diff())
    objective = rr / 2 + lam * torch.zeros_like(lam).index_add_(0, rows, a.values().abs())
    gap = objective - (t * torch.linalg.vecdot(r, x) - t.square() * rr / 2)
    if span is not None:  # r's part within the atoms' span is all that least squares would remove
        gap = torch.where(lam > 0, gap, (r @ span).square().sum(1) / 2)
    if positive:
        objective[rows[a.values() < 0]] = torch.inf
        gap = gap.masked_fill(objective.isinf(), torch.inf)
    return objective, gap.clamp(min=0)


def largest_correlations(r: Tensor, D: Tensor, positive: bool = False) -> Tensor:
    """Largest <r, d_k>, or |<r, d_k>|, over the atoms (K, d) for each row (n, d), both float64; (n,) float64."""
    if r.device.type != "cpu":
        c = r @ D.T
        return c.amax(1) if positive else c.abs_().amax(1)
    # In less time: single precision, with a bound on its error, says which atoms double must look at.
    from zoo.models.sparse_coding import maxima  # slow to import

    c = _shortened(r, r.norm(dim=1, keepdim=True)) @ _shortened(D, D.norm(dim=1).max()).T
    error = (D.shape[1] + 2) * 2.0**-24  # of vectors of length 1 at most (Higham 2002, section 3.1)
    return maxima.exact(c, 2 * error, r, D, positive)


def _shortened(vectors: Tensor, length: Tensor) -> Tensor:
    """Vectors over a length, so that single precision neither overflows nor drops them."""
    return (vectors / length.where(length > 0, 1.0)).float()


def _span(D: Tensor) -> Tensor:
    """An orthonormal basis of what the atoms (K, d) span, (d, rank)."""
    _, sizes, directions = torch.linalg.svd(D, full_matrices=False)
    return directions[sizes > 1e-10 * sizes.max()].T
