"""The torchmetrics.Metric below all others here: plain float64 sums, so that batches and ranks of any size add up."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from zoo.precision import float64, float64_device


class Sums(Metric):
    """A metric made of float64 sums over examples, added up over updates and over ranks.

    The sums stay float64 when the module that the metric belongs to is cast to another type, and are kept on the CPU
    where the module's device has no float64.

    Args:
        shapes: Name and shape of each sum; a last dimension of 1 grows to that of the sums added.
    """

    full_state_update = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(dist_sync_fn=_gather)
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add a batch's sums to those that this metric keeps; others are left out."""
        for name in self.names:
            setattr(self, name, getattr(self, name) + float64(sums[name]))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        device = float64_device(fn(torch.zeros(0, device=self.device)).device)
        return super()._apply(lambda state: state.to(device), exclude_state)


def weights_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """A weight for every row of x, (B,) float64: ones if none are given."""
    if weight is not None:
        return float64(weight)
    return torch.ones(len(x), dtype=torch.float64, device=float64_device(x.device))


def _gather(state: Tensor, group: Any = None) -> list[Tensor]:
    """A state of every rank, all of one shape: a rank that saw no batch has the zeros it began with, of width 1."""
    states = gather_all_tensors(state, group)
    if state.ndim == 0:
        return states
    width = max(s.shape[-1] for s in states)
    return [F.pad(s, (0, width - s.shape[-1])) for s in states]
