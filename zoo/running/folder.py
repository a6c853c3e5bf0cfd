"""A study's folder: results of finished tasks, named by what the tasks are."""

import json
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
    """What a task took.

    Args:
        seconds: From its start to its end.
        megabytes: The most memory that its process had by then.
        device: What it was computed on.
        machine: Where.
    """

    seconds: float
    megabytes: float
    device: str
    machine: str


class ResultsFolder:
    """Results in `OUT/results/`: numbers in KEY.json, arrays in KEY.npz. A task is finished when its JSON is there.

    Args:
        out: The study's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "results"
        self.failures: dict[str, str] = {}  # by key: why a task has no result
        self._read: dict[str, dict[str, Any]] = {}

    def make(self) -> None:
        """Make the folder.

        Raises:
            ZooError: If it cannot be made, or holds a study that an older version of the zoo made.
        """
        if not self.folder.exists() and any((self.out / name).exists() for name in OF_AN_OLDER_ZOO):
            raise ZooError(
                f"{self.out} holds a study or a run of another kind, which cannot be gone on with; choose another --out"
            )
        make_folder(self.folder, "--out")

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep other processes from running a study in the folder.

        Raises:
            ZooError: If one does.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ZooError(f"a study is going on in {self.out}; wait for its end, or choose another --out") from None
        try:
            yield
        finally:
            lock.release()

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and (task.key in self._read or self._json(task).exists())

    def __getitem__(self, task: Task) -> Result:
        content = self._content(task)
        arrays = self.folder / f"{task.key}.npz"
        if not content["arrays"]:
            return dict(content["result"])
        with np.load(arrays, allow_pickle=False) as file:
            return content["result"] | {name: file[name] for name in content["arrays"]}

    def cost(self, task: Task) -> Cost:
        """What a finished task took."""
        return Cost(**self._content(task)["cost"])

    def put(self, task: Task, result: Result, cost: Cost) -> None:
        """Keep a result, whole or not at all."""
        arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
        if arrays:
            partial = self.folder / f"{task.key}.partial.npz"
            np.savez(partial, allow_pickle=False, **arrays)
            partial.replace(self.folder / f"{task.key}.npz")
        numbers = {name: value for name, value in result.items() if name not in arrays}
        content = {"task": str(task), "cost": asdict(cost), "arrays": sorted(arrays), "result": _exact(numbers)}
        partial = self.folder / f"{task.key}.partial"
        partial.write_text(json.dumps(content) + "\n", "utf-8")
        partial.replace(self._json(task))

    def work_folder(self, task: Task) -> Path:
        """Where a task's own folder is."""
        return self.out / "work" / task.key

    def _json(self, task: Task) -> Path:
        return self.folder / f"{task.key}.json"

    def _content(self, task: Task) -> dict[str, Any]:
        if task.key not in self._read:
            try:
                self._read[task.key] = json.loads(self._json(task).read_text("utf-8"))
            except FileNotFoundError:
                raise NotFinished(task, self.failures.get(task.key, "")) from None
            except ValueError:
                raise ZooError(f"{self._json(task)} is damaged; delete it to have it computed again") from None
        return self._read[task.key]


def _exact(value: Any) -> Any:
    """Numbers of any library as Python's own, NaN and infinities kept: a result is read back as it was."""
    if isinstance(value, dict):
        return {str(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, float) or value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return plain(value)
