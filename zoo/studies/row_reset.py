"""How much loss does resetting one row of a trained embedding cause, and does fine-tuning recover the loss and the row?

One row at a time is reset to a random row. Then either only that row is trained, or everything but that row. Tokens are
drawn from four strata of frequency. Each token has its own contexts, in which it occurs early; the loss is evaluated
from its first occurrence on. The control is the same fine-tuning without a reset.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.errors import ZooError
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.models import Weights, build
from zoo.source import Source
from zoo.study import Result, Results, Study, Task, Work

MODES = {"row": "only the reset row is trained", "rest": "everything but the reset row is trained"}
ARMS = {"reset": "after a reset", "control": "without a reset"}
STRATA = 4
LENGTH = 32  # tokens of a context
TRAIN, EVALUATION = 64, 12  # contexts per token, to train on and to evaluate on
BATCH = 2  # contexts per token and step
CHUNK = 32  # rows per task
ROW_RATE = 0.2  # Adam's learning rate for a row, in units of the rms entry of the embedding minus its mean row
REST_RATE = 3e-4  # Adam's learning rate for everything else


@dataclass(frozen=True)
class Contexts(Task):
    """Draw tokens from every stratum, each with contexts to train on and separate contexts to evaluate on.

    Args:
        source: The model on whose training text contexts are drawn.
        text_config: Config whose text is used instead; None for the model's own.
        tokens: Hash of the text's tokens and the tokenizer.
        vocab_size: Number of tokens V that the model knows.
        rows: Number of tokens to draw.
        length: Number of tokens T of a context.
        n_train: Number of contexts per token to train on.
        n_evaluation: Number of contexts per token to evaluate on.
    """

    source: Source
    text_config: str | None
    tokens: str
    vocab_size: int
    rows: int
    length: int
    n_train: int
    n_evaluation: int
    here = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields that decide the result: all except those that say where the text is read."""
        return {key: value for key, value in super().named_by().items() if key not in ("source", "text_config")}

    def do(self, work: Work) -> Result:
        """Return `tokens` (rows,), strata, counts, texts, `train` and `evaluation` (rows, n, T + 1), and notes."""
        from zoo.analysis.token_contexts import draw
        from zoo.training_text import training_text

        data, notes = training_text(self.source.name, self.text_config, self.vocab_size)
        train, val, counts = data.cache.tokens("train"), data.cache.tokens("val"), data.row_counts.numpy()
        drawn = draw(train, val, counts, self.rows, STRATA, self.length, self.n_train, self.n_evaluation)
        texts = [data.row_labels[token] for token in drawn["tokens"].tolist()]
        return drawn | {"texts": texts, "notes": notes, "corpus_fingerprint": data.corpus_fingerprint}

    def seconds(self) -> float:
        """Return a guess of the time to import modules and to check the text."""
        return 10.0


@dataclass(frozen=True)
class FineTune(Task):
    """Reset some rows, one at a time, and fine-tune the network after each reset; or fine-tune without a reset.

    Args:
        contexts: The task that draws the contexts to train and evaluate on.
        weights: The task that reads the GPT-2's weights.
        mode: The weights that are trained, a key of `MODES`.
        seed: Seed of the random rows; None for the control without a reset.
        first: Index of the first row.
        n: Number of rows.
        steps: Number of fine-tuning steps.
    """

    contexts: Contexts
    weights: Weights
    mode: str
    seed: int | None
    first: int
    n: int
    steps: int

    def needs(self) -> Sequence[Task]:
        """Return the tasks that draw the contexts and read the network."""
        return self.contexts, self.weights

    def do(self, work: Work) -> Result:
        """Return losses and the cosines to the token's original row and to those of others, each (points, rows)."""
        import torch

        from zoo.analysis.row_recovery import cosines
        from zoo.analysis.row_reset import measured_at, random_rows, train_rest, train_rows

        drawn, model = work[self.contexts], build(work[self.weights])
        part = slice(self.first, self.first + self.n)
        every, groups = (torch.from_numpy(drawn[name]) for name in ("tokens", "stratum_of"))
        train, evaluation = (torch.from_numpy(drawn[name][part]).long() for name in ("train", "evaluation"))
        W_E, tokens = model.W_E, every[part]
        rows = W_E[tokens]
        if self.seed is not None:
            rows = random_rows(W_E, every, torch.Generator().manual_seed(self.seed))[part]
        typical = (W_E - W_E.mean(0)).square().mean().sqrt().item()
        tune, rate = (train_rows, ROW_RATE * typical) if self.mode == "row" else (train_rest, REST_RATE)
        tuned = tune(model, tokens, rows, train, evaluation, measured_at(self.steps), BATCH, rate)
        own, others, nearest = cosines(tuned.rows, W_E, tokens, groups)
        found = {"loss": tuned.loss, "own": own, "others": others, "nearest": nearest}
        return {name: value.double().numpy() for name, value in found.items()}

    def seconds(self) -> float:
        """Return an estimate for a network of two layers."""
        per_step = {"row": 0.005, "rest": 0.01}[self.mode] * self.contexts.vocab_size / 2048
        return self.n * (self.steps + 10) * per_step

    def __str__(self) -> str:
        reset = "no reset" if self.seed is None else f"seed {self.seed}"
        return f"FineTune({self.mode}, {reset}, {self.n} rows from {self.first}, {self.steps} steps)"


