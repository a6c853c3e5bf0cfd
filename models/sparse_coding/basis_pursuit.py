"""The smallest codes that reproduce rows exactly."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sparse_coding.certificate import largest_correlations
from zoo.models.sparse_coding.lasso import Solution, lasso
from zoo.models.sparse_coding.problem import as_problem
from zoo.models.sparse_coding.rows import csr_of
from zoo.models.sparse_coding.support_least_squares import least_squares_on_support

FIRST, SHRINK, STEPS = 0.1, 0.3, 16  # penalties, in units of the one at which codes become 0
REFITS = 3
REPRODUCED = {torch.float32: 1e-6, torch.float64: 1e-10}  # share of |x| that may be left over


@torch.no_grad()
def basis_pursuit(X: Tensor, D: Tensor, tolerance: float = 1e-4, positive: bool = False) -> Solution:
    """Codes of smallest |a|₁ among those with aD = x (Chen, Donoho & Saunders 1998), each row with a certificate.

    The lasso at falling penalties, each started from the one before: below some penalty its support is that of the
    answer, which least squares on it then gives exactly. The residual over the penalty, scaled to where no atom's
    correlation exceeds 1, is a point v of the dual problem, and |a|₁ - <v, x> the gap. All in float64.

    Args:
        X: Rows, (N, d), a tensor or a NumPy array of float32 or float64.
        D: Atoms, (K, d).
        tolerance: Largest gap, as a share of |a|₁.
        positive: Whether codes must not be negative.

    Returns:
        The codes, and as their objective |a|₁: the gauge norm of x, which is informative where the error, 0, is not. It
        is infinite, as is the gap, for rows that no codes reproduce.

    Raises:
        ZooError: If the arguments do not fit together or are out of range.
    """
    X, D = as_problem(X, D)
    if not 0 < tolerance < 1:
        raise ZooError(f"tolerance is {tolerance}; it must be above 0 and below 1")
    x, atoms = X.double(), D.double()
    codes = x.new_zeros(len(x), len(atoms))
    objective, gap = x.new_full((len(x),), torch.inf), x.new_full((len(x),), torch.inf)
    zero = ~x.any(1)
    objective[zero] = gap[zero] = 0.0
    penalty = largest_correlations(x, atoms, positive) * FIRST
    todo = ((penalty > 0) & ~zero).nonzero().squeeze(1)
    path = x.new_zeros(len(todo), len(atoms))
    for _ in range(STEPS):
        if not len(todo):
            break
        part, lam = x[todo], penalty[todo]
        path = lasso(part, atoms, lam, tolerance / 10, positive, path).codes.to_dense()
        r = part - path @ atoms
        v = r / torch.maximum(lam, largest_correlations(r, atoms, positive)).unsqueeze(1)
        exact, left = path, r
        for _ in range(REFITS if positive else 1):  # anew without the atoms that the last one made negative
            exact = exact + least_squares_on_support(left, atoms, csr_of(exact)).to_dense()
            exact = exact.clamp(min=0) if positive else exact
            left = part - exact @ atoms
        found = left.norm(dim=1) <= REPRODUCED[X.dtype] * part.norm(dim=1)
        size = torch.where(found, exact.abs().sum(1), torch.inf)
        better = size < objective[todo]
        codes[todo[better]], objective[todo[better]] = exact[better], size[better]
        bound = torch.linalg.vecdot(v, part)
        gap[todo] = torch.minimum(gap[todo], (objective[todo] - bound).clamp(min=0))
        going = gap[todo] > tolerance * objective[todo]
        going |= objective[todo].isinf()
        penalty[todo] *= SHRINK
        todo, path = todo[going], path[going]
    certified = (gap <= tolerance * objective) & objective.isfinite()
    return Solution(csr_of(codes.to(X.dtype)), objective, gap, certified)
