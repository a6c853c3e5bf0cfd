"""Networks that are small enough to sample their whole parameter space, with real-valued losses of known minimum 0.

Parameters are flat vectors, and the prior is N(0, 1) for each. A target is the vector of wanted outputs. The loss K is
half the mean squared error, which is the Kullback-Leibler divergence in nats per data point for noise of variance 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from zoo.errors import ZooError


class SmallNetwork(Protocol):
    """A family of networks."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters d."""

    @property
    def points(self) -> int:
        """Number of equally likely inputs by which squared errors are divided; 1 if outputs are matrix entries."""

    def outputs(self, w: Tensor) -> Tensor:
        """Return the outputs (N, m) of networks with parameters (N, d)."""


@dataclass(frozen=True)
class LinearNetwork:
    """y = B A x with x ~ N(0, 1): its outputs are the entries of B A, and K = |B A - C|² / 2 for a target C.

    Args:
        n_in: Number of inputs.
        width: Number of rows of A (width, n_in) and columns of B (n_out, width).
        n_out: Number of outputs.
    """

    n_in: int
    width: int
    n_out: int
    points: int = 1

    @property
    def n_parameters(self) -> int:
        """Number of entries of A and B."""
        return self.width * (self.n_in + self.n_out)

    def outputs(self, w: Tensor) -> Tensor:
        """Return the entries of B A, (N, n_out * n_in)."""
        A, B = w.split([self.width * self.n_in, self.n_out * self.width], dim=-1)
        product = B.unflatten(-1, (self.n_out, self.width)) @ A.unflatten(-1, (self.width, self.n_in))
        return product.flatten(-2)

    def target(self, singular_values: Sequence[float]) -> Tensor:
        """Return the diagonal matrix C with these singular values and otherwise zeros, flat (n_out * n_in,) float64.

        Raises:
            ZooError: If there are more singular values than the network can represent.
        """
        if len(singular_values) > min(self.n_in, self.width, self.n_out):
            raise ZooError(
                f"there are {len(singular_values)} singular values; B A has rank "
                f"{min(self.n_in, self.width, self.n_out)} at most"
            )
        C = torch.zeros(self.n_out, self.n_in, dtype=torch.float64)
        for i, value in enumerate(singular_values):
            C[i, i] = value
        return C.flatten()


@dataclass(frozen=True)
class TanhNetwork:
    """f(x) = c + sum_j a_j tanh(w_j·x + b_j) on all inputs with coordinates -1 and 1, which are equally likely.

    Args:
        n_bits: Number of inputs n.
        width: Number of hidden units.
    """

    n_bits: int
    width: int

    @property
    def n_parameters(self) -> int:
        """Number of weights w, a and biases b, c."""
        return self.width * (self.n_bits + 2) + 1

    @property
    def points(self) -> int:
        """Number of inputs, 2^n."""
        return 2**self.n_bits

    def inputs(self, w: Tensor) -> Tensor:
        """Return all inputs on the device and in the type of `w`, (2^n, n)."""
        return torch.cartesian_prod(*[w.new_tensor([-1.0, 1.0])] * self.n_bits).view(self.points, self.n_bits)

    def outputs(self, w: Tensor) -> Tensor:
        """Return the outputs for all inputs, (N, 2^n)."""
        sizes = [self.width * self.n_bits, self.width, self.width, 1]
        W, b, a, c = w.split(sizes, dim=-1)
        hidden = torch.tanh(W.unflatten(-1, (self.width, self.n_bits)) @ self.inputs(w).T + b[..., None])
        return (a[..., None] * hidden).sum(-2) + c


class Parameters(nn.Module):
    """A module whose only parameter is a vector w, for functions that take a module.

    Args:
        w: Parameters, (d,).
    """

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self) -> Tensor:
        """Return w."""
        return self.w


def loss(network: SmallNetwork, target: Tensor, w: Tensor) -> Tensor:
    """Return K, half the mean squared error, in nats (N,).

    Args:
        network: The family of networks.
        target: Wanted outputs, (m,).
        w: Parameters, (N, d).
    """
    return (network.outputs(w) - target).square().sum(-1) / (2 * network.points)


def minimum_near(network: SmallNetwork, target: Tensor, w: Tensor, steps: int = 500) -> tuple[Tensor, Tensor]:
    """Descend from parameters to a minimum of the loss nearby, by the method of Levenberg and Marquardt.

    Args:
        network: The family of networks.
        target: Wanted outputs, (m,).
        w: Parameters from which to start, (N, d) float64.
        steps: Number of steps.

    Returns:
        The parameters (N, d), and their losses (N,).
    """
    jacobian_of = torch.func.vmap(torch.func.jacrev(network.outputs))
    damping = w.new_full((len(w),), 1e-2)
    K = loss(network, target, w)
    for _ in range(steps):
        J = jacobian_of(w)  # (N, m, d)
        residual = network.outputs(w) - target
        inner = J @ J.mT + damping[:, None, None] * torch.eye(J.shape[1], dtype=w.dtype, device=w.device)
        step = (J.mT @ torch.linalg.solve(inner, residual[..., None])).squeeze(-1)
        tried = loss(network, target, w - step)
        better = tried < K
        w, K = torch.where(better[:, None], w - step, w), torch.where(better, tried, K)
        damping = torch.where(better, damping / 3, damping * 3).clamp(1e-12, 1e6)
    return w, K


def quadratic_coefficient(
    network: SmallNetwork, target: Tensor, w: Tensor, n_beta: float, localization: float
) -> Tensor:
    """Return what the local learning coefficient would be if the loss were its second-order expansion at a zero of K.

    It is Σ_i nβ h_i / (2 (nβ h_i + γ)) over the eigenvalues h_i of the Hessian, which is Jᵀ J / points where K is 0.
    With nβ going to infinity it is half the rank of the Jacobian J of the outputs, the local learning coefficient
    wherever the parameters with K = 0 form a smooth manifold with J of constant rank.

    Args:
        network: The family of networks.
        target: Wanted outputs, (m,).
        w: Parameters with K = 0, (N, d).
        n_beta: Inverse temperature nβ; infinity for half the rank.
        localization: Localization γ.

    Returns:
        The values, (N,).
    """
    h = torch.linalg.svdvals(torch.func.vmap(torch.func.jacrev(network.outputs))(w)) ** 2 / network.points
    if n_beta == float("inf"):
        return (h > 1e-9 * h.amax(1, keepdim=True)).sum(1) / 2
    return (n_beta * h / (n_beta * h + localization)).sum(1) / 2


def boolean_target(function: int, n_bits: int) -> Tensor:
    """Return the outputs -1 and 1 of a Boolean function for all inputs, (2^n,) float64.

    Bit i of the function is its value for input i, see `zoo.analysis.boolean_classes`.
    """
    return torch.tensor([2.0 * (function >> i & 1) - 1 for i in range(2**n_bits)], dtype=torch.float64)
