"""The lasso of many rows at once by proximal gradient steps with Barzilai-Borwein step lengths, in batches."""

import torch
from torch import Tensor

LOOK_EVERY = 2  # iterations between checks of how many rows are done, which wait for the device
LEAVE = 0.1  # share of the batch that must be done before rows are removed, which copies the others
MEMORY = 5  # number of last objectives; a step must not exceed their maximum
DECREASE = 1e-4  # decrease of the objective that a step must reach, as a share of that predicted from its length
LONGEST, SHORTEST = 1e-6, 1e8  # inverse step lengths, in units of the largest squared norm of an atom


def solve(X: Tensor, D: Tensor, lam: Tensor, codes: Tensor, tolerance: float, positive: bool, max_rounds: int) -> None:
    """Improve codes in place until the gap of every row, computed in X's precision, is within the tolerance.

    The method is SpaRSA (Wright, Nowak & Figueiredo 2009) with a separate step length for every row. A row that is done
    does not change any more. Finished rows are removed from the batch when there are enough of them.

    Args:
        X: Rows, (N, d).
        D: Atoms, (K, d).
        lam: Penalty of every row, (N,), above 0.
        codes: Initial codes, (N, K). They are overwritten with the result.
        tolerance: Largest gap, as a share of the objective.
        positive: Whether codes must not be negative.
        max_rounds: Limit of the effort; at most 10 * max_rounds steps are made.
    """
    rows = torch.arange(len(X), device=X.device)
    x, a, lam = X, codes.clone(), lam.to(X.dtype).unsqueeze(1)
    r = x - a @ D
    c = r @ D.T  # correlations, the negative gradient
    objective = r.square().sum(1) / 2 + lam.squeeze(1) * a.abs().sum(1)
    recent = objective.unsqueeze(1).repeat(1, MEMORY)
    square = D.square().sum(1).max()
    square = square.where(square > 0, 1.0)
    curvature = square.expand_as(lam)
    going = torch.ones(len(X), dtype=torch.bool, device=X.device)
    for iteration in range(10 * max_rounds):
        going = going & ~_done(x, r, c, objective, lam, tolerance, positive)
        if iteration % LOOK_EVERY == 0:
            n_going = int(going.sum())
            if n_going <= (1 - LEAVE) * len(rows):
                left, done = (mask.nonzero().squeeze(1) for mask in (going, ~going))
                codes[rows[done]] = a[done]
                rows, x, a, r, c, lam = (t[left] for t in (rows, x, a, r, c, lam))
                objective, recent, curvature, going = (t[left] for t in (objective, recent, curvature, going))
            if not n_going:
                break
        a_new = torch.addcdiv(a, c, curvature)
        a_new = _shrink(a_new, lam / curvature, positive)
        step = a_new - a
        step_D = step @ D
        r_new = r - step_D
        objective_new = r_new.square().sum(1) / 2 + lam.squeeze(1) * torch.linalg.vector_norm(a_new, 1, dim=1)
        moved = torch.linalg.vector_norm(step, dim=1).square()
        promised = DECREASE / 2 * curvature.squeeze(1) * moved
        taken = going & ((objective_new <= recent.amax(1) - promised) | (moved == 0))
        accepted, moved = taken.unsqueeze(1), moved.unsqueeze(1)
        a, r, objective = a_new.where(accepted, a), r_new.where(accepted, r), objective_new.where(taken, objective)
        recent[:, iteration % MEMORY] = objective.where(taken, recent[:, iteration % MEMORY])
        torch.mm(r, D.T, out=c)
        measured = step_D.square().sum(1, keepdim=True) / moved
        curvature = measured.where(accepted & (moved > 0), 2 * curvature).clamp(LONGEST * square, SHORTEST * square)
    codes[rows] = a


def _shrink(z: Tensor, by: Tensor, positive: bool) -> Tensor:
    if positive:
        return z.sub_(by).clamp_(min=0)
    return z.sub_(z.clamp(-by, by))


def _done(x: Tensor, r: Tensor, c: Tensor, objective: Tensor, lam: Tensor, tolerance: float, positive: bool) -> Tensor:
    """Return whether the gap of each row, see `duality_gap`, is within the tolerance, (n,)."""
    largest = c.amax(1) if positive else torch.linalg.vector_norm(c, torch.inf, dim=1)
    t = lam.squeeze(1) / torch.maximum(lam.squeeze(1), largest)
    gap = objective - (t * torch.linalg.vecdot(r, x) - t.square() * r.square().sum(1) / 2)
    return gap <= tolerance * objective
