"""Exact losses and bounds for compressed computation: n functions ReLU(x_i) with fewer than n neurons.

The inputs x_i are independent. Each is uniform in [-1, 1] with probability p, and 0 otherwise. A network of d neurons,
y = V ReLU(W x), should give ReLU(x_i) + (M x)_i. The matrix M is 0 for clean labels. Every loss here is the mean
squared error per output, divided by p. (The task is from Braun et al. 2025, "Interpretability in Parameter Space:
Minimizing Mechanistic Description Length with Attribution-based Parameter Decomposition".)
"""

import torch
from torch import Tensor

from zoo.errors import ZooError


def zero_map_loss(M: Tensor | None = None) -> float:
    """Return the loss of y = 0: 1/6, and (|M|² + tr M) / (3 n) more with a mixing matrix M (n, n).

    It is E[(ReLU(x_i) + (M x)_i)²] / p, where E[x²] = p/3, E[ReLU(x)²] = E[ReLU(x) x] = p/6, and x has mean 0.
    """
    if M is None:
        return 1 / 6
    return 1 / 6 + (M.square().sum().item() + M.trace().item()) / (3 * len(M))


def dedicated_loss(d: int, n: int, p: float = 0.0) -> float:
    """Return the loss on clean labels if every neuron computes one function, and all other outputs use their sum.

    The other outputs are b times the sum of all d neurons. Least squares gives b = 3p / (8 + 3 (d - 1) p), and the loss
    (1 - d/n) [1/6 - 3 d p² / (16 (8 + 3 (d - 1) p))]. It is (1 - d/n) / 6 for p = 0, where b is 0.

    Args:
        d: Number of neurons.
        n: Number of functions.
        p: Probability that an input is not 0.

    Raises:
        ZooError: If p is not in [0, 1], or d is not between 1 and n.
    """
    _check(d, n, p)
    return (1 - d / n) * (1 / 6 - 3 * d * p**2 / (16 * (8 + 3 * (d - 1) * p)))


def dedicated_mixed_loss(d: int, M: Tensor) -> float:
    """Return the loss on mixed labels if neuron i computes ReLU(x_i) for i < d, and the other outputs are 0.

    The labels contain M x, which these neurons leave out: (1 - d/n) / 6 + (|M|² + sum over i >= d of M_ii) / (3 n). It
    holds for every probability p. The usual line (1 - d/n) / 6 leaves M out of the labels, so that networks which only
    learn part of M x seem to be better than dedicated neurons.

    Args:
        d: Number of neurons.
        M: Mixing matrix (n, n).

    Raises:
        ZooError: If d is not between 1 and n.
    """
    n = len(M)
    _check(d, n, 0)
    return (1 - d / n) / 6 + (M.square().sum().item() + M.diagonal()[d:].sum().item()) / (3 * n)


def curve_r2(own: Tensor) -> Tensor:
    """Return the R² between ReLU(x) and an output's response to its own input x alone, for x uniform in [-1, 1].

    Without biases, the response is a x for x > 0 and b |x| for x < 0. The squared correlation, which does not depend on
    the size of the response, is (a/6 - (a + b)/16)² / [(1/6 - 1/16) ((a² + b²)/6 - (a + b)²/16)]; 0 if a = b = 0.

    Args:
        own: Responses a and b to the inputs 1 and -1, (2, ...).

    Returns:
        R², (...).
    """
    a, b = own.double()
    covariance = a / 6 - (a + b) / 16
    variance = (a.square() + b.square()) / 6 - (a + b).square() / 16
    return (covariance.square() / (variance * (1 / 6 - 1 / 16))).nan_to_num(0.0)


def least_loss(d: int, n: int, p: float, M: Tensor | None = None) -> float:
    """Return a lower bound for any outputs in an affine space of d dimensions, whatever the neurons compute.

    The covariance of the targets, divided by p, is C = (1/6 - p/16) I + M Mᵀ / 3 + (M + Mᵀ) / 6. The bound is the sum
    of its n - d smallest eigenvalues, divided by n. For clean labels it is (1 - d/n) (1/6 - p/16). It also holds with
    an output bias.

    Args:
        d: Number of neurons.
        n: Number of functions.
        p: Probability that an input is not 0.
        M: Mixing matrix (n, n); None for clean labels.

    Raises:
        ZooError: If p is not in [0, 1], or d is not between 1 and n.
    """
    _check(d, n, p)
    if M is None:
        return (1 - d / n) * (1 / 6 - p / 16)
    M = M.double()
    C = (1 / 6 - p / 16) * torch.eye(n, dtype=M.dtype, device=M.device) + M @ M.T / 3 + (M + M.T) / 6
    return torch.linalg.eigvalsh(C)[: n - d].sum().item() / n


def one_active_loss(W: Tensor, V: Tensor, M: Tensor | None = None) -> Tensor:
    """Return the exact loss in the limit p -> 0, where only one input is on.

    It is (|I + M - V ReLU(W)|² + |M + V ReLU(-W)|²) / (6 n): the first term is for positive inputs, the second for
    negative ones.

    Args:
        W: Weights from inputs to neurons, (..., d, n).
        V: Weights from neurons to outputs, (..., n, d).
        M: Mixing matrix, (n, n) or (..., n, n); None for clean labels.

    Returns:
        The loss of every network, (...).
    """
    n = W.shape[-1]
    M = torch.zeros(n, n, dtype=W.dtype, device=W.device) if M is None else M
    eye = torch.eye(n, dtype=W.dtype, device=W.device)
    positive, negative = eye + M - V @ W.relu(), M + V @ (-W).relu()
    return (positive.square().sum((-2, -1)) + negative.square().sum((-2, -1))) / (6 * n)


def _check(d: int, n: int, p: float) -> None:
    if not 1 <= d <= n:
        raise ZooError(f"there are {d} neurons for {n} functions; the number of neurons must be 1 to {n}")
    if not 0 <= p <= 1:
        raise ZooError(f"p is {p}; a probability is between 0 and 1")
