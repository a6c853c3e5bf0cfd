"""A run of a study: it does the missing tasks with an engine, and writes the report."""

import math
import shlex
import shutil
import sys
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

from zoo import report
from zoo.errors import ZooError
from zoo.report import Report, Section, Table, Verdict
from zoo.running.doing import Failed, Lost, Outcome
from zoo.running.folder import Cost, ResultsFolder
from zoo.running.progress import Progress
from zoo.study import NotFinished, NotTested, Study, Task, closure

TIMES_AGAIN = 3  # how often a task is done again after its process or machine ended
UNKNOWN = 60.0  # seconds of a task that gives no estimate
PAGE_SHARE = 0.05  # largest share of the time that is spent on writing reports before the end


class Engine(Protocol):
    """Interface of the classes that do tasks: processes of this machine, or a cluster."""

    @property
    def at_once(self) -> int:
        """Number of tasks that are done at a time."""

    def start(self, tasks: Iterable[Task]) -> list[Task]:
        """Start as many of the tasks as can be accepted now, and return the started ones."""

    def finished(self, timeout: float) -> list[tuple[Task, Outcome]]:
        """Wait at most `timeout` seconds for a task to end, and return the tasks that have ended since the last call.

        Their results are in the folder.
        """

    def stop(self) -> None:
        """End all running tasks."""


