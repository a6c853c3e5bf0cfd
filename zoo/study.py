"""What a study is: a question, the tasks whose results answer it, and a report of what they show.

A study is one file. Its module's docstring is the question, and its first line is what `python -m zoo study` lists. Its
class is a frozen dataclass of settings; `tasks` names what has to be computed, and `report` says what the results show.
Everything else (arguments, folders, processes, progress, costs, pages) is the same for all studies and stands in
`zoo.study_command` and `zoo.running`.
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

SHORT = 60  # characters of a field's value in a task's name

Result = dict[str, Any]  # numbers, texts, lists and dicts of them; values that are NumPy arrays are stored as such


class Results(Protocol):
    """Results of finished tasks."""

    def __getitem__(self, task: "Task") -> Result:
        """The result of a task.

        Raises:
            NotFinished: If there is none.
        """

    def __contains__(self, task: object) -> bool:
        """Whether a task is finished."""


class NotFinished(Exception):
    """A task has no result: it is not done yet, or it failed.

    Args:
        task: The task.
        why: What happened to it, if something did.
    """

    def __init__(self, task: "Task", why: str = "") -> None:
        super().__init__(f"{task}: {why or 'not done yet'}")
        self.task, self.why = task, why


@dataclass(frozen=True)
class Work:
    """What a task is given when it is done.

    Args:
        results: Of the tasks that it needs.
        place: Path of `folder`.
        device: Where to compute: "cpu" or "cuda".
    """

    results: Results
    place: Path
    device: str = "cpu"

    def __getitem__(self, task: "Task") -> Result:
        return self.results[task]

    @property
    def folder(self) -> Path:
        """A folder of the task's own, in which it may keep what it needs to go on after it was interrupted.

        It is there again if the task is done again, unless it is then done on a machine that does not share the disk.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        return self.place


@dataclass(frozen=True)
class Task:
    """Something that is computed once. Subclasses are frozen dataclasses whose fields decide the result.

    A task is named by its content: its class, `version` and fields. So a result is used again by every study that needs
    the same task, and what a changed setting does not touch is not computed again.
    """

    version: ClassVar[int] = 1  # to be raised when `do` computes something else from the same fields
    here: ClassVar[bool] = False  # whether it reads files that only the machine has on which the study is started
    on_gpu: ClassVar[bool] = False  # whether it computes on the device that the study is given

    def needs(self) -> Sequence["Task"]:
        """Tasks whose results it reads."""
        return ()

    @abstractmethod
    def do(self, work: Work) -> Result:
        """Compute the result. What is slow to import is imported here, not at the top of the file."""

    def named_by(self) -> dict[str, Any]:
        """What decides the result: the fields. A task that reads a source returns what the source holds, a hash."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def seconds(self) -> float | None:
        """About how long it takes on one core of a laptop, None if that is not known."""
        return None

    @cached_property
    def key(self) -> str:
        """The name of its result: its class and a hash of its content."""
        text = json.dumps(_content(self), sort_keys=True, allow_nan=False)
        return f"{type(self).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    def __str__(self) -> str:
        told = [f"{f.name}={_short(getattr(self, f.name))}" for f in fields(self)]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True)
class NotTested:
    """A part of a study that cannot be done.

    Args:
        why: In a sentence.
    """

    why: str


@dataclass(frozen=True)
class Study:
    """A question, with its settings as the fields of a frozen dataclass.

    Fields may have the restricted numbers of `jsonargparse.typing` as types, such as `PositiveInt`; they hold in Python
    as well as on the command line.

    Raises:
        ZooError: If a setting is out of range.
    """

    title: ClassVar[str] = ""  # of the page; by default the question
    aliases: ClassVar[Mapping[str, str]] = {}  # other names of settings on the command line

    def __init_subclass__(cls) -> None:
        """Explain the settings of base classes in the class's own docstring, which is its help."""
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
        """Refuse settings that contradict each other; only what can be told without reading or computing anything.

        Raises:
            ZooError: In one line, what is wrong and what would be right.
        """

    def parts(self) -> Mapping[str, "Study | NotTested"]:
        """Studies that this one is made of, by name; empty for a study that has tasks of its own."""
        return {}

    def tasks(self) -> Sequence[Task]:
        """What has to be computed, without those of `parts`. It computes nothing itself."""
        return ()

    def notes(self) -> Sequence[str]:
        """What the user should know before anything is computed."""
        return ()

    def report(self, results: Results) -> Report:
        """What the results of its `tasks` show. The runner adds title, command, settings and costs.

        Raises:
            NotFinished: By reading a result that is not there.
        """
        raise NotImplementedError

    def report_of_parts(self, parts: Mapping[str, "Report | NotTested"]) -> Report:
        """What the reports of its `parts` show together, for a study that has parts.

        Args:
            parts: By name. Those that are not finished, failed or were left out say why.
        """
        raise NotImplementedError

    def sections(self, parts: Mapping[str, "Report | NotTested"]) -> list[Section]:
        """The sections of all parts; a part without a report has one that says why."""
        found: list[Section] = []
        for name, part in self.parts().items():
            told = parts[name]
            if isinstance(told, Report):
                found += told.sections
            else:
                title = part.question if isinstance(part, Study) else name
                found.append(Section(name, title, told.why, tested=False))
        return found

    @property
    def name(self) -> str:
        """As on the command line: the name of the study's file."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @property
    def question(self) -> str:
        """The first line of its module's docstring."""
        return (sys.modules[type(self).__module__].__doc__ or "").strip().partition("\n")[0]


def _explained(docstring: str) -> dict[str, str]:
    """What the Args of a docstring say, by name."""
    _, found, args = docstring.partition("Args:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", args.partition("\n\n")[0], re.M) if found else []
    return dict(entries)


def closure(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each once, and all that they need, each after what it needs itself."""
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
    """All tasks of a study and of its parts, see `closure`."""
    own = list(study.tasks())
    for part in study.parts().values():
        own += all_tasks(part) if isinstance(part, Study) else []
    return closure(own)


def _content(value: Any) -> Any:
    """A field's value as JSON, by which a task is named."""
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
    """Refuse a number outside of what its type allows."""
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
    """What jsonargparse says of a number's range, such as v>=2, in words."""
    words = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
    return re.sub(r"v ?(>=|<=|>|<) ?", lambda sign: f"{words[sign[1]]} ", expression)


def _plain_number(value: Any) -> Any:
    """Numbers as Python's own; jsonargparse makes restricted ones of its own classes."""
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
