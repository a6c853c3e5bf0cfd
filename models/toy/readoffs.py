"""Readoffs of Boolean gates that are computed instead of trained.

A gate is a truth table: its values at the four inputs 00, 01, 10 and 11 of a pair (i, j). Neurons are h = ReLU(x W_in)
with standard normal weights, or weights +-1, and no bias. A readoff is a linear map of h, or of x itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.active_inputs import ActiveInputs
from zoo.errors import ZooError
from zoo.models.toy.gaussian_signs import kappa
from zoo.models.toy.products import sign_readoff

TRUTH_TABLES = {"and": (0.0, 0.0, 0.0, 1.0), "or": (0.0, 1.0, 1.0, 1.0), "xor": (0.0, 1.0, 1.0, 0.0)}
# Rows: s_i s_j, s_i, s_j and 1 at 00, 01, 10 and 11, divided by 4 to project a truth table onto them.
SIGNS = torch.tensor([[1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]], dtype=torch.float64) / 4


def truth_table(gate: str) -> Tensor:
    """Return the values of a gate at 00, 01, 10 and 11, (4,) float64.

    Raises:
        ZooError: If the gate is not in `TRUTH_TABLES`.
    """
    if gate not in TRUTH_TABLES:
        raise ZooError(f"gate is {gate!r}; it must be one of {', '.join(TRUTH_TABLES)}")
    return torch.tensor(TRUTH_TABLES[gate], dtype=torch.float64)


def all_pairs(n_features: int) -> Tensor:
    """Return all pairs i < j of `n_features` features, (2, m (m - 1) / 2) int64."""
    return torch.triu_indices(n_features, n_features, offset=1)


def affine_readoff(gate: str) -> tuple[float, float, float, float]:
    """Return the affine function a x_i + b x_j + c of a gate's two inputs whose largest error is smallest.

    In s = 2x - 1, the truth table is D + B s_i + C s_j + A s_i s_j. No affine function contributes to the last term,
    which has the same size in every case. The best affine function consists of the other terms, and its error is |A| in
    each of the four cases.

    Returns:
        a, b, c and the error: 1/2, 1/2, -1/4 and 1/4 for AND; 0, 0, 1/2 and 1/2 for XOR.
    """
    A, B, C, D = (SIGNS @ truth_table(gate)).tolist()
    return 2 * B, 2 * C, D - B - C, abs(A)


class ExplicitReadoff(NamedTuple):
    """A readoff that depends only on the signs of the weights: neuron k has, for the pair (i, j), the weight

    (alpha [W_ik > 0][W_jk > 0] + beta [W_ik > 0] + gamma [W_jk > 0] + delta) / d.
    """

    alpha: float
    beta: float
    gamma: float
    delta: float

    def weights(self, W_in: Tensor, pairs: Tensor) -> Tensor:
        """Return the readoff (..., d, P) of pairs (2, P), for weights (..., m, d) from features to neurons."""
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
        """Return the coefficients in terms of signs s = sgn W, A s_i s_j + B s_i + C s_j + D, as (A, B, C, D)."""
        a, b, c, d = self
        return a / 4, a / 4 + b / 2, a / 4 + c / 2, a / 4 + b / 2 + c / 2 + d


def explicit_readoff(gate: str, active: ActiveInputs, n_features: int) -> ExplicitReadoff:
    """Return the readoff by signs whose mean output over random weights is correct in each of the four cases.

    There are four constraints, one for each case c: the mean output equals the value in the truth table. The mean is
    over the weights and over the number l of inputs that are on, given c. In terms of signs, the constraints are
    triangular. Let H_c = E[h] = sqrt(l / (2 pi)), q = E[h s_i | i is on] = 1 / sqrt(2 pi) and
    r = E[h s_i s_j | both are on] = 1 / kappa(l); all other means are 0. Then

        D H_00 = t_00,  C q + D H_01 = t_01,  B q + D H_10 = t_10,  A r + (B + C) q + D H_11 = t_11.

    For AND, the solution is a multiple of s_i s_j: beta = gamma = -alpha / 2 and delta = alpha / 4. Hänni et al. (2024,
    "Mathematical Models of Computation in Superposition", section 2) use such a readoff for random sparse weights.

    Args:
        gate: `and`, `or` or `xor`.
        active: Distribution of the inputs that are on at once.
        n_features: Number of inputs m.

    Raises:
        ZooError: If the gate is not in `TRUTH_TABLES`, or two inputs are never on at once.
    """
    t = truth_table(gate)
    if active.pair_probabilities(n_features)[3] == 0:
        raise ZooError(
            "with this n_active, two inputs are never on at once, so that no gate of two inputs can be read; raise it"
        )
    h = [_mean(active, n_features, on, lambda n: (n / (2 * math.pi)).sqrt()) for on in (0, 1, 1, 2)]
    q = 1 / math.sqrt(2 * math.pi)
    r = _mean(active, n_features, 2, lambda n: 1 / kappa(n))
    D = float(t[0]) / h[0] if t[0] else 0.0
    C, B = ((float(t[case]) - D * h[case]) / q for case in (1, 2))
    A = (float(t[3]) - (B + C) * q - D * h[3]) / r
    return ExplicitReadoff(4 * A, 2 * (B - A), 2 * (C - A), A - B - C + D)


def _mean(active: ActiveInputs, n_features: int, on: int, of: Callable[[Tensor], Tensor]) -> float:
    """Return the mean of a function of the number of inputs that are on, given that `on` inputs of a pair are on."""
    values, probabilities = active.counts(n_features, on)
    return float(probabilities @ of(values))


def rms_error_of_00(readoff: ExplicitReadoff, n_active: int, d_mlp: int) -> float:
    """Return the root mean square output, over random weights, for a pair whose inputs are both off.

    With l = n_active inputs on, E[h²] = l / 2, and the signs of the pair's weights are independent of h. For AND, every
    case with value 0 has this error, which is kappa(l) sqrt(l / 2) / sqrt(d).
    """
    signs = readoff.in_signs()
    mean = signs[3] * math.sqrt(n_active / (2 * math.pi))
    variance = sum(s**2 for s in signs) * n_active / 2 - mean**2
    return math.sqrt(variance / d_mlp + mean**2)


class SignReadoff(NamedTuple):
    """A readoff of neurons h = ReLU(x W) with random weights W of +-1, for the pair (i, j):

    y = c + mean_k (A W_ik W_jk + B W_ik + C W_jk) (h_k - mu).

    Args:
        A: Coefficient of W_ik W_jk.
        B: Coefficient of W_ik.
        C: Coefficient of W_jk.
        mu: Mean activation of a neuron.
        c: Value of the gate at 00.
        variance: d times the variance of the output for a pair whose inputs are both off.
    """

    A: float
    B: float
    C: float
    mu: float
    c: float
    variance: float

    def weights(self, W_in: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the readoff (..., d, P) of pairs (2, P) and its bias (..., P), for weights (..., m, d) of +-1."""
        i, j = (W_in.mT[..., side] for side in pairs)
        W_out = (self.A * i * j + self.B * i + self.C * j) / W_in.shape[-1]
        return W_out, self.c - self.mu * W_out.sum(-2)


