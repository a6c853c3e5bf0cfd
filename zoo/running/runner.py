"""Doing a study's tasks and writing its page, whatever does the tasks."""

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from zoo import report
from zoo.errors import ZooError
from zoo.report import Report, Section, Table, Verdict
from zoo.running.doing import Failed, Lost, Outcome
from zoo.running.folder import Cost, ResultsFolder
from zoo.running.progress import Progress
from zoo.study import NotFinished, NotTested, Study, Task, closure

TRIES = 3  # of a task whose process or machine ended
PAGE_SHARE = 0.05  # of the time that may go into pages on the way
AT_ONCE = 200  # tasks offered to an engine


class Engine(Protocol):
    """What does tasks."""

    def start(self, tasks: Sequence[Task]) -> list[Task]:
        """Start as many of the tasks as there is room for, and return these."""

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Tasks that have ended since, after at most so many seconds. What they found is in the folder."""

    def stop(self) -> None:
        """End all that is going on."""


class Run:
    """A study in a folder.

    Args:
        study: The study.
        out: Its folder. Results that are there already are used.
        chosen: Names of the parts to do, of a study that has parts; all by default.

    Raises:
        ZooError: If a chosen part does not exist, or the folder cannot be used.
    """

    def __init__(self, study: Study, out: Path, chosen: Sequence[str] | None = None) -> None:
        self.study, self.out, self.results = study, out, ResultsFolder(out)
        self.parts = _choose(study, chosen)
        self.tasks = closure([task for part in self._leaves(study, self.parts) for task in part.tasks()])
        self._page_time = (float("-inf"), 0.0)  # when the last page was written, and how long that took

    def missing(self) -> list[Task]:
        """Tasks without a result."""
        return [task for task in self.tasks if task not in self.results]

    def do(self, engine: Engine, progress: Progress) -> None:
        """Do what is missing; a page is written whenever a part is complete, and at the end, however that comes.

        Args:
            engine: What does tasks.
            progress: What tells the user of it.
        """
        queue, tries = _Queue(self.missing()), Counter[str]()
        progress.begin(self.tasks, queue.tasks(), self.results)
        parts = {
            name: {task.key for task in tasks if task not in self.results} for name, tasks in self._by_part().items()
        }
        try:
            while queue.waits or queue.running:
                queue.started(engine.start(queue.ready(AT_ONCE)))
                for task, outcome in engine.finished(timeout=1.0):
                    if isinstance(outcome, Lost) and (tries.update([task.key]) or tries[task.key] < TRIES):
                        queue.again(task)
                        continue
                    for ended, told in self._ended(queue, task, outcome):
                        progress.ended(ended, told)
                        for left in parts.values():
                            left.discard(ended.key)
                progress.show()
                unfinished = {name: left for name, left in parts.items() if left}
                if unfinished and len(unfinished) < len(parts):
                    parts = unfinished
                    self._write_on_the_way()
        finally:
            engine.stop()
            progress.end()
            self.write()

    def write(self) -> Report:
        """Write the page of what is there, and return its report."""
        start = time.monotonic()
        written = self._finish(self._report(self.study, self.parts))
        report.write(written, self.out)
        self._page_time = time.monotonic(), time.monotonic() - start
        self.written = written
        return written

    def _write_on_the_way(self) -> None:
        last, took = self._page_time
        if time.monotonic() - last > took / PAGE_SHARE:
            self.write()

    def _ended(self, queue: "_Queue", task: Task, outcome: Outcome) -> list[tuple[Task, Outcome]]:
        """Note the end of a task, and that of the tasks which need it if it failed."""
        if isinstance(outcome, Cost):
            queue.finished(task)
            return [(task, outcome)]
        if isinstance(outcome, Lost):
            outcome = Failed(f"its process ended {TRIES} times before it did", "")
        self.results.failures[task.key] = outcome.why
        if outcome.trace:
            file = self.out / "failures" / f"{task.key}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{task}\n\n{outcome.trace}", "utf-8")
        hopeless = queue.failed(task)
        told = Failed(f"it needs {task}, which failed", "")
        self.results.failures |= {other.key: told.why for other in hopeless}
        return [(task, outcome), *((other, told) for other in hopeless)]

    def _leaves(self, study: Study, parts: Mapping[str, Any]) -> list[Study]:
        found = [study]
        for part in parts.values():
            found += self._leaves(part, part.parts()) if isinstance(part, Study) else []
        return found

    def _by_part(self) -> dict[str, list[Task]]:
        """All tasks by the part that they belong to."""
        parts = {name: part for name, part in self.parts.items() if isinstance(part, Study)} or {"": self.study}
        return {
            name: closure([task for one in self._leaves(part, part.parts()) for task in one.tasks()])
            for name, part in parts.items()
        }

    def _report(self, study: Study, parts: Mapping[str, "Study | NotTested"]) -> Report:
        if parts:
            return study.report_of_parts({name: self._part(name, part) for name, part in parts.items()})
        told = self._part(study.name, study)
        if isinstance(told, Report):
            return told
        section = Section(study.name, study.question, told.why, tested=False)
        return Report("", Verdict("No answer yet.", told.why), [section])

    def _part(self, name: str, part: "Study | NotTested") -> "Report | NotTested":
        if isinstance(part, NotTested):
            return part
        try:
            made = self._report(part, part.parts()) if part.parts() else part.report(self.results)
        except NotFinished as missing:
            return NotTested(self._why(part, missing))
        command = self._command(part)
        return replace(
            made, sections=[s if s.command or not s.tested else replace(s, command=command) for s in made.sections]
        )

    def _why(self, part: Study, missing: NotFinished) -> str:
        tasks = closure(part.tasks())
        done = sum(task in self.results for task in tasks)
        failed = [task for task in tasks if task.key in self.results.failures]
        told = [f"{task}: {self.results.failures[task.key]}" for task in failed[:3]]
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        if failed:
            return f"{len(failed)} of {len(tasks)} tasks failed, {done} are done. {'; '.join(told)}{more}."
        return f"Not finished: {done} of {len(tasks)} tasks are done. The same command goes on."

    def _finish(self, made: Report) -> Report:
        """The report with all that does not depend on what was found."""
        settings = {f.name: getattr(self.study, f.name) for f in fields(self.study)}
        return replace(
            made,
            study=self.study.name,
            title=self.study.title or self.study.question,
            command=self._command(self.study),
            settings=settings,
            costs=costs(self.tasks, self.results),
        )

    def _command(self, study: Study) -> str:
        """What makes a study again: its settings, as far as they are not the defaults."""
        words = ["python", "-m", "zoo", "study", study.name]
        for f in fields(study):
            value = getattr(study, f.name)
            if value == f.default or (value is None):
                continue
            words += [] if f.name == "fit_arguments" else [f"--{f.name}", *_words(value)]
        rest = getattr(study, "fit_arguments", ())
        return shlex.join([*words, "--out", "DIR", *(("--", *rest) if rest else ())])


class _Queue:
    """Tasks that are not finished, in their order, and which of them can be started."""

    def __init__(self, missing: Sequence[Task]) -> None:
        self.waits = {task.key: task for task in missing}
        self.running: dict[str, Task] = {}
        self.open = {key: {n.key for n in task.needs()} & self.waits.keys() for key, task in self.waits.items()}
        self.dependents: dict[str, list[Task]] = {}
        for task in missing:
            for key in self.open[task.key]:
                self.dependents.setdefault(key, []).append(task)
        self.can_start = {key: task for key, task in self.waits.items() if not self.open[key]}

    def tasks(self) -> list[Task]:
        return list(self.waits.values())

    def ready(self, most: int) -> list[Task]:
        return list(islice(self.can_start.values(), most))

    def started(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.running[task.key] = self.waits.pop(task.key)
            del self.can_start[task.key]

    def again(self, task: Task) -> None:
        del self.running[task.key]
        self.waits[task.key] = self.can_start[task.key] = task

    def finished(self, task: Task) -> None:
        del self.running[task.key]
        for other in self.dependents.get(task.key, []):
            self.open[other.key].discard(task.key)
            if not self.open[other.key] and other.key in self.waits:
                self.can_start[other.key] = other

    def failed(self, task: Task) -> list[Task]:
        """Take out a task, and all that need it, which are returned."""
        self.running.pop(task.key, None)
        hopeless = []
        for other in self.dependents.get(task.key, []):
            if self.waits.pop(other.key, None):
                hopeless += [other, *self.failed(other)]
        return hopeless


def costs(tasks: Sequence[Task], results: ResultsFolder) -> Table | None:
    """What finished tasks took, by kind; None if there are none."""
    kinds: dict[str, list[Task]] = {}
    for task in tasks:
        if task in results:
            kinds.setdefault(type(task).__name__, []).append(task)
    if not kinds:
        return None
    rows: list[list[Any]] = []
    for name, own in kinds.items():
        paid = [results.cost(task) for task in own]
        where = sorted({f"{cost.device} ({cost.machine})" for cost in paid})
        rows.append(
            [name, len(own), sum(c.seconds for c in paid) / 60, round(max(c.megabytes for c in paid)), "; ".join(where)]
        )
    rows.append(["all", sum(row[1] for row in rows), sum(row[2] for row in rows), None, ""])
    return Table(["tasks", "number", "minutes of one process", "largest process, MB", "device"], rows, digits=1)


def _choose(study: Study, chosen: Sequence[str] | None) -> Mapping[str, "Study | NotTested"]:
    parts = study.parts()
    if chosen is None:
        return parts
    if not parts:
        raise ZooError(f"study {study.name} has no parts; leave --parts out")
    if wrong := [name for name in chosen if name not in parts]:
        raise ZooError(f"study {study.name} has no part {wrong[0]!r}; its parts are {', '.join(parts)}")
    return {name: part if name in chosen else NotTested("Left out by --parts.") for name, part in parts.items()}


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
