"""The network of compressed computation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.models.toy.neurons import affine
from zoo.network import Network


class CompressedNet(Network):
    """Networks y = ReLU(x W_in + b_in) W_out with fewer neurons than outputs, for several seeds at once.

    With `residual`, y = x W_E W_Eᵀ - x + ReLU(x W_E W_in + b_in) W_out W_Eᵀ: the output of a residual stream, less the
    part of the label that needs no neurons.

    Args:
        n_features: Number of inputs and outputs n.
        d_mlp: Number of neurons d.
        n_seeds: Number of networks.
        mixing: Factor of the mixing matrix M = mixing (W_E W_Eᵀ - I), which is part of the labels.
        d_embed: Number of dimensions of W_E, whose rows are random unit vectors.
        residual: Whether neurons read from and write to a residual stream.
        bias: Whether neurons have biases.

    Raises:
        ZooError: If a size is not positive, or labels are mixed in a residual stream.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."
    M: Tensor  # mixing matrix (n_features, n_features)
    W_E: Tensor  # (n_features, d_embed)

    def __init__(
        self,
        n_features: int,
        d_mlp: int,
        n_seeds: int = 1,
        mixing: float = 0.0,
        d_embed: int = 1000,
        residual: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"n_features": n_features, "d_mlp": d_mlp, "n_seeds": n_seeds, "mixing": mixing}
        self.config |= {"d_embed": d_embed, "residual": residual, "bias": bias}
        for name in ("n_features", "d_mlp", "n_seeds", "d_embed"):
            if self.config[name] < 1:
                raise ZooError(f"{name} is {self.config[name]}; it must be at least 1")
        if residual and mixing:
            raise ZooError(f"mixing is {mixing} with a residual stream, whose labels are not mixed; set one of them")
        width = d_embed if residual else n_features
        self.W_in = nn.Parameter(torch.randn(n_seeds, width, d_mlp) / width**0.5)
        self.b_in = nn.Parameter(torch.zeros(n_seeds, d_mlp)) if bias else None
        self.W_out = nn.Parameter(torch.randn(n_seeds, d_mlp, width) / (d_mlp * width) ** 0.5)
        W_E = F.normalize(torch.randn(n_features, d_embed), dim=1) if residual or mixing else torch.zeros(0, d_embed)
        self.register_buffer("W_E", W_E)
        M = torch.zeros(n_features, n_features)
        self.register_buffer("M", mixing * (W_E @ W_E.T - torch.eye(n_features)) if mixing else M)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the neurons' activations (n_seeds, B, d_mlp) on inputs (n_seeds, B, n_features)."""
        x = x @ self.W_E.to(x.dtype) if self.config["residual"] else x
        return F.relu(affine(x, self.W_in, self.b_in))

    def read(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, n_features) for inputs and the activations of the neurons."""
        y = h @ self.W_out
        W_E = self.W_E.to(y.dtype)
        return (x @ W_E + y) @ W_E.mT - x if self.config["residual"] else y

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, n_features) for inputs (n_seeds, B, n_features)."""
        return self.read(x, self.hidden(x))