def sign_gate_readoff(gate: str, n_active: int) -> SignReadoff:
    """Return the readoff of neurons with weights +-1 whose mean output over these weights is right in all four cases.

    Exactly s = `n_active` inputs are on, with the value 1, so that x . w is a sum z of s signs. With h = ReLU(z),
    q = E[h w_i | i is on] = E[h z] / s = 1/2, and r = E[h w_i w_j | both are on] = E[h (z² - s)] / (s (s - 1)), which
    is 1/2 for s = 2. All other means of h - mu times these signs are 0, so that

        C = (t_01 - t_00) / q,  B = (t_10 - t_00) / q,  A = (t_11 - t_01 - t_10 + t_00) / r.

    If both inputs of a pair are off, the output has variance (A² + B² + C²) Var(h) / d. For s = 2, Var(h) = 3/4, and
    the rms error of AND is sqrt(3 / d), and that of XOR sqrt(18 / d). Gaussian weights with `explicit_readoff` have
    4.279 / sqrt(d) for AND, or 3.533 / sqrt(d) if the mean activation is subtracted as it is here. AND is the product
    of `zoo.models.toy.products.sign_readoff`, whose variances for 2, 3 and 4 inputs are 3, 15 and 23.

    Args:
        gate: `and`, `or` or `xor`.
        n_active: Number of inputs that are on, at least 2.

    Raises:
        ZooError: If the gate is not in `TRUTH_TABLES`, or n_active is below 2.
    """
    t = truth_table(gate).tolist()
    product = sign_readoff("relu", n_active)
    A, B, C = (t[3] - t[1] - t[2] + t[0]) * product.factor, 2 * (t[2] - t[0]), 2 * (t[1] - t[0])
    of_one = product.variance_off / product.factor**2  # Var(h)
    return SignReadoff(A, B, C, product.offset, t[0], (A**2 + B**2 + C**2) * of_one)


def least_squares_readoff(
    h: Tensor, f: Tensor, pairs: Tensor, table: Tensor, case_weights: Tensor | None = None, unbiased: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the affine readoff of neurons that minimises the squared error over a sample, with weights for the cases.

    The loss of a pair is the sum over cases c of w_c times the mean squared error in c. The direction of the readoff is
    Fisher's linear discriminant between the inputs where the gate is 1 and the inputs where it is 0.

    Args:
        h: Activations of the neurons of one network, (N, d).
        f: Boolean features from which they were computed, (N, m).
        pairs: Pairs of features, (2, P).
        table: Values of the gate at 00, 01, 10 and 11, (4,).
        case_weights: Weights w_c (4,). By default the share of each case in the sample.
        unbiased: Whether every output is scaled and shifted so that its weighted mean is 1 where the gate is 1, and 0
            where it is 0. This gives the linear discriminant itself, without the shrinkage of least squares.

    Returns:
        W_out (d, P) and b_out (P,), float64.

    Raises:
        ZooError: If the features of some pair are never on together in the sample, or if all ones or all zeros of an
            unbiased readoff have weight 0.
    """
    if unbiased and case_weights is not None and not all((case_weights * (table == value)).any() for value in (0, 1)):
        raise ZooError("an unbiased readoff requires positive case_weights both where the gate is 1 and where it is 0")
    h, f, table = h.double(), f.double(), table.to(h.device, torch.float64)
    h = torch.cat([h, h.new_ones(len(h), 1)], 1)  # (N, d + 1)
    n, d, m = len(h), h.shape[1], f.shape[1]
    W = torch.empty(d, pairs.shape[1], dtype=torch.float64, device=h.device)
    rows = [f[:, i].nonzero().squeeze(1) for i in range(m)]
    single = torch.stack([h[r].T @ h[r] for r in rows])  # sums of h hᵀ over vectors with i on, (m, d, d)
    both = f.T @ f
    if not (both[pairs[0], pairs[1]] > 0).all():
        raise ZooError("the sample has a pair that is never on together; use more vectors, or fewer features")
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
        )  # (4, pairs, d, d); the last row of each matrix holds the sum of h
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
