"""What is one row of a trained embedding worth, and does fine-tuning bring it back?

One row at a time is set to a random one, and then only that row is trained, or everything but that row. Tokens are
drawn from four strata of frequency; each has contexts of its own in which it occurs early, and the loss counts from
there on. The same fine-tuning without a reset is the control.
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

MODES = {"row": "only that row is trained", "rest": "everything but that row is trained"}
ARMS = {"reset": "after a reset", "control": "without a reset"}
STRATA = 4
LENGTH = 32  # tokens of a context
TRAIN, EVALUATION = 64, 12  # contexts of every token
BATCH = 2  # contexts of every token in a step
CHUNK = 32  # rows per task
ROW_RATE = 0.2  # Adam's rate for a row, in units of the embedding's typical entry about the mean row
REST_RATE = 3e-4  # Adam's rate for everything else


@dataclass(frozen=True)
class Contexts(Task):
    """Tokens of every stratum, each with contexts to train on and, apart from these, to judge by.

    Args:
        source: The model whose text it is.
        text_config: Config whose text it is instead, if not None.
        tokens: Hash of the text's tokens and the tokenizer.
        vocab_size: Tokens V that the model knows.
        rows: Tokens to draw.
        length: Tokens T of a context.
        n_train: Contexts of every token to train on.
        n_evaluation: And to judge by.
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
        """The text's tokens, wherever they are read, and what is drawn of them."""
        return {key: value for key, value in super().named_by().items() if key not in ("source", "text_config")}

    def do(self, work: Work) -> Result:
        """`tokens` (rows,), their strata, counts and texts, `train` and `evaluation` (rows, n, T + 1), and notes."""
        from zoo.analysis.token_contexts import draw
        from zoo.training_text import training_text

        data, notes = training_text(self.source.name, self.text_config, self.vocab_size)
        train, val, counts = data.cache.tokens("train"), data.cache.tokens("val"), data.row_counts.numpy()
        drawn = draw(train, val, counts, self.rows, STRATA, self.length, self.n_train, self.n_evaluation)
        texts = [data.row_labels[token] for token in drawn["tokens"].tolist()]
        return drawn | {"texts": texts, "notes": notes, "corpus_fingerprint": data.corpus_fingerprint}

    def seconds(self) -> float:
        """To import, and to check the text that is read."""
        return 10.0


@dataclass(frozen=True)
class FineTune(Task):
    """Fine-tuning of some of the rows, one at a time, in one way, after one reset or without for the control.

    Args:
        contexts: What is trained on and judged by.
        weights: Of the GPT-2.
        mode: What is trained, a key of `MODES`.
        seed: Of the random rows; None is the control.
        first: The first of the rows.
        n: How many.
        steps: Of fine-tuning.
    """

    contexts: Contexts
    weights: Weights
    mode: str
    seed: int | None
    first: int
    n: int
    steps: int

    def needs(self) -> Sequence[Task]:
        """Contexts and network."""
        return self.contexts, self.weights

    def do(self, work: Work) -> Result:
        """Losses, and cosines to the own original and to others', each (points, rows)."""
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
        """Of a network of two layers."""
        per_step = {"row": 0.005, "rest": 0.01}[self.mode] * self.contexts.vocab_size / 2048
        return self.n * (self.steps + 10) * per_step

    def __str__(self) -> str:
        reset = "no reset" if self.seed is None else f"seed {self.seed}"
        return f"FineTune({self.mode}, {reset}, {self.n} rows from {self.first}, {self.steps} steps)"


