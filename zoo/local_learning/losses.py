"""The loss of many parameter vectors at once, and the density that the chains sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from zoo.errors import ZooError

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) -> mean loss per data point, a scalar in nats


class _Bound(nn.Module):
    """A module that computes the loss, so that `functional_call` can replace the parameters of the model within it."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


class Losses:
    """The loss of a model as a function of P parameter vectors, each flattened to d numbers.

    Args:
        model: The model, in eval mode. It is neither changed nor moved.
        loss: Function of the model and a batch that returns the mean loss per data point.
        data: A tensor, or a tuple, list or dict of tensors, whose first dimension runs over the rows; or None if the
            loss needs no data.
        parameters: Names of the parameters that move, or patterns such as "blocks.0.*". By default all move.
        at_once: Number of parameter vectors that one call of `vmap` computes. By default all. With 1, `vmap` is not
            used, which serves losses that it cannot compute.

    Raises:
        ZooError: If the model is in training mode, no parameter has one of the names, parameters differ in type or
            device or are less precise than float32, or tensors of the data differ in their number of rows.
    """

    loss_dimensions = 0  # of the loss of one parameter vector, which is a scalar

    def __init__(
        self, model: nn.Module, loss: Loss, data: Any, parameters: Iterable[str] | None, at_once: int | None
    ) -> None:
        training = next((name for name, part in model.named_modules() if part.training), None)
        if training is not None:
            raise ZooError(f"{training or 'the model'} is in training mode: call model.eval(), so that dropout is off")
        self.bound, self.at_once = _Bound(model, loss), at_once
        named = dict(model.named_parameters())
        self.names = list(named) if parameters is None else _matching(parameters, list(named))
        moved = [named[name].detach() for name in self.names]
        if not moved:
            raise ZooError("the model has no parameters")
        for name, tensor in zip(self.names, moved, strict=True):
            if tensor.dtype not in (torch.float32, torch.float64):
                raise ZooError(f"{name} is {tensor.dtype}: convert the model to float32 or float64 first")
            if (tensor.dtype, tensor.device) != (moved[0].dtype, moved[0].device):
                raise ZooError(f"{name} and {self.names[0]} differ in type or device: sample them separately")
        self.shapes = [tensor.shape for tensor in moved]
        self.sizes = [tensor.numel() for tensor in moved]
        self.center = torch.cat([tensor.flatten() for tensor in moved])
        self.fixed = {name: t.detach() for name, t in named.items() if name not in self.names}
        self.fixed |= {name: tensor.detach() for name, tensor in model.named_buffers()}
        self.data = data if data is None else tree_map(lambda x: x.to(self.center.device), data)
        rows = {len(x) for x in tree_leaves(data)} if data is not None else set()
        if len(rows) > 1 or 0 in rows:
            raise ZooError(f"the tensors of the data have {sorted(rows)} rows: all must have the same number, over 0")
        self.rows = rows.pop() if rows else None

    def attention(self) -> AbstractContextManager[None]:
        """Return a context in which attention is computed by the only kernel that is fast within `vmap`."""
        return nullcontext() if self.at_once == 1 else sdpa_kernel(SDPBackend.MATH)

    def _one(self, w: Tensor, batch: Any) -> Tensor:
        """The loss of one parameter vector (d,)."""
        pieces = zip(self.names, w.split(self.sizes), self.shapes, strict=True)
        state = {f"model.{name}": piece.view(shape) for name, piece, shape in pieces}
        state |= {f"model.{name}": tensor for name, tensor in self.fixed.items()}
        return functional_call(self.bound, state, (batch,), strict=False)

    def batch(self, index: Tensor | None) -> Any:
        """Return the rows of an index of any shape, or all rows."""
        return self.data if index is None else tree_map(lambda x: x[index], self.data)

    def __call__(self, W: Tensor, index: Tensor | None = None) -> Tensor:
        """Return the losses (P,) of parameter vectors.

        Args:
            W: Parameter vectors, (P, d).
            index: Rows of the data: (P, B) for a batch of each, (B,) for one batch of all, or None for all rows.
        """
        batch, own = self.batch(index), index is not None and index.ndim == 2
        parts = []
        at_once = self.at_once or len(W)
        for first in range(0, len(W), at_once):
            w = W[first : first + at_once]
            rows = tree_map(lambda x, first=first: x[first : first + at_once], batch) if own else batch
            if at_once == 1:
                value = self._one(w[0], tree_map(lambda x: x[0], rows) if own else rows)[None]
            else:
                value = vmap(self._one, in_dims=(0, 0 if own else None))(w, rows)
            if value.ndim != 1 + self.loss_dimensions:
                raise ZooError(f"the loss has the shape {tuple(value.shape[1:])}: it must be a scalar")
            parts.append(value)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def values(self, W: Tensor, index: Tensor | None = None) -> Tensor:
        """Return the losses (P,) without a graph."""
        with torch.no_grad():
            return self(W, index)

    def gradients(self, W: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the losses (P,) and their gradients (P, d)."""
        at_once = self.at_once or len(W)
        if at_once >= len(W):
            return self._gradients(W, index)
        parts = [
            self._gradients(
                W[i : i + at_once], index[i : i + at_once] if index is not None and index.ndim == 2 else index
            )
            for i in range(0, len(W), at_once)
        ]
        return torch.cat([value for value, _ in parts]), torch.cat([gradient for _, gradient in parts])

    def _gradients(self, W: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            W = W.detach().requires_grad_()
            values = self(W, index)
            (gradients,) = torch.autograd.grad(values.sum(), W)
        return values.detach(), gradients

    def total(self, values: Tensor) -> Tensor:
        """Return the sums (P,) over parameters of values (P, d), in the shape that losses have."""
        return values.sum(1)

    def spread(self, each: Tensor) -> Tensor:
        """Return what belongs to each loss (P,) for all its parameters, (P, 1) or (P, d)."""
        return each[:, None]

    def of_rows(self, chunk: int) -> Tensor:
        """Return the loss of every row at the centre, (rows,).

        Args:
            chunk: Number of rows that are computed at once.
        """
        assert self.rows is not None
        device, parts = self.center.device, []
        with torch.no_grad():
            for index in torch.arange(self.rows, device=device).split(chunk):
                one = self.batch(index[:, None])  # every row is a batch of its own
                if self.at_once == 1:
                    each = [self._one(self.center, tree_map(lambda x, i=i: x[i], one)) for i in range(len(index))]
                    parts.append(torch.stack(each))
                else:
                    parts.append(vmap(self._one, in_dims=(None, 0))(self.center, one))
        return torch.cat(parts)


def _matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that match one of the patterns, in the order of the model."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ZooError(f"no parameter is named {pattern}: the model has {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Target:
    """The density exp(-U(w)) that the chains sample.

    U(w) = nβ L(w) + γ/2 |w - w*|² + ρ/2 |w|²

    Args:
        losses: L.
        n_beta: nβ, the inverse temperature times the number of data points.
        localization: γ.
        prior_precision: ρ, the precision of a Gaussian prior around 0.
    """

    losses: Losses
    n_beta: float
    localization: float
    prior_precision: float

    @property
    def precision(self) -> float:
        """The curvature γ + ρ that does not come from the loss."""
        return self.localization + self.prior_precision

    def gaussian(self, W: Tensor) -> Tensor:
        """Return γ/2 |w - w*|² + ρ/2 |w|² of parameter vectors, (P,)."""
        pull = self.localization * self.losses.total((W - self.losses.center).square())
        return (pull + self.prior_precision * self.losses.total(W.square())) / 2

    def height(self, W: Tensor, index: Tensor | None = None) -> Tensor:
        """Return U (P,) of parameter vectors W (P, d), on rows of the data."""
        each = self.n_beta * self.losses.values(W, index) + self.gaussian(W)
        return each.reshape(len(W), -1).sum(1)

    def gradients(self, W: Tensor, index: Tensor | None = None, temper: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the losses L (P,) and the gradients of U (P, d).

        Args:
            W: Parameter vectors, (P, d).
            index: Rows of the data, see `Losses`.
            temper: Factor of nβ, which rises to 1 during burn-in if chains are annealed.
        """
        values, gradients = self.losses.gradients(W, index)
        gradients = gradients.mul_(self.n_beta * temper)
        if self.localization:
            gradients.add_(W - self.losses.center, alpha=self.localization)
        if self.prior_precision:
            gradients.add_(W, alpha=self.prior_precision)
        return values, gradients
