"""`python -m zoo`: commands without a trainer answer before Lightning is imported."""

import argparse
import errno
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from zoo import end_with_parent
from zoo.errors import ZooError
from zoo.paths import expanded

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
TOY_STUDIES = {  # what they ask, and runs per arm
    "explicit-gates": ("how exactly random neurons compute gates with a readoff that is written down", 3),
    "universal-gates": ("whether trained networks compute gates in superposition better than random neurons", 3),
    "superposition-phases": ("when two features share one dimension, trained and in theory", 10),
    "attention-features": ("how many features one attention head tells apart, constructed and learned", 5),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 2 for a user's mistake."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in TRAINER_COMMANDS:
            end_with_parent.end_with_starter()
            from zoo.cli import run

            return run(argv)
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
        "fit": "train: fit --config cli_configs/quickstart.yaml",
        "validate": "loss on the validation split: validate --ckpt_path runs/quickstart/checkpoints/last.ckpt",
        "test": "loss on the test split",
        "predict": "continue prompts",
    }
    for name, text in fit.items():
        commands.add_parser(name, help=text)
    listing = commands.add_parser("list", help="pretrained checkpoints")
    listing.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'gpt2*'")
    listing.add_argument("--json", action="store_true", help="print JSON")
    card = commands.add_parser("info", help="a checkpoint's model card")
    card.add_argument("name", help="zoo name, or folder of a zoo checkpoint")
    export = commands.add_parser("export", help="turn a checkpoint into a zoo checkpoint or a SAELens folder")
    export.add_argument("ckpt", help="what zoo.load takes: a Lightning .ckpt, a run's folder, hf:org/repo, ...")
    export.add_argument("folder", help="where to write")
    export.add_argument("--format", choices=["zoo", "saelens"], default="zoo", help="what to write, default zoo")
    export.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="what weights are stored as")
    export.add_argument("--steps", type=_steps, help="steps of a run with log-spaced checkpoints, as 0,512,4096")
    push = commands.add_parser("push", help="upload a checkpoint to the Hugging Face hub")
    push.add_argument("source", help="zoo name, folder of a checkpoint or run, or .ckpt")
    push.add_argument("target", help="hf:org/repo[/folder][@branch]; the repository is created if absent")
    push.add_argument("--private", action="store_true", help="create it so that only those may see it who are allowed")
    again = commands.add_parser(
        "rebuild", help="train a pretrained checkpoint anew and compare: rebuild NAME --out DIR"
    )
    again.add_argument("name", help="zoo name, or folder of a checkpoint")
    again.add_argument("--out", required=True, help="folder of the new run")
    again.add_argument("--tolerance", type=float, default=0.05, help="of validation metrics, as a share; default 0.05")
    study = commands.add_parser("study", help="answer a question by several runs: study frozen-embedding --out DIR")
    _add_studies(study.add_subparsers(dest="name", metavar="NAME", required=True))
    return parser


