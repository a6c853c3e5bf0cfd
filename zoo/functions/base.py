"""A random map from parameters to Boolean functions of n inputs: the class, and parts that the zoo's maps share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.functions.keys import Keys, inputs, n_words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Coding = Literal["bits", "signs"]


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


def check(condition: bool, message: str) -> None:
    """Raise a ZooError with this message unless the condition holds."""
    if not condition:
        raise ZooError(message)


def check_coding(coding: str) -> None:
    """Refuse codings of inputs other than bits and signs."""
    check(coding in ("bits", "signs"), f"coding is {coding!r}; it must be 'bits' (0 and 1) or 'signs' (-1 and 1)")


def normals(generator: "torch.Generator", *shape: int) -> "Tensor":
    """Return independent numbers from N(0, 1) on the generator's device."""
    import torch

    return torch.randn(shape, generator=generator, device=generator.device)


def on_device(generator: "torch.Generator", values: npt.NDArray[np.float32]) -> "Tensor":
    """Return an array as a tensor on the generator's device."""
    import torch

    return torch.from_numpy(values).to(generator.device)


def network_keys(
    map: ParameterFunctionMap,
    size: int,
    stream: npt.NDArray[np.uint32],
    at_zero: int,
    features: npt.NDArray[np.float32],
    shapes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    sigma_b: float = 0.0,
    activation: int = 0,
) -> tuple[Keys, int]:
    """Return what `fast_keys` returns, for layers of weights of these shapes and scales on features (fan_in, 2^n)."""
    from zoo.functions import compiled_networks

    keys, ties, too_large = compiled_networks.network_keys(
        stream,
        size,
        np.ascontiguousarray(features),
        np.array(shapes),
        np.array(scales, dtype=np.float32),
        np.float32(sigma_b),
        activation,
        bool(at_zero),
        n_words(map.n_inputs),
    )
    check(not too_large, f"{map.name}: sums inside the map are too large for float32; choose smaller scales")
    return keys, ties


class LinearInFeatures(ParameterFunctionMap):
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
        features = on_device(generator, self.features())
        return normals(generator, size, len(features)) @ features

    def fast_keys(self, size: int, stream: npt.NDArray[np.uint32], at_zero: int) -> tuple[Keys, int]:
        """Return keys (size, words) and the number of outputs that are 0, from compiled code."""
        features = self.features()
        return network_keys(self, size, stream, at_zero, features, [(1, len(features))], [1.0])
