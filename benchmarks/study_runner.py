"""Overhead of running a study, and the speed of two Dask workers compared with one.

    python -m benchmarks.study_runner
    python -m benchmarks.study_runner --tasks 1000 --loops 3000000

The first measurement runs --tasks empty tasks in one local process, from the study to its page. The second measurement
runs tasks of pure Python, each of which uses a whole core, on a local Dask scheduler with workers: alternately on one
worker and on two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from zoo.report import Report, Section, Table, Verdict
from zoo.running.cluster import Cluster
from zoo.running.processes import Processes
from zoo.running.progress import Progress
from zoo.running.runner import Run
from zoo.study import Result, Results, Study, Task, Work

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Loop(Task):
    """A task that uses a whole core for `rounds` rounds of a loop."""

    rounds: int
    number: int

    def do(self, work: Work) -> Result:
        """Return the result of the loop."""
        total = self.number
        for i in range(self.rounds):
            total = (total * 31 + i) % 1_000_003
        return {"total": total}


@dataclass(frozen=True)
class Loops(Study):
    """A study of equal tasks.

    Args:
        n: Number of tasks.
        rounds: Number of rounds of the loop in each task.
    """

    n: int = 10_000
    rounds: int = 0

    def tasks(self) -> Sequence[Task]:
        """Return all tasks."""
        return [Loop(self.rounds, number) for number in range(self.n)]

    def report(self, results: Results) -> Report:
        """Report the sum of the results of all tasks."""
        total = sum(results[task]["total"] for task in self.tasks())
        table = Table(["tasks", "total"], [[self.n, total]])
        return Report("loops", Verdict(f"{total}", ""), [Section("loops", "?", "", tables=[table])])


def cost_per_task(n: int) -> float:
    """Return the milliseconds that an empty task takes in one process, from the study to its page."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = Run(Loops(n), Path(folder))
        run.results.make()
        run.do(Processes(1, run.results, "cpu", None), Progress())
        return 1e3 * (time.perf_counter() - start) / n


@contextmanager
def dask(workers: int) -> Iterator[str]:
    """Start a scheduler with workers of one thread each, and yield its address."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, sys.path)])}
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        command = [sys.executable, "-W", "ignore", "-m", *words, "--host", "127.0.0.1", "--no-dashboard"]
        processes.append(subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "scheduler.json")
        start("distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not (text := file.read_text("utf-8")):
            time.sleep(0.05)
        address = json.loads(text)["address"]
        try:
            for _ in range(workers):
                start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny")
            yield address
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def seconds_on_dask(workers: int, n: int, rounds: int) -> float:
    """Return the seconds that `n` tasks take on workers that have already run one task each."""
    from distributed import Client

    with dask(workers) as address, tempfile.TemporaryDirectory() as folder:
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers)
            client.run(Loop(0, 0).do, None)  # imports the zoo
        run = Run(Loops(n, rounds), Path(folder))
        run.results.make()
        missing = run.missing()
        engine = Cluster(address, run.results, "cpu", None, missing)
        start = time.perf_counter()
        run.do(engine, Progress())
        return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000, help="number of empty tasks in one process, default 10000")
    parser.add_argument(
        "--loops", type=int, default=20_000_000, help="loop rounds per task on Dask, default 20 million"
    )
    parser.add_argument("--on-dask", type=int, default=24, help="number of tasks on Dask, default 24")
    parser.add_argument("--repeats", type=int, default=3, help="measurements on one and on two workers, default 3")
    args = parser.parse_args(argv)
    table = Shown("what", "seen", "aim", title=f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    table.add_row(f"{args.tasks:,} empty tasks, ms each", f"{cost_per_task(args.tasks):.2f}", "< 10")
    ratios = []
    for _ in range(args.repeats):
        one, two = (seconds_on_dask(workers, args.on_dask, args.loops) for workers in (1, 2))
        ratios.append(one / two)
        table.add_row("a task on one worker, s", f"{one / args.on_dask:.2f}", "")
    if ratios:
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(f"{args.on_dask} tasks, two workers / one, tasks per second", told, ">= 1.8")
    Console().print(table)


if __name__ == "__main__":
    from benchmarks.study_runner import main as of_the_module  # other processes import the tasks from this module

    of_the_module()
