"""Certified sparse coding of many rows in one dictionary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding import sparsa
from zoo.models.sparse_coding.certificate import certify, objective_and_gap
from zoo.models.sparse_coding.problem import as_codes, as_problem, penalties
from zoo.models.sparse_coding.rows import csr_of, dense_parts, rows_at_once, stack

ROWS_AT_ONCE = 4096
MATRICES = 12  # like the codes, that SpaRSA holds at a time
SPECTRAL_ROUNDS = 30  # of SpaRSA, after which coordinate descent takes less time
MARGIN = 0.5  # of the tolerance is left to the difference between a float32 gap and the float64 one
SINGLE = 1e-6  # tolerance below which float32 is not tried


@dataclass(frozen=True)
class Solution:
    """Codes, and how good they are.

    Attributes:
        codes: (N, K) in compressed rows (`torch.sparse_csr`), in the rows' precision.
        objective: 1/2 |x - aD|² + penalty |a|₁ of every row, (N,) float64.
        gap: Duality gap, at least its distance from the optimum, (N,) float64.
        certified: Whether the gap is at most the tolerance's share of the objective, or rounding, (N,) bool.
    """

    codes: Tensor
    objective: Tensor
    gap: Tensor
    certified: Tensor


@torch.no_grad()
def lasso(
    X: Tensor,
    D: Tensor,
    penalty: float | Tensor,
    tolerance: float = 1e-4,
    positive: bool = False,
    start: Tensor | None = None,
    max_rounds: int = 1000,
) -> Solution:
    """Codes that minimise 1/2 |x - aD|² + penalty |a|₁ (Tibshirani 1996), each row with a certificate.

    On the CPU rows are solved by compiled coordinate descent, in as many threads as torch has; those that single
    precision leaves above the tolerance are finished in double precision. Elsewhere as many rows as its memory holds
    are solved at once by SpaRSA, and the few that it leaves are finished on the CPU in double precision.

    Args:
        X: Rows, (N, d), float32 or float64; like all that follow, a tensor or a NumPy array.
        D: Atoms, (K, d), of any norm; duplicates and zeros are allowed.
        penalty: The penalty, or one for every row (N,). At max_k |<d_k, x>| and above, the codes are 0; at 0 they are
            the smallest of least squares.
        tolerance: Largest duality gap, as a share of the objective.
        positive: Whether codes must not be negative.
        start: Codes to start from, (N, K), dense or sparse, such as those of a larger penalty.
        max_rounds: Effort per row after which it is given up, and reported as not certified.

    Returns:
        The codes and their certificates.

    Raises:
        ZooError: If the arguments do not fit together or are out of range.
    """
    X, D = as_problem(X, D)
    lam = penalties(X, penalty)
    if not 0 < tolerance < 1:
        raise ZooError(f"tolerance is {tolerance}; it must be above 0 and below 1")
    if positive and (lam == 0).any():
        raise ZooError("penalty 0 with positive codes is non-negative least squares: see scipy.optimize.nnls")
    if max_rounds < 1:
        raise ZooError(f"max_rounds is {max_rounds}; it must be at least 1")
    solver, usable = _Solver(D, tolerance, positive, max_rounds), D.any(1)
    earlier = X.new_zeros(len(X), 0) if start is None else as_codes(start, "start", X, D)
    parts, objectives, gaps = [], [], []
    at_once = rows_at_once(ROWS_AT_ONCE, MATRICES * len(D) * X.element_size(), X.device)
    for i, before in enumerate(dense_parts(earlier, at_once)):
        part = slice(i * at_once, (i + 1) * at_once)
        codes = X.new_zeros(len(before), len(D))
        if start is not None:
            if not before.isfinite().all():
                raise ZooError("start has entries that are NaN or infinite")
            codes.copy_(before.clamp(min=0) if positive else before).mul_(usable)  # solvers leave zero atoms alone
        sparse, objective, gap = solver.improve(X[part], lam[part], codes)
        parts.append(sparse)
        objectives.append(objective)
        gaps.append(gap)
    objective, gap = torch.cat(objectives), torch.cat(gaps)
    return Solution(stack(parts), objective, gap, certify(X, objective, gap, tolerance))


class _Solver:
    """One dictionary's solver, with what is computed once for all rows."""

    def __init__(self, D: Tensor, tolerance: float, positive: bool, max_rounds: int) -> None:
        self.D, self.tolerance, self.positive, self.max_rounds = D, tolerance, positive, max_rounds
        self.gram: dict[torch.dtype, Tensor] = {}

    def improve(self, x: Tensor, lam: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Replace codes (n, K) by better ones: in compressed rows, and their objective and gap, (n,) each."""
        free = lam == 0
        if free.any():
            codes[free] = (x[free].double() @ torch.linalg.pinv(self.D.double())).to(codes.dtype)
        single, todo = x.dtype == torch.float32 and self.tolerance >= SINGLE, ~free
        dtypes, spectral = [torch.float32] * single + [torch.float64], _spectral(x.device)
        for dtype in dtypes[:1] if spectral else dtypes:
            about = None
            if todo.all():
                about = self._solve(x, lam, codes, dtype, spectral)
            elif todo.any():
                some = codes[todo]
                self._solve(x[todo], lam[todo], some, dtype, spectral)
                codes[todo] = some
            sparse = csr_of(codes)
            objective, gap = objective_and_gap(x, self.D, sparse, lam, self.positive, about)
            todo = ~free & ~certify(x, objective, gap, self.tolerance)
            if not todo.any():
                return sparse, objective, gap
            codes[~objective.isfinite()] = 0  # where single precision overflowed
        if spectral:
            some, x, lam = codes[todo], x[todo], lam[todo]
            self._solve(x, lam, some, torch.float64, False)
            codes[todo] = some
            sparse = csr_of(codes)
            objective[todo], gap[todo] = objective_and_gap(x, self.D, csr_of(some), lam, self.positive)
        return sparse, objective, gap

    def _solve(self, x: Tensor, lam: Tensor, codes: Tensor, dtype: torch.dtype, spectral: bool) -> Tensor | None:
        """Improve codes (n, K) in place, in a precision; the residuals' correlations (n, K), if known."""
        D, x, better = self.D.to(dtype), x.to(dtype), codes.to(dtype)
        margin = MARGIN * self.tolerance
        if spectral:
            about = None
            sparsa.solve(x, D, lam, better, margin, self.positive, min(self.max_rounds, SPECTRAL_ROUNDS))
        else:
            from zoo.models.sparse_coding import coordinate_descent  # slow to import

            if dtype not in self.gram:
                self.gram[dtype] = (D @ D.T).cpu()
            better = better.cpu()
            about = coordinate_descent.solve(
                x.cpu(), D.cpu(), self.gram[dtype], lam.cpu(), better, margin, self.positive, self.max_rounds
            )
        if better is not codes:
            codes.copy_(better)
        return about


def _spectral(device: torch.device) -> bool:
    """Whether SpaRSA solves most rows."""
    return device.type != "cpu"
