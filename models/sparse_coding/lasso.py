"""The lasso: sparse coding of many rows in one dictionary, with a certificate for every row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding import sparsa
from zoo.models.sparse_coding.certificate import certify, objective_and_gap
from zoo.models.sparse_coding.problem import as_codes, as_problem, penalties
from zoo.models.sparse_coding.rows import csr_of, dense_parts, rows_at_once, stack

ROWS_AT_ONCE = 1024
MATRICES = 12  # number of matrices of the codes' shape that SpaRSA holds at a time
SPECTRAL_ROUNDS = 30  # rounds of SpaRSA after which coordinate descent is faster
MARGIN = 0.5  # share of the tolerance that solvers aim at; the rest allows for differences of float32 and float64 gaps
SINGLE = 1e-6  # tolerance below which float32 is not tried


@dataclass(frozen=True)
class Solution:
    """Codes and their certificates.

    Attributes:
        codes: Codes, (N, K) in compressed rows (`torch.sparse_csr`), in the rows' precision.
        objective: 1/2 |x - aD|² + penalty |a|₁ of every row, (N,) float64.
        gap: Duality gap of every row, an upper bound on the objective's distance from the optimum, (N,) float64.
        certified: Whether the gap is at most tolerance * objective, or rounding error, (N,) bool.
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
    """Return codes that minimise 1/2 |x - aD|² + penalty |a|₁ (Tibshirani 1996), with a certificate for every row.

    On the CPU, rows are solved by compiled coordinate descent in as many threads as torch uses. Rows whose gap is above
    the tolerance in single precision are then solved in double precision. On other devices, as many rows as fit into
    memory are solved at once by SpaRSA; the few rows that it does not solve are solved on the CPU in double precision.

    Args:
        X: Rows, (N, d), float32 or float64. Like the following arguments, a tensor or a NumPy array.
        D: Atoms, (K, d), of any norm; duplicates and zeros are allowed.
        penalty: The penalty, or one per row (N,). From max_k |<d_k, x>| on, the codes are 0. With penalty 0 they are
            the least-squares codes of smallest norm.
        tolerance: Largest duality gap, as a share of the objective.
        positive: Whether codes must not be negative.
        start: Initial codes, (N, K), dense or sparse, such as those of a larger penalty. By default 0.
        max_rounds: Largest number of rounds of a solver per row. A row that is not solved by then is reported as not
            certified.

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
        raise ZooError("penalty 0 with positive codes is non-negative least squares; use scipy.optimize.nnls")
    if max_rounds < 1:
        raise ZooError(f"max_rounds is {max_rounds}; it must be at least 1")
    solver, usable = _Solver(D, tolerance, positive, max_rounds), D.any(1)
    earlier = X.new_zeros(len(X), 0) if start is None else as_codes(start, "start", X, D)
    earlier = earlier if earlier.layout in (torch.strided, torch.sparse_csr) else earlier.to_sparse_csr()
    if not (earlier if earlier.layout == torch.strided else earlier.values()).isfinite().all():
        raise ZooError("start has entries that are NaN or infinite")
    parts, objectives, gaps = [], [], []
    at_once = rows_at_once(ROWS_AT_ONCE, MATRICES * len(D) * X.element_size(), X.device)
    for i, before in enumerate(dense_parts(earlier, at_once)):
        part = slice(i * at_once, (i + 1) * at_once)
        codes = X.new_zeros(len(before), len(D))
        if start is not None:
            codes.copy_(before).mul_(usable)  # solvers skip zero atoms
            if positive:
                codes.clamp_(min=0)
        sparse, objective, gap = solver.improve(X[part], lam[part], codes)
        parts.append(sparse)
        objectives.append(objective)
        gaps.append(gap)
    objective, gap = torch.cat(objectives), torch.cat(gaps)
    return Solution(stack(parts), objective, gap, certify(X, objective, gap, tolerance))


class _Solver:
    """Solver for one dictionary, which stores the Gram matrices that are computed once for all rows."""

    def __init__(self, D: Tensor, tolerance: float, positive: bool, max_rounds: int) -> None:
        self.D, self.tolerance, self.positive, self.max_rounds = D, tolerance, positive, max_rounds
        self.gram: dict[torch.dtype, Tensor] = {}

    def improve(self, x: Tensor, lam: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Improve codes (n, K), and return them in compressed rows with their objective and gap, (n,) each."""
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
        """Improve codes (n, K) in place, in a precision; return the residuals' correlations (n, K), or None."""
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
    """Return whether SpaRSA is used on a device."""
    return device.type != "cpu"
