"""The command line, `python -m zoo`. Commands without a trainer do not import Lightning."""

import argparse
import errno
import fnmatch
import importlib
import json
import os
import re
import sys
from typing import Any

from zoo import end_with_parent
from zoo.errors import ZooError

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def script() -> int:
    """Run a command as `python -m zoo` does: modules in the current folder can be imported, also by child processes."""
    sys.path.insert(0, os.getcwd())
    return main()


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 2 for a user's mistake."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in TRAINER_COMMANDS:
            end_with_parent.end_with_starter()
            from zoo.cli import run

            return run(argv)
        if argv and argv[0] == "study":
            from zoo import study_command

            return study_command.main(argv[1:])
        return _run_light(argv)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # of `python -m zoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        full = "; is the disk of the run's folder or of the cache full?" if error.errno == errno.ENOSPC else ""
        print(f"error: {error}{full}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo", description="Train, load and study models of the superposition zoo."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    fit = {
        "fit": "train: fit --config quickstart",
        "validate": "loss on the validation split: validate --ckpt_path runs/quickstart/checkpoints/last.ckpt",
        "test": "loss on the test split",
        "predict": "continue prompts",
    }
    for name, text in fit.items():
        commands.add_parser(name, help=text)
    listing = commands.add_parser("list", help="pretrained checkpoints")
    listing.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'gpt2*'")
    listing.add_argument("--json", action="store_true", help="print JSON")
    configs = commands.add_parser("configs", help="shipped configs; configs gpt2/learned > my.yaml copies one")
    configs.add_argument("pattern", nargs="?", default="*", help="name, folder, or shell pattern such as 'sae/*'")
    configs.add_argument("--json", action="store_true", help="print names and descriptions as JSON")
    card = commands.add_parser("info", help="a checkpoint's model card")
    card.add_argument("name", help="name of a pretrained checkpoint, or folder of a zoo checkpoint")
    export = commands.add_parser("export", help="write a checkpoint as a zoo checkpoint or as a SAELens folder")
    export.add_argument("ckpt", help="what zoo.load takes: a Lightning .ckpt, a run's folder, hf:org/repo, ...")
    export.add_argument("folder", help="where to write")
    export.add_argument("--format", choices=["zoo", "saelens"], default="zoo", help="what to write, default zoo")
    export.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="type of the stored weights")
    export.add_argument("--steps", type=_steps, help="steps of a run with log-spaced checkpoints, as 0,512,4096")
    push = commands.add_parser("push", help="upload a checkpoint to the Hugging Face hub")
    push.add_argument("source", help="name of a pretrained checkpoint, folder of a checkpoint or run, or .ckpt")
    push.add_argument("target", help="hf:org/repo[/folder][@branch]; the repository is created if it does not exist")
    push.add_argument("--private", action="store_true", help="create the repository as a private one")
    again = commands.add_parser("rebuild", help="train a checkpoint's network again and compare metrics and weights")
    again.add_argument("name", help="name of a pretrained checkpoint, folder of a checkpoint or run, or .ckpt")
    again.add_argument("--out", required=True, help="folder of the new run")
    tolerance = "largest relative difference of validation metrics, default 0.05"
    again.add_argument("--tolerance", type=float, default=0.05, help=tolerance)
    for command in (export, push, again):
        command.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="module that defines the network of the checkpoint, if the network is your own",
        )
    beside = commands.add_parser("compare", help="one page on several finished studies of one name, or several runs")
    beside.add_argument("folders", nargs="+", help="folders of studies, or of training runs")
    beside.add_argument("--out", required=True, help="folder to write to")
    commands.add_parser("study", help="answer a question: study lists them, study NAME --out DIR runs one")
    return parser


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,512") from None


