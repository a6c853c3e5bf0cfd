"""Tasks on a Dask cluster."""

import tempfile
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.running.doing import Failed, Outcome, be_quiet, do
from zoo.running.folder import Cost, ResultsFolder
from zoo.study import Result, Task

CONNECT_WITHIN = 30  # seconds


class Cluster:
    """The workers of a Dask scheduler. They need no disk in common with this machine, nor the study's file.

    Args:
        address: Of the scheduler, such as tcp://host:8786.
        results: Where results are read and written.
        device: "cpu" or "cuda"; for "cuda" workers are started with `--resources GPU=1`.
        file: The study's own file, if it is not one of the zoo's.

    Raises:
        ZooError: If Dask is not installed, the scheduler cannot be reached, or no worker has what tasks need.
    """

    def __init__(self, address: str, results: ResultsFolder, device: str, file: Path | None) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ZooError("--scheduler needs Dask: pip install 'superposition-zoo[dask]'") from None
        try:
            self.client = Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ZooError(f"no Dask scheduler answers at {address}: {' '.join(str(error).split())}") from None
        self.results, self.device = results, device
        self.ended: list[tuple[Task, Outcome]] = []
        self.futures: dict[str, Any] = {}  # by key of a task, also of finished ones that others may need
        self.running: dict[Any, Task] = {}
        self.token = uuid.uuid4().hex
        (results.folder / ".token").write_text(self.token, "utf-8")
        if file is not None:
            self.client.upload_file(str(file))

    def start(self, tasks: Sequence[Task]) -> list[Task]:
        """Hand over all of the tasks; those that read files of this machine are done here."""
        for task in tasks:
            if task.here:
                outcome = do(task, self.results, self.results.work_folder(task), "cpu")
                if not isinstance(outcome, Failed):
                    self.results.put(task, *outcome)
                self.ended.append((task, outcome if isinstance(outcome, Failed) else outcome[1]))
                continue
            needed = {n.key: self._result(n) for n in task.needs()}
            gpu = {"GPU": 1} if task.on_gpu and self.device == "cuda" else {}
            place = str(self.results.out.resolve()), self.token
            future = self.client.submit(
                _do_there, task, needed, place, self.device,
                key=f"{task.key}-{self.token}", resources=gpu, pure=False,
            )  # fmt: skip
            self.futures[task.key] = future
            self.running[future] = task
        return list(tasks)

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Tasks that have ended since, after at most so many seconds; their results are in the folder."""
        from distributed import FIRST_COMPLETED, wait
        from distributed.scheduler import KilledWorker

        ended, self.ended = self.ended, []
        if ended or not self.running:
            return ended
        try:
            done = wait(list(self.running), timeout, FIRST_COMPLETED).done
        except TimeoutError:
            return []
        for future in done:
            task = self.running.pop(future)
            try:
                outcome = future.result()
            except KilledWorker:
                ended.append((task, Failed("its worker ended again and again before it did", "")))
            except Exception as error:
                ended.append((task, Failed(f"{type(error).__name__}: {error}", "")))
            else:
                if not isinstance(outcome, Failed):
                    self.results.put(task, *outcome)
                ended.append((task, outcome if isinstance(outcome, Failed) else outcome[1]))
        return ended

    def stop(self) -> None:
        """Take back what is not done, and leave the cluster as it was."""
        self.client.cancel([f for f in self.running if not f.done()])
        self.client.close()
        (self.results.folder / ".token").unlink(missing_ok=True)

    def _result(self, task: Task) -> Any:
        """A result on the cluster: where it was made, or sent there once."""
        if task.key not in self.futures:
            self.futures[task.key] = self.client.scatter((self.results[task], self.results.cost(task)), direct=False)
        return self.futures[task.key]


class _Sent:
    """Results that came with a task."""

    def __init__(self, found: dict[str, Result]) -> None:
        self.found = found

    def __getitem__(self, task: Task) -> Result:
        return self.found[task.key]

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task.key in self.found


@cache
def _quiet_once() -> None:
    be_quiet()


def _do_there(task: Task, needed: dict[str, Any], place: tuple[str, str], device: str) -> tuple[Result, Cost] | Failed:
    _quiet_once()
    out, token = Path(place[0]), place[1]
    results = _Sent({key: outcome[0] for key, outcome in needed.items()})
    try:
        shared = (out / "results" / ".token").read_text("utf-8") == token
    except OSError:
        shared = False
    if shared:
        return do(task, results, ResultsFolder(out).work_folder(task), device)
    with tempfile.TemporaryDirectory() as folder:
        return do(task, results, Path(folder), device)