@dataclass(frozen=True)
class RowReset(Study):
    """Rows of a GPT-2 are reset to random ones, one at a time, and fine-tuned.

    Args:
        source: The GPT-2: what `zoo.load` takes.
        text_config: Config whose `data` part is the text; by default that of the model's own training. `--config` means
            the same.
        rows: Tokens whose row is reset, one at a time.
        steps: Of fine-tuning.
        seeds: Random rows that each token's row is set to.
    """

    source: str = "gpt2-mini.learned"
    text_config: str | None = None
    rows: PositiveInt = 256
    steps: PositiveInt = 50
    seeds: PositiveInt = 2
    title = "Can one row of an embedding be lost?"
    aliases: ClassVar[Mapping[str, str]] = {"config": "text_config"}

    def check(self) -> None:
        """Refuse fewer rows than intervals need."""
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
            raise ZooError(f"{self.source} is a {type(model).__name__}; the study needs a GPT2, which reads tokens")
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
        """One for every chunk of the rows, way of fine-tuning and seed, and the controls."""
        return [task for mode in MODES for seed in (None, *range(self.seeds)) for task in self._arm(mode, seed)]

    def report(self, results: Results) -> Report:
        """What a row is worth, how much of that comes back, and whether the row itself does."""
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
                "The control is the same fine-tuning on the same contexts without a reset. A reset row points in an "
                "isotropic random direction from the mean row, at its original's distance. The trained row's cosine to "
                "its original stands beside that to originals of other tokens of its stratum."
            ),
            not_shown=(
                f"That longer or other fine-tuning ends where this does: {self.steps} steps of Adam (rate falling to 0 "
                f"from {ROW_RATE:g} typical entries for a row, {REST_RATE:g} for the rest) on contexts that all hold "
                "the token, which is more often than in text. That a row is determined by its contexts: a row that "
                "does not come back may do as well. That frequency itself makes strata differ: rarer tokens are more "
                "often judged on training text, which the model has seen. What several resets at once would do. "
                "Nothing of tokens with too few contexts, and of other models."
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
            f"{self.source} (GPT-2, V {network['vocab_size']:,}, width {network['d_model']}, {network['n_layers']} "
            f"layers, {unembedding})"
        )
        certainty = f"{self.rows} tokens, {self.seeds} random rows each, 95 % intervals over tokens; one model."
        return Report(subject, Verdict(_headline(groups[0]), certainty, numbers=groups[0]), [section])

    def _finding(self, everything: dict[str, Any], vocab_size: int) -> str:
        """The answer in words."""
        row, rest = everything["row"], everything["rest"]
        if math.isnan(row["recovered"].mean):
            return f"A random row does no clear damage: {row['damage']} nats over {everything['n']} tokens."
        way = {"above": "turns towards", "below": "turns away from", "undecided": "does not turn towards"}
        return (
            f"A random row costs {row['damage']} nats per token where it matters, over {everything['n']} tokens. Of "
            f"that, {self.steps} steps on the row alone make good {row['recovered']:.0%}, and {self.steps} steps on "
            f"everything but the row {rest['recovered']:.0%}, judged by the same steps without a reset. The trained "
            f"row {way[row['drift'].sign]} its original: cosine {row['own']:.2f} against {row['others']:.2f} to "
            f"originals of equally frequent tokens; its own is the nearest of all for {row['nearest']:.0%} of the "
            f"tokens (by chance {100 / vocab_size:.2g} %)."
        )

    def _tables(self, groups: Sequence[dict[str, Any]]) -> list[Table]:
        """Losses by what is trained, and directions of trained rows."""
        names = ["rows", "on validation text", "before", "damage", f"left after {self.steps} steps", "recovered"]
        tables = []
        for mode, title in MODES.items():
            rows = []
            for group in groups:
                own = group[mode]
                shares = [f"{own[key]:.0%}" for key in ("recovered", "recovered_without_control")]
                cells = [group["name"], group["n"], group["on_validation"], own["before"].mean, own["damage"]]
                rows.append([*cells, own["left"], *shares])
            tables.append(Table([title, *names, "without control"], rows))
        names = ["cosine to its original at reset", "after", "to others' originals, after", "rise over others"]
        rows = [
            [
                group["name"],
                *(group["row"][key] for key in ("own_at_reset", "own", "others", "drift")),
                f"{group['row']['nearest']:.0%}",
            ]
            for group in groups
        ]
        return [*tables, Table([MODES["row"], *names, "nearest is its own"], rows, digits=2)]


def _headline(everything: dict[str, Any]) -> str:
    row, rest = (everything[mode]["recovered"] for mode in MODES)
    if math.isnan(row.mean):
        return "A random row does no clear damage, so there is nothing to recover."
    return f"Training the row alone makes good {row:.0%} of a random row's damage, training all but the row {rest:.0%}."


def _note(length: int, seeds: int, notes: Sequence[str]) -> str:
    """What the tables' columns mean."""
    return (
        "Strata are by how often the token occurs in the training text. Losses are nats per token at and after the "
        f"token's first place in a context of {length}; damage is the loss right after the reset minus that before; "
        "left is the loss after fine-tuning minus that of the control, the same fine-tuning without a reset; recovered "
        "is 1 - left / damage, of means ('without control': 1 - (after - before) / damage; '-': no clear damage). "
        f"Brackets are 95 % intervals over tokens, {seeds} random rows of each averaged: Student t, and bootstrap for "
        "what is recovered. Cosines are about the mean row; others are tokens of the same stratum. Tokens that are too "
        "rare in the validation text are judged on training text that fine-tuning leaves out. "
        f"{BATCH} contexts a step of {TRAIN}, {EVALUATION} to judge by."
    ) + "".join(f"\n\nNote: {note}." for note in notes)


def _charts(steps: Sequence[int], groups: Sequence[dict[str, Any]], curves: dict[str, Any]) -> list[Chart]:
    """Loss over steps by mode, what is recovered by stratum, and cosines over steps."""
    charts = [
        Chart(
            f"row-reset-loss-{mode}",
            f"Loss when {title}",
            [
                Series.of(text, steps, curves[mode][arm], "line" if arm == "reset" else "dashed")
                for arm, text in ARMS.items()
            ],
            "steps of fine-tuning",
            "loss above the untouched model's, nats",
            caption="At step 0 the reset has just been made; 0 is the loss before. Bands: 95 % over tokens.",
        )
        for mode, title in MODES.items()
    ]
    names = [group["name"] for group in groups]
    charts.append(
        Chart(
            "row-reset-recovered",
            "How much of the damage is made good",
            [
                Series.of(title, names, [g[mode]["recovered"] for g in groups], "points")
                for mode, title in MODES.items()
            ],
            "occurrences of the token in the training text",
            "1 - (loss after - control) / damage",
            caption="Whiskers: 95 % bootstrap over tokens. 1 is all of the damage, 0 is none.",
        )
    )
    own, others = (curves["row"][name] for name in ("own", "others"))
    charts.append(
        Chart(
            "row-reset-cosine",
            "Does the row come back?",
            [
                Series.of("its own original", steps, own),
                Series.of("originals of equally frequent tokens", steps, others, "dashed"),
            ],
            "steps of training the row alone",
            "cosine about the mean row",
            caption="The dashed line is the null: what the row has in common with tokens of its stratum.",
        )
    )
    return charts


def _stack(chunks: Sequence[Result]) -> dict[str, np.ndarray]:
    """What was measured in all chunks, each (points, rows)."""
    return {name: np.concatenate([chunk[name] for chunk in chunks], 1) for name in chunks[0]}


def _mean(stacks: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over seeds, each (points, rows)."""
    return {name: np.mean([stack[name] for stack in stacks], 0) for name in stacks[0]}


def _rows(drawn: Result, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict per token: what it is, and the losses and cosines before, at and after."""
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