@dataclass(frozen=True)
class RowReset(Study):
    """Rows of a GPT-2's embedding are reset to random ones, one at a time, and the network is fine-tuned.

    Args:
        source: The GPT-2, as `zoo.load` takes it.
        text_config: Config whose `data` part defines the text; by default the config of the model's own training.
            `--config` is the same setting.
        rows: Number of tokens whose row is reset, one at a time.
        steps: Number of fine-tuning steps.
        seeds: Number of random rows that each token's row is reset to.
    """

    source: str = "gpt2-mini.learned"
    text_config: str | None = None
    rows: PositiveInt = 256
    steps: PositiveInt = 50
    seeds: PositiveInt = 2
    title = "How much does one row of an embedding matter, and does fine-tuning recover it?"
    aliases: ClassVar[Mapping[str, str]] = {"config": "text_config"}

    def check(self) -> None:
        """Refuse fewer rows than intervals in every stratum require."""
        if self.rows < 2 * STRATA:
            raise ZooError(f"rows is {self.rows}; an interval in each of {STRATA} strata needs at least {2 * STRATA}")

    @cached_property
    def _needed(self) -> tuple[Contexts, Weights]:
        """The tasks that read the text and the network."""
        from zoo.models import GPT2
        from zoo.training_text import training_text

        source = Source.open(self.source)
        model = source.load()
        if not isinstance(model, GPT2):
            raise ZooError(f"source {self.source} is a {type(model).__name__}; the study needs a GPT2")
        data, _ = training_text(self.source, self.text_config, len(model.W_E))
        tokens = hashlib.sha256(json.dumps(data.cache.meta["sha256"], sort_keys=True).encode()).hexdigest()
        length = min(LENGTH, model.context_length)
        shape = (len(model.W_E), self.rows, length, TRAIN, EVALUATION)
        return Contexts(source, self.text_config, tokens, *shape), Weights(source)

    def _arm(self, mode: str, seed: int | None) -> list[FineTune]:
        return [
            FineTune(*self._needed, mode, seed, first, min(CHUNK, self.rows - first), self.steps)
            for first in range(0, self.rows, CHUNK)
        ]

    def tasks(self) -> Sequence[FineTune]:
        """Return one task for every chunk of rows, way of fine-tuning and seed, and for the controls."""
        return [task for mode in MODES for seed in (None, *range(self.seeds)) for task in self._arm(mode, seed)]

    def report(self, results: Results) -> Report:
        """Return a report on the loss that a reset causes, and on how much of the loss and of the row is recovered."""
        from zoo.analysis.row_recovery import summary
        from zoo.analysis.row_reset import measured_at

        measured = {
            mode: {
                "control": _stack([results[task] for task in self._arm(mode, None)]),
                "reset": _mean([_stack([results[t] for t in self._arm(mode, seed)]) for seed in range(self.seeds)]),
            }
            for mode in MODES
        }
        drawn, network = results[self._needed[0]], results[self._needed[1]]["init_args"]
        groups, curves = summary(measured, drawn["stratum"], drawn["counts"], drawn["from_val"])
        steps = measured_at(self.steps)
        length = drawn["train"].shape[2] - 1
        section = Section(
            self.name,
            self.question,
            self._finding(groups[0], network["vocab_size"]),
            tables=[*self._tables(groups), _note(length, self.seeds, drawn["notes"])],
            charts=_charts(steps, groups, curves),
            null_models=(
                "The control is the same fine-tuning on the same contexts without a reset. A reset row has an "
                "isotropic random direction from the mean row, and the same distance from it as the original row. The "
                "cosine of the trained row to its original is compared with that to the original rows of other tokens "
                "of its stratum."
            ),
            not_shown=(
                f"Longer or other fine-tuning may have another result: this one is {self.steps} steps of Adam "
                f"(learning rate falling to 0 from {ROW_RATE:g} rms entries for a row, {REST_RATE:g} for the rest) on "
                "contexts that all contain the token, unlike normal text. It does not show that contexts "
                "determine a row: another row may give the same loss. Strata may differ for other reasons than "
                "frequency: rarer tokens are more often evaluated on training text, which the model has seen. Several "
                "resets at once, tokens with too few contexts, and other models are not tested."
            ),
            numbers={
                "groups": groups,
                "curves": curves,
                "steps_measured": steps,
                "length": length,
                "notes": drawn["notes"],
                "corpus_fingerprint": drawn["corpus_fingerprint"],
                "rows": _rows(drawn, measured),
            },
        )
        unembedding = "tied" if network["tied"] else "untied"
        subject = (
            f"{self.source} (GPT-2, {network['vocab_size']:,} tokens, width {network['d_model']}, "
            f"{network['n_layers']} layers, {unembedding})"
        )
        certainty = (
            f"Brackets are 95 % intervals over {self.rows} tokens, with {self.seeds} random rows each. One model was "
            "studied."
        )
        return Report(subject, Verdict(_headline(groups[0]), certainty, numbers=groups[0]), [section])

    def _finding(self, everything: dict[str, Any], vocab_size: int) -> str:
        """Return the finding in words."""
        row, rest = everything["row"], everything["rest"]
        if math.isnan(row["recovered"].mean):
            return (
                "A random row does not clearly increase the loss: the increase is "
                f"{row['damage']} nats over {everything['n']} tokens."
            )
        way = {"above": "turns towards", "below": "turns away from", "undecided": "does not turn towards"}
        return (
            f"A random row increases the loss by {row['damage']} nats per token, from its token's first occurrence on "
            f"({everything['n']} tokens). {self.steps} steps on the row alone recover {row['recovered']:.0%} of this, "
            f"and {self.steps} steps on everything but the row recover {rest['recovered']:.0%}, compared with the same "
            f"steps without a reset. The trained row {way[row['drift'].sign]} its original: their cosine is "
            f"{row['own']:.2f}, against {row['others']:.2f} for the original rows of equally frequent tokens. For "
            f"{row['nearest']:.0%} of the tokens no original row is nearer than the token's own (by chance "
            f"{100 / vocab_size:.2g} %)."
        )

    def _tables(self, groups: Sequence[dict[str, Any]]) -> list[Table]:
        """Return tables of losses, one for each way of fine-tuning, and of the directions of trained rows."""
        names = ["rows", "on validation text", "before", "damage", f"left after {self.steps} steps", "recovered"]
        tables = []
        for mode, title in MODES.items():
            rows = []
            for group in groups:
                own = group[mode]
                shares = [f"{own[key]:.0%}" for key in ("recovered", "recovered_without_control")]
                cells = [group["name"], group["n"], group["on_validation"], own["before"].mean, own["damage"]]
                rows.append([*cells, own["left"], *shares])
            tables.append(Table([title, *names, "recovered, without control"], rows))
        names = ["cosine to its original at reset", "after training", "cosine to others after training", "drift"]
        rows = [
            [
                group["name"],
                *(group["row"][key] for key in ("own_at_reset", "own", "others", "drift")),
                f"{group['row']['nearest']:.0%}",
            ]
            for group in groups
        ]
        return [*tables, Table([MODES["row"], *names, "nearest original is its own"], rows, digits=2)]


