"""Random maps from parameters to Boolean functions of n inputs.

A map draws its parameters at random and computes one real number for every input; the function is f(x) = [output > 0].
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations
from math import comb, prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.functions.keys import Keys, check_n_inputs, inputs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Activation = Literal["relu", "tanh", "sigmoid", "sine", "sign", "identity"]
Coding = Literal["bits", "signs"]
ACTIVATIONS = ("relu", "tanh", "sigmoid", "sine", "sign", "identity")
CODINGS = ("bits", "signs")


class ParameterFunctionMap(ABC):
    """A random map from parameters to Boolean functions of n inputs.

    A map of one's own is a subclass with `n_inputs`, `n_parameters` and `sample`. For example, random perceptrons:

        class Perceptron(ParameterFunctionMap):
            n_inputs, n_parameters = 3, 3

            def sample(self, size, generator):
                x = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=torch.float32)
                return torch.randn(size, 3, generator=generator) @ x.T

    Attributes:
        n_inputs: Number n of Boolean inputs, from 1 to 8.
        n_parameters: Number of random parameters of one function.
        name: How reports call the map; by default, the name of the class.
    """

    n_inputs: int

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of random parameters of one function."""

    @property
    def name(self) -> str:
        """How reports call the map."""
        return type(self).__name__

    @abstractmethod
    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Draw the parameters of random functions and return the outputs for all inputs.

        Args:
            size: Number of functions.
            generator: Source of all random numbers. Parameters are drawn on its device.

        Returns:
            Outputs (size, 2^n), real or Boolean, in the order of tables (see `zoo.functions.keys`).
        """

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int] | None:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code; None if there is none.

        Args:
            size: Number of functions.
            stream: State of the random numbers, which is advanced; see `zoo.functions.streams`.
            at_zero: Value of a function, 0 or 1, where the output is exactly 0.
        """
        return None


def coded_inputs(n_inputs: int, coding: Coding) -> npt.NDArray[np.float32]:
    """Return all inputs (2^n, n), coded as 0 and 1 (bits) or as -1 and 1 (signs)."""
    x = inputs(n_inputs).astype(np.float32)
    return x if coding == "bits" else 2 * x - 1


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ZooError(message)


def _check_coding(coding: str) -> None:
    _check(coding in CODINGS, f"coding is {coding!r}; it must be 'bits' (0 and 1) or 'signs' (-1 and 1)")


def _normals(generator: "torch.Generator", *shape: int) -> "Tensor":
    import torch

    return torch.randn(shape, generator=generator, device=generator.device)


def _on(generator: "torch.Generator", values: npt.NDArray[np.float32]) -> "Tensor":
    import torch

    return torch.from_numpy(values).to(generator.device)


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
        _check(all(w >= 1 for w in self.widths), f"widths are {self.widths}; a layer needs at least one neuron")
        known = ", ".join(ACTIVATIONS)
        _check(self.activation in ACTIVATIONS, f"activation is {self.activation!r}; it must be one of {known}")
        _check(self.sigma_w > 0, f"sigma_w is {self.sigma_w}; it must be positive")
        _check(self.sigma_b >= 0, f"sigma_b is {self.sigma_b}; it must be 0 or positive")
        _check_coding(self.coding)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes (outputs, inputs) of the layers' weights, in order."""
        sizes = (self.n_inputs, *self.widths, 1)
        return [(after, before) for before, after in zip(sizes[:-1], sizes[1:], strict=True)]

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

        h = _on(generator, coded_inputs(self.n_inputs, self.coding)).T.expand(size, -1, -1)  # (size, fan_in, 2^n)
        for layer, (n_out, fan_in) in enumerate(self.shapes):
            if layer:
                h = _activated(h, self.activation)
            h = torch.bmm(_normals(generator, size, n_out, fan_in) * (self.sigma_w / fan_in**0.5), h)
            if self.sigma_b:
                h = h + self.sigma_b * _normals(generator, size, n_out, 1)
        return h[:, 0]


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


class _LinearInFeatures(ParameterFunctionMap):
    """A sum of fixed functions of the inputs with independent coefficients from N(0, 1)."""

    @abstractmethod
    def features(self) -> npt.NDArray[np.float32]:
        """Return the values (n_parameters, 2^n) of the fixed functions."""

    @property
    def n_parameters(self) -> int:
        """Number of coefficients."""
        return len(self.features())

    def sample(self, size: int, generator: "torch.Generator") -> "Tensor":
        """Return the sums (size, 2^n)."""
        features = _on(generator, self.features())
        return _normals(generator, size, len(features)) @ features


@dataclass(frozen=True)
class Polynomial(_LinearInFeatures):
    """A polynomial of n inputs with a coefficient from N(0, 1) for every monomial up to a degree.

    Monomials are products of different inputs, including the empty product 1. Powers of an input give no other function:
    x^2 = x for bits, and x^2 = 1 for signs.

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
        _check(
            0 <= self.degree <= self.n_inputs,
            f"degree is {self.degree}; it must be from 0 to the number of inputs, {self.n_inputs}",
        )
        _check_coding(self.coding)

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
class LinearThreshold(_LinearInFeatures):
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
        _check_coding(self.coding)

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
    """A sum of waves of the inputs: f(x) = sum_k a_k cos(w_k . x) + b_k sin(w_k . x).

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
        _check(self.n_waves >= 1, f"n_waves is {self.n_waves}; it must be at least 1")
        _check(self.bandwidth > 0, f"bandwidth is {self.bandwidth}; it must be positive")
        _check_coding(self.coding)

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

        x = _on(generator, coded_inputs(self.n_inputs, self.coding))
        phase = _normals(generator, size, self.n_waves, self.n_inputs) * self.bandwidth @ x.T
        a = _normals(generator, size, 2, 1, self.n_waves)
        return (torch.matmul(a[:, 0], phase.cos()) + torch.matmul(a[:, 1], phase.sin()))[:, 0]


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
        _check(self.width >= 1, f"width is {self.width}; a layer needs at least one gate")
        _check(self.n_layers >= 0, f"n_layers is {self.n_layers}; it must be 0 or more")

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
        values = _on(generator, coded_inputs(self.n_inputs, "bits")).T.long().expand(size, -1, -1)  # (size, gates, 2^n)
        for width in [*[self.width] * self.n_layers, 1]:
            wires = torch.randint(values.shape[1], (2, size, width, 1), **device)
            kinds = torch.randint(16, (size, width, 1), **device)
            first, second = (values.gather(1, w.expand(-1, -1, values.shape[2])) for w in wires)
            values = kinds >> (2 * first + second) & 1
        return values[:, 0].bool()


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
