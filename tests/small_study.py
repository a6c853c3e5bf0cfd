"""A study in one file of a user's own, and processes that run it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

TEXT = '''"""Do sums of drawn numbers grow with how many there are?"""

import os
import random
import signal
import time
from dataclasses import dataclass

import numpy as np

from zoo import ZooError, estimates
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Study, Task


def note(task):
    """Write down that a task begins, and take as long as the environment says."""
    with open(os.environ["MINE_LOG"], "a") as file:
        file.write(f"{task.key} {os.getpid()}\\\\n")
    time.sleep(float(os.environ.get("MINE_PAUSE", "0")))


@dataclass(frozen=True)
class Draw(Task):
    """Numbers."""

    n: int
    seed: int
    trouble: str = ""

    def do(self, work):
        note(self)
        if self.trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "breaks":
            raise RuntimeError("two\\\\nlines")
        if self.trouble == "told":
            raise ZooError("there is no such thing")
        if self.trouble == "exits":
            raise SystemExit(3)
        rng = random.Random(self.seed)
        return {"drawn": np.array([rng.random() for _ in range(self.n)]), "seed": self.seed}


@dataclass(frozen=True)
class Sum(Task):
    """Their sum."""

    draw: Draw
    on_gpu = True

    def needs(self):
        return [self.draw]

    def do(self, work):
        note(self)
        drawn = work[self.draw]
        return {"sum": float(drawn["drawn"].sum()), "seed": drawn["seed"], "device": work.device}


@dataclass(frozen=True)
class Mine(Study):
    """Numbers are drawn, and summed.

    Args:
        sizes: How many numbers.
        seeds: Draws of each.
        trouble: What befalls the first draw.
    """

    sizes: tuple[int, ...] = (10, 20)
    seeds: AtLeastTwo = 3
    trouble: str = ""

    def tasks(self):
        return [self.sum(n, seed) for n in self.sizes for seed in range(self.seeds)]

    def sum(self, n, seed):
        return Sum(Draw(n, seed, self.trouble if (n, seed) == (self.sizes[0], 0) else ""))

    def report(self, results):
        sums = [estimates.mean([results[self.sum(n, s)]["sum"] for s in range(self.seeds)]) for n in self.sizes]
        chart = Chart("sums", "Sums", [Series.of("sums", self.sizes, sums)], "numbers", "sum")
        table = Table(["numbers", "sum"], [[n, one] for n, one in zip(self.sizes, sums)])
        finding = f"From {sums[0]:.2f} to {sums[-1]:.2f}."
        section = Section("mine", self.question, finding, tables=[table], charts=[chart])
        return Report("numbers", Verdict(finding, "Three draws."), [section])
'''.replace("\\\\n", "\\n")


def write_study(folder, name="mine.py"):
    """The study's file in a folder."""
    path = folder / name
    path.write_text(TEXT, "utf-8")
    return path


def environment(folder, **more):
    """Of a process: where the zoo is, and where tasks write down that they begin."""
    return os.environ | {"PYTHONPATH": str(ROOT), "MINE_LOG": str(folder / "begun.txt"), "COLUMNS": "300"} | more


def start(folder, *words, launcher=("-m", "zoo", "study"), cwd=None, **more):
    """Start `python -m zoo study` with arguments, in a session of its own."""
    command = [sys.executable, "-W", "ignore", *launcher, *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=cwd or folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def study(folder, *words, code=0, **more):
    """Run it to its end, and return what it printed."""
    process = start(folder, *words, **more)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, out + err
    return out, err


def begun(folder):
    """Names of the tasks that have begun, in order."""
    file = folder / "begun.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(condition, seconds=60):
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def results(out):
    """All results of a folder, without what they cost, and arrays byte for byte."""
    found = {path.name: path.read_bytes() for path in (out / "results").glob("*.npz")}
    for path in (out / "results").glob("*.json"):
        content = json.loads(path.read_text())
        found[path.name] = {key: content[key] for key in ("task", "result", "arrays")}
    return found


def times(out):
    """When each result was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}
