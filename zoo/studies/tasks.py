"""What studies of many runs share: a folder that keeps what is finished, and processes that do the rest."""

import json
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning  # noqa: F401 - whose import sets the level of its logger, which workers change
import torch
from rich.progress import track

from zoo.end_with_parent import end_with
from zoo.errors import ZooError
from zoo.paths import make_folder


def check_folder(out: Path, settings: dict[str, Any]) -> None:
    """Make a study's folder, or refuse one that holds a study with other settings.

    Raises:
        ZooError: Naming the setting and both values.
    """
    make_folder(out / "runs", "--out")
    file = out / "settings.json"
    if not file.exists():
        return write_json(file, settings)
    try:
        before = dict(json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError):
        raise ZooError(f"{file} is damaged; choose another --out, or delete {out}") from None
    for key, value in settings.items():
        if before.get(key) != value:
            raise ZooError(f"{out} holds a study with {key} {before.get(key)}, and {key} is {value} now")


def write_json(file: Path, content: Any) -> None:
    """Write JSON, all or nothing."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    partial.replace(file)


def do_all(do: Callable[[Any, Path], None], tasks: Sequence[Any], out: Path, jobs: int) -> None:
    """Call `do(task, out)` for every task in so many processes of one thread each, and show how far they are."""
    if not tasks:
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        list(track(pool.map(do, tasks, [out] * len(tasks)), "runs", total=len(tasks)))


def _start_worker() -> None:
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