def _headline(everything: dict[str, Any]) -> str:
    row, rest = (everything[mode]["recovered"] for mode in MODES)
    if math.isnan(row.mean):
        return "Resetting a row does not clearly increase the loss, so there is nothing to recover."
    return (
        f"Training a reset row alone recovers {row:.0%} of the increase in loss, training everything but the row "
        f"{rest:.0%}."
    )


def _note(length: int, seeds: int, notes: Sequence[str]) -> str:
    """Return a text that defines the tables' columns."""
    return (
        "Strata are ranges of the number of occurrences of a token in the training text. Losses are in nats per token "
        f"from the token's first occurrence in a context of {length} tokens on. Damage: loss right after the reset "
        "minus loss before. Left: loss after fine-tuning minus that of the control, the same fine-tuning without a "
        "reset. Recovered: 1 - left / damage, a ratio of means. Recovered, without control: 1 - (after - before) / "
        "damage. A dash means no clear damage. Brackets are 95 % intervals over tokens (Student t; bootstrap for "
        f"recovered shares), after averaging over {seeds} random rows per token. Cosines are between rows minus the "
        "mean row. Others are the original rows of other tokens of the same stratum. Drift: increase during training "
        "of the cosine to the original minus the cosine to others. Tokens that are too rare in the validation text are "
        "evaluated on training text that fine-tuning does not use. Each step uses "
        f"{BATCH} of {TRAIN} contexts per token; {EVALUATION} other contexts are for evaluation."
    ) + "".join(f"\n\nNote: {note}." for note in notes)


