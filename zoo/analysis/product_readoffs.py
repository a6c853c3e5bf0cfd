"""Readoffs of random neurons for products of all pairs of inputs, which are computed without training."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.analysis.gate_simulations import all_vectors
from zoo.errors import ZooError
from zoo.models.toy.neurons import PHI
from zoo.models.toy.products import (
    ProductReadoff,
    exact_readoff,
    gaussian_variances,
    sign_readoff,
    sign_readoff_with_biases,
)
from zoo.models.toy.readoffs import all_pairs

Weights = Literal["signs", "signs and biases", "gaussian"]
RANK = 1e-9  # smallest singular value, relative to the largest, that counts as not 0


def exact_variances(weights: Weights, neuron: str, s: int) -> tuple[float, float, float]:
    """Return d times the variance of a written readoff for pairs with none, one and both inputs on, in closed form."""
    if weights == "gaussian":
        return gaussian_variances(neuron, s)  # type: ignore[arg-type]
    known = _known(weights, neuron, s)
    return known.variance_off, known.variance_off, known.variance_on


def written_variances(weights: Weights, neuron: str, s: int, m: int, d: int, n_vectors: int, seed: int) -> list[float]:
    """Return d times the mean squared error of a written readoff for pairs with none, one and both inputs on.

    Args:
        weights: `signs`: weights +-1. `signs and biases`: the same, and biases uniform in [-s, s]. `gaussian`: standard
            normal weights.
        neuron: `square`, `absolute`, `relu`, or `bilinear` with Gaussian weights.
        s: Number of inputs that are on, with random signs.
        m: Number of inputs.
        d: Number of neurons.
        n_vectors: Number of input vectors.
        seed: Seed of weights and inputs.
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng((seed, 1))
    pairs = all_pairs(m)
    W = torch.randn(m, d, generator=generator, dtype=torch.float64)
    on = torch.from_numpy(FixedActive(s).draw(rng, n_vectors, m))
    x = on * (2 * torch.from_numpy(rng.integers(2, size=(n_vectors, m))) - 1).double()
    products = W[pairs[0]] * W[pairs[1]]
    if neuron == "bilinear":
        U = torch.randn(m, d, generator=generator, dtype=torch.float64)
        products = W[pairs[0]] * U[pairs[1]] + W[pairs[1]] * U[pairs[0]]
        y = (x @ W) * (x @ U) @ products.T / (2 * d)
    elif weights == "gaussian":
        y = ((x @ W).square() - s) @ products.T / (2 * d)
    else:
        W, known = W.sign(), _known(weights, neuron, s)
        b = s * (2 * torch.rand(d, generator=generator, dtype=torch.float64) - 1) if "biases" in weights else 0.0
        h = PHI[neuron](x @ W + b)
        y = known.factor * (h - known.offset) @ (W[pairs[0]] * W[pairs[1]]).T / d
    error = (y - x[:, pairs[0]] * x[:, pairs[1]]).square()
    number = on[:, pairs[0]].int() + on[:, pairs[1]].int()
    return [d * error[number == k].mean().item() for k in range(3)]


def _known(weights: Weights, neuron: str, s: int) -> ProductReadoff:
    if weights == "signs and biases":
        return sign_readoff_with_biases(neuron, s, s)  # type: ignore[arg-type]
    return sign_readoff(neuron, s)  # type: ignore[arg-type]


def square_r2(W: Tensor, p: float) -> tuple[float, float]:
    """Return the sums of R² over pairs and over squares for the best affine readoff of square neurons h = (W x)².

    The inputs are independent: uniform in [-1, 1] with probability p, and 0 otherwise. The M products x_i x_j (variance
    p² / 9) and the m squares x_i² (variance p / 5 - p² / 9) are then uncorrelated, and h is an affine function of them.
    Their R² add up to the number of dimensions that h spans: min(d, M + m) for weights in general position.

    Args:
        W: Weights from inputs to neurons, (d, m).
        p: Probability that an input is not 0.
    """
    i, j = all_pairs(W.shape[1])
    W = W.double()
    design = torch.cat([2 * W[:, i] * W[:, j] * (p / 3), W.square() * math.sqrt(p / 5 - p**2 / 9)], 1)
    values, directions = torch.linalg.svd(design, full_matrices=False)[1:]
    r2 = directions[values > RANK * values[0]].square().sum(0)
    return r2[: len(i)].sum().item(), r2[len(i) :].sum().item()


def error_of_exact_readoff(W: Tensor, seed: int) -> float:
    """Return the largest error of `exact_readoff` on 1,000 Gaussian inputs; NaN if these neurons have no such readoff.

    The inputs have length 1 if the weights are +-1.
    """
    try:
        readoff = exact_readoff(W)
    except ZooError:
        return math.nan
    i, j = all_pairs(W.shape[1])
    x = torch.randn(1000, W.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if (W.abs() == 1).all():
        x = x / x.norm(dim=1, keepdim=True)
    return ((x @ W.double().T).square() @ readoff.T - x[:, i] * x[:, j]).abs().max().item()


def random_weights(kind: str, d: int, m: int, seed: int) -> Tensor:
    """Return random weights, (d, m) float64: standard normal if `kind` is gaussian, and +-1 if it is signs."""
    W = torch.randn(d, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return W.sign() if kind == "signs" else W


def best_readoff_loss(m: int, d: int, output_bias: bool, seed: int) -> float:
    """Return the balanced loss of the best readoff of random ReLU neurons, for ANDs of m inputs, two of them on.

    The weights are standard normal, without biases. The loss is exact, over all m (m - 1) / 2 inputs.

    Args:
        m: Number of inputs.
        d: Number of neurons.
        output_bias: Whether the readoff has biases.
        seed: Seed of the weights.
    """
    f = all_vectors(m).double()  # vector k has pair k on, so that the targets are the identity
    h = (f @ random_weights("gaussian", d, m, seed).T).relu()
    h = torch.cat([h, torch.ones(len(f), 1, dtype=torch.float64)], 1) if output_bias else h
    target = torch.eye(len(f), dtype=torch.float64)
    pi = 1 / len(f)
    root = torch.where(target > 0, pi, 1 - pi).rsqrt()  # roots of the weights of the errors, (pairs, vectors)
    wanted = (root * target).unsqueeze(2)
    design = root.unsqueeze(2) * h
    readoff = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    return (design @ readoff - wanted).square().mean((1, 2)).mean().item()
