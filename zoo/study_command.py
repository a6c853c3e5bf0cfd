"""`python -m zoo study` lists the studies, or runs one with settings from the command line and from YAML files."""

import difflib
import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.running.study_files import load, questions

USAGE = """python -m zoo study lists the studies; python -m zoo study NAME --help explains the settings of one;
python -m zoo study NAME --out DIR runs it; python -m zoo study path/to/file.py runs a study of your own."""


@dataclass(frozen=True)
class HowToRun:
    """Where a study writes its results, and which processes compute them.

    Args:
        out: Folder of the study. Results that are already in it are used again.
        jobs: Number of tasks that run at the same time on this machine, with one thread each.
        scheduler: Address of a Dask scheduler, such as tcp://host:8786. Its workers do the tasks in place of this
            machine.
        device: "cuda" runs the tasks that support it on GPUs, mainly training, one task at a time on each GPU.
        parts: Names of the parts to do, separated by commas, of a study that has parts. By default all parts.
        plan: Print what would be computed and a rough time, and compute nothing.
    """

    out: str | None = None
    jobs: int = 1
    scheduler: str | None = None
    device: str = "cpu"
    parts: str | None = None
    plan: bool = False


def main(argv: Sequence[str]) -> int:
    """List the studies, or run one.

    Args:
        argv: The arguments after `study`.

    Returns:
        The exit code: 0, or 1 if a task failed.

    Raises:
        ZooError: If there is no such study, or a setting is wrong.
    """
    if not argv or argv[0] in ("-h", "--help"):
        _list()
        return 0
    cls, file = load(argv[0])
    words, rest = _split(argv[1:])
    how, study = _parse(cls, argv[0], words, rest)
    return _run(study, how, file)


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("study", "question", box=None, padding=(0, 2, 0, 0))
    for name, question in questions().items():
        table.add_row(name, question)
    console = Console()
    console.print(table)
    console.print(f"\n{USAGE}", highlight=False)


