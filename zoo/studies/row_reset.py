"""What is one row of a trained embedding worth, and does fine-tuning bring it back?

One row at a time is set to a random one, and then only that row is trained, or everything but that row. Tokens are
drawn from four strata of frequency; each has contexts of its own in which it occurs early, and the loss counts from
there on. The same fine-tuning without a reset is the control.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import sources
from zoo.analysis.row_recovery import cosines
from zoo.analysis.row_reset import measured_at, random_rows, train_rest, train_rows
from zoo.analysis.token_contexts import contexts, windows_per_token
from zoo.datamodules import TextDataModule
from zoo.errors import ZooError
from zoo.models import GPT2
from zoo.studies.row_reset_numbers import summary
from zoo.studies.row_reset_report import draw, report, table
from zoo.studies.tasks import check_folder, do_all, write_json
from zoo.studies.training_text import training_text

MODES = ("row", "rest")  # what is trained: only that row, or everything but it
STRATA = 4
LENGTH = 32  # tokens of a context
TRAIN, EVALUATION = 64, 12  # contexts of every token
BATCH = 2  # contexts of every token in a step
CHUNK = 32  # rows per task
ROW_RATE = 0.2  # Adam's rate for a row, in units of the embedding's typical entry about the mean row
REST_RATE = 3e-4  # Adam's rate for everything else


@dataclass(frozen=True)
class Task:
    """Fine-tuning of one chunk of the rows in one way, after one reset, or without for the control."""

    source: str
    mode: str  # one of MODES
    seed: int | None  # of the random rows; None is the control
    chunk: int
    steps: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        arm = "control" if self.seed is None else f"seed-{self.seed}"
        return out / "runs" / f"{self.mode}_{arm}_chunk-{self.chunk:03}.json"


def run(
    out: Path,
    source: str = "gpt2-mini.learned",
    config: str | None = None,
    rows: int = 256,
    steps: int = 50,
    seeds: int = 2,
    jobs: int = 1,
) -> dict[str, Any]:
    """Do what is missing, then write `results.json`, `table.md`, `row_reset.png` and a report into the folder.

    Args:
        out: Folder of the study; finished chunks in it are not done again.
        source: The GPT-2: what `zoo.load` takes.
        config: Config whose `data` part is the text; by default that of the model's own training.
        rows: Tokens whose row is reset, one at a time.
        steps: Of fine-tuning.
        seeds: Random rows that each token's row is set to.
        jobs: Processes, of one thread each.

    Returns:
        What is in `results.json`.

    Raises:
        ZooError: If an argument is out of range, the model is no GPT-2, its text cannot be had or has too few contexts,
            or the folder holds a study with other settings.
    """
    if rows < 2 * STRATA:
        raise ZooError(f"rows is {rows}; an interval in each of {STRATA} strata needs at least {2 * STRATA}")
    if min(steps, seeds, jobs) < 1:
        raise ZooError(f"steps is {steps}, seeds {seeds} and jobs {jobs}; each must be at least 1")
    model = sources.load(source)
    if not isinstance(model, GPT2):
        raise ZooError(f"{source} is a {type(model).__name__}; the study needs a GPT2, which reads tokens")
    data, notes = training_text(source, config, len(model.W_E))
    settings: dict[str, Any] = {"source": source, "config": config, "rows": rows, "steps": steps, "seeds": seeds}
    settings |= {"corpus_fingerprint": data.corpus_fingerprint, "length": min(LENGTH, model.context_length)}
    for note in notes:
        print(f"note: {note}")
    drawn = _draw(data, rows, settings["length"])
    check_folder(out, settings)
    _save(drawn, out)
    tasks = [
        Task(source, mode, seed, chunk, steps)
        for chunk in range(-(-rows // CHUNK))
        for mode in MODES
        for seed in (None, *range(seeds))
    ]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    found = {task: json.loads(task.file(out).read_text("utf-8")) for task in tasks}
    measured = {
        mode: {
            "control": _stack([found[t] for t in tasks if t.mode == mode and t.seed is None]),
            "reset": _over_seeds([[found[t] for t in tasks if (t.mode, t.seed) == (mode, s)] for s in range(seeds)]),
        }
        for mode in MODES
    }
    used: dict[str, Any] = {"training_contexts": TRAIN, "evaluation_contexts": EVALUATION, "batch": BATCH}
    used |= {"row_rate": ROW_RATE, "rest_rate": REST_RATE, "bootstrap_draws": 2000}
    results = {
        "settings": settings | used,
        "notes": notes,
        "model": {k: model.config[k] for k in ("vocab_size", "d_model", "n_layers", "tied")},
        "steps_measured": measured_at(steps),
        **summary(measured, drawn["stratum"], drawn["counts"], drawn["from_val"]),
        "rows": _rows(drawn, data.token_strings, measured),
    }
    write_json(out / "results.json", results)
    (out / "table.md").write_text(table(results), "utf-8")
    draw(results).savefig(out / "row_reset.png", dpi=120)
    options = {"out": out, "source": source, "config": config, "rows": rows, "steps": steps, "seeds": seeds}
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    report(results, settings, f"python -m zoo study row-reset {shlex.join(words)}", out)
    print(f"{table(results)}\nwrote {out / 'table.md'}, results.json, row_reset.png and report.html")
    return results


def _draw(data: TextDataModule, rows: int, length: int) -> dict[str, np.ndarray]:
    """Tokens of every stratum, each with contexts to train on and, apart from these, to judge by.

    Those to judge by come from the validation split or, of tokens that are too rare there, from the training split.
    """
    train, val = (data.cache.tokens(split) for split in ("train", "val"))
    in_train, in_val = (windows_per_token(np.asarray(part), length, data.vocab_size) for part in (train, val))
    in_both = (in_train >= TRAIN) & (in_val >= EVALUATION)
    fit = np.flatnonzero(in_both | (in_train >= TRAIN + EVALUATION))
    if len(fit) < rows:
        raise ZooError(
            f"{len(fit)} tokens have {TRAIN} + {EVALUATION} contexts of {length} tokens in the text, fewer than the "
            f"{rows} rows; lower rows, or name a config with more text"
        )
    counts = data.token_counts.numpy()
    rng = np.random.default_rng(0)
    stratum_of = np.full(data.vocab_size, -1)
    wanted = []
    for i, members in enumerate(np.array_split(fit[np.argsort(counts[fit], kind="stable")], STRATA)):
        stratum_of[members] = i
        wanted.append(np.sort(rng.choice(members, rows // STRATA + (i < rows % STRATA), replace=False)))
    tokens = np.concatenate(wanted)
    from_val = in_both[tokens]
    drawn = np.empty((rows, TRAIN + EVALUATION, length + 1), np.int64)
    drawn[~from_val] = contexts(np.asarray(train), tokens[~from_val], TRAIN + EVALUATION, length, rng)
    drawn[from_val, :TRAIN] = contexts(np.asarray(train), tokens[from_val], TRAIN, length, rng)
    drawn[from_val, TRAIN:] = contexts(np.asarray(val), tokens[from_val], EVALUATION, length, rng)
    return {
        "tokens": tokens,
        "stratum": stratum_of[tokens],
        "counts": counts[tokens],
        "from_val": from_val,
        "stratum_of": stratum_of,
        "train": drawn[:, :TRAIN].astype(np.int32),
        "evaluation": drawn[:, TRAIN:].astype(np.int32),
    }


def _save(drawn: dict[str, np.ndarray], out: Path) -> None:
    partial = out / "contexts.partial"
    with partial.open("wb") as file:
        np.savez_compressed(file, **drawn)  # type: ignore[arg-type]
    partial.replace(out / "contexts.npz")


def _do(task: Task, out: Path) -> None:
    part = slice(task.chunk * CHUNK, (task.chunk + 1) * CHUNK)
    with np.load(out / "contexts.npz", allow_pickle=False) as file:
        every, groups = (torch.from_numpy(file[name]) for name in ("tokens", "stratum_of"))
        train, evaluation = (torch.from_numpy(file[name][part]).long() for name in ("train", "evaluation"))
    model = sources.load(task.source)
    assert isinstance(model, GPT2)
    W_E, tokens = model.W_E, every[part]
    rows = W_E[tokens]
    if task.seed is not None:
        rows = random_rows(W_E, every, torch.Generator().manual_seed(task.seed))[part]
    typical = (W_E - W_E.mean(0)).square().mean().sqrt().item()
    tune, rate = (train_rows, ROW_RATE * typical) if task.mode == "row" else (train_rest, REST_RATE)
    tuned = tune(model, tokens, rows, train, evaluation, measured_at(task.steps), BATCH, rate)
    own, others, nearest = cosines(tuned.rows, W_E, tokens, groups)
    content = {"loss": tuned.loss, "own": own, "others": others, "nearest": nearest.double()}
    write_json(task.file(out), {name: value.tolist() for name, value in content.items()})


def _stack(chunks: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What was measured in all chunks, each (points, rows)."""
    return {name: np.concatenate([chunk[name] for chunk in chunks], 1) for name in chunks[0]}


def _over_seeds(seeds: Sequence[Sequence[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Means over seeds, each (points, rows)."""
    stacks = [_stack(chunks) for chunks in seeds]
    return {name: np.mean([stack[name] for stack in stacks], 0) for name in stacks[0]}


def _rows(drawn: dict[str, np.ndarray], texts: Sequence[str], measured: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict per token: what it is, and the losses and cosines before, at and after."""
    lines = []
    for i, token in enumerate(drawn["tokens"].tolist()):
        line: dict[str, Any] = {"token": token, "text": texts[token], "count": int(drawn["counts"][i])}
        line["stratum"] = int(drawn["stratum"][i])
        line["judged_on"] = "validation" if drawn["from_val"][i] else "training text left out"
        for mode, arms in measured.items():
            reset, control = arms["reset"], arms["control"]
            line[mode] = {
                "before": control["loss"][0, i],
                "reset": reset["loss"][0, i],
                "after": reset["loss"][-1, i],
                "control": control["loss"][-1, i],
            }
        row = measured["row"]["reset"]
        line["cosine_to_own"], line["cosine_to_others"] = row["own"][-1, i], row["others"][-1, i]
        lines.append(line)
    return lines
