"""How far codes are from the optimum at most, whoever found them."""

import torch
from torch import Tensor

from zoo.models.sparse_coding.problem import as_codes, as_problem, penalties
from zoo.models.sparse_coding.rows import csr_of, row_range, rows_at_once

ROWS_AT_ONCE = 2048
MATRICES = 6  # like the codes, in float64, that a bound needs at a time
UNIT = 2.0**-24  # rounding of single precision
SAFE = 1e-25, 1e25  # errors outside of which single precision may have lost numbers altogether
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
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d), of any norm.
        codes: Codes, (N, K), dense or sparse.
        penalty: The penalty, or one for every row (N,).
        positive: Whether codes must not be negative; a row with a negative one has an infinite objective.

    Returns:
        Objective and gap of every row, (N,) float64 each.

    Raises:
        ZooError: If the shapes do not fit, or a number is NaN, infinite or, of the penalty, negative.
    """
    X, D = as_problem(X, D)
    lam = penalties(X, penalty)
    codes = as_codes(codes, "codes", X, D)
    sparse = codes if codes.layout == torch.sparse_csr else csr_of(codes.to_dense())
    return objective_and_gap(X, D, sparse, lam, positive)


def objective_and_gap(
    X: Tensor, D: Tensor, codes: Tensor, lam: Tensor, positive: bool, about: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`duality_gap` of arguments that are known to be good.

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d).
        codes: (N, K) in compressed rows.
        lam: Penalties, (N,) float64.
        positive: Whether codes must not be negative.
        about: The residuals' correlations with the atoms to single precision, (N, K), which saves finding out which of
            them are largest; they are then computed anew in float64.
    """
    atoms = D.double()
    directions = span(atoms) if (lam == 0).any() else None
    objective, gap = torch.empty_like(lam), torch.empty_like(lam)
    at_once = rows_at_once(ROWS_AT_ONCE, MATRICES * len(D) * atoms.element_size(), X.device)
    for start in range(0, len(X), at_once):
        part = slice(start, min(start + at_once, len(X)))
        a, hint = row_range(codes, part.start, part.stop).double(), None if about is None else about[part]
        objective[part], gap[part] = _bound(X[part].double(), atoms, a, lam[part], positive, directions, hint)
    return objective, gap


def certify(X: Tensor, objective: Tensor, gap: Tensor, tolerance: float) -> Tensor:
    """Whether the gap of each row of X (N, d) is at most the tolerance's share of the objective, or rounding, (N,)."""
    small = (gap <= tolerance * objective) | (gap <= ROUNDING * X.double().square().sum(1) / 2)
    return small & gap.isfinite()


def _bound(
    x: Tensor, D: Tensor, a: Tensor, lam: Tensor, positive: bool, directions: Tensor | None, about: Tensor | None
) -> tuple[Tensor, Tensor]:
    r, counts = x - a @ D, a.crow_indices().diff()
    rr, rows = r.square().sum(1), torch.arange(len(x), device=x.device).repeat_interleave(counts)
    l1 = torch.zeros_like(lam).index_add_(0, rows, a.values().abs())
    if about is None:
        largest = largest_correlations(r, D, positive)
    else:
        length, d = D.norm(dim=1).max(), D.shape[1]
        # Of <x, d_k>, of the Gram matrix, of as many updates as there are codes, and of rounding the codes.
        error = UNIT * length * ((d + counts + 2) * x.norm(dim=1) + (d + counts + 4) * l1 * length)
        largest = _screened(about, 2 * error, r, D, positive)
    t = torch.where(lam > 0, lam / torch.maximum(lam, largest), 0.0)
    objective = rr / 2 + lam * l1
    gap = objective - (t * torch.linalg.vecdot(r, x) - t.square() * rr / 2)
    if directions is not None:  # r's part within the atoms' span is all that least squares would remove
        gap = torch.where(lam > 0, gap, (r @ directions).square().sum(1) / 2)
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
    c = _shortened(r, r.norm(dim=1, keepdim=True)) @ _shortened(D, D.norm(dim=1).max()).T
    error = (D.shape[1] + 2) * UNIT  # of vectors of length 1 at most (Higham 2002, section 3.1)
    return _exact_maxima(c, torch.full((len(r),), 2 * error, dtype=torch.float64), r, D, positive)


def _screened(about: Tensor, margin: Tensor, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    """`largest_correlations` from what is about known, each to half a margin (n,), where that is usable."""
    largest = _exact_maxima(about, margin, r, D, positive)
    rest = largest.isnan() | (margin < SAFE[0]) | (margin > SAFE[1])
    if rest.any():
        largest[rest] = largest_correlations(r[rest], D, positive)
    return largest


def _exact_maxima(about: Tensor, margin: Tensor, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    from zoo.models.sparse_coding import maxima  # slow to import

    return maxima.exact(about, margin, r, D, positive)


def _shortened(vectors: Tensor, length: Tensor) -> Tensor:
    """Vectors over a length, so that single precision neither overflows nor drops them."""
    return (vectors / length.where(length > 0, 1.0)).float()


def span(D: Tensor, least: float = 1e-10) -> Tensor:
    """An orthonormal basis of what the atoms (K, d) span, (d, rank), by at least a share of what they span most."""
    _, sizes, directions = torch.linalg.svd(D, full_matrices=False)
    return directions[sizes > least * sizes.max()].T
