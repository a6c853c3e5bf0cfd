"""Toy models of superposition (Elhage et al. 2022)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import Network

Task = Literal["identity", "absolute"]


class SuperpositionNet(Network):
    """More features than dimensions (Elhage et al. 2022, "Toy Models of Superposition"), for several seeds at once.

    With `task` identity, y = ReLU(Wᵀ W x + b) should reconstruct x >= 0 from few dimensions. With `absolute`,
    y = ReLU(W_out ReLU(W_in x) + b) should equal |x| (the paper's section "Computation in Superposition"). Row i of
    `W_in` (column i of W in the paper) is the direction of feature i or, with `absolute`, its weights to the neurons.

    Args:
        n_features: Number of features n.
        d_hidden: Number of dimensions or neurons m.
        n_seeds: Number of networks.
        task: Function that the network should compute, `identity` or `absolute`.

    Raises:
        ZooError: If a size is not positive.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."

    def __init__(self, n_features: int, d_hidden: int, n_seeds: int = 1, task: Task = "identity") -> None:
        super().__init__()
        self.config: dict[str, Any] = {"n_features": n_features, "d_hidden": d_hidden, "n_seeds": n_seeds, "task": task}
        for name in ("n_features", "d_hidden", "n_seeds"):
            if self.config[name] < 1:
                raise ZooError(f"{name} is {self.config[name]}; it must be at least 1")
        spread = (2 / (n_features + d_hidden)) ** 0.5  # Glorot & Bengio's normal initialisation, as in the paper
        self.W_in = nn.Parameter(spread * torch.randn(n_seeds, n_features, d_hidden))
        if task == "absolute":
            self.W_out = nn.Parameter(spread * torch.randn(n_seeds, d_hidden, n_features))
        self.b = nn.Parameter(torch.zeros(n_seeds, n_features))

    def hidden(self, x: Tensor) -> Tensor:
        """Return hidden activations (n_seeds, B, d_hidden) of inputs (n_seeds, B, n_features) or (B, n_features)."""
        h = x @ self.W_in
        return F.relu(h) if self.config["task"] == "absolute" else h

    def read(self, h: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, n_features) for hidden activations (n_seeds, B, d_hidden)."""
        W_out = self.W_out if self.config["task"] == "absolute" else self.W_in.mT
        return F.relu(h @ W_out + self.b.unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, n_features) for inputs (n_seeds, B, n_features) or (B, n_features)."""
        return self.read(self.hidden(x))


def one_sparse_loss(W_in: Tensor, b: Tensor, importance: Tensor) -> Tensor:
    """Return the exact expected loss of y = ReLU(Wᵀ W x + b) for inputs with a single feature on.

    Every feature is on equally often, with a value that is uniform in [0, 1]. The loss is the potential H of Chen et
    al. 2023 ("Dynamical versus Bayesian Phase Transitions in a Toy Model of Superposition", arXiv 2310.06301,
    section 3), without its constants.

    Args:
        W_in: Directions, (S, n, m).
        b: Biases, (S, n).
        importance: Weight of every output's squared error, (S, n) or (n,).

    Returns:
        The sum over outputs of importance times mean squared error, (S,).
    """
    g = W_in @ W_in.mT  # (S, i, j): output j while i is on is ReLU(g x + b_j)
    b = b.unsqueeze(1).expand_as(g)
    # The part of [0, 1] where g x + b > 0. The integrand is continuous at its ends, so the ends need no gradient.
    with torch.no_grad():
        root = (-b / g.masked_fill(g == 0, 1.0)).clamp(0, 1)
        start = torch.where(g > 0, root, 0.0)
        end = torch.where(g > 0, 1.0, torch.where(g < 0, root, (b > 0).to(g.dtype)))
    wanted = torch.eye(g.shape[1], dtype=g.dtype, device=g.device)
    slope = g - wanted  # of the error g x + b - x; where the output is 0, the error is x or 0
    cubes, squares, lengths = ((end**k - start**k) / k for k in (3, 2, 1))
    error = slope**2 * cubes + 2 * slope * b * squares + b**2 * lengths + wanted * (1 / 3 - cubes)
    return (error * importance.unsqueeze(-2)).sum((1, 2)) / g.shape[1]
