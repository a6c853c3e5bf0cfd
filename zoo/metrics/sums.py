"""The torchmetrics.Metric below all others here: plain float64 sums, so that batches and ranks of any size add up."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors


class Sums(Metric):
    """A metric made of float64 sums over examples, added up over updates and over ranks.

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
        """Add a batch's sums, float64, to those that this metric keeps; others are left out."""
        for name in self.names:
            setattr(self, name, getattr(self, name) + sums[name])


def weights_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """A weight for every row of x, (B,) float64: ones if none are given."""
    return torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()


def _gather(state: Tensor, group: Any = None) -> list[Tensor]:
    """A state of every rank, all of one shape and type.

    A rank that saw no batch still has the zeros it began with: of width 1, and of the type that its module was cast to.
    """
    states = gather_all_tensors(state.double(), group)
    if state.ndim == 0:
        return states
    width = max(s.shape[-1] for s in states)
    return [F.pad(s, (0, width - s.shape[-1])) for s in states]
