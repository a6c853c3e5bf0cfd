"""Basis pursuit: codes of smallest l1 norm that reproduce rows exactly."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding import interior_point
from zoo.models.sparse_coding.certificate import largest_correlations, span
from zoo.models.sparse_coding.lasso import Solution, lasso
from zoo.models.sparse_coding.problem import as_problem
from zoo.models.sparse_coding.rows import csr_of
from zoo.models.sparse_coding.support_least_squares import least_squares_on_support

FIRST, SHRINK, STEPS = 0.1, 0.3, 16  # penalties, in units of that at which codes become 0
REFITS = 3
CLOSE = 1e-8  # gap, as a share of the objective, at which the interior point method has found the support
REPRODUCED = {torch.float32: 1e-6, torch.float64: 1e-10}  # largest |residual| / |x| of an exactly reproduced row


@torch.no_grad()
def basis_pursuit(X: Tensor, D: Tensor, tolerance: float = 1e-4, positive: bool = False) -> Solution:
    """Return the codes of smallest |a|₁ with aD = x (Chen, Donoho & Saunders 1998), with a certificate for each row.

    An interior point method finds the support of the solution, and a point v of the dual problem. Least squares on this
    support gives the solution exactly. The gap is |a|₁ - <v, x>. For rows that are not solved in this way, the lasso is
    solved on the CPU at decreasing penalties, each time from the previous codes; below some penalty, it has the support
    of the solution. The residual divided by the penalty, scaled so that no atom's correlation exceeds 1, is then v. All
    computations are in float64.

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d).
        tolerance: Largest gap, as a share of |a|₁.
        positive: Whether codes must not be negative.

    Returns:
        The codes, with |a|₁ as their objective. It is the gauge norm of x, which distinguishes rows even though their
        errors are all 0. Objective and gap are infinite for rows that no codes reproduce.

    Raises:
        ZooError: If the arguments do not fit together or are out of range.
    """
    X, D = as_problem(X, D)
    if not 0 < tolerance < 1:
        raise ZooError(f"tolerance is {tolerance}; it must be above 0 and below 1")
    pursuit = _Pursuit(X, D, tolerance, positive)
    rest = pursuit.by_interior_points()
    if len(rest):
        on_cpu = _Pursuit(X[rest].cpu(), D.cpu(), tolerance, positive)
        on_cpu.by_falling_penalties()
        pursuit.take(rest, on_cpu)
    return pursuit.solution()


class _Pursuit:
    """The best codes found so far for rows X (N, d) in atoms D (K, d), with their objectives and gaps."""

    def __init__(self, X: Tensor, D: Tensor, tolerance: float, positive: bool) -> None:
        self.tolerance, self.positive, self.dtype = tolerance, positive, X.dtype
        x = self.x = X.double()
        self.atoms = D.double()
        self.codes = x.new_zeros(len(x), len(D))
        self.objective, self.gap = x.new_full((len(x),), torch.inf), x.new_full((len(x),), torch.inf)
        self.zero = ~x.any(1)
        self.objective[self.zero] = self.gap[self.zero] = 0.0

    def by_falling_penalties(self) -> None:
        """Solve the lasso at decreasing penalties."""
        penalty = largest_correlations(self.x, self.atoms, self.positive) * FIRST
        todo = ((penalty > 0) & ~self.zero).nonzero().squeeze(1)
        path = self.x.new_zeros(len(todo), len(self.atoms))
        for _ in range(STEPS):
            if not len(todo):
                break
            part, lam = self.x[todo], penalty[todo]
            path = lasso(part, self.atoms, lam, self.tolerance / 10, self.positive, path).codes.to_dense()
            r = part - path @ self.atoms
            v = r / torch.maximum(lam, largest_correlations(r, self.atoms, self.positive)).unsqueeze(1)
            going = self.try_codes(todo, path, v)
            penalty[todo] *= SHRINK
            todo, path = todo[going], path[going]

    def by_interior_points(self) -> Tensor:
        """Solve all rows in the span of the atoms at once; return the indices of rows that are not certified, (n,)."""
        accuracy = REPRODUCED[self.dtype]
        within = span(self.atoms, accuracy)
        x = self.x @ within
        outside = (self.x - x @ within.T).norm(dim=1) > accuracy * self.x.norm(dim=1)
        todo = (~self.zero & ~outside).nonzero().squeeze(1)
        tolerance = min(CLOSE, self.tolerance / 10)
        found, v = interior_point.solve(x[todo], self.atoms @ within, tolerance, self.positive)
        v = v @ within.T
        v = v / largest_correlations(v, self.atoms, self.positive).clamp(min=1).unsqueeze(1)
        return todo[self.try_codes(todo, found, v)]

    def take(self, rows: Tensor, other: "_Pursuit") -> None:
        """Replace the results of rows (n,) by those of another pursuit of these rows."""
        self.codes[rows] = other.codes.to(self.x)
        self.objective[rows], self.gap[rows] = other.objective.to(self.x), other.gap.to(self.x)

    def try_codes(self, rows: Tensor, about: Tensor, v: Tensor) -> Tensor:
        """Refit codes on their support by least squares, and keep those that are better than the best so far.

        Args:
            rows: Indices of the rows, (n,) int64.
            about: Approximate codes of these rows, (n, K).
            v: Points of the dual problem, (n, d).

        Returns:
            Whether each of the rows is not yet certified, (n,).
        """
        part, atoms = self.x[rows], self.atoms
        exact, left = about, part - about @ atoms
        for _ in range(REFITS if self.positive else 1):  # again without atoms whose codes became negative
            exact = exact + least_squares_on_support(left, atoms, csr_of(exact)).to_dense()
            exact = exact.clamp(min=0) if self.positive else exact
            left = part - exact @ atoms
        found = left.norm(dim=1) <= REPRODUCED[self.dtype] * part.norm(dim=1)
        size = torch.where(found, exact.abs().sum(1), torch.inf)
        better = size < self.objective[rows]
        self.codes[rows[better]], self.objective[rows[better]] = exact[better], size[better]
        bound = torch.linalg.vecdot(v, part)
        self.gap[rows] = torch.minimum(self.gap[rows], (self.objective[rows] - bound).clamp(min=0))
        return ~self.certified()[rows]

    def certified(self) -> Tensor:
        """Return whether the gap of each row is within the tolerance, (N,)."""
        return (self.gap <= self.tolerance * self.objective) & self.objective.isfinite()

    def solution(self) -> Solution:
        """Return the best codes found, and their certificates."""
        return Solution(csr_of(self.codes.to(self.dtype)), self.objective, self.gap, self.certified())
