"""Parts that the sections of `benchmarks.gpu` use: the rows of the table, a clock, and rows of skipped measurements."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Row(NamedTuple):
    """One row of the table.

    Args:
        what: Name of the measurement, with its sizes if the section has several.
        seen: Measured number, or None after an error, or if a library is not installed.
        unit: Unit of the number, such as "tokens / s" or "ms / step", or the reason why there is no number.
        peer: Name of the contender that the zoo is compared with, "" if there is none.
        ratio: Speed of the zoo divided by that of the peer, None if there is no peer.
        required: Target, in words, "" if there is none.
    """

    what: str
    seen: float | None
    unit: str
    peer: str = ""
    ratio: float | None = None
    required: str = ""


def synchronise(device: torch.device) -> None:
    """Wait until all pending work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_step(step: Callable[[], object], device: torch.device, steps: int, warmup: int) -> float:
    """Return the mean seconds per step over `steps` consecutive steps, after `warmup` steps that are not timed."""
    for _ in range(warmup):
        step()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    return (time.perf_counter() - began) / steps


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of tensors on the device since `forget_peak`, in GB; NaN on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")


def forget_peak(device: torch.device) -> None:
    """Free unused memory, and reset the peak memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def left_out(what: str, error: BaseException) -> Row:
    """Return the row of a measurement that failed, with the first line of its error."""
    return Row(what, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120])