class Run:
    """A run of a study in a folder.

    Args:
        study: The study.
        out: Folder of the study. Results that it already holds are used.
        chosen: Names of the parts to do, for a study that has parts; all by default.

    Raises:
        ZooError: If a chosen part does not exist.
    """

    def __init__(self, study: Study, out: Path, chosen: Sequence[str] | None = None) -> None:
        self.study, self.out, self.results = study, out, ResultsFolder(out)
        self.parts = _choose(study, chosen)
        self.by_part: dict[str, list[Task]] = {
            name: _tasks(part, part.parts()) for name, part in self.parts.items() if isinstance(part, Study)
        } or {study.name: closure(study.tasks())}
        short_first = sorted(self.by_part.values(), key=_seconds)
        self.tasks = closure([task for tasks in short_first for task in tasks])
        self.written: Report | None = None
        self._no_reports: dict[str, str] = {}  # by study: why it has no report although its tasks are done
        self._page_time = (float("-inf"), 0.0)  # time at which the last page was written, and how long it took

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of all failures, by key of a failed task or name of a study whose report failed."""
        return self.results.failures | self._no_reports

    def missing(self) -> list[Task]:
        """Return the tasks without a result."""
        return [task for task in self.tasks if task not in self.results]

    def do(self, engine: Engine, progress: Progress) -> None:
        """Do the missing tasks. The report is written when a part is complete, and at the end or after an interruption.

        Args:
            engine: Does the tasks.
            progress: Shows the progress to the user.
        """
        shutil.rmtree(self.out / "failures", ignore_errors=True)
        try:
            missing = self.missing()
            progress.begin(self.tasks, missing, self.results, engine.at_once)
            self._do(engine, progress, missing)
        finally:
            engine.stop()
            progress.end()
            self.write()

    def _do(self, engine: Engine, progress: Progress, missing: Sequence[Task]) -> None:
        queue, died = _Queue(missing), Counter[str]()
        unfinished = {name: {t.key for t in own} & queue.waits.keys() for name, own in self.by_part.items()}
        complete = {name for name, left in unfinished.items() if not left}
        on_page: set[str] = set()
        while queue.waits or queue.running:
            queue.started(engine.start(queue.ready()))
            for task, outcome in engine.finished(timeout=1.0):
                if isinstance(outcome, Lost):
                    died[task.key] += 1
                    if died[task.key] <= TIMES_AGAIN:
                        queue.again(task)
                        continue
                for ended, told in self._ended(queue, task, outcome):
                    progress.ended(ended, told)
                    for name, left in unfinished.items():
                        left.discard(ended.key)
                        if not left:
                            complete.add(name)
            progress.show(engine.at_once)
            if on_page != complete != unfinished.keys() and self._may_write():
                self.write()
                on_page = set(complete)

    def write(self) -> Report:
        """Write the report of the results that exist, and return it."""
        start = time.monotonic()
        self._no_reports = {}
        self.written = self._finish(self._report(self.study))
        report.write(self.written, self.out)
        self._page_time = time.monotonic(), time.monotonic() - start
        return self.written

    def _may_write(self) -> bool:
        last, took = self._page_time
        return time.monotonic() - last > took / PAGE_SHARE

    def _ended(self, queue: "_Queue", task: Task, outcome: Outcome) -> list[tuple[Task, Outcome]]:
        """Record the end of a task; if it failed, also that of the tasks that need it. Return all tasks that ended."""
        if isinstance(outcome, Cost):
            queue.finished(task)
            return [(task, outcome)]
        if isinstance(outcome, Lost):
            outcome = Failed(f"its process died {TIMES_AGAIN + 1} times before the task was done")
        self.results.failures[task.key] = outcome.why
        self._keep_trace(task.key, str(task), outcome)
        hopeless = queue.failed(task)
        told = Failed(f"it needs {task}, which failed")
        self.results.failures |= {other.key: told.why for other in hopeless}
        return [(task, outcome), *((other, told) for other in hopeless)]

    def _keep_trace(self, name: str, what: str, failed: Failed) -> None:
        if failed.trace:
            file = self.out / "failures" / f"{name}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{what}\n\n{failed.trace}", "utf-8")

    def _report(self, study: Study) -> Report:
        """Return the report of the whole study, or a report that says why there is no answer."""
        told = self._answer(study, self.parts, self.tasks)
        if isinstance(told, Report):
            return told
        section = Section(study.name, study.question, told.why, tested=False)
        return Report("", Verdict("No answer yet.", told.why), [section])

    def _answer(
        self, study: Study, parts: Mapping[str, "Study | NotTested"], tasks: Sequence[Task]
    ) -> "Report | NotTested":
        """Return the report of a study, or the reason why there is none."""
        try:
            if parts:
                return study.report_of_parts({name: self._part(name, part) for name, part in parts.items()})
            made = study.report(self.results)
        except NotFinished as missing:
            return NotTested(self._why(study, tasks, missing))
        except ZooError:
            raise
        except Exception as error:
            failed = Failed.by(error)
            self._keep_trace(f"report of {study.name}", str(study), failed)
            self._no_reports[study.name] = f"All results exist, but making the report failed: {failed.why}."
            return NotTested(self._no_reports[study.name])
        command = self._command(study)
        sections = [s if s.command or not s.tested else replace(s, command=command) for s in made.sections]
        return replace(made, sections=sections)

    def _part(self, name: str, part: "Study | NotTested") -> "Report | NotTested":
        if isinstance(part, NotTested):
            return part
        parts = part.parts()
        return self._answer(part, parts, _tasks(part, parts) if parts else self.by_part.get(name, []))

    def _why(self, study: Study, tasks: Sequence[Task], missing: NotFinished) -> str:
        done = sum(task in self.results for task in tasks)
        failed = [task for task in tasks if task.key in self.results.failures]
        told = [f"{task}: {self.results.failures[task.key]}" for task in failed[:3]]
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        if failed:
            return f"{len(failed)} of {len(tasks)} tasks failed, {done} are done. {'; '.join(told)}{more}."
        if done == len(tasks):
            self._no_reports[study.name] = f"The report reads {missing.task}, which is not one of the study's tasks."
            return self._no_reports[study.name]
        return f"Not finished: {done} of {len(tasks)} tasks are done. Run the same command again to continue."

    def _finish(self, made: Report) -> Report:
        """Return the report with title, command, settings and costs added."""
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
        """Return the command that runs the study with the same settings; settings with default values are left out."""
        words = ["python", "-m", "zoo", "study", _named(study)]
        for f in fields(study):
            value = getattr(study, f.name)
            if value == f.default or value is None:
                continue
            words += [] if f.name == "fit_arguments" else [f"--{f.name}", *_words(value)]
        rest = getattr(study, "fit_arguments", ())
        return shlex.join([*words, "--out", "DIR", *(("--", *rest) if rest else ())])


class _Queue:
    """The tasks that are not finished. They are started in their order, so that parts are complete early.

    Args:
        missing: The tasks, in order.
    """

    def __init__(self, missing: Sequence[Task]) -> None:
        self.all, self.places = missing, {task.key: place for place, task in enumerate(missing)}
        self.waits = {task.key: task for task in missing}
        self.running: dict[str, Task] = {}
        self.open = {key: {n.key for n in task.needs()} & self.waits.keys() for key, task in self.waits.items()}
        self.dependents: dict[str, list[Task]] = {}
        for task in missing:
            for key in self.open[task.key]:
                self.dependents.setdefault(key, []).append(task)
        self.can_start = [place for place, task in enumerate(missing) if not self.open[task.key]]

    def ready(self) -> Iterable[Task]:
        return (self.all[place] for place in self.can_start)

    def started(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.running[task.key] = self.waits.pop(task.key)
            del self.can_start[bisect_left(self.can_start, self.places[task.key])]

    def again(self, task: Task) -> None:
        del self.running[task.key]
        self.waits[task.key] = task
        insort(self.can_start, self.places[task.key])

    def finished(self, task: Task) -> None:
        del self.running[task.key]
        for other in self.dependents.get(task.key, []):
            self.open[other.key].discard(task.key)
            if not self.open[other.key] and other.key in self.waits:
                insort(self.can_start, self.places[other.key])

    def failed(self, task: Task) -> list[Task]:
        """Remove a failed task and all tasks that need it; return the latter."""
        del self.running[task.key]
        hopeless, at = [task], 0
        while at < len(hopeless):
            for other in self.dependents.get(hopeless[at].key, []):
                if self.waits.pop(other.key, None):
                    hopeless.append(other)
            at += 1
        return hopeless[1:]


def costs(tasks: Sequence[Task], results: ResultsFolder) -> Table | None:
    """Return a table of the costs of finished tasks by class, or None if no task is finished."""
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
        memory = max(c.megabytes for c in paid)
        most = round(memory) if math.isfinite(memory) else None
        rows.append([name, len(own), sum(c.seconds for c in paid) / 60, most, "; ".join(where)])
    rows.append(["all", sum(row[1] for row in rows), sum(row[2] for row in rows), None, ""])
    return Table(["tasks", "number", "minutes of one process", "peak memory, MB", "device"], rows, digits=1)


def _seconds(tasks: Sequence[Task]) -> float:
    """Return the estimated time of a part's tasks on one core."""
    return sum(UNKNOWN if (own := task.seconds()) is None else own for task in tasks)


def _choose(study: Study, chosen: Sequence[str] | None) -> Mapping[str, "Study | NotTested"]:
    parts = study.parts()
    if chosen is None:
        return parts
    if not parts:
        raise ZooError(f"study {study.name} has no parts; leave --parts out")
    if wrong := [name for name in chosen if name not in parts]:
        raise ZooError(f"study {study.name} has no part {wrong[0]!r}; its parts are {', '.join(parts)}")
    return {name: part if name in chosen else NotTested("Left out by --parts.") for name, part in parts.items()}


def _tasks(study: Study, parts: Mapping[str, Any]) -> list[Task]:
    """Return all tasks of a study, without those of parts that are left out."""
    own = list(study.tasks())
    for part in parts.values():
        own += _tasks(part, part.parts()) if isinstance(part, Study) else []
    return closure(own)


def _named(study: Study) -> str:
    """Return a study's name on the command line: its own name, or the path of a user's file."""
    module = type(study).__module__
    file = getattr(sys.modules[module], "__file__", None)
    if module.startswith("zoo.") or file is None:
        return study.name
    path = Path(file)
    return f"./{path.relative_to(Path.cwd()).as_posix()}" if path.is_relative_to(Path.cwd()) else path.as_posix()


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
