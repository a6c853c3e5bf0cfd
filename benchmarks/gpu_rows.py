"""What the sections of `benchmarks.gpu` share: the rows of its table, a clock, and a word for what is left out."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Row(NamedTuple):
    """One line of the table.

    Args:
        what: What was measured, with its sizes where the section has more than one.
        seen: The number, or None where there is none: a crash, or a peer that is not installed.
        unit: Its unit, "tokens / s" or "ms / step", or a word on why there is no number.
        peer: What the zoo is compared with, "" if nothing.
        ratio: How many times as fast as the peer, above 1 if the zoo is faster; None if nothing is compared.
        required: What is to be reached, in words, "" if nothing.
    """

    what: str
    seen: float | None
    unit: str
    peer: str = ""
    ratio: float | None = None
    required: str = ""


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_step(step: Callable[[], object], device: torch.device, steps: int, warmup: int) -> float:
    """Mean seconds of a step over `steps` in a row, after `warmup` that are not timed."""
    for _ in range(warmup):
        step()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    return (time.perf_counter() - began) / steps


def peak_memory(device: torch.device) -> float:
    """Most GB that tensors have held on the device since `forget_peak`; NaN on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")


def forget_peak(device: torch.device) -> None:
    """Give unused memory back, and begin to look for the most anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def left_out(what: str, error: BaseException) -> Row:
    """The row of something that does not run here, with its error in one line."""
    return Row(what, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120])
