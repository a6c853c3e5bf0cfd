"""Products of all pairs of inputs, computed by random neurons: readoffs in closed form, and their exact errors.

The inputs x (m,) are 0 except for s of them, which are +-1 unless said otherwise. Neurons are h_k = phi(w_k . x + b_k)
with random weights. The product x_i x_j of a pair is read as the mean over neurons of w_ki w_kj (h_k - offset) times a
factor. The error of a readoff of d neurons has variance v / d, where v depends on whether none, one or both of the
inputs of the pair are on. Products of signed inputs are the real-valued form of the gates of Hänni et al. (2024,
"Mathematical Models of Computation in Superposition", section 2).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError

Neuron = Literal["square", "absolute", "relu"]
LEAST_ACTIVE = 2
EXACT = 1e-6  # largest error of a coefficient that counts as rounding


class ProductReadoff(NamedTuple):
    """A readoff factor * mean_k w_ki w_kj (h_k - offset) that is unbiased for x_i x_j, and its error.

    Args:
        factor: Factor of the readoff.
        offset: Number that is subtracted from every neuron's activation: its mean.
        variance_off: d times the variance of the error for pairs whose inputs are not both on.
        variance_on: d times the variance of the error for pairs whose inputs are both on.
    """

    factor: float
    offset: float
    variance_off: float
    variance_on: float


def sign_readoff(neuron: Neuron, s: int) -> ProductReadoff:
    """Return the readoff for weights +-1 without biases, by summing over all values of w . x.

    The squares of w_ki and w_kj are 1, so that the variance is factor² Var(h) for all pairs, minus 1 if the product is
    +-1. The variance for pairs that are not on is s (s - 1) / 2 for squares; 1, 3 and 7 for absolute values, and 3, 15
    and 23 for ReLU at s = 2, 3 and 4.

    Args:
        neuron: `square`: h = z². `absolute`: h = |z|. `relu`: h = ReLU(z).
        s: Number of inputs that are on.

    Raises:
        ZooError: If s is below 2, or the neuron is unknown.
    """
    _check_active(s)
    z, weight = _sum_of_signs(s)
    h = _activation(neuron, z)
    mean, variance = float(weight @ h), float(weight @ h.square()) - float(weight @ h) ** 2
    pair = (z.square() - s) / (s * (s - 1))  # mean of w_i w_j x_i x_j for a pair that is on, given the sum z
    factor = 1 / float(weight @ (pair * h))
    return ProductReadoff(factor, mean, factor**2 * variance, factor**2 * variance - 1)


def sign_readoff_with_biases(neuron: Literal["absolute", "relu"], s: int, largest_bias: float) -> ProductReadoff:
    """Return the readoff for weights +-1 and biases that are uniform in [-B, B], for B >= s.

    Given z = w . x, the mean activation over the bias is a quadratic function of z, so that the readoff is unbiased for
    inputs of any size as long as |z| <= B, unlike that of neurons without biases. With r² = |x|², d times the variance
    for pairs that are not on is B² r² / 2 + B⁴ / 12 - r⁴ / 4 for absolute values with the factor B, and
    3 B² r² / 2 + 5 B⁴ / 12 - r⁴ / 4 for ReLU with the factor 2 B. Here r² = s.

    Args:
        neuron: `absolute` or `relu`.
        s: Number of inputs that are on.
        largest_bias: B.

    Raises:
        ZooError: If s is below 2, B is below s, or the neuron is unknown.
    """
    _check_active(s)
    B = largest_bias
    if s > B:
        raise ZooError(f"largest_bias is {B}; it must be at least the largest sum of the inputs, {s}")
    if neuron not in ("absolute", "relu"):
        raise ZooError(f"neuron is {neuron!r}; with biases it must be absolute or relu")
    if neuron == "absolute":
        factor, offset, off = B, (s + B**2) / (2 * B), B**2 * s / 2 + B**4 / 12 - s**2 / 4
    else:
        factor, offset, off = 2 * B, (s + B**2) / (4 * B), 3 * B**2 * s / 2 + 5 * B**4 / 12 - s**2 / 4
    return ProductReadoff(factor, offset, off, off - 1)


def gaussian_variances(neuron: Literal["square", "bilinear"], s: int) -> tuple[float, float, float]:
    """Return d times the variances for pairs with none, one and both inputs on, for standard normal weights.

    Square neurons h = (w . x)² are read as w_i w_j (h - s) / 2: s² / 2, s² / 2 + 2 s and s² / 2 + 4 s + 5. Bilinear
    neurons h = (u . x)(v . x) are read as (u_i v_j + u_j v_i) h / 2: s² / 2, s (s + 2) / 2 and (s + 2)² / 2 + 1.

    Raises:
        ZooError: If s is below 2, or the neuron is unknown.
    """
    _check_active(s)
    if neuron == "square":
        return s**2 / 2, s**2 / 2 + 2 * s, s**2 / 2 + 4 * s + 5
    if neuron == "bilinear":
        return s**2 / 2, s * (s + 2) / 2, (s + 2) ** 2 / 2 + 1
    raise ZooError(f"neuron is {neuron!r}; with Gaussian weights it must be square or bilinear")


def exact_readoff(W: Tensor) -> Tensor:
    """Return a readoff of square neurons h = (W x)² that gives every product of two inputs without error.

    h is linear in the M products x_i x_j and in the m squares x_i². With weights +-1, h depends on the squares only by
    their sum, so that d = M + 1 neurons suffice; otherwise it takes d = M + m. Products are in the order of
    `torch.triu_indices(m, m, 1)`.

    Args:
        W: Weights from inputs to neurons, (d, m).

    Returns:
        The readoff, (M, d) float64.

    Raises:
        ZooError: If there are too few neurons, or some are copies of others, so that no such readoff exists.
    """
    d, m = W.shape
    i, j = torch.triu_indices(m, m, 1, device=W.device)
    W = W.double()
    squares = W.square()
    signs = bool((squares == squares[0, 0]).all())
    columns = squares[:, :1] if signs else squares
    design = torch.cat([2 * W[:, i] * W[:, j], columns], 1)  # (d, M + 1 or M + m)
    if d < design.shape[1]:
        raise ZooError(f"there are {d} neurons; exact products of {m} inputs take at least {design.shape[1]}")
    V = torch.linalg.pinv(design)[: len(i)]
    error = (V @ design - torch.eye(design.shape[1], dtype=V.dtype, device=V.device)[: len(i)]).abs().max().item()
    if error > EXACT:
        raise ZooError(f"the best readoff of these {d} neurons has an error of {error:.2g}; use more neurons")
    return V


def homogeneous_r2(s: int) -> float:
    """Return the largest R² of a product that a network without biases can reach: (s + 2) (s + 4) / (s + 3)².

    The s inputs that are on are uniform in [-1, 1]. ReLU networks without biases are homogeneous of degree 1, and the
    product has degree 2, so that the best output is r E[r³] / E[r²] times the product's value at x / r, with r the
    largest |x_i|. It is 24/25 at s = 2, where .8 sign(x_i x_j) min(|x_i|, |x_j|) reaches it.

    Raises:
        ZooError: If s is below 2.
    """
    _check_active(s)
    return (s + 2) * (s + 4) / (s + 3) ** 2


def _sum_of_signs(s: int) -> tuple[Tensor, Tensor]:
    """Return the values of a sum of s signs, and their probabilities, (s + 1,) float64 each."""
    counts = torch.arange(s + 1)
    ways = torch.tensor([math.comb(s, k) for k in range(s + 1)], dtype=torch.float64)
    return (2 * counts - s).double(), ways / 2**s


def _activation(neuron: str, z: Tensor) -> Tensor:
    known = {"square": Tensor.square, "absolute": Tensor.abs, "relu": Tensor.relu}
    if neuron not in known:
        raise ZooError(f"neuron is {neuron!r}; it must be one of {', '.join(known)}")
    return known[neuron](z)


def _check_active(s: int) -> None:
    if s < LEAST_ACTIVE:
        raise ZooError(f"s is {s}; a product needs at least 2 inputs that are on")
