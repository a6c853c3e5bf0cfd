"""The smallest weighted errors that d neurons can have on a gate of all pairs of m inputs, two of which are on."""

from collections.abc import Sequence
from math import comb

import numpy as np

from zoo.errors import ZooError
from zoo.models.toy.readoffs import truth_table

LEAST_INPUTS = 4  # so that a pair can be off when two inputs are on
STEPS = 1000  # of the minimisation; it usually takes fewer than 50
CONVERGED = 1e-9  # largest share of the loss by which the bound may be below the minimum
TINY = 1e-13  # smallest share of an eigenspace, from which it can still grow


def least_gate_loss(gate: str, m: int, d: int, case_weights: Sequence[float]) -> float:
    """Return a lower bound on the weighted squared error of any outputs that are linear in d numbers.

    The error of a pair is the sum over the cases c = 00, 01, 10 and 11 of w_c times the mean of (y - t_c)² in case c.
    It is averaged over the M = m (m - 1) / 2 pairs. The vectors are all M vectors with two inputs on. If zeros of AND
    weigh as often as they occur, 1 together, and ones weigh 1, the bound is that of
    `zoo.models.toy.pair_bounds.least_balanced_loss`.

    The outputs for all vectors are an (M, M) matrix Y of rank d. Its mean over all permutations of the inputs is
    a_11 A_0 + a_01 A_1 + a_00 A_2, where the A_k are the matrices of the Johnson scheme J(m, 2) (Delsarte 1973): two
    pairs are equal, share one input, or share none; a pair has n_k = 1, 2 (m - 2) and (m - 2) (m - 3) / 2 of these. Let
    l_j be the eigenvalues of this mean, with multiplicities 1, m - 1 and m (m - 3) / 2. Since Y has rank d, |Y|² is at
    least K² = min sum_j mult_j l_j² / s_j over 0 < s_j <= 1 with sum_j mult_j s_j <= d, which is the square of the
    k-support norm (Argyriou, Foygel & Srebro 2012, "Sparse Prediction with the k-Support Norm"). What |Y|² exceeds
    M sum_k n_k a_k² by is variance within cases, and costs at least w = min_k w_k / n_k per entry. The bound is

        min over a of  sum_k w_k (a_k - t_k)² + w (K² / M - sum_k n_k a_k²),

    a convex problem with three unknowns. What is returned is a value of the dual problem, which is below this minimum
    even if the minimisation has not converged. The bound holds for all functions that d neurons can compute, of any
    depth. An output bias counts as one more neuron. Networks with one hidden layer may be unable to reach it.

    Args:
        gate: `and`, `or` or `xor`.
        m: Number of inputs, at least 4.
        d: Number of neurons.
        case_weights: Weights w of the cases 00, 01, 10 and 11, positive. Those of 01 and 10 must be equal.

    Raises:
        ZooError: If a number is out of range, or the gate is unknown.
    """
    table = truth_table(gate).numpy()
    if m < LEAST_INPUTS or d < 1:
        raise ZooError(f"there are {m} inputs and {d} neurons; at least 4 inputs and 1 neuron are needed")
    if len(case_weights) != len(table) or min(case_weights) <= 0 or case_weights[1] != case_weights[2]:
        raise ZooError(f"case_weights is {case_weights}; give four positive numbers, equal for the cases 01 and 10")
    M = comb(m, 2)
    if d >= M:
        return 0.0
    t = table[[3, 1, 0]]
    w = np.array([case_weights[3], case_weights[1] + case_weights[2], case_weights[0]])
    n = np.array([1, 2 * (m - 2), comb(m - 2, 2)])
    multiplicity = np.array([1, m - 1, M - m])
    eigenvalues = np.array([n, [1, m - 4, 3 - m], [1, -2, 1]], dtype=float)  # of A_k, in the columns
    least = (w / n).min()
    to_a = np.linalg.inv(eigenvalues)
    share, bound = np.full(3, d / M), 0.0
    for _ in range(STEPS):  # a for given shares, from z = l / s, then shares for given a
        z = np.linalg.solve((w - least * n)[:, None] * to_a * share + least / M * eigenvalues.T * multiplicity, w * t)
        loss = float(w @ t**2 - (w * t) @ to_a @ (share * z))
        gap = least / M * (_largest(z**2, multiplicity, d) - (multiplicity * share) @ z**2)  # by duality
        bound = max(bound, float(loss - gap))
        if gap <= CONVERGED * loss:
            break
        share = _shares(np.abs(share * z), multiplicity, d)
    return bound


def _largest(values: np.ndarray, multiplicity: np.ndarray, d: int) -> float:
    """Return the sum of the d largest values, each of which occurs `multiplicity` times."""
    order = np.argsort(-values)
    before = np.cumsum(multiplicity[order]) - multiplicity[order]
    return float(np.clip(d - before, 0, multiplicity[order]) @ values[order])


def _shares(size: np.ndarray, multiplicity: np.ndarray, d: int) -> np.ndarray:
    """Return the shares s of the eigenspaces that minimise sum mult size² / s: min(1, size / c) with sum mult s = d."""
    full = np.zeros(len(size), dtype=bool)
    while (left := d - multiplicity[full].sum()) > 0:
        c = (multiplicity * size)[~full].sum() / left
        if c == 0:
            return np.where(full, 1.0, left / multiplicity[~full].sum())
        more = ~full & (size > c)
        if not more.any():
            return np.where(full, 1.0, np.maximum(size / c, TINY))
        full |= more
    return np.where(full, 1.0, TINY)
