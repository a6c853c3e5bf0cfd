"""Readoffs of Boolean gates that are computed, not trained.

A gate is a truth table: its values at the four inputs 00, 01, 10 and 11 of a pair (i, j). Neurons are h = ReLU(x W_in)
with standard normal weights and no bias; a readoff is a linear map of h, or of x itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.active_inputs import ActiveInputs
from zoo.errors import ZooError
from zoo.models.toy.gaussian_signs import kappa

TRUTH_TABLES = {"and": (0.0, 0.0, 0.0, 1.0), "or": (0.0, 1.0, 1.0, 1.0), "xor": (0.0, 1.0, 1.0, 0.0)}
# Rows: s_i s_j, s_i, s_j and 1 at 00, 01, 10 and 11, as they project a table onto themselves.
SIGNS = torch.tensor([[1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]], dtype=torch.float64) / 4


def truth_table(gate: str) -> Tensor:
    """Values at 00, 01, 10 and 11, (4,) float64.

    Raises:
        ZooError: If the gate has no name here.
    """
    if gate not in TRUTH_TABLES:
        raise ZooError(f"gate is {gate!r}; it must be one of {', '.join(TRUTH_TABLES)}")
    return torch.tensor(TRUTH_TABLES[gate], dtype=torch.float64)


def all_pairs(n_features: int) -> Tensor:
    """Pairs i < j of so many features, (2, m (m - 1) / 2) int64."""
    return torch.triu_indices(n_features, n_features, offset=1)


def affine_readoff(gate: str) -> tuple[float, float, float, float]:
    """The best reading of a gate from its two inputs: a x_i + b x_j + c with the smallest largest error.

    In s = 2x - 1 the table is D + B s_i + C s_j + A s_i s_j, and no affine map has any part of the last term, which is
    as large in every case: the best one is the rest, and its error is |A| in each of the four cases.

    Returns:
        a, b, c and the error: 1/2, 1/2, -1/4 and 1/4 for AND; 0, 0, 1/2 and 1/2 for XOR.
    """
    A, B, C, D = (SIGNS @ truth_table(gate)).tolist()
    return 2 * B, 2 * C, D - B - C, abs(A)


class ExplicitReadoff(NamedTuple):
    """A readoff by the signs of the weights: neuron k counts, for the pair (i, j),

    (alpha [W_ik > 0][W_jk > 0] + beta [W_ik > 0] + gamma [W_jk > 0] + delta) / d.
    """

    alpha: float
    beta: float
    gamma: float
    delta: float

    def weights(self, W_in: Tensor, pairs: Tensor) -> Tensor:
        """Readoff (..., d, P) of pairs (2, P), for weights (..., m, d) of the features onto neurons."""
        i, j = ((W_in > 0).mT[..., side].to(W_in.dtype) for side in pairs)
        return (
            i.mul(j)
            .mul_(self.alpha)
            .add_(i, alpha=self.beta)
            .add_(j, alpha=self.gamma)
            .add_(self.delta)
            .div_(W_in.shape[-1])
        )

    def in_signs(self) -> tuple[float, float, float, float]:
        """The same in signs s = sgn W: A s_i s_j + B s_i + C s_j + D, as (A, B, C, D)."""
        a, b, c, d = self
        return a / 4, a / 4 + b / 2, a / 4 + c / 2, a / 4 + b / 2 + c / 2 + d


def explicit_readoff(gate: str, active: ActiveInputs, n_features: int) -> ExplicitReadoff:
    """The readoff by signs that is right on average over the weights in each of the four cases.

    The four constraints are that the mean output in case c, with the mean over weights and over how many inputs are on
    given c, is the table's value. In signs they are triangular: with H_c = E[h] = sqrt(l / (2 pi)), q = E[h s_i | i is
    on] = 1 / sqrt(2 pi) and r = E[h s_i s_j | both are on] = 1 / kappa(l), all other means being 0,

        D H_00 = t_00,  C q + D H_01 = t_01,  B q + D H_10 = t_10,  A r + (B + C) q + D H_11 = t_11.

    For AND this leaves a multiple of s_i s_j: beta = gamma = -alpha / 2 and delta = alpha / 4 (Hänni et al. 2024,
    "Mathematical Models of Computation in Superposition", section 2, have such a readoff for random sparse weights).

    Args:
        gate: `and`, `or` or `xor`.
        active: Which inputs are on at once.
        n_features: Inputs m.

    Raises:
        ZooError: If the gate has no name here, or two inputs are never on at once.
    """
    t = truth_table(gate)
    if active.pair_probabilities(n_features)[3] == 0:
        raise ZooError(
            "n_active leaves no two inputs on at once, and a gate of two has nothing to tell; make it larger"
        )
    h = [_mean(active, n_features, on, lambda n: (n / (2 * math.pi)).sqrt()) for on in (0, 1, 1, 2)]
    q = 1 / math.sqrt(2 * math.pi)
    r = _mean(active, n_features, 2, lambda n: 1 / kappa(n))
    D = float(t[0]) / h[0] if t[0] else 0.0
    C, B = ((float(t[case]) - D * h[case]) / q for case in (1, 2))
    A = (float(t[3]) - (B + C) * q - D * h[3]) / r
    return ExplicitReadoff(4 * A, 2 * (B - A), 2 * (C - A), A - B - C + D)


def _mean(active: ActiveInputs, n_features: int, on: int, of: Callable[[Tensor], Tensor]) -> float:
    """Mean of a function of how many inputs are on, given that `on` of a pair are."""
    values, probabilities = active.counts(n_features, on)
    return float(probabilities @ of(values))


def rms_error_of_00(readoff: ExplicitReadoff, n_active: int, d_mlp: int) -> float:
    """Root mean square output for pairs that are both off, with so many inputs on, over random weights.

    E[h²] = l / 2, and the signs of the pair's weights do not depend on h. For AND every case whose value is 0 has this
    error, and it is kappa(l) sqrt(l / 2) / sqrt(d).
    """
    signs = readoff.in_signs()
    mean = signs[3] * math.sqrt(n_active / (2 * math.pi))
    variance = sum(s**2 for s in signs) * n_active / 2 - mean**2
    return math.sqrt(variance / d_mlp + mean**2)


def least_squares_readoff(
    h: Tensor, f: Tensor, pairs: Tensor, table: Tensor, case_weights: Tensor | None = None, unbiased: bool = False
) -> tuple[Tensor, Tensor]:
    """The affine readoff of neurons that minimises the squared error over a sample, each case with its own weight.

    The loss of a pair is the sum over cases c of w_c times the mean squared error in c. For a gate its direction is
    Fisher's linear discriminant between inputs where the gate is 1 and those where it is 0.

    Args:
        h: Neurons of one network, (N, d).
        f: Boolean features behind them, (N, m).
        pairs: Pairs, (2, P).
        table: The gate's values at 00, 01, 10 and 11, (4,).
        case_weights: Weights w_c (4,), or None for each case's share in the sample.
        unbiased: Whether to stretch and shift every output so that its (weighted) mean is 1 where the gate is 1, and 0
            where it is 0: the linear discriminant itself, without the shrinkage of least squares.

    Returns:
        W_out (d, P) and b_out (P,), float64.

    Raises:
        ZooError: If some pair is never on together in the sample, or the weights leave out all ones or all zeros of an
            unbiased readoff.
    """
    if unbiased and case_weights is not None and not all((case_weights * (table == value)).any() for value in (0, 1)):
        raise ZooError("an unbiased readoff needs weight both where the gate is 1 and where it is 0")
    h, f, table = h.double(), f.double(), table.to(h.device, torch.float64)
    h = torch.cat([h, h.new_ones(len(h), 1)], 1)  # (N, d + 1)
    n, d, m = len(h), h.shape[1], f.shape[1]
    W = torch.empty(d, pairs.shape[1], dtype=torch.float64, device=h.device)
    rows = [f[:, i].nonzero().squeeze(1) for i in range(m)]
    single = torch.stack([h[r].T @ h[r] for r in rows])  # sums of h hᵀ over vectors with i on, (m, d, d)
    both = f.T @ f
    if not (both[pairs[0], pairs[1]] > 0).all():
        raise ZooError("the sample has a pair that is never on together; take more vectors, or fewer features")
    total = h.T @ h
    for i in range(m):
        members = (pairs[0] == i).nonzero().squeeze(1)
        if not len(members):
            continue
        j = pairs[1, members]
        h_i = h[rows[i]]
        gram_ij = torch.stack([h_i[on].T @ h_i[on] for on in (f[rows[i]][:, j] > 0).T])
        grams = torch.stack(
            [total - single[i] - single[j] + gram_ij, single[j] - gram_ij, single[i] - gram_ij, gram_ij]
        )  # (4, pairs, d, d), whose last row holds sums of h
        counts = grams[:, :, -1, -1]  # (4, pairs)
        weights = torch.full_like(counts, 1 / n)
        if case_weights is not None:
            weights = case_weights.to(h.device, torch.float64).unsqueeze(1) / counts.clamp(min=1)
        gram = torch.einsum("cp,cpde->pde", weights, grams)
        gram.diagonal(dim1=1, dim2=2).mul_(1 + 1e-10)
        means = grams[:, :, -1]  # sums of h over each case, (4, pairs, d)
        v = torch.linalg.solve(gram, torch.einsum("cp,c,cpd->pd", weights, table, means))
        if unbiased:
            ones = (table.unsqueeze(1) * weights).unsqueeze(2)
            zeros = ((1 - table).unsqueeze(1) * weights).unsqueeze(2)
            at = [torch.einsum("pd,cpd->p", v, means * w) / (counts * w.squeeze(2)).sum(0) for w in (ones, zeros)]
            v = v / (at[0] - at[1]).unsqueeze(1)
            v[:, -1] -= at[1] / (at[0] - at[1])
        W[:, members] = v.T
    return W[:-1], W[-1]
