"""Basis pursuit of many rows at once by a primal-dual interior point method, in batches."""

import torch
import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 60  # largest number; most rows need 10 to 20
SHORT_OF = 0.995  # length of a step, as a share of the distance to the nearest bound
REPRODUCED = 1e-7  # largest |residual| / |x| at the end; least squares on the codes' support removes the residual
RIDGE = 1e-14  # share of the diagonal that is added to it
NUMBERS_AT_ONCE = 1 << 27  # numbers in the weighted atoms of a batch of rows


def solve(X: Tensor, D: Tensor, tolerance: float, positive: bool) -> tuple[Tensor, Tensor]:
    """Return codes of approximately the smallest |a|₁ with aD = x, and points of the dual problem, all in float64.

    The method is the predictor-corrector method of Mehrotra (1992) for the linear program min Σ z subject to zA = x and
    z >= 0. The rows of A are the atoms and, unless `positive`, their negatives. The dual problem is max <v, x> subject
    to s = 1 - Av >= 0. Every iteration solves one (d, d) system per row. A row leaves the batch as soon as
    Σ z - <v, x> is within the tolerance.

    Args:
        X: Rows, (N, d) float64, none of them 0.
        D: Atoms, (K, d) float64, which span all d dimensions.
        tolerance: Largest gap, as a share of |a|₁.
        positive: Whether codes must not be negative.

    Returns:
        Codes (N, K), set to 0 where z / Σ z is at most s; and v (N, d), for which no |<v, d_k>| (with `positive`, no
        <v, d_k>) exceeds 1.
    """
    if not X.numel():
        return X.new_zeros(len(X), len(D)), X
    at_once = max(1, NUMBERS_AT_ONCE // D.numel())
    parts = [_solve(x, D, tolerance, positive) for x in X.split(at_once)]
    return torch.cat([codes for codes, _ in parts]), torch.cat([v for _, v in parts])


def _solve(X: Tensor, D: Tensor, tolerance: float, positive: bool) -> tuple[Tensor, Tensor]:
    codes, dual = X.new_zeros(len(X), len(D)), torch.zeros_like(X)
    rows = torch.arange(len(X), device=X.device)
    longest = D.norm(dim=1).max()
    length = X.norm(dim=1, keepdim=True)
    D, x = D / longest, X / length
    z = _both(x @ torch.linalg.pinv(D), positive).clamp(min=0)  # reproduces the row unless `positive`
    z = z + z.mean(1, keepdim=True).clamp(min=1e-8)
    v = torch.zeros_like(x)
    for iteration in range(ITERATIONS + 1):
        s = 1 - _both(v @ D.T, positive)
        left = x - _sum(z, positive) @ D
        gap = z.sum(1) - torch.linalg.vecdot(v, x)
        done = (gap <= tolerance * z.sum(1)) & (left.norm(dim=1) <= REPRODUCED)
        done |= ~(s > 0).all(1) | ~z.isfinite().all(1) | (iteration == ITERATIONS)  # rounding prevents a better result
        if done.any():
            found = z[done] * (z[done] > s[done] * z[done].sum(1, keepdim=True))
            codes[rows[done]] = (_sum(found, positive) * length[done] / longest).nan_to_num(0, 0, 0)
            dual[rows[done]] = (v[done] / longest).nan_to_num(0, 0, 0)
            going = ~done
            rows, x, length, z, v, s, left = (t[going] for t in (rows, x, length, z, v, s, left))
            if not len(rows):
                break
        z, v = _step(x, D, z, v, s, left, positive)
    return codes, dual


def _step(x: Tensor, D: Tensor, z: Tensor, v: Tensor, s: Tensor, left: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Return z (n, K or 2K) and v (n, d) after one iteration, given slacks s of z's shape and x's residual (n, d)."""
    weight = z / s
    of_atom = weight if positive else weight[:, : len(D)] + weight[:, len(D) :]
    matrix = (D.T * of_atom.unsqueeze(1)) @ D  # (n, d, d)
    matrix.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE)
    factor = torch.linalg.cholesky_ex(matrix).L

    def direction(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return changes of z, v and s that make zA = x and, to first order, change z s by `product`."""
        wanted = left - _sum(product / s, positive) @ D
        dv = torch.cholesky_solve(wanted.unsqueeze(2), factor).squeeze(2)
        ds = -_both(dv @ D.T, positive)
        return (product - z * ds) / s, dv, ds

    mean = (z * s).mean(1, keepdim=True)
    dz, dv, ds = direction(-z * s)
    after = ((z + _length(z, dz) * dz) * (s + _length(s, ds) * ds)).mean(1, keepdim=True)
    dz, dv, ds = direction((after / mean) ** 3 * mean - z * s - dz * ds)
    return z + SHORT_OF * _length(z, dz) * dz, v + SHORT_OF * _length(s, ds) * dv


def _both(c: Tensor, positive: bool) -> Tensor:
    """Extend values of the atoms (n, K) to those of the atoms and, unless `positive`, their negatives, (n, K or 2K)."""
    return c if positive else torch.cat((c, -c), 1)


def _sum(z: Tensor, positive: bool) -> Tensor:
    """Return the codes (n, K) that belong to values of the atoms and of their negatives (n, K or 2K)."""
    return z if positive else z[:, : z.shape[1] // 2] - z[:, z.shape[1] // 2 :]


def _length(z: Tensor, dz: Tensor) -> Tensor:
    """Return the largest step, at most 1, for which no entry of z + step * dz is below 0, (n, 1)."""
    return F.relu(torch.where(dz < 0, -z / dz, torch.inf).amin(1, keepdim=True)).clamp(max=1)
