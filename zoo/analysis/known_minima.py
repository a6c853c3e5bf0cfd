"""Potentials with parameters w* at which the local learning coefficient is known, for tests of samplers.

Every case is a network of `zoo.analysis.small_networks` or a monomial, see `zoo.analysis.singular_models`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zoo.analysis.singular_models import (
    LearningCoefficient,
    deep_linear,
    expected_monomial,
    monomial_learning_coefficient,
    reduced_rank_generic,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A potential K, a point w* with K(w*) = 0, and the exact value there.

    Args:
        kind: "monomial" for K = prod_i w_i^(2 k_i) with w* = 0. "linear" for K = |W_L ... W_1 - C|² / 2.
        sizes: Exponents k_i of a monomial, or widths of a linear network: inputs, hidden layers, outputs.
        rank: Rank of C, which has ones on its diagonal and zeros elsewhere.
        generic: Whether the first matrix of a linear network with two matrices has full rank at w*. By default all that
            C does not need is zero at w*, the most singular point.
    """

    kind: Literal["monomial", "linear"]
    sizes: tuple[int, ...]
    rank: int = 0
    generic: bool = False

    @property
    def name(self) -> str:
        """The case in words."""
        if self.kind == "monomial":
            return " ".join(f"w{i}^{2 * k}" for i, k in enumerate(self.sizes, 1))
        point = "generic point" if self.generic else "most singular point"
        return f"linear {'-'.join(map(str, self.sizes))}, rank {self.rank}, {point}"

    @property
    def localization(self) -> float:
        """Localization γ with which chains stay where the value holds.

        A generic point needs a strong one: the most singular point is at a distance of about 1, and chains that reach
        it find the smaller value there.
        """
        return 100.0 if self.generic else 1.0

    def limit(self) -> LearningCoefficient:
        """Return the learning coefficient at w* and its multiplicity."""
        if self.kind == "monomial":
            return monomial_learning_coefficient(self.sizes)
        if self.generic:
            n_in, width, n_out = self.sizes
            return LearningCoefficient(reduced_rank_generic(n_in, width, n_out, self.rank), 1)
        return deep_linear(self.sizes, self.rank)

    def expected(self, n_beta: float) -> float:
        """Return the expectation of nβK at finite nβ.

        For a monomial it is exact, under the density exp(-nβK - |w|²/2). For a linear network it is
        λ - (m - 1) / ln nβ, without terms that are smaller by a factor of ln nβ.
        """
        if self.kind == "monomial":
            return expected_monomial(self.sizes, n_beta)
        limit = self.limit()
        return limit.value - (limit.multiplicity - 1) / math.log(n_beta)

    def center(self) -> "Tensor":
        """Return w*, (d,) float64."""
        import torch

        if self.kind == "monomial":
            return torch.zeros(len(self.sizes), dtype=torch.float64)
        layers = []
        for layer, (n_in, n_out) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            W = torch.eye(n_out, n_in, dtype=torch.float64)
            if not (self.generic and layer == 0):
                W[self.rank :] = 0
                W[:, self.rank :] = 0
            layers.append(W.flatten())
        return torch.cat(layers)

    def potential(self, w: "Tensor") -> "Tensor":
        """Return K (N,) of parameters (N, d)."""
        import torch

        if self.kind == "monomial":
            return (w ** w.new_tensor([2 * k for k in self.sizes]).long()).prod(-1)
        shapes = list(zip(self.sizes[1:], self.sizes[:-1], strict=True))
        parts = w.split([rows * columns for rows, columns in shapes], dim=-1)
        product = torch.eye(self.sizes[0], dtype=w.dtype, device=w.device)
        for part, shape in zip(parts, shapes, strict=True):
            product = part.unflatten(-1, shape) @ product
        C = torch.eye(self.sizes[-1], self.sizes[0], dtype=w.dtype, device=w.device)
        C[self.rank :] = 0
        return (product - C).square().sum((-2, -1)) / 2


CASES = (
    Case("monomial", (1, 1)),
    Case("monomial", (1, 2)),
    Case("monomial", (2, 2)),
    *(Case("linear", (5, 3, 5), rank) for rank in range(4)),
    *(Case("linear", (5, 3, 5), rank, generic=True) for rank in range(2)),
    Case("linear", (3, 2, 2, 3), 0),
    Case("linear", (3, 2, 2, 3), 1),
)
