"""Upper bounds on the distance of codes from the optimum. The codes may come from any solver."""

import torch
from torch import Tensor

from zoo.models.sparse_coding.problem import as_codes, as_problem, penalties
from zoo.models.sparse_coding.rows import csr_of, row_range, rows_at_once

ROWS_AT_ONCE = 1024
MATRICES = 6  # number of float64 matrices of the codes' shape that a bound needs at a time
UNIT = 2.0**-24  # rounding of single precision
SAFE = 1e-25, 1e25  # range of errors outside which single precision may have over- or underflowed
ROUNDING = 1e-12  # share of |x|²/2 below which a gap cannot be distinguished from 0 in float64


@torch.no_grad()
def duality_gap(
    X: Tensor, D: Tensor, codes: Tensor, penalty: float | Tensor, positive: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the objective 1/2 |x - aD|² + penalty |a|₁ of every row, and a bound on its distance from the optimum.

    For any codes a, let r = x - aD and t = penalty / max(penalty, max_k |<d_k, r>|). Then t r is feasible in the dual
    problem max_v <v, x> - |v|²/2 subject to |<d_k, v>| <= penalty. The gap objective - (t <r, x> - t² |r|² / 2) is
    therefore at least the distance to the optimum (Fercoq, Gramfort & Salmon 2015, section 2). With `positive`, only
    positive correlations count. Where the penalty is 0, the dual point is the component of x outside the span of the
    atoms, and the bound is exact. All sums are in float64, for any type of the arguments.

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d), of any norm.
        codes: Codes, (N, K), dense or sparse.
        penalty: The penalty, or one for every row (N,).
        positive: Whether codes must not be negative. If so, a row with a negative code has an infinite objective.

    Returns:
        Objective and gap of every row, (N,) float64 each.

    Raises:
        ZooError: If the shapes do not fit, a number is NaN or infinite, or a penalty is negative.
    """
    X, D = as_problem(X, D)
    lam = penalties(X, penalty)
    codes = as_codes(codes, "codes", X, D)
    sparse = codes if codes.layout == torch.sparse_csr else csr_of(codes.to_dense())
    return objective_and_gap(X, D, sparse, lam, positive)


def objective_and_gap(
    X: Tensor, D: Tensor, codes: Tensor, lam: Tensor, positive: bool, about: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the same as `duality_gap`, without checking the arguments.

    Args:
        X: Rows, (N, d).
        D: Atoms, (K, d).
        codes: (N, K) in compressed rows.
        lam: Penalties, (N,) float64.
        positive: Whether codes must not be negative.
        about: Correlations of the residuals with the atoms in single precision, (N, K), if they are known. They select
            the atoms whose correlation may be the largest, and only these are computed in float64.
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
    """Return whether the gap of each row of X (N, d) is at most tolerance * objective, or rounding error, (N,)."""
    small = gap <= tolerance * objective
    if not small.all():
        rest = ~small
        small[rest] = gap[rest] <= ROUNDING * X[rest].double().square().sum(1) / 2
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
        # Errors from <x, d_k>, the Gram matrix, one update per nonzero code, and the rounding of the codes.
        error = UNIT * length * ((d + counts + 2) * x.norm(dim=1) + (d + counts + 4) * l1 * length)
        largest = _screened(about, 2 * error, r, D, positive)
    t = torch.where(lam > 0, lam / torch.maximum(lam, largest), 0.0)
    objective = rr / 2 + lam * l1
    gap = objective - (t * torch.linalg.vecdot(r, x) - t.square() * rr / 2)
    if directions is not None:  # least squares would remove exactly r's component in the atoms' span
        gap = torch.where(lam > 0, gap, (r @ directions).square().sum(1) / 2)
    if positive:
        objective[rows[a.values() < 0]] = torch.inf
        gap = gap.masked_fill(objective.isinf(), torch.inf)
    return objective, gap.clamp(min=0)


def largest_correlations(r: Tensor, D: Tensor, positive: bool = False) -> Tensor:
    """Return, for each row (n, d), the largest |<r, d_k>| over atoms (K, d), or <r, d_k> if `positive`; float64, (n,).

    Both arguments are float64.
    """
    if r.device.type != "cpu":
        c = r @ D.T
        return c.amax(1) if positive else c.abs_().amax(1)
    # Faster: single precision, with a bound on its error, selects the atoms that need double precision.
    c = _shortened(r, r.norm(dim=1, keepdim=True)) @ _shortened(D, D.norm(dim=1).max()).T
    error = (D.shape[1] + 2) * UNIT  # for vectors of length at most 1 (Higham 2002, section 3.1)
    return _exact_maxima(c, torch.full((len(r),), 2 * error, dtype=torch.float64), r, D, positive)


def _screened(about: Tensor, margin: Tensor, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    """Return `largest_correlations`, with the help of approximate values whose errors are within half a margin (n,)."""
    largest = _exact_maxima(about, margin, r, D, positive)
    rest = largest.isnan() | (margin < SAFE[0]) | (margin > SAFE[1])
    if rest.any():
        largest[rest] = largest_correlations(r[rest], D, positive)
    return largest


def _exact_maxima(about: Tensor, margin: Tensor, r: Tensor, D: Tensor, positive: bool) -> Tensor:
    from zoo.models.sparse_coding import maxima  # slow to import

    return maxima.exact(about, margin, r, D, positive)


def _shortened(vectors: Tensor, length: Tensor) -> Tensor:
    """Return the vectors divided by a length, so that single precision neither overflows nor underflows."""
    return (vectors / length.where(length > 0, 1.0)).float()


def span(D: Tensor, least: float = 1e-10) -> Tensor:
    """Return an orthonormal basis of the span of the atoms (K, d), as (d, rank).

    Directions whose singular value is at most `least` times the largest are not part of the span.
    """
    _, sizes, directions = torch.linalg.svd(D, full_matrices=False)
    return directions[sizes > least * sizes.max()].T
