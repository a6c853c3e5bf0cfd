"""What stays precise whatever precision a network is trained in: sums, their devices, and buffers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WITHOUT_FLOAT64 = ("mps",)  # types of devices
HALF = (torch.float16, torch.bfloat16)


def float64_device(device: torch.device) -> torch.device:
    """Where float64 numbers of a device are kept: there, or on the CPU if the device has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def float64(x: Tensor) -> Tensor:
    """The tensor in float64, on its `float64_device`."""
    return x.to(float64_device(x.device)).double()


def precise_dtype(x: Tensor) -> torch.dtype:
    """The tensor's type, or float32 if that is float16 or bfloat16: what its sums are made in."""
    return torch.float32 if x.dtype in HALF else x.dtype


def at_least_float32(x: Tensor) -> Tensor:
    """A float16 or bfloat16 tensor in float32, any other as it is."""
    return x.to(precise_dtype(x))


class PreciseBuffers(nn.Module):
    """A module whose own floating-point buffers never become float16 or bfloat16, whatever it is cast to.

    Running means stop moving in half precision once a step is smaller than the rounding, and units that everything is
    divided by would round everything. Parameters follow the cast.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype in HALF and old.dtype not in HALF:
                self._buffers[name] = old.to(buffer.device)
        return self
