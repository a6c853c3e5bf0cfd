"""The results in a study's folder: one file per finished task, under the task's key."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from zoo.errors import ZooError
from zoo.paths import make_folder
from zoo.report.plain import plain
from zoo.study import NotFinished, Result, Task

OF_AN_OLDER_ZOO = ("settings.json", "costs.json", "rows", "runs")


@dataclass(frozen=True)
class Cost:
    """The time and memory that a task took, and where it was computed.

    Args:
        seconds: Time from the task's start to its end.
        megabytes: Peak memory of the process up to the task's end.
        device: Device on which the task was computed.
        machine: Machine on which the task was computed.
    """

    seconds: float
    megabytes: float
    device: str
    machine: str


class ResultsFolder:
    """Results in `OUT/results/`: numbers in KEY.json, arrays in KEY.npz. A task is finished if its JSON file exists.

    Args:
        out: The study's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "results"
        self.failures: dict[str, str] = {}  # by key of a task: the reason why it has no result
        self._read: dict[str, dict[str, Any]] = {}

    def make(self) -> None:
        """Make the folder.

        Raises:
            ZooError: If the folder cannot be made, or an older version of the zoo made it.
        """
        self.refuse_older()
        make_folder(self.folder, "--out")

    def refuse_older(self) -> None:
        """Refuse a folder that an older version of the zoo made.

        Raises:
            ZooError: If the folder has files of an older version and no results of this one.
        """
        if not self.folder.exists() and any((self.out / name).exists() for name in OF_AN_OLDER_ZOO):
            raise ZooError(
                f"{self.out} holds a study of an older version of the zoo, or other runs, and cannot be continued; "
                "choose another --out"
            )

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Lock the folder, so that no other process runs a study in it.

        Raises:
            ZooError: If another process runs a study in it.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ZooError(f"a study is running in {self.out}; wait until it ends, or choose another --out") from None
        try:
            yield
        finally:
            lock.release()

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and (task.key in self._read or self._json(task).exists())

    def __getitem__(self, task: Task) -> Result:
        content = self._content(task)
        result = dict(content["result"])
        if content["arrays"]:
            file = self.folder / f"{task.key}.npz"
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    result |= {name: arrays[f"arr_{i}"] for i, name in enumerate(content["arrays"])}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
                json_file = self._json(task).name
                raise ZooError(f"{file} is damaged; delete it and {json_file}, and the task is done again") from None
        return result

    def cost(self, task: Task) -> Cost:
        """Return the cost of a finished task."""
        return Cost(**self._content(task)["cost"])

    def put(self, task: Task, result: Result, cost: Cost) -> None:
        """Store a result completely, or not at all if the process is interrupted.

        Raises:
            TypeError: If the result holds anything but numbers, texts, lists, dicts and arrays.
        """
        arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
        if wrong := [name for name, value in arrays.items() if value.dtype.hasobject]:
            raise TypeError(f"the array {wrong[0]!r} of the result holds Python objects")
        numbers = {name: value for name, value in result.items() if name not in arrays}
        content = {
            "task": str(task),
            "cost": asdict(cost),
            "arrays": [str(name) for name in arrays],
            "result": _exact(numbers),
        }
        text = json.dumps(content) + "\n"
        if arrays:
            partial = self.folder / f"{task.key}.partial.npz"
            np.savez(partial, *arrays.values())
            partial.replace(self.folder / f"{task.key}.npz")
        partial = self.folder / f"{task.key}.partial"
        partial.write_text(text, "utf-8")
        partial.replace(self._json(task))

    def work_folder(self, task: Task) -> Path:
        """Return the path of a task's own folder."""
        return self.out / "work" / task.key

    def _json(self, task: Task) -> Path:
        return self.folder / f"{task.key}.json"

    def _content(self, task: Task) -> dict[str, Any]:
        if task.key not in self._read:
            file = self._json(task)
            try:
                content = json.loads(file.read_text("utf-8"))
                Cost(**content["cost"])
                if not isinstance(content["result"], dict) or not isinstance(content["arrays"], list):
                    raise TypeError
            except FileNotFoundError:
                raise NotFinished(task, self.failures.get(task.key, "")) from None
            except (ValueError, TypeError, KeyError, RecursionError):
                raise ZooError(f"{file} is damaged; delete it, and the task is done again") from None
            self._read[task.key] = content
        return self._read[task.key]


def _exact(value: Any) -> Any:
    """Return a value with all numbers as Python's own; NaN and infinities are kept, so JSON stores them exactly."""
    if isinstance(value, dict):
        return {str(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, float) or value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return plain(value)
