"""Doing one task, in whatever process and on whatever machine."""

import logging
import os
import platform
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.running.folder import Cost
from zoo.study import Result, Results, Task, Work


@dataclass(frozen=True)
class Failed:
    """A task that raised an exception.

    Args:
        why: In one line.
        trace: The traceback, for those who mend it.
    """

    why: str
    trace: str


class Lost:
    """A task whose process or machine ended before it did."""


Outcome = Cost | Failed | Lost


def do(task: Task, results: Results, folder: Path, device: str) -> tuple[Result, Cost] | Failed:
    """Do a task and take its time.

    Args:
        task: The task.
        results: Of the tasks that it needs.
        folder: Its own.
        device: "cpu" or "cuda", for tasks that compute on the study's device.
    """
    own = device if task.on_gpu else "cpu"
    start = time.perf_counter()
    try:
        result = task.do(Work(results, folder, own))
    except Exception as error:
        one_line = " ".join(str(error).split())
        why = one_line if isinstance(error, ZooError) else f"{type(error).__name__}: {one_line}"
        return Failed(why, traceback.format_exc())
    return result, Cost(time.perf_counter() - start, _megabytes(), _device(own), _machine())


def be_quiet() -> None:
    """Compute on one thread, and leave out what Lightning and others say of themselves."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)
    import lightning  # noqa: F401 - whose import sets the level of its logger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def _megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _device(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
