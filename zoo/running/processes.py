"""Execution of tasks in processes of this machine, each on one thread."""

import importlib
import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from zoo.end_with_parent import end_with
from zoo.errors import ZooError
from zoo.running.doing import Failed, Lost, Outcome, do, one_thread_each
from zoo.running.folder import Cost, ResultsFolder
from zoo.running.study_files import load_file
from zoo.study import Task


class Processes:
    """Processes that do tasks. Each has its own executor, so that a process that dies does not end other tasks.

    Args:
        jobs: Number of processes.
        results: Folder in which results are read and written.
        device: "cpu" or "cuda". Each GPU is used by one process, which does one task at a time.
        file: The study's file, if it is a user's own; None for a study of the zoo.

    Raises:
        ZooError: If the device is "cuda" and there is no GPU.
    """

    def __init__(self, jobs: int, results: ResultsFolder, device: str, file: Path | None) -> None:
        self.results, self.device, self.file = results, device, file
        self.at_once = jobs
        self.gpus = dict(enumerate(_gpus()[:jobs])) if device == "cuda" else {}  # by process
        self.idle = list(range(jobs))
        self.workers: dict[int, ProcessPoolExecutor] = {}
        self.born: dict[int, Future[int]] = {}  # by process: a first job, which succeeds if the process has started
        self.running: dict[Future[Cost | Failed], tuple[Task, int]] = {}

    def start(self, tasks: Iterable[Task]) -> list[Task]:
        """Start as many of the tasks as there are free processes, and return the started ones."""
        started: list[Task] = []
        for task in tasks:
            if not self.idle:
                break
            on_gpu = task.on_gpu and self.device == "cuda"
            fit = [n for n in self.idle if n in self.gpus] if on_gpu else sorted(self.idle, key=self.gpus.__contains__)
            if not fit:
                continue
            n = fit[0]
            if n not in self.workers:
                self.workers[n] = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), _start_worker, (self.file, self.gpus.get(n, ""))
                )
                with one_thread_each():
                    self.born[n] = self.workers[n].submit(os.getpid)
            with one_thread_each():
                job = self.workers[n].submit(_do_here, task, self.results.out, self.device)
            self.idle.remove(n)
            self.running[job] = task, n
            started.append(task)
        return started

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Wait at most `timeout` seconds for a task to end, and return the tasks that have ended since the last call.

        Their results are in the folder.

        Raises:
            ZooError: If processes cannot be started.
        """
        done, _ = wait(self.running, timeout, FIRST_COMPLETED)
        ended: list[tuple[Task, Outcome]] = []
        for job in done:
            task, n = self.running.pop(job)
            self.idle.append(n)
            try:
                ended.append((task, job.result()))
            except BrokenProcessPool:
                if self.born[n].exception() is not None:
                    raise ZooError("a process for tasks ended while it started; its error is printed above") from None
                self.workers.pop(n).shutdown(wait=False)
                ended.append((task, Lost()))
            except Exception as error:  # the task could not be sent to the process
                ended.append((task, Failed.by(error)))
        return ended

    def stop(self) -> None:
        """End all processes, and kill those that are doing a task."""
        busy = {n for _, n in self.running.values()}
        for n, executor in self.workers.items():
            for process in list((executor._processes or {}).values()) if n in busy else []:
                process.kill()
            executor.shutdown(wait=True, cancel_futures=True)


def _start_worker(file: Path | None, gpu: str) -> None:
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the main one ends them
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)  # messages of Lightning and other libraries
    if file is not None:
        load_file(file)


def _do_here(task: Task, out: Path, device: str) -> Cost | Failed:
    results = ResultsFolder(out)
    outcome = do(task, results, results.work_folder(task), device)
    if isinstance(outcome, Failed):
        return outcome
    try:
        results.put(task, *outcome)
    except Exception as error:
        return Failed.by(error)
    return outcome[1]


def _gpus() -> list[str]:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise ZooError("device is 'cuda', but torch finds no GPU on this machine")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
