"""Execution of tasks on a Dask cluster."""

import logging
import os
import pickle
import queue
import sys
import tempfile
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.running.doing import ONE_THREAD, Failed, Lost, Outcome, do
from zoo.running.folder import Cost, ResultsFolder
from zoo.running.processes import Processes
from zoo.study import Result, Task

CONNECT_WITHIN = 30  # seconds
AHEAD = 1000  # tasks that are submitted to the scheduler in addition to those that its workers do
SENT_WITH_TASK = 100_000  # bytes up to which a result is sent with every task that reads it
STARTS = "zoo-task-started"  # topic of Dask events

_one_task = threading.Lock()  # random generators and the number of threads are shared by the whole process


class Cluster:
    """The workers of a Dask scheduler. They need neither a shared disk with this machine nor the study's file.

    If a worker dies, the tasks that wait in it fail too. Dask does all of them again, and gives up on a task after four
    such failures. A task that had started each time counts as the cause, and fails. The other tasks are done again, one
    at a time, so that no other task can make them fail.

    Args:
        address: Address of the scheduler, such as tcp://host:8786.
        results: Folder in which results are read and written.
        device: "cpu" or "cuda"; for "cuda" workers have to be started with `--resources GPU=1`.
        file: The study's file, if it is a user's own; None for a study of the zoo.
        tasks: All tasks to do.

    Raises:
        ZooError: If Dask is not installed, the scheduler cannot be reached, or the cluster cannot import the file.
    """

    def __init__(
        self, address: str, results: ResultsFolder, device: str, file: Path | None, tasks: Sequence[Task]
    ) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ZooError("--scheduler needs Dask: pip install 'superposition-zoo[dask]'") from None
        try:
            self.client = Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ZooError(f"no Dask scheduler answers at {address}: {error or 'timed out'}") from None
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # this class raises the errors that matter
        self.address, self.results, self.device = address, results, device
        self.home = Processes(1, results, "cpu", file)  # for tasks that read files of this machine
        self.running: dict[Any, Task] = {}  # by future
        self.ended: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures
        self.readers = Counter(needed.key for task in tasks for needed in task.needs())
        self.sent: dict[str, Any] = {}  # by key of a task: its result, pickled or as a future on the cluster
        self.begun: Counter[str] = Counter()
        self.suspects: deque[Task] = deque()
        self.suspect: Any = None  # the future of the suspect that is being done
        self.token = uuid.uuid4().hex
        (results.folder / ".token").write_text(self.token, "utf-8")
        self.client.subscribe_topic(STARTS, self._count_start)
        self._tell_what_is_missing([task for task in tasks if not task.here])
        if file is not None:
            try:
                self.client.upload_file(str(file))
            except Exception as error:
                self.stop()
                raise ZooError(f"the Dask cluster cannot import {file}: {error}") from None

    @property
    def at_once(self) -> int:
        """Number of workers."""
        return len(self.client.nthreads())

    def start(self, tasks: Iterable[Task]) -> list[Task]:
        """Start as many of the tasks as can be accepted now, and return the started ones."""
        self._check_connection()
        started: list[Task] = []
        room = AHEAD + self.at_once - len(self.running)
        for task in tasks:
            if task.here:
                started += self.home.start([task])
            elif room > 0 and self._submit(task):
                started.append(task)
                room -= 1
        return started

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Wait at most `timeout` seconds for a task to end, and return the tasks that have ended since the last call.

        Their results are in the folder.
        """
        ended = self.home.finished(0 if self.running else timeout) if self.home.running else []
        wait_for = 0.0 if ended else min(timeout, 0.2) if self.home.running else timeout
        while self.running:
            try:
                future = self.ended.get(timeout=wait_for) if wait_for else self.ended.get_nowait()
            except queue.Empty:
                break
            wait_for = 0.0
            task = self.running.pop(future)
            if (outcome := self._outcome(future, task)) is not None:
                ended.append((task, outcome))
            future.release()
        if self.suspect is None and self.suspects:
            task = self.suspects.popleft()
            if self._submit(task):
                self.suspect = next(future for future, one in self.running.items() if one is task)
            else:
                self.suspects.appendleft(task)
        for task, outcome in ended:
            if not isinstance(outcome, Lost):
                self._forget(task)
        self._check_connection()
        return ended

    def stop(self) -> None:
        """Cancel the tasks that are not done, and disconnect from the cluster."""
        self.home.stop()
        self.client.cancel(list(self.running))
        self.client.close(timeout=5)
        (self.results.folder / ".token").unlink(missing_ok=True)

    def _tell_what_is_missing(self, tasks: Sequence[Task]) -> None:
        workers = self.client.scheduler_info(n_workers=-1).get("workers", {}).values()
        told = []
        if not workers:
            told.append("it has no workers yet")
        elif (many := max(worker["nthreads"] for worker in workers)) > 1:
            told.append(f"a worker has {many} threads but does one task at a time; start workers with --nthreads 1")
        on_gpu = self.device == "cuda" and any(task.on_gpu for task in tasks)
        if workers and on_gpu and not any(worker["resources"].get("GPU") for worker in workers):
            told.append("no worker has a GPU yet; start one with --resources GPU=1")
        for line in told:
            print(f"Dask at {self.address}: {line}", file=sys.stderr)

    def _check_connection(self) -> None:
        if self.client.status != "running":
            raise ZooError(
                f"the connection to the Dask scheduler at {self.address} is lost; finished tasks are kept for the next "
                "run"
            )

    def _submit(self, task: Task) -> bool:
        """Submit a task to the scheduler; return False if no worker can receive the results that the task needs."""
        needed: dict[str, Any] = {}
        for one in task.needs():
            found = self._for_workers(one)
            if found is None:
                return False
            needed[one.key] = found
        resources = {"GPU": 1} if task.on_gpu and self.device == "cuda" else {}
        place = str(self.results.out.resolve()), self.token
        key = f"{type(task).__name__}-{task.key.rpartition('-')[2]}-{uuid.uuid4().hex[:8]}"
        future = self.client.submit(
            _do_there, pickle.dumps(task), needed, place, self.device, key=key, resources=resources, pure=False
        )
        self.running[future] = task
        future.add_done_callback(self.ended.put)
        return True

    def _for_workers(self, task: Task) -> Any:
        """Return a result for workers, pickled or as a future of it; None if no worker can receive it now."""
        if task.key not in self.sent or getattr(self.sent[task.key], "status", "") in ("lost", "cancelled", "error"):
            content = pickle.dumps(self.results[task])
            if len(content) <= SENT_WITH_TASK:
                self.sent[task.key] = content
            else:
                try:
                    self.sent[task.key] = self.client.scatter(content, hash=False)
                except TimeoutError:
                    return None
        return self.sent[task.key]

    def _outcome(self, future: Any, task: Task) -> Outcome | None:
        """Return the outcome of a task, or None if the task will be done again."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        was_suspect = future is self.suspect
        if was_suspect:
            self.suspect = None
        try:
            outcome = future.result()
        except KilledWorker as error:
            if was_suspect or self.begun[task.key] > error.allowed_failures:
                return Failed(f"its worker died {error.allowed_failures + 1} times before the task was done")
            self.suspects.append(task)
            return None
        except CancelledError:  # a result that the task needs was lost with a worker
            return Lost()
        except Exception as error:
            return Failed.by(error)
        if isinstance(outcome, Failed):
            return outcome
        try:
            self.results.put(task, *outcome)
        except TypeError as error:
            return Failed.by(error)
        return outcome[1]

    def _forget(self, task: Task) -> None:
        """Remove results from the cluster that no other task will read."""
        for needed in task.needs():
            self.readers[needed.key] -= 1
            if self.readers[needed.key] == 0:
                self.sent.pop(needed.key, None)

    def _count_start(self, event: Any) -> None:
        _, key = event
        if isinstance(key, str):
            self.begun[key] += 1


class _Sent:
    """Results that were sent to a worker with a task."""

    def __init__(self, found: dict[str, bytes]) -> None:
        self.found = found

    def __getitem__(self, task: Task) -> Result:
        result: Result = pickle.loads(self.found[task.key])
        return result

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task.key in self.found


def _do_there(
    pickled: bytes, needed: dict[str, bytes], place: tuple[str, str], device: str
) -> tuple[Result, Cost] | Failed:
    from distributed import get_client

    task: Task = pickle.loads(pickled)
    os.environ.update(ONE_THREAD)
    with _one_task:
        get_client().log_event(STARTS, task.key)  # when this returns, the scheduler has recorded the start
        results, out = _Sent(needed), Path(place[0])
        try:
            shared = (out / "results" / ".token").read_text("utf-8") == place[1]
        except OSError:
            shared = False
        if shared:
            return do(task, results, ResultsFolder(out).work_folder(task), device)
        with tempfile.TemporaryDirectory() as folder:
            return do(task, results, Path(folder), device)
