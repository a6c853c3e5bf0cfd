"""Execution of one task in the current process, with its cost or its error."""

import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zoo.errors import ZooError
from zoo.free_memory import free_memory
from zoo.running.folder import Cost
from zoo.study import Result, Results, Task, Work

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


@dataclass(frozen=True)
class Failed:
    """A task that raised an exception.

    Args:
        why: The error in one line.
        trace: The traceback.
    """

    why: str
    trace: str = ""

    @classmethod
    def by(cls, error: BaseException) -> "Failed":
        """Return a `Failed` made from an exception; call it in the handler of the exception."""
        one_line = " ".join(str(error).split())
        why = one_line if isinstance(error, ZooError) else f"{type(error).__name__}: {one_line}".removesuffix(": ")
        return cls(why, traceback.format_exc())


class Lost:
    """A task whose process or machine ended before the task was done."""


Outcome = Cost | Failed | Lost


def do(task: Task, results: Results, folder: Path, device: str) -> tuple[Result, Cost] | Failed:
    """Do a task on one thread, and measure its cost.

    Args:
        task: The task.
        results: Results of the tasks that it needs.
        folder: The task's own folder.
        device: Device of the study, "cpu" or "cuda", used if the task is `on_gpu`.

    Returns:
        The result and its cost, or the error.
    """
    own = device if task.on_gpu else "cpu"
    if "torch" in sys.modules:  # otherwise environment variables set it when the task imports torch
        sys.modules["torch"].set_num_threads(1)
    start = time.perf_counter()
    try:
        result = task.do(Work(results, folder, own))
        if not isinstance(result, dict):
            raise TypeError(f"the result is a {type(result).__name__} and not a dict")
    except (Exception, SystemExit) as error:
        return Failed.by(error)
    finally:
        if time.perf_counter() - start > 1:  # freeing would take a large share of a shorter task's time
            free_memory()
    return result, Cost(time.perf_counter() - start, _megabytes(), _device(own), machine())


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Make processes that are started within the block compute on one thread."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def machine() -> str:
    """Return the operating system, number of cores and processor of this machine."""
    try:
        told = Path("/proc/cpuinfo").read_text("utf-8")
        model = next(line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{platform.system()}, {os.cpu_count()} cores, {model}"


def _megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _device(device: str) -> str:
    torch = sys.modules.get("torch")
    if device == "cpu" or torch is None or not torch.cuda.is_available():
        return device
    name: str = torch.cuda.get_device_name()
    return name