def _add_studies(studies: Any) -> None:
    whole = studies.add_parser("embedding", help="is there structure in an embedding outside superposition? A report")
    _add_embedding(whole)
    named = studies.add_parser("structure", help="only the embedding study's search for circles and binding (A8, A9)")
    named.add_argument("--embedding", metavar="SOURCE", required=True, help="what zoo.embedding takes")
    _add_named(named)
    toys = studies.add_parser("toys", help="all studies of toys, and one report")
    reset = studies.add_parser("row-reset", help="what one row of a GPT-2's embedding is worth, and if it comes back")
    reset.add_argument("--source", default="gpt2-mini.learned", help="the GPT-2: what zoo.load takes")
    reset.add_argument("--config", help="config whose data are the text; default that of the model's training")
    reset.add_argument("--rows", type=int, default=256, help="tokens whose row is reset, one at a time")
    reset.add_argument("--steps", type=int, default=50, help="of fine-tuning")
    frozen = studies.add_parser("frozen-embedding", help="how much worse GPT-2 trains with a frozen random embedding")
    frozen.add_argument("--config", default="cli_configs/gpt2/base.yaml", help="config that all runs build on")
    frozen.epilog = "Arguments after -- go to every fit: study ... -- --trainer.max_steps 1200"
    rows = studies.add_parser("sparse-rows", help="how sparsely autoencoders code embedding rows, and null models")
    rows.add_argument("--source", default="gpt2-stdlib.learned", help="what zoo.embedding takes")
    rows.add_argument("--d-sae", type=int, default=512, help="latents; fewer than rows")
    rows.add_argument("--steps", type=int, default=1000, help="optimizer steps of every run")
    rows.add_argument("--batch-size", type=int, default=512, help="rows per batch")
    rows.add_argument("--frequency-power", type=float, default=0.0, help="draw rows with probability p^power")
    pursuit = studies.add_parser(
        "basis-pursuit", help="sparse coding error over pretraining, certified, and null models"
    )
    pursuit.add_argument(
        "--source", nargs="+", default=["gpt2-stdlib.learned"], help="runs; {step} in a name stands for the step"
    )
    pursuit.add_argument("--steps", type=_steps, default=[None], help="of pretraining, as 0,512,4096; default the last")
    pursuit.add_argument("--n-atoms", type=int, default=512, help="atoms; fewer than rows")
    pursuit.add_argument("--penalties", type=_numbers, default=[0.3, 0.2, 0.14, 0.1], help="descending")
    pursuit.add_argument("--dictionary-steps", type=int, default=10, help="codings of all rows at every penalty")
    pursuit.add_argument("--frequency-power", type=float, default=0.0, help="rows have weight p^power")
    atoms = studies.add_parser(
        "planted-atoms", help="when basis pursuit finds atoms that are known, over noise and sparsity"
    )
    atoms.add_argument("--d-in", type=int, default=128, help="dimension of the rows; there are 4 times as many atoms")
    atoms.add_argument("--n-rows", type=int, default=10_000, help="rows, of which a tenth is held out")
    single = [(studies.add_parser(name, help=text), seeds) for name, (text, seeds) in TOY_STUDIES.items()]
    for study, seeds in (*((study, 3) for study in (whole, frozen, rows, pursuit, atoms)), (reset, 2), *single):
        study.add_argument("--seeds", type=int, default=seeds, help=f"runs per arm, default {seeds}")
    toys.add_argument("--seeds", type=int, help="runs per arm; default that of every study")
    for study in (whole, named, toys, reset, frozen, rows, pursuit, atoms, *(study for study, _ in single)):
        study.add_argument("--out", required=True, help="folder of the study; finished runs in it are kept")
        study.add_argument("--jobs", type=int, default=1, help="runs at a time")


def _add_embedding(study: argparse.ArgumentParser) -> None:
    study.add_argument(
        "--embedding", nargs="+", metavar="SOURCE", default=["gpt2-mini.learned"],
        help="one or several runs' embeddings: what zoo.embedding takes; {step} in a name stands for the step",
    )  # fmt: skip
    study.add_argument("--steps", type=_steps, help="of pretraining, as 0,512,4096; default all that the source holds")
    study.add_argument("--train", metavar="CONFIG", help="train learned and frozen embeddings by this config (A5)")
    study.add_argument("--training-steps", type=int, default=640, help="optimizer steps of these runs")
    study.add_argument("--n-atoms", type=int, help="of a dictionary; default 4 per dimension")
    study.add_argument("--frequency-power", type=float, default=0.0, help="rows have weight p^power")
    study.add_argument("--reset-rows", type=int, default=128, help="rows that are reset one at a time (A6)")
    study.add_argument("--margin", type=float, default=0.1, help="nats that are much worse")
    study.add_argument("--tolerance", type=float, default=0.05, help="FVU at which nothing much is left over")
    _add_named(study)


def _add_named(study: argparse.ArgumentParser) -> None:
    """What a study of rows with names is told of them."""
    study.add_argument("--tokens", help="vocabulary of a source without: .txt with a token per line, or .json")
    study.add_argument("--keep-untrained", action="store_true", help="study rows that look untrained, too")
    study.add_argument("--families", metavar="FILE", help="YAML or JSON: your own families of tokens in a known order")
    study.add_argument("--null-draws", type=int, default=20, help="null models searched for circles and binding")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0.3,0.2") from None


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,512") from None


