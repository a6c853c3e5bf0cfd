"""Tasks on a Dask cluster."""

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
AHEAD = 1000  # tasks that the scheduler is given beyond those that its workers do
SENT_WITH_TASK = 100_000  # bytes of results up to which they travel with every task that reads them
STARTS = "zoo-task-started"  # a topic of Dask's events

_one_task = threading.Lock()  # random generators and numbers of threads belong to the whole process


class Cluster:
    """The workers of a Dask scheduler. They need no disk in common with this machine, nor the study's file.

    A worker that dies takes the tasks down that wait in it, too; Dask does all of them again, and gives up on those
    that this has happened to four times. Of these, one that had begun so often is at fault. The others are done
    once more, one of them at a time, so that none of them can be taken down by another.

    Args:
        address: Of the scheduler, such as tcp://host:8786.
        results: Where results are read and written.
        device: "cpu" or "cuda"; for "cuda" workers are started with `--resources GPU=1`.
        file: The study's own file, if it is not one of the zoo's.
        tasks: All that is to be done.

    Raises:
        ZooError: If Dask is not installed, the scheduler cannot be reached, or it cannot import the file.
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
            raise ZooError(f"no Dask scheduler answers at {address}: {error or 'time is up'}") from None
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the run itself tells what matters
        self.address, self.results, self.device = address, results, device
        self.home = Processes(1, results, "cpu", file)  # for tasks that read files of this machine
        self.running: dict[Any, Task] = {}  # by future
        self.ended: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures
        self.readers = Counter(needed.key for task in tasks for needed in task.needs())
        self.sent: dict[str, Any] = {}  # results that are on the cluster, by key of their task, as futures
        self.begun: Counter[str] = Counter()
        self.suspects: deque[Task] = deque()
        self.suspect: Any = None  # the future of the one that is being done
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
        """Workers that there are."""
        return len(self.client.nthreads())

    def start(self, tasks: Iterable[Task]) -> list[Task]:
        """Start as many of the tasks as there is room for, and return these."""
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
        """Tasks that have ended since, after at most so many seconds; their results are in the folder."""
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
        """Take back what is not done, and leave the cluster as it was."""
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
            told.append(f"a worker has {many} threads, and does one task at a time; start workers with --nthreads 1")
        on_gpu = self.device == "cuda" and any(task.on_gpu for task in tasks)
        if workers and on_gpu and not any(worker["resources"].get("GPU") for worker in workers):
            told.append("no worker has a GPU yet; start one with --resources GPU=1")
        for line in told:
            print(f"Dask at {self.address}: {line}", file=sys.stderr)

    def _check_connection(self) -> None:
        if self.client.status != "running":
            raise ZooError(f"the Dask scheduler at {self.address} has gone; finished tasks are kept for the next run")

    def _submit(self, task: Task) -> bool:
        """Give a task to the scheduler, unless it has no worker that could take what the task needs."""
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
        """A result as workers read it: pickled, or the future of that; None if no worker can take it now."""
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
        """What became of a task, None if it is done once more."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        was_suspect = future is self.suspect
        if was_suspect:
            self.suspect = None
        try:
            outcome = future.result()
        except KilledWorker as error:
            if was_suspect or self.begun[task.key] > error.allowed_failures:
                return Failed(f"its worker ended {error.allowed_failures + 1} times before it did")
            self.suspects.append(task)
            return None
        except CancelledError:  # what it needs was lost with a worker
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
        """Take results off the cluster that no other task will read."""
        for needed in task.needs():
            self.readers[needed.key] -= 1
            if self.readers[needed.key] == 0:
                self.sent.pop(needed.key, None)

    def _count_start(self, event: Any) -> None:
        _, key = event
        if isinstance(key, str):
            self.begun[key] += 1


class _Sent:
    """Results that came with a task."""

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
        get_client().log_event(STARTS, task.key)  # the scheduler knows when this returns
        results, out = _Sent(needed), Path(place[0])
        try:
            shared = (out / "results" / ".token").read_text("utf-8") == place[1]
        except OSError:
            shared = False
        if shared:
            return do(task, results, ResultsFolder(out).work_folder(task), device)
        with tempfile.TemporaryDirectory() as folder:
            return do(task, results, Path(folder), device)
