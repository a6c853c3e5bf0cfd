"""Random maps from parameters to Boolean functions of n inputs.

Networks with Gaussian weights, polynomials, perceptrons, sums of random waves, random circuits and random tables. Each
computes one real number or one bit for every input; the function of real numbers is f(x) = [output > 0].
"""

from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb, prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from zoo.functions.base import (
    Coding,
    LinearInFeatures,
    ParameterFunctionMap,
    check,
    check_coding,
    coded_inputs,
    network_keys,
    normals,
    on_device,
)
from zoo.functions.keys import Keys, check_n_inputs, inputs, keys_from_tables, n_words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Activation = Literal["relu", "tanh", "sigmoid", "sine", "sign", "identity"]
ACTIVATIONS = ("relu", "tanh", "sigmoid", "sine", "sign", "identity")  # in the order of compiled_networks
WAVES = len(ACTIVATIONS)  # sines and cosines of every number, in compiled_networks


@dataclass(frozen=True)
class MLP(ParameterFunctionMap):
    """A multilayer perceptron with Gaussian weights and one linear output.

    Every layer computes W h + b. Weights are drawn from N(0, sigma_w^2 / fan_in) and biases from N(0, sigma_b^2), where
    fan_in is the number of the layer's inputs. The activation follows every layer but the last. With `widths=()` the
    network is a perceptron.

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        widths: Numbers of neurons of the hidden layers.
        activation: "relu", "tanh", "sigmoid", "sine", "sign" (-1, or 1 where the input is positive) or "identity".
        sigma_w: Standard deviation of the weights, times the square root of fan_in.
        sigma_b: Standard deviation of the biases. With 0 there are none.
        coding: "bits" for inputs 0 and 1, "signs" for inputs -1 and 1.
    """

    n_inputs: int = 7
    widths: tuple[int, ...] = (40, 40)
    activation: Activation = "relu"
    sigma_w: float = 1.0
    sigma_b: float = 1.0
    coding: Coding = "bits"

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)
        object.__setattr__(self, "widths", tuple(self.widths))
        check(all(w >= 1 for w in self.widths), f"widths are {self.widths}; a layer needs at least one neuron")
        known = ", ".join(ACTIVATIONS)
        check(self.activation in ACTIVATIONS, f"activation is {self.activation!r}; it must be one of {known}")
        check(self.sigma_w > 0, f"sigma_w is {self.sigma_w}; it must be positive")
        check(self.sigma_b >= 0, f"sigma_b is {self.sigma_b}; it must be 0 or positive")
        check_coding(self.coding)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes (outputs, inputs) of the layers' weights, in order."""
        sizes = (self.n_inputs, *self.widths, 1)
        return [(after, before) for before, after in pairwise(sizes)]

    @property
    def n_parameters(self) -> int:
        """Number of weights and, unless sigma_b is 0, of biases."""
        return sum(prod(shape) + shape[0] * (self.sigma_b > 0) for shape in self.shapes)

    @property
    def name(self) -> str:
        """Sizes of the layers, activation and scales."""
        sizes = "-".join(map(str, (self.n_inputs, *self.widths, 1)))
        scales = f"sigma_w {self.sigma_w:g}, sigma_b {self.sigma_b:g}"
        return f"MLP {sizes}, {self.activation}, {scales}, {self.coding}"

    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Return the networks' outputs (size, 2^n)."""
        import torch

        h = on_device(generator, coded_inputs(self.n_inputs, self.coding)).T.expand(size, -1, -1)  # (size, fan_in, 2^n)
        for layer, (n_out, fan_in) in enumerate(self.shapes):
            if layer:
                h = _activated(h, self.activation)
            h = torch.bmm(normals(generator, size, n_out, fan_in) * (self.sigma_w / fan_in**0.5), h)
            if self.sigma_b:
                h = h + self.sigma_b * normals(generator, size, n_out, 1)
        return h[:, 0]

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int]:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code."""
        scales = [self.sigma_w / fan_in**0.5 for _, fan_in in self.shapes]
        features, activation = coded_inputs(self.n_inputs, self.coding).T, ACTIVATIONS.index(self.activation)
        return network_keys(self, size, stream, at_zero, features, self.shapes, scales, self.sigma_b, activation)


def _activated(h: "Tensor", activation: Activation) -> "Tensor":
    import torch

    match activation:
        case "relu":
            return h.relu()
        case "tanh":
            return h.tanh()
        case "sigmoid":
            return h.sigmoid()
        case "sine":
            return h.sin()
        case "sign":
            return torch.where(h > 0, 1.0, -1.0)
        case "identity":
            return h


@dataclass(frozen=True)
class Polynomial(LinearInFeatures):
    """A polynomial of n inputs with a coefficient from N(0, 1) for every monomial up to a degree.

    Monomials are products of different inputs, including the empty product 1. Powers of an input would add nothing,
    since x^2 = x for bits, and x^2 = 1 for signs.

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        degree: Largest number of inputs in a monomial, from 0 to n.
        coding: "bits" for inputs 0 and 1, "signs" for inputs -1 and 1.
    """

    n_inputs: int = 7
    degree: int = 2
    coding: Coding = "bits"

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)
        check(
            0 <= self.degree <= self.n_inputs,
            f"degree is {self.degree}; it must be from 0 to the number of inputs, {self.n_inputs}",
        )
        check_coding(self.coding)

    @property
    def n_parameters(self) -> int:
        """Number of monomials."""
        return sum(comb(self.n_inputs, k) for k in range(self.degree + 1))

    @property
    def name(self) -> str:
        """Degree, number of inputs and coding."""
        return f"polynomial of degree {self.degree}, {self.n_inputs} inputs, {self.coding}"

    def features(self) -> npt.NDArray[np.float32]:
        """Return the values (number of monomials, 2^n) of all monomials."""
        x = coded_inputs(self.n_inputs, self.coding)
        chosen = [list(c) for k in range(self.degree + 1) for c in combinations(range(self.n_inputs), k)]
        return np.stack([x[:, c].prod(1) for c in chosen])


@dataclass(frozen=True)
class LinearThreshold(LinearInFeatures):
    """A perceptron: a weighted sum of the inputs and, optionally, a bias, with weights and bias from N(0, 1).

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        bias: Whether there is a bias.
        coding: "bits" for inputs 0 and 1, "signs" for inputs -1 and 1.
    """

    n_inputs: int = 7
    bias: bool = True
    coding: Coding = "bits"

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)
        check_coding(self.coding)

    @property
    def name(self) -> str:
        """Number of inputs, bias and coding."""
        return f"linear threshold {'with' if self.bias else 'without'} bias, {self.n_inputs} inputs, {self.coding}"

    def features(self) -> npt.NDArray[np.float32]:
        """Return the inputs (n, 2^n), and a row of ones for the bias."""
        x = coded_inputs(self.n_inputs, self.coding).T
        return np.vstack([x, np.ones_like(x[:1])]) if self.bias else np.ascontiguousarray(x)


@dataclass(frozen=True)
class RandomFourier(ParameterFunctionMap):
    """A sum of waves of the inputs: f(x) = sum_k a_k sin(w_k . x) + b_k cos(w_k . x).

    a and b are drawn from N(0, 1), frequencies w_k from N(0, bandwidth^2) in each input. For many waves the outputs are
    a Gaussian process whose kernel is exp(-bandwidth^2 |x - y|^2 / 2) (Rahimi and Recht 2007, Random Features for
    Large-Scale Kernel Machines). If the bandwidth is large as well, all functions are equally probable.

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        n_waves: Number of frequencies w_k.
        bandwidth: Standard deviation of the frequencies, in radians.
        coding: "bits" for inputs 0 and 1, "signs" for inputs -1 and 1.
    """

    n_inputs: int = 7
    n_waves: int = 100
    bandwidth: float = 1.0
    coding: Coding = "bits"

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)
        check(self.n_waves >= 1, f"n_waves is {self.n_waves}; it must be at least 1")
        check(self.bandwidth > 0, f"bandwidth is {self.bandwidth}; it must be positive")
        check_coding(self.coding)

    @property
    def n_parameters(self) -> int:
        """Number of frequencies and amplitudes."""
        return self.n_waves * (self.n_inputs + 2)

    @property
    def name(self) -> str:
        """Number of waves, bandwidth, number of inputs and coding."""
        return f"{self.n_waves} random waves, bandwidth {self.bandwidth:g}, {self.n_inputs} inputs, {self.coding}"

    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Return the sums (size, 2^n)."""
        import torch

        x = on_device(generator, coded_inputs(self.n_inputs, self.coding))
        phase = normals(generator, size, self.n_waves, self.n_inputs) * self.bandwidth @ x.T
        a = normals(generator, size, 2, 1, self.n_waves)
        return (torch.matmul(a[:, 0], phase.sin()) + torch.matmul(a[:, 1], phase.cos()))[:, 0]

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int]:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code."""
        shapes = [(self.n_waves, self.n_inputs), (1, 2 * self.n_waves)]
        features = coded_inputs(self.n_inputs, self.coding).T
        return network_keys(self, size, stream, at_zero, features, shapes, [self.bandwidth, 1.0], activation=WAVES)


@dataclass(frozen=True)
class BooleanMachine(ParameterFunctionMap):
    """A layered random Boolean circuit.

    Every gate of a layer reads two outputs of the layer before, or two inputs, chosen independently and uniformly, and
    computes one of the 16 Boolean functions of two bits, chosen uniformly. A last layer of one gate is the output.

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        width: Number of gates in every layer but the last.
        n_layers: Number of layers of that width before the output gate.
    """

    n_inputs: int = 7
    width: int = 20
    n_layers: int = 5

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)
        check(self.width >= 1, f"width is {self.width}; a layer needs at least one gate")
        check(self.n_layers >= 0, f"n_layers is {self.n_layers}; it must be 0 or more")

    @property
    def n_parameters(self) -> int:
        """Three per gate: two wires and the kind of gate."""
        return 3 * (self.n_layers * self.width + 1)

    @property
    def name(self) -> str:
        """Width, number of layers and number of inputs."""
        return f"Boolean machine, {self.n_layers} layers of {self.width} gates, {self.n_inputs} inputs"

    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Return the machines' outputs (size, 2^n), Boolean."""
        import torch

        device: Any = {"generator": generator, "device": generator.device}
        values = (
            on_device(generator, coded_inputs(self.n_inputs, "bits")).T.long().expand(size, -1, -1)
        )  # (size, gates, 2^n)
        for width in [*[self.width] * self.n_layers, 1]:
            wires = torch.randint(values.shape[1], (2, size, width, 1), **device)
            kinds = torch.randint(16, (size, width, 1), **device)
            first, second = (values.gather(1, w.expand(-1, -1, values.shape[2])) for w in wires)
            values = kinds >> (2 * first + second) & 1
        return values[:, 0].bool()

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int]:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code."""
        from zoo.functions.compiled_circuits import circuit_keys

        columns = keys_from_tables(inputs(self.n_inputs).T)
        return circuit_keys(stream, size, columns, self.width, self.n_layers, 2**self.n_inputs), 0


@dataclass(frozen=True)
class RandomTable(ParameterFunctionMap):
    """A table of independent fair bits: every function has the probability 2^-(2^n).

    Args:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
    """

    n_inputs: int = 7

    def __post_init__(self) -> None:
        check_n_inputs(self.n_inputs)

    @property
    def n_parameters(self) -> int:
        """Number of bits in the table."""
        return 2**self.n_inputs

    @property
    def name(self) -> str:
        """Number of inputs."""
        return f"random tables, {self.n_inputs} inputs"

    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Return the tables (size, 2^n), Boolean."""
        import torch

        shape = (size, 2**self.n_inputs)
        return torch.randint(2, shape, generator=generator, device=generator.device).bool()

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int]:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code."""
        from zoo.functions.compiled_circuits import table_keys

        return table_keys(stream, size, 2**self.n_inputs, n_words(self.n_inputs)), 0