def _run_light(argv: list[str]) -> int:
    parser = _parser()
    _answer_in_one_line(parser)
    extra = argv[argv.index("--") + 1 :] if "--" in argv else []
    arguments = parser.parse_args(argv[: argv.index("--")] if "--" in argv else argv)
    if arguments.command == "list":
        _list(arguments.pattern, arguments.json)
    elif arguments.command == "info":
        from zoo.source import info

        print(info(arguments.name))
    elif arguments.command == "export":
        from zoo.export import export, export_saelens

        if arguments.format == "zoo":
            folder = export(arguments.ckpt, arguments.folder, arguments.dtype, arguments.steps)
        elif arguments.steps or arguments.dtype != "float32":
            raise ZooError("--steps and --dtype are of the format zoo; SAELens has one step, in float32")
        else:
            folder = export_saelens(arguments.ckpt, arguments.folder)
        print(f"wrote {folder}")
    elif arguments.command == "push":
        from zoo.hub import push

        print(f"pushed {push(arguments.source, arguments.target, arguments.private)}")
    elif arguments.command == "rebuild":
        from zoo.rebuild import rebuild

        return 0 if rebuild(arguments.name, arguments.out, arguments.tolerance) else 1
    elif arguments.command == "study":
        _study(arguments, extra)
    return 0


def _study(arguments: argparse.Namespace, extra: list[str]) -> None:
    a, out = arguments, expanded(arguments.out)
    if extra and a.name != "frozen-embedding":
        raise ZooError(f"study {a.name} takes nothing after --, and {' '.join(extra)} stands there")
    if a.name == "embedding":
        return _study_embedding(a, out)
    if a.name == "structure":
        from zoo.studies.embedding import structure_study

        named = (a.embedding, a.tokens, a.keep_untrained, a.families, a.null_draws)
        verdict = structure_study.run(out, *named, _command_line(), a.jobs).verdict
        print(f"{verdict.headline}\n{verdict.certainty}\nwrote {out / 'report.html'}, report.json and figures")
        return
    if a.name == "frozen-embedding":
        from zoo.studies import frozen_embedding

        frozen_embedding.run(a.config, out, a.seeds, a.jobs, extra)
    elif a.name == "basis-pursuit":
        from zoo.studies import basis_pursuit

        settings = (a.source, a.steps, a.n_atoms, a.penalties, a.dictionary_steps, a.frequency_power)
        basis_pursuit.run(out, *settings, a.seeds, a.jobs)
    elif a.name == "planted-atoms":
        from zoo.studies import planted_atoms

        planted_atoms.run(out, a.d_in, a.n_rows, seeds=a.seeds, jobs=a.jobs)
    elif a.name == "row-reset":
        from zoo.studies import row_reset

        row_reset.run(out, a.source, a.config, a.rows, a.steps, a.seeds, a.jobs)
    elif a.name == "toys":
        from zoo.studies import toys

        toys.run(out, a.seeds, a.jobs, _command_line())
        print(f"wrote {out / 'report.html'}, report.json and figures")
        return
    elif a.name in TOY_STUDIES:
        study = importlib.import_module(f"zoo.studies.{a.name.replace('-', '_')}")
        study.run(out, seeds=a.seeds, jobs=a.jobs)
    else:
        from zoo.studies import sparse_rows

        sparse_rows.run(out, a.source, a.d_sae, a.steps, a.batch_size, a.frequency_power, a.seeds, a.jobs)
    print(f"{(out / 'table.md').read_text('utf-8')}\nwrote into {out}")


def _study_embedding(a: argparse.Namespace, out: Path) -> None:
    from zoo.studies import embedding

    settings = embedding.Settings(
        sources=tuple(a.embedding),
        steps=None if a.steps is None else tuple(a.steps),
        tokens=a.tokens,
        train=a.train,
        training_steps=a.training_steps,
        n_atoms=a.n_atoms,
        frequency_power=a.frequency_power,
        seeds=a.seeds,
        null_draws=a.null_draws,
        reset_rows=a.reset_rows,
        families=a.families,
        keep_untrained=a.keep_untrained,
        margin=a.margin,
        tolerance=a.tolerance,
    )
    verdict = embedding.run(out, settings, _command_line(), a.jobs).verdict
    print(f"{verdict.headline}\n{verdict.certainty}\nwrote {out / 'report.html'}, report.json and figures")


def _command_line() -> str:
    import shlex

    return f"python -m zoo {shlex.join(sys.argv[1:])}"


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

    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("steps")
    table.add_column("on held-out data")
    for row in rows:
        steps = row["steps"]
        span = str(steps[0]) if len(steps) == 1 else f"{steps[0]} ... {steps[-1]} ({len(steps)})"
        metrics = row["metrics"]
        shown = ("val/fvu", "val/l0") if "val/l0" in metrics else ("val/loss",)
        judged = [f"{key.removeprefix('val/')} {metrics[key]:.3g}" for key in shown if key in metrics]
        table.add_row(row["name"], span, ", ".join(judged))
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
