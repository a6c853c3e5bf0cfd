"""Helpers that keep sums and buffers precise when a network is trained in low precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WITHOUT_FLOAT64 = ("mps",)  # types of devices that have no float64
HALF = (torch.float16, torch.bfloat16)


def float64_device(device: torch.device) -> torch.device:
    """Return the device on which float64 numbers are kept: the given one, or the CPU if it has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def float64(x: Tensor) -> Tensor:
    """Return the tensor in float64, on its `float64_device`."""
    return x.to(float64_device(x.device)).double()


def precise_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which sums of a tensor are computed: its own, or float32 for float16 and bfloat16."""
    return torch.float32 if x.dtype in HALF else x.dtype


def at_least_float32(x: Tensor) -> Tensor:
    """Return a float16 or bfloat16 tensor in float32, and any other tensor unchanged."""
    return x.to(precise_dtype(x))


class PreciseBuffers(nn.Module):
    """A module whose own floating-point buffers never become float16 or bfloat16, even if the module is cast to them.

    In half precision, a running mean stops changing as soon as a step is smaller than the rounding. A unit by which all
    numbers are divided would add its rounding error to all of them. Parameters do follow the cast.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype in HALF and old.dtype not in HALF:
                self._buffers[name] = old.to(buffer.device)
        return self
