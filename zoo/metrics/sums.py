"""Base class of the metrics: a torchmetrics.Metric of float64 sums, for batches and ranks of any size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from zoo.precision import float64, float64_device


class Sums(Metric):
    """A metric made of float64 sums over examples, which are added over updates and over ranks.

    The sums stay float64 when the module that owns the metric is cast to another type. They are kept on the CPU if the
    device of the module has no float64.

    Args:
        shapes: Name and shape of each sum. A last dimension of 1 is broadcast to that of the sums that are added.
    """

    full_state_update = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(dist_sync_fn=_gather)
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add the sums of a batch. Sums whose names this metric does not have are ignored."""
        for name in self.names:
            setattr(self, name, getattr(self, name) + float64(sums[name]))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        device = float64_device(fn(torch.zeros(0, device=self.device)).device)
        return super()._apply(lambda state: state.to(device), exclude_state)


def weights_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return a weight for every row of x, (B,) float64: ones if no weights are given."""
    if weight is not None:
        return float64(weight)
    return torch.ones(len(x), dtype=torch.float64, device=float64_device(x.device))


def _gather(state: Tensor, group: Any = None) -> list[Tensor]:
    """Return a state of every rank, padded to the same shape: a rank without batches has initial zeros of width 1."""
    states = gather_all_tensors(state, group)
    if state.ndim == 0:
        return states
    width = max(s.shape[-1] for s in states)
    return [F.pad(s, (0, width - s.shape[-1])) for s in states]
