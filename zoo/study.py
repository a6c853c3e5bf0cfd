"""Base classes of studies and their tasks.

A study answers one question: it has tasks that compute results, and a report that shows what follows from them. Each
study is one file. The first line of the module's docstring is the question, which `python -m zoo study` lists. The
class of the study is a frozen dataclass whose fields are the settings. Its `tasks` returns what has to be computed, and
its `report` makes a report from the results. Everything else (arguments, folders, processes, progress, costs, pages) is
the same for all studies, and is in `zoo.study_command` and `zoo.running`.
"""

import hashlib
import json
import re
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args, get_type_hints

from jsonargparse.typing import restricted_number_type

from zoo.errors import ZooError
from zoo.report import Report, Section

if TYPE_CHECKING:
    AtLeastTwo = int
else:
    AtLeastTwo = restricted_number_type("AtLeastTwo", int, (">=", 2))

SHORT = 60  # largest number of characters of a field's value in a task's text

Result = dict[str, Any]  # numbers, texts, lists and dicts of these, and NumPy arrays as values of the outermost dict


class Results(Protocol):
    """Results of finished tasks."""

    def __getitem__(self, task: "Task") -> Result:
        """Return the result of a task.

        Raises:
            NotFinished: If the task has no result.
        """

    def __contains__(self, task: object) -> bool:
        """Return whether a task has a result."""


class NotFinished(Exception):
    """Raised if a task has no result, because it is not done yet or has failed.

    Args:
        task: The task.
        why: Why it failed; "" if it is not done yet.
    """

    def __init__(self, task: "Task", why: str = "") -> None:
        super().__init__(f"{task}: {why or 'not done yet'}")
        self.task, self.why = task, why


@dataclass(frozen=True)
class Work:
    """The results, folder and device that a task gets when it is done.

    Args:
        results: Results of the tasks that the task needs.
        place: Path of `folder`.
        device: Device to compute on, "cpu" or "cuda".
    """

    results: Results
    place: Path
    device: str = "cpu"

    def __getitem__(self, task: "Task") -> Result:
        return self.results[task]

    @property
    def folder(self) -> Path:
        """The task's own folder, for files from which the task can resume after an interruption.

        If the task is done again, the folder has the same files, except on a machine that does not share the disk.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        return self.place


@dataclass(frozen=True)
class Task:
    """A computation that is done once. Subclasses are frozen dataclasses whose fields determine the result.

    The result is stored under a name made from the task's class, `version` and fields. Studies with the same task
    therefore share its result, and a changed setting causes only those tasks to be computed that depend on it.
    """

    version: ClassVar[int] = 1  # raise it if `do` computes another result from the same fields
    here: ClassVar[bool] = False  # whether the task reads files of the machine on which the study is started
    on_gpu: ClassVar[bool] = False  # whether the task computes on the device that the study is given

    def needs(self) -> Sequence["Task"]:
        """Return the tasks whose results this task reads."""
        return ()

    @abstractmethod
    def do(self, work: Work) -> Result:
        """Compute the result. Modules that are slow to import are imported here, not at the top of the file."""

    def named_by(self) -> dict[str, Any]:
        """Return what determines the result: the fields.

        A task that reads a source returns a hash of the source's content instead of its name.
        """
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def seconds(self) -> float | None:
        """Return about how many seconds the task takes on one core of a laptop, or None if this is not known."""
        return None

    @cached_property
    def key(self) -> str:
        """Name under which the result is stored: the task's class and a hash of its content."""
        text = json.dumps(_content(self), sort_keys=True, allow_nan=False)
        return f"{type(self).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    def __str__(self) -> str:
        told = [f"{f.name}={_short(getattr(self, f.name))}" for f in fields(self)]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True)
class NotTested:
    """A part of a study that cannot be done, or has no result.

    Args:
        why: The reason, in a sentence.
    """

    why: str