def _split(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The arguments before and after `--`."""
    words = list(words)
    return (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, None)


def _parse(cls: type, name: str, words: list[str], rest: list[str] | None) -> tuple[HowToRun, Any]:
    """How to run the study, and the study itself, from the command line and the YAML files that it names."""
    from jsonargparse import ArgumentParser

    from zoo.config_files import expand_configs

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise ZooError(_one_line(message, known)) from ex

    known = [f.name for f in (*fields(cls), *fields(HowToRun))]
    if rest is not None:
        if "fit_arguments" not in known:
            raise ZooError(f"study {name} takes no arguments after --, and {' '.join(rest)} is given there")
        words = [*words, "--fit_arguments", *rest] if rest else words
    parser = Parser(prog=f"python -m zoo study {name}", description=sys.modules[cls.__module__].__doc__)
    parser.add_argument("--config", action="config", help="YAML file with settings, or the name of a shipped config")
    parser.add_argument("--base", type=str | None, help="In a config: another config that this one builds on.")
    parser.add_class_arguments(cls, None)
    parser.add_class_arguments(HowToRun, None)
    found = parser.parse_args(expand_configs(_normal(words, cls)))
    values = {key: value for key, value in vars(found).items() if key in known}
    how = HowToRun(**{f.name: values.pop(f.name) for f in fields(HowToRun)})
    hints = get_type_hints(cls)
    values = {key: tuple(v) if _is_list(hints[key]) and v is not None else v for key, v in values.items()}
    _check(how)
    return how, cls(**values)


def _normal(words: list[str], cls: type) -> list[str]:
    """The arguments in the form that the parser reads: underscores in flags, and lists of values in brackets."""
    hints, aliases = get_type_hints(HowToRun) | get_type_hints(cls), getattr(cls, "aliases", {})
    found: list[str] = []
    i = 0
    while i < len(words):
        flag, equals, value = words[i].partition("=")
        i += 1
        if not flag.startswith("--"):
            found.append(words[i - 1])
            continue
        key = flag.removeprefix("--").replace("-", "_")
        if key != "config" or not _holds_settings(value or next(iter(words[i:]), ""), hints):
            key = aliases.get(key, key)
        if hints.get(key) is bool and not equals and (i == len(words) or words[i] not in ("true", "false")):
            found.append(f"--{key}=true")
            continue
        if not _is_list(hints.get(key)):
            found.append(f"--{key}{equals}{value}")
            continue
        values = [value] if equals else []
        takes_flags = key == "fit_arguments"
        while not equals and i < len(words) and (takes_flags or not words[i].startswith("--")):
            values.append(words[i])
            i += 1
        found.append(f"--{key}={_as_list(values, hints[key])}")
    return found


def _holds_settings(file: str, hints: Mapping[str, Any]) -> bool:
    """Whether a config and its bases hold only settings of the study, and not those of a training run."""
    from zoo.config_files import expand_configs, read_config

    try:
        files = expand_configs(["--config", file])[1::2]
    except ZooError:  # the file may be a checkpoint
        return False
    keys = {key for path in files for key in read_config(Path(path))}
    return keys <= {*hints, "base"}


def _is_list(hint: Any) -> bool:
    return any(get_origin(option) is tuple for option in (get_args(hint) if get_origin(hint) is not tuple else (hint,)))


def _as_list(values: list[str], hint: Any) -> str:
    if len(values) == 1 and values[0].startswith("["):
        return values[0]
    [inner] = [get_args(option)[0] for option in (hint, *get_args(hint)) if get_origin(option) is tuple]
    if inner is str:
        return json.dumps(values)
    parts = [part.strip() for value in values for part in value.split(",")]
    return f"[{', '.join(part for part in parts if part)}]"


def _check(how: HowToRun) -> None:
    if how.out is None:
        raise ZooError("no folder is given for the study; name one with --out")
    if how.jobs < 1:
        raise ZooError(f"jobs is {how.jobs}; it must be at least 1")
    if how.device not in ("cpu", "cuda"):
        raise ZooError(f"device is {how.device!r}; it is cpu or cuda")


def _one_line(message: str, known: Sequence[str]) -> str:
    """The cause of a parser's error, in one line."""
    if match := re.search(r"[Uu]nrecognized arguments: (\S+?)(?:[ =].*)?$", message, re.M):
        if not match[1].startswith("-"):
            return f"{match[1]!r} does not belong to any setting"
        word = match[1].lstrip("-").replace("-", "_")
    elif match := re.search(r"(?:Key|Option) '([^']+)' is not", message):
        word = match[1]
    else:
        return _of_value(message)
    close = difflib.get_close_matches(word, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"the settings are {', '.join(known)}"
    return f"there is no setting {word!r}; {hint}"


def _of_value(message: str) -> str:
    """A message about the value of a setting."""
    from zoo.study import rule_of

    key = next(iter(re.findall(r'Parser key "([^"]+)"', message)), "")
    if match := re.search(r"(\S+) does not conform to restriction (.*)", message):
        given = re.search(r"Given value: (.*)", message)  # of a setting that may also be empty
        return f"{key} is {given[1] if given else match[1]}; it must be {rule_of(match[2])}"
    if match := re.search(r"invalid literal for int.*: (.*)|could not convert string to float: (.*)", message):
        return f"{key} is {match[1] or match[2]}; a {'whole number' if match[1] else 'number'} is needed"
    if match := re.search(r"Expected a <class '(\w+)'>. Got value: (.*)", message):
        kind = {"float": "a number", "int": "a whole number", "bool": "true or false"}.get(match[1], f"a {match[1]}")
        return f"{key} is {match[2]!r}; {kind} is needed"
    if match := re.search(r"Expected a typing.Literal\[(.*)\]. Got value: (.*)", message):
        words = [word.strip(" '\"") for word in match[1].split(",")]
        return f"{key} is {match[2]!r}; it must be {' or '.join(words)}"
    noise = ("Parser key", "Does not validate", "Subtypes", "Errors")
    lines = [re.sub(r'Parser key "[^"]+":\s*', "", line.strip(" -")) for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line and not line.startswith(noise)] or lines[-1:]
    return f"{key}: {told[0]}" if key else told[0]


def _run(study: Any, how: HowToRun, file: Path | None) -> int:
    from zoo.running.runner import Run

    assert how.out is not None
    run = Run(study, expanded(how.out), how.parts.split(",") if how.parts else None)
    for note in study.notes():
        print(f"note: {note}", file=sys.stderr)
    if how.plan:
        run.results.refuse_older()
        _show_plan(run, how.jobs)
        return 0
    run.results.make()
    with run.results.occupied():
        _do(run, how, file)
    assert run.written is not None
    verdict = run.written.verdict
    told = filter(None, (verdict.headline, verdict.certainty, verdict.recognised, verdict.not_tested))
    print("\n".join(told) + f"\nwrote {run.out / 'report.html'}, report.json, table.md and figures")
    if n := len(run.results.failures):
        traces = f"; tracebacks are in {run.out / 'failures'}" if (run.out / "failures").is_dir() else ""
        print(f"{n} {'task' if n == 1 else 'tasks'} failed, see the report{traces}")
    return 1 if run.failures else 0


def _do(run: Any, how: HowToRun, file: Path | None) -> None:
    from zoo.running.progress import Progress

    if not (missing := run.missing()):
        run.write()
        return
    engine: Any
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if how.scheduler:
            from zoo.running.cluster import Cluster

            engine = Cluster(how.scheduler, run.results, how.device, file, missing)
        else:
            from zoo.running.processes import Processes

            engine = Processes(how.jobs, run.results, how.device, file)
        run.do(engine, Progress())
    except KeyboardInterrupt:
        if run.written is None:
            raise
        page = run.out / "report.html"
        print(f"{page} lists what is missing; run the same command again to continue", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> NoReturn:
    """End as at Ctrl-C, so that a page with the finished results is written; further signals are ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _show_plan(run: Any, jobs: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo.running.progress import seconds_to_go, time_to_go

    missing = {task.key for task in run.missing()}
    kinds: dict[str, list[Any]] = {}
    for task in run.tasks:
        kinds.setdefault(type(task).__name__, []).append(task)
    took = {
        kind: [run.results.cost(task).seconds for task in own if task.key not in missing] for kind, own in kinds.items()
    }
    table = Table("tasks", "to do", "done", "minutes of one process")
    for kind, own in kinds.items():
        left = [task for task in own if task.key in missing]
        seconds = seconds_to_go(left, took)
        table.add_row(
            kind, str(len(left)), str(len(own) - len(left)), "?" if seconds is None else f"{seconds / 60:.1f}"
        )
    console = Console()
    console.print(table)
    console.print(time_to_go([t for t in run.tasks if t.key in missing], took, jobs), highlight=False)