def _run_light(argv: list[str]) -> int:
    parser = _parser()
    _answer_in_one_line(parser)
    arguments = parser.parse_args(argv)
    for module in getattr(arguments, "modules", ()):
        _import(module)
    if arguments.command == "list":
        _list(arguments.pattern, arguments.json)
    elif arguments.command == "configs":
        _configs(arguments.pattern, arguments.json)
    elif arguments.command == "info":
        from zoo.source import info

        print(info(arguments.name))
    elif arguments.command == "export":
        from zoo.export import export, export_saelens

        if arguments.format == "zoo":
            folder = export(arguments.ckpt, arguments.folder, arguments.dtype, arguments.steps)
        elif arguments.steps or arguments.dtype != "float32":
            raise ZooError("--steps and --dtype apply to --format zoo; a SAELens folder has one step, in float32")
        else:
            folder = export_saelens(arguments.ckpt, arguments.folder)
        print(f"wrote {folder}")
    elif arguments.command == "push":
        from zoo.hub import push

        print(f"pushed {push(arguments.source, arguments.target, arguments.private)}")
    elif arguments.command == "compare":
        from zoo.compare import compare

        print(f"wrote {compare(arguments.folders, arguments.out)}")
    elif arguments.command == "rebuild":
        from zoo.rebuild import rebuild

        return 0 if rebuild(arguments.name, arguments.out, arguments.tolerance) else 1
    return 0


def _import(module: str) -> None:
    """Import a user's module.

    Raises:
        ZooError: If it cannot be imported.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ZooError(f"--import {module}: {error}") from None


def _list(pattern: str, as_json: bool) -> None:
    from zoo import catalog

    rows = catalog.entries(pattern)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        raise ZooError(f"no pretrained checkpoint is called {pattern!r}; a pattern such as 'gpt2*' matches several")
    from rich.console import Console
    from rich.table import Table

    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:  # names that match a pattern of the user are all shown
        groups.setdefault(_any_number(row["name"]) if pattern == "*" else row["name"], []).append(row)
    table, several = Table(), []
    table.add_column("name", no_wrap=True)
    table.add_column("steps")
    table.add_column("on held-out data")
    for name, alike in groups.items():
        if len(alike) > 1:
            several += [name, f"    {len(alike)} checkpoints, {_judged(alike)}"]
            continue
        steps = alike[0]["steps"]
        span = str(steps[0]) if len(steps) == 1 else f"{steps[0]} ... {steps[-1]} ({len(steps)})"
        table.add_row(alike[0]["name"], span, _judged(alike))
    Console().print(table)
    if several:
        print("\n".join(["names with ? stand for several; `python -m zoo list 'NAME'` lists them:", *several]))


def _any_number(name: str) -> str:
    """Return a name with ? for the digits of its layer and seed: a pattern for the names that differ only there."""
    return re.sub(r"\.(layer|seed)-(\d+)", lambda found: f".{found[1]}-{'?' * len(found[2])}", name)


def _judged(rows: list[dict[str, Any]]) -> str:
    """Return the metrics on held-out data of some checkpoints, or their ranges."""
    shown = ("val/fvu", "val/l0") if "val/l0" in rows[0]["metrics"] else ("val/loss",)
    texts = []
    for key in shown:
        values = sorted(row["metrics"][key] for row in rows if key in row["metrics"])
        ends = list(dict.fromkeys(f"{value:.3g}" for value in values[:1] + values[-1:]))
        if ends:
            texts.append(f"{key.removeprefix('val/')} {' to '.join(ends)}")
    return ", ".join(texts)


def _configs(pattern: str, as_json: bool) -> None:
    from zoo import config_files

    files, name = config_files.shipped(), config_files.shipped_name(pattern)
    if name in files and not as_json:
        print(config_files.portable_text(name), end="")
        return
    names = fnmatch.filter(files, name) or fnmatch.filter(files, f"{name.rstrip('/')}/*")
    if not names:
        raise ZooError(f"no shipped config has the name {pattern!r}; {config_files.closest(pattern)}")
    rows = {name: config_files.about(files[name]) for name in names}
    if as_json:
        print(json.dumps([{"name": name, "about": text} for name, text in rows.items()], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "about")
    for row in rows.items():
        table.add_row(*row)
    Console().print(table)


def _answer_in_one_line(parser: argparse.ArgumentParser) -> None:
    """Make a parser, and those within it, raise instead of printing its usage."""
    parser.error = _one_line_error  # type: ignore[assignment, method-assign]
    for action in parser._subparsers._group_actions if parser._subparsers else []:
        for inner in action.choices.values():  # type: ignore[union-attr]
            _answer_in_one_line(inner)


def _one_line_error(message: str) -> None:
    raise ZooError(f"{message} (python -m zoo --help)")


if __name__ == "__main__":
    sys.exit(main())