def _charts(steps: Sequence[int], groups: Sequence[dict[str, Any]], curves: dict[str, Any]) -> list[Chart]:
    """Return charts of losses over steps, recovered shares by stratum, and cosines over steps."""
    charts = [
        Chart(
            f"row-reset-loss-{mode}",
            f"Loss when {title}",
            [
                Series.of(text, steps, curves[mode][arm], "line" if arm == "reset" else "dashed")
                for arm, text in ARMS.items()
            ],
            "steps of fine-tuning",
            "loss minus that of the original model, nats",
            caption="Step 0 is right after the reset, before fine-tuning. Bands: 95 % intervals over tokens.",
        )
        for mode, title in MODES.items()
    ]
    names = [group["name"] for group in groups]
    charts.append(
        Chart(
            "row-reset-recovered",
            "Recovered share of the increase in loss",
            [
                Series.of(title, names, [g[mode]["recovered"] for g in groups], "points")
                for mode, title in MODES.items()
            ],
            "occurrences of the token in the training text",
            "1 - (loss after - control) / damage",
            caption="Whiskers: 95 % bootstrap intervals over tokens. Damage: loss right after the reset minus loss "
            "before.",
        )
    )
    own, others = (curves["row"][name] for name in ("own", "others"))
    charts.append(
        Chart(
            "row-reset-cosine",
            "Cosine of the trained row to original rows",
            [
                Series.of("its own original row", steps, own),
                Series.of("original rows of equally frequent tokens", steps, others, "dashed"),
            ],
            "steps of training the row alone",
            "cosine, after subtracting the mean row",
            caption="The dashed line is the comparison: mean cosine to other tokens of the same stratum.",
        )
    )
    return charts


def _stack(chunks: Sequence[Result]) -> dict[str, np.ndarray]:
    """Concatenate the measurements of all chunks; each is (points, rows)."""
    return {name: np.concatenate([chunk[name] for chunk in chunks], 1) for name in chunks[0]}


def _mean(stacks: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return means over seeds, each (points, rows)."""
    return {name: np.mean([stack[name] for stack in stacks], 0) for name in stacks[0]}


def _rows(drawn: Result, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one dict per token, with the token and its losses and cosines before, at and after the reset."""
    lines = []
    for i, token in enumerate(drawn["tokens"].tolist()):
        line: dict[str, Any] = {"token": token, "text": drawn["texts"][i], "count": int(drawn["counts"][i])}
        line["stratum"] = int(drawn["stratum"][i])
        line["judged_on"] = "validation" if drawn["from_val"][i] else "training text left out"
        for mode, arms in measured.items():
            reset, control = arms["reset"]["loss"], arms["control"]["loss"]
            line[mode] = {"before": control[0, i], "reset": reset[0, i], "after": reset[-1, i]}
            line[mode]["control"] = control[-1, i]
        row = measured["row"]["reset"]
        line["cosine_to_own"], line["cosine_to_others"] = row["own"][-1, i], row["others"][-1, i]
        lines.append(line)
    return lines