@dataclass(frozen=True)
class Study:
    """Base class of studies. A study is a frozen dataclass whose fields are its settings.

    Fields may have restricted numbers of `jsonargparse.typing` as types, such as `PositiveInt`. The restrictions are
    checked in Python as well as on the command line.

    Raises:
        ZooError: If a setting is out of range.
    """

    title: ClassVar[str] = ""  # title of the page; by default the question
    aliases: ClassVar[Mapping[str, str]] = {}  # other names of settings on the command line

    def __init_subclass__(cls) -> None:
        """Add the settings of base classes to the class's docstring, which becomes its help text."""
        super().__init_subclass__()
        told: dict[str, str] = {}
        for one in reversed(cls.__mro__):
            told |= _explained(one.__doc__ or "")
        text, _, after = (cls.__doc__ or "").partition("\n\n    Args:\n")
        args = "".join(f"        {name}: {words}\n" for name, words in told.items())
        rest = after.partition("\n\n")[2]
        cls.__doc__ = (
            f"{text.rstrip()}\n\n    Args:\n{args}" + (f"\n{rest}" if rest else "    ") if args else cls.__doc__
        )

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for f in fields(self):
            _check_number(f.name, value := getattr(self, f.name), hints[f.name])
            object.__setattr__(self, f.name, _plain_number(value))
            if value in ((), []) and f.default != ():
                raise ZooError(f"{f.name} is empty; at least one value is needed")
        self.check()

    def check(self) -> None:
        """Check the settings; this must not read or compute anything.

        Raises:
            ZooError: If a setting is wrong or contradicts another; the message says in one line what would be right.
        """

    def parts(self) -> Mapping[str, "Study | NotTested"]:
        """Return the studies that this study consists of, by name; empty for a study that has its own tasks."""
        return {}

    def tasks(self) -> Sequence[Task]:
        """Return the study's own tasks, without those of its `parts`. It does not compute anything."""
        return ()

    def notes(self) -> Sequence[str]:
        """Return notes that are printed before anything is computed."""
        return ()

    def report(self, results: Results) -> Report:
        """Return the report of the results of `tasks`. The runner adds title, command, settings and costs.

        Args:
            results: The results of the finished tasks.

        Raises:
            NotFinished: If the report reads a result that does not exist.
        """
        raise NotImplementedError

    def report_of_parts(self, parts: Mapping[str, "Report | NotTested"]) -> Report:
        """Return the report of a study that has parts, from the reports of its `parts`.

        Args:
            parts: Report of each part, by name; for a part that is not finished, failed or was left out, the reason.
        """
        raise NotImplementedError

    def sections(self, parts: Mapping[str, "Report | NotTested"]) -> list[Section]:
        """Return the sections of all parts; a part without a report gets a section that gives the reason."""
        found: list[Section] = []
        for name in self.parts():
            told = parts[name]
            if isinstance(told, Report):
                found += told.sections
            else:
                file = f"{type(self).__module__.rpartition('.')[0]}.{name.replace('-', '_')}"
                found.append(Section(name, _question(file) or name, told.why, tested=False))
        return found

    @property
    def name(self) -> str:
        """Name of the study on the command line, which is that of its file."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @property
    def question(self) -> str:
        """The question that the study answers: the first line of its module's docstring."""
        return _question(type(self).__module__)


def _question(module: str) -> str:
    """Return the first line of the docstring of a module; "" if it has none or is not imported."""
    return (getattr(sys.modules.get(module), "__doc__", None) or "").strip().partition("\n")[0]


def _explained(docstring: str) -> dict[str, str]:
    """Return the texts of a docstring's Args, by name."""
    _, found, args = docstring.partition("Args:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", args.partition("\n\n")[0], re.M) if found else []
    return dict(entries)


def closure(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks and all tasks that they need, each once and after the tasks that it needs itself."""
    found: dict[str, Task] = {}

    def add(task: Task) -> None:
        if task.key not in found:
            for needed in task.needs():
                add(needed)
            found[task.key] = task

    for task in tasks:
        add(task)
    return list(found.values())


def all_tasks(study: Study) -> list[Task]:
    """Return all tasks of a study and of its parts, see `closure`."""
    own = list(study.tasks())
    for part in study.parts().values():
        own += all_tasks(part) if isinstance(part, Study) else []
    return closure(own)


def _content(value: Any) -> Any:
    """Return a field's value as plain JSON, from which the task's name is made."""
    if isinstance(value, Task):
        own = {name: _content(item) for name, item in value.named_by().items()}
        return {"task": type(value).__name__, "version": value.version} | own
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _content(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _content(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_content(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    raise TypeError(f"a task cannot have a {type(value).__name__} as a field: {value!r}")


def _check_number(name: str, value: Any, hint: Any) -> None:
    """Refuse a number outside the range of its type."""
    options = get_args(hint) or (hint,)
    restricted = [t for t in options if hasattr(t, "_restrictions")]
    if not restricted or value is None or isinstance(value, str):
        return
    for one in value if isinstance(value, tuple | list) else (value,):
        for kind in restricted:
            try:
                kind(one)
            except (ValueError, TypeError):
                raise ZooError(f"{name} is {one}; it must be {rule_of(kind._expression)}") from None


def rule_of(expression: str) -> str:
    """Return jsonargparse's expression of a number's range, such as v>=2, in words."""
    words = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
    return re.sub(r"v ?(>=|<=|>|<) ?", lambda sign: f"{words[sign[1]]} ", expression)


def _plain_number(value: Any) -> Any:
    """Return numbers as plain `int` and `float`; jsonargparse returns restricted numbers as instances of subclasses."""
    if isinstance(value, tuple | list):
        return tuple(_plain_number(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, int) else float(value)


def _short(value: Any) -> str:
    if isinstance(value, Task):
        return text if len(text := str(value)) <= SHORT else type(value).__name__
    text = value.name if hasattr(value, "name") else repr(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 3]}..."
