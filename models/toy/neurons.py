"""One layer of neurons that approximates many functions at once, with fewer neurons than functions."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import Network

Neuron = Literal["linear", "relu", "absolute", "square", "bilinear"]
PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": Tensor.relu,
    "absolute": Tensor.abs,
    "square": Tensor.square,
}
NEURONS = (*PHI, "bilinear")


class NeuronNet(Network):
    """Networks y = h W_out + b_out of one layer of neurons h = phi(x W_in + b_in), for several seeds at once.

    Args:
        d_in: Number of inputs.
        d_mlp: Number of neurons d.
        d_out: Number of outputs.
        n_seeds: Number of networks.
        neuron: phi(z): `linear` z, `relu` ReLU(z), `absolute` |z|, `square` z², `bilinear` z (x W_gate), where W_gate
            is a second matrix of weights.
        bias: Whether neurons have biases.
        output_bias: Whether outputs have biases.

    Raises:
        ZooError: If a size is not positive, or the neuron is unknown.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."

    def __init__(
        self,
        d_in: int,
        d_mlp: int,
        d_out: int,
        n_seeds: int = 1,
        neuron: Neuron = "relu",
        bias: bool = True,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"d_in": d_in, "d_mlp": d_mlp, "d_out": d_out, "n_seeds": n_seeds}
        for name, size in sizes.items():
            if size < 1:
                raise ZooError(f"{name} is {size}; it must be at least 1")
        if neuron not in NEURONS:
            raise ZooError(f"neuron is {neuron!r}; it must be one of {', '.join(NEURONS)}")
        self.config: dict[str, Any] = sizes | {"neuron": neuron, "bias": bias, "output_bias": output_bias}
        self.neuron = neuron
        self.W_in = nn.Parameter(torch.randn(n_seeds, d_in, d_mlp) / d_in**0.5)
        self.b_in = nn.Parameter(torch.zeros(n_seeds, d_mlp)) if bias else None
        if neuron == "bilinear":
            self.W_gate = nn.Parameter(torch.randn(n_seeds, d_in, d_mlp) / d_in**0.5)
        self.W_out = nn.Parameter(torch.randn(n_seeds, d_mlp, d_out) / (d_mlp * d_out) ** 0.5)
        self.b_out = nn.Parameter(torch.zeros(n_seeds, d_out)) if output_bias else None

    def hidden(self, x: Tensor) -> Tensor:
        """Return the neurons' activations (n_seeds, B, d_mlp) on inputs (n_seeds, B, d_in)."""
        z = affine(x, self.W_in, self.b_in)
        if self.neuron == "bilinear":
            return z * (x @ self.W_gate)
        return PHI[self.neuron](z)

    def read(self, h: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, d_out) for activations of the neurons (n_seeds, B, d_mlp)."""
        return affine(h, self.W_out, self.b_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n_seeds, B, d_out) for inputs (n_seeds, B, d_in)."""
        return self.read(self.hidden(x))


def affine(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """Return x W + b for x (S, B, n), W (S, n, m) and b (S, m), or x W without b."""
    return x @ W if b is None else torch.baddbmm(b.unsqueeze(1), x, W)
