"""Progress of a study and estimate of the remaining time: a bar in a terminal, otherwise one line per minute."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from zoo.running.doing import Failed, Outcome
from zoo.running.folder import Cost, ResultsFolder
from zoo.study import Task

EVERY = 60.0  # seconds between lines if there is no terminal


class Progress:
    """Prints the progress of a study on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Bars(*columns, TextColumn("{task.fields[rest]}"), console=self.console)
        self.missing: dict[str, Task] = {}
        self.took: dict[str, list[float]] = {}
        self.total = 0
        self.shown = float("-inf")

    def begin(self, tasks: Sequence[Task], missing: Sequence[Task], results: ResultsFolder, at_once: int) -> None:
        """Start, counting the tasks that are done already.

        Args:
            tasks: All tasks of the study.
            missing: The tasks without a result.
            results: Folder with the results of the other tasks.
            at_once: Number of tasks that are done at a time.
        """
        self.missing, self.total = {task.key: task for task in missing}, len(tasks)
        for task in tasks:
            if task.key not in self.missing:
                self.took.setdefault(type(task).__name__, []).append(results.cost(task).seconds)
        self.bar = self.bars.add_task("", total=self.total, completed=self.total - len(missing), rest="")
        if self.console.is_terminal:
            self.bars.start()
        self.show(at_once)

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Count a task that has ended; print the error if it failed."""
        self.missing.pop(task.key, None)
        if isinstance(outcome, Cost):
            self.took.setdefault(type(task).__name__, []).append(outcome.seconds)
        if isinstance(outcome, Failed):
            self.console.print(f"failed: {task}: {outcome.why}", markup=False, highlight=False, soft_wrap=True)

    def show(self, at_once: int) -> None:
        """Update the bar, or print a line if a minute has passed.

        Args:
            at_once: Number of tasks that are done at a time, by which the remaining time is divided.
        """
        if time.monotonic() - self.shown < (0.5 if self.console.is_terminal else EVERY):
            return
        self.shown = time.monotonic()
        rest = time_to_go(list(self.missing.values()), self.took, at_once)
        done = self.total - len(self.missing)
        if self.console.is_terminal:
            self.bars.update(self.bar, completed=done, rest=rest)
        else:
            self.console.print(f"{done} of {self.total} tasks are done; {rest}", highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Stop the bar."""
        if self.console.is_terminal and self.total:
            self.bars.update(self.bar, completed=self.total - len(self.missing), rest="")
            self.bars.stop()


def seconds_to_go(missing: Sequence[Task], took: dict[str, list[float]]) -> float | None:
    """Return the estimated time of the missing tasks on one process, or None if it is unknown for one of them.

    Args:
        missing: Tasks without a result.
        took: Seconds that each finished task took, by class.
    """
    total = 0.0
    for task in missing:
        own = took.get(type(task).__name__)
        seconds = sum(own) / len(own) if own else task.seconds()
        if seconds is None:
            return None
        total += seconds
    return total


def time_to_go(missing: Sequence[Task], took: dict[str, list[float]], at_once: int) -> str:
    """Return the estimated time of the missing tasks in words, if `at_once` of them are done at a time."""
    seconds = seconds_to_go(missing, took)
    if seconds is None:
        return "remaining time not known yet"
    minutes = seconds / max(1, at_once) / 60
    return f"about {minutes:.0f} minutes left" if minutes >= 1.5 else f"about {60 * minutes:.0f} seconds left"
