"""Tasks in processes of this machine, one thread each."""

import importlib
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from zoo.end_with_parent import end_with
from zoo.running.doing import Failed, Lost, Outcome, be_quiet, do
from zoo.running.folder import ResultsFolder
from zoo.running.study_files import load_file
from zoo.study import Task


class Processes:
    """So many processes, each with an executor of its own, so that one that dies takes no other task with it.

    Args:
        jobs: Processes.
        results: Where results are read and written.
        device: "cpu" or "cuda"; every GPU does one task at a time.
        file: The study's own file, if it is not one of the zoo's.
    """

    def __init__(self, jobs: int, results: ResultsFolder, device: str, file: Path | None) -> None:
        self.results, self.device, self.file = results, device, file
        self.workers: list[ProcessPoolExecutor | None] = [None] * jobs
        self.running: dict[Future[Failed | None], tuple[Task, int]] = {}
        self.gpus = _gpus() if device == "cuda" else []
        self.on: dict[int, str] = {}  # by worker: the GPU it holds

    def start(self, tasks: Sequence[Task]) -> list[Task]:
        """Start as many of the tasks as there is room for, and return these."""
        started = []
        for task in tasks:
            idle = [n for n in range(len(self.workers)) if n not in [worker for _, worker in self.running.values()]]
            gpu = next((g for g in self.gpus if g not in self.on.values()), None)
            if not idle:
                break
            if task.on_gpu and self.gpus and gpu is None:
                continue
            if task.on_gpu and gpu is not None:
                self.on[idle[0]] = gpu
            executor = self.workers[idle[0]] or self._worker()
            self.workers[idle[0]] = executor
            job = executor.submit(_do_here, task, self.results.out, self.device, self.on.get(idle[0], ""))
            self.running[job] = task, idle[0]
            started.append(task)
        return started

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Tasks that have ended since, after at most so many seconds; their results are in the folder."""
        done, _ = wait(self.running, timeout, FIRST_COMPLETED)
        ended: list[tuple[Task, Outcome]] = []
        for job in done:
            task, worker = self.running.pop(job)
            self.on.pop(worker, None)
            try:
                failed = job.result()
            except BrokenProcessPool:
                self.workers[worker] = None
                ended.append((task, Lost()))
            else:
                ended.append((task, failed or self.results.cost(task)))
        return ended

    def stop(self) -> None:
        """End all processes, whatever they do."""
        for executor in self.workers:
            if executor is not None:
                for process in list((executor._processes or {}).values()):
                    process.kill()
                executor.shutdown(wait=True, cancel_futures=True)

    def _worker(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker, (self.file,))


def _start_worker(file: Path | None) -> None:
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)
    be_quiet()
    if file is not None:
        load_file(file)


def _do_here(task: Task, out: Path, device: str, gpu: str) -> Failed | None:
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    results = ResultsFolder(out)
    outcome = do(task, results, results.work_folder(task), device)
    if isinstance(outcome, Failed):
        return outcome
    results.put(task, *outcome)
    return None


def _gpus() -> list[str]:
    torch = importlib.import_module("torch")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
