"""How much worse does GPT-2 train when its embedding is random and never updated?

One arm learns the embedding. The other default arms freeze rows that are Gaussian at GPT-2's initial scale (standard
deviation 0.02), Gaussian with longer rows, or random with low coherence. Each arm is trained with an untied and with a
tied unembedding. A second learned arm starts with the longer rows, to separate the effect of their length. Further arms
freeze rows made from the embedding that the run of the next seed has learned: from its norms, from its covariance, or
from the rows themselves, permuted or copied. Runs of one seed share all initial weights except the embedding, so
differences from the learned arm are paired by seed. All runs see the data in the same order.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jsonargparse.typing import NonNegativeFloat

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.training_process import FOLDER, config_texts, fit

ROWS = {
    "learned": ("--model.frozen_rows", "none"),
    "learned, std 0.09": (
        *("--model.frozen_rows", "none", "--model.embedding", "GaussianEmbedding"),
        *("--model.embedding.std", "0.09"),
    ),
    "frozen Gaussian": ("--model.frozen_rows", "all"),
    "frozen Gaussian, std 0.09": (
        *("--model.frozen_rows", "all", "--model.embedding", "GaussianEmbedding"),
        *("--model.embedding.std", "0.09"),
    ),
    "frozen low-coherence": (
        *("--model.frozen_rows", "all", "--model.embedding", "LowCoherenceEmbedding"),
        *("--model.embedding.max_cosine", "0.3"),
    ),
}
LEARNED_ROWS = {
    "frozen norm-matched": "NormMatchedEmbedding",
    "frozen covariance-matched": "CovarianceMatchedEmbedding",
    "frozen permuted": "PermutedEmbedding",
    "frozen copied": "CopiedEmbedding",
}
TIED = {"untied": "false", "tied": "true"}
DESCRIBED = {
    "frozen Gaussian": "Gaussian rows at GPT-2's initial scale",
    "frozen Gaussian, std 0.09": "longer Gaussian rows, compared with learned rows of the same initial length",
    "frozen low-coherence": "random rows, no two of which are nearly parallel",
    "frozen norm-matched": "random directions with the norms of learned rows",
    "frozen covariance-matched": "Gaussian rows with the covariance of learned rows",
    "frozen permuted": "learned rows of another seed, randomly assigned to the tokens",
    "frozen copied": "learned rows of another seed, unchanged, which show the cost of freezing alone",
}
RANDOM = ("frozen Gaussian", "frozen Gaussian, std 0.09", "frozen low-coherence", "frozen norm-matched")
Arm = tuple[str, str]  # kind of embedding, kind of unembedding


@dataclass(frozen=True)
class TrainingRun(Task):
    """One run of `python -m zoo fit`; an interrupted run is resumed.

    It runs in a separate process. Dask workers do tasks in threads, in which Lightning cannot handle signals, and a
    separate process leaves the worker unchanged.

    Args:
        configs: Texts of the run's YAML configs, each building on the one before.
        rows: Kind of embedding, a key of `ROWS` or `LEARNED_ROWS`.
        tied: Kind of unembedding, a key of `TIED`.
        seed: Seed of weights and embedding.
        fit_arguments: Further arguments of `fit`.
        learned: Run from whose embedding the rows are made; required for the kinds in `LEARNED_ROWS`.
    """

    configs: tuple[str, ...]
    rows: str
    tied: str
    seed: int
    fit_arguments: tuple[str, ...]
    learned: "TrainingRun | None" = None
    on_gpu = True

    def needs(self) -> Sequence[Task]:
        """Return the learned run whose rows this run uses, if there is one."""
        return () if self.learned is None else (self.learned,)

    def do(self, work: Work) -> Result:
        """Return `curve`, `text` and, if the embedding is learned, `W_E`.

        `curve` holds the validation losses, [optimizer step, nats per token]; `text` is a hash of the training text.
        """
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        from zoo.source import Source

        words = [*self._rows(work), "--model.tied", TIED[self.tied], "--seed_everything", str(self.seed)]
        folder = fit(self.configs, [*words, *self.fit_arguments], work.folder, work.device)
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        losses = {event.step + 1: event.value for event in events.Scalars("val/loss")}
        run = Source.open(folder)
        found: Result = {"curve": [list(point) for point in sorted(losses.items())]}
        found["text"] = run.provenance().get("corpus_fingerprint")
        return found | ({"W_E": run.embedding().numpy()} if self.rows == "learned" else {})

    def seconds(self) -> float | None:
        """Return an estimate for a network of the size of those in cli_configs/gpt2/."""
        steps = re.findall(r"\bmax_steps\W+(\d+)", " ".join((*self.configs, *self.fit_arguments)))
        return 10 + 0.3 * int(steps[-1]) if steps else None

    def __str__(self) -> str:
        return f"TrainingRun({self.rows}, {self.tied}, seed {self.seed})"

    def _rows(self, work: Work) -> Sequence[str]:
        """Return the embedding's arguments of `fit`; the path of learned rows stays valid if the folder is moved."""
        if self.learned is None:
            return ROWS[self.rows]
        np.save(work.folder / "W_E.npy", work[self.learned]["W_E"])
        source = ("--model.embedding.source", f"${FOLDER}/W_E.npy")
        return ("--model.frozen_rows", "all", "--model.embedding", LEARNED_ROWS[self.rows], *source)


@dataclass(frozen=True)
class FrozenEmbedding(Study):
    """GPT-2 is trained with learned and with frozen embeddings, and the final validation losses are compared.

    Args:
        fit_config: Config of the training runs, or a shipped checkpoint, whose training config is then used.
            `--config` is the same setting.
        arms: Kinds of embeddings: learned, "learned, std 0.09" (untied only), "frozen Gaussian",
            "frozen Gaussian, std 0.09", "frozen low-coherence", "frozen norm-matched", "frozen covariance-matched",
            "frozen permuted", "frozen copied".
        unembedding: Kinds of output layers: untied, or tied to the embedding.
        seeds: Number of runs per arm.
        fit_arguments: Further arguments of every `python -m zoo fit`; on the command line, all words after `--`.
        margin: Loss in nats above which the cost of a frozen embedding counts as large.
    """

    fit_config: str = "cli_configs/gpt2/base.yaml"
    arms: tuple[str, ...] = tuple(ROWS)
    unembedding: tuple[str, ...] = tuple(TIED)
    seeds: AtLeastTwo = 3
    fit_arguments: tuple[str, ...] = ()
    margin: NonNegativeFloat = 0.1
    aliases: ClassVar[Mapping[str, str]] = {"config": "fit_config"}

    def check(self) -> None:
        """Refuse unknown or repeated arms, and arms without the learned one, which all others are compared with."""
        for name, chosen, known in (
            ("arms", self.arms, [*ROWS, *LEARNED_ROWS]),
            ("unembedding", self.unembedding, list(TIED)),
        ):
            if wrong := [one for one in chosen if one not in known]:
                close = difflib.get_close_matches(wrong[0], known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"possible values: {', '.join(map(repr, known))}"
                raise ZooError(f"{name} cannot contain {wrong[0]!r}; {hint}")
            if len(set(chosen)) < len(chosen):
                raise ZooError(f"{name} is {', '.join(chosen)}; each value may be given only once")
        if "learned" not in self.arms:
            raise ZooError("arms must contain 'learned', with which all other arms are compared")

    @cached_property
    def _configs(self) -> tuple[str, ...]:
        return config_texts(self.fit_config)  # files are read only once

    def _arms(self) -> list[Arm]:
        return [
            (rows, tied)
            for tied in self.unembedding
            for rows in self.arms
            if (rows, tied) != ("learned, std 0.09", "tied")
        ]

    def _runs(self, arm: Arm) -> list[TrainingRun]:
        def one(rows: str, seed: int, learned: TrainingRun | None = None) -> TrainingRun:
            return TrainingRun(self._configs, rows, arm[1], seed, self.fit_arguments, learned)

        def other(seed: int) -> TrainingRun | None:  # a learned run of another seed, so with other initial weights
            return one("learned", (seed + 1) % self.seeds) if arm[0] in LEARNED_ROWS else None

        return [one(arm[0], seed, other(seed)) for seed in range(self.seeds)]

    def tasks(self) -> Sequence[TrainingRun]:
        """Return one run for every arm and seed."""
        return [run for arm in self._arms() for run in self._runs(arm)]

    def report(self, results: Results) -> Report:
        """Return a report on the losses of all arms, and on their differences from learned rows of the same seed."""
        runs = {arm: [results[run] for run in self._runs(arm)] for arm in self._arms()}
        if len({result["text"] for own in runs.values() for result in own}) > 1:
            why = (
                "The runs were trained on different texts, such as the standard libraries of two versions of Python. "
                "Choose another --out."
            )
            return Report("", Verdict("No answer.", why), [Section(self.name, self.question, why, tested=False)])
        curves = {arm: np.array([result["curve"] for result in own]) for arm, own in runs.items()}
        found = [_arm(arm, curves) for arm in curves]
        shape = next(list(own[0]["W_E"].shape) for arm, own in runs.items() if arm[0] == "learned")
        cheapest = _cheapest(found, "untied") or _cheapest(found, "tied")
        sentences = _sentences(found, cheapest, self.margin)
        steps, tied = found[0]["steps"], "tied" in self.unembedding
        charts = [chart for kind in self.unembedding for chart in _charts(kind, curves, found)]
        without = "" if tied else ", a tied unembedding (for which a frozen random embedding costs far more)"
        section = Section(
            self.name,
            self.question,
            " ".join(sentences),
            tables=[self._table(found)],
            charts=charts,
            null_models="Frozen rows are: "
            + "; ".join(DESCRIBED[rows] for rows in self.arms if rows in DESCRIBED)
            + ". All other initial weights are shared by the arms of a seed.",
            not_shown=(
                f"Training for more than {steps:,} steps, other sizes{without}, and separately tuned learning rates "
                "for each arm are not tested. Differences may shrink with more training. Seeds do not change the order "
                "of the data."
            ),
            numbers={
                "arms": found,
                "cheapest": cheapest and cheapest["rows"],
                "curves": {
                    kind: {rows: curve.tolist() for (rows, own), curve in curves.items() if own == kind}
                    for kind in self.unembedding
                },
            },
        )
        numbers = {
            "cheapest": cheapest and cheapest["rows"],
            "gap": cheapest and cheapest["gap"],
            "trained_shape": shape,
            "arms": found,
        }
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} seeds; differences between arms are paired by "
            "seed. One size of network and one text were used."
        )
        subject = f"GPT-2 with an embedding of shape {shape[0]:,} x {shape[1]}, trained for {steps:,} steps"
        return Report(subject, Verdict(sentences[0], certainty, numbers=numbers), [section])

    def _table(self, found: Sequence[dict[str, Any]]) -> Table:
        rows = []
        for arm in found:
            share = arm["share_of_training"]
            reach = f"{share:.2f} of the steps" if share else "-" if arm["gap"] is None else "not reached"
            if arm.get("share_is_upper_bound"):
                reach = f"less than {share.mean:.2f} of the steps"
            baseline = "-" if arm["gap"] is None else arm["baseline"]
            rows.append([arm["tied"], arm["rows"], arm["loss"], arm["gap"], baseline, reach])
        columns = ["unembedding", "embedding", "validation loss, nats", "difference, nats", "compared with"]
        note = (
            f"{self.seeds} seeds, {found[0]['steps']} steps. Brackets are 95 % Student t intervals. Differences are "
            "paired by seed. The last column is the share of its training steps after which the arm compared with has "
            "reached this loss."
        )
        return Table([*columns, "reaches this loss after"], rows, note=note)


def steps_to_reach(curve: np.ndarray, loss: float) -> float:
    """Return the step at which a falling curve (points, 2) first reaches a loss, with linear interpolation.

    It is infinite if the curve never reaches the loss. If the first point is below the loss already, it is the step of
    the first point, an upper bound.
    """
    reached = np.flatnonzero(curve[:, 1] <= loss)
    if not len(reached):
        return float("inf")
    i = reached[0]
    if i == 0:
        return float(curve[0, 0])
    (s0, l0), (s1, l1) = curve[i - 1], curve[i]
    return float(s0 + (s1 - s0) * (l0 - loss) / (l0 - l1))


def _arm(arm: Arm, curves: Mapping[Arm, np.ndarray]) -> dict[str, Any]:
    """Return the results of an arm as a dict.

    Args:
        arm: The arm.
        curves: Loss curves of every arm, (seeds, points, 2).
    """
    rows, tied = arm
    twin = rows.replace("frozen Gaussian", "learned")  # the learned arm whose rows have the same initial length
    baseline = twin if twin != rows and (twin, tied) in curves else "learned"
    mine, learned = curves[arm], curves[baseline, tied]
    final, steps = mine[:, -1, 1], int(mine[0, -1, 0])
    found: dict[str, Any] = {"rows": rows, "tied": tied, "steps": steps, "loss": estimates.mean(final), "gap": None}
    found |= {"share_of_training": None, "final_losses": final.tolist(), "baseline": baseline}
    if rows != "learned":
        reached = np.array([steps_to_reach(b, a[-1, 1]) for a, b in zip(mine, learned, strict=True)])
        found["gap"] = estimates.mean(final - learned[:, -1, 1])
        if np.isfinite(reached).all():
            found["share_of_training"] = estimates.mean(reached / steps)
        found["share_is_upper_bound"] = bool((reached == learned[0, 0, 0]).all())
    return found


def _cheapest(found: Sequence[dict[str, Any]], tied: str) -> dict[str, Any] | None:
    """Return the arm in `RANDOM` with the smallest difference from learned rows, or None if there is no such arm.

    The rows of these arms carry no information on a trained embedding except, in one arm, its row norms.
    """
    arms = [arm for arm in found if arm["rows"] in RANDOM and arm["tied"] == tied]
    return min(arms, key=lambda arm: arm["gap"].mean, default=None)


def _sentences(found: Sequence[dict[str, Any]], cheapest: dict[str, Any] | None, margin: float) -> list[str]:
    """Return the sentences of the finding; the first is the headline."""
    steps, kind = found[0]["steps"], (cheapest or found[0])["tied"]
    arms = {arm["rows"]: arm for arm in found if arm["tied"] == kind}
    if cheapest is None:
        told = "; ".join(f"{arm['rows']}: {arm['loss']} nats" for arm in arms.values())
        sentences = [f"After {steps:,} steps the validation losses ({kind} unembedding) are: {told}."]
    else:
        gap: Estimate = cheapest["gap"]
        is_much = "more than" if gap.low > margin else "no more than" if gap.high <= margin else "not clearly more than"
        sentences = [
            f"After {steps:,} steps the loss with the best frozen random embedding ({cheapest['rows']}) is {gap} nats "
            f"above that with a learned embedding, which is {is_much} the margin of {margin:g}."
        ]
    if kind == "untied" and (tied := _cheapest(found, "tied")):
        sentences.append(
            "If the embedding is tied to the unembedding, so that the output layer is frozen too, the best one "
            f"({tied['rows']}) is {tied['gap']} nats above."
        )
    shared, copied = arms.get("frozen covariance-matched"), arms.get("frozen copied")
    if shared and copied:
        worth = estimates.mean(np.array(shared["final_losses"]) - np.array(copied["final_losses"]))
        sentences.append(
            f"Frozen Gaussian rows with the covariance of learned rows are {shared['gap']} nats above, and frozen rows "
            f"that another run has learned {copied['gap']} nats. What the covariance does not contain, such as which "
            f"row belongs to which token, is therefore worth {worth} nats."
        )
    return sentences


def _charts(tied: str, curves: Mapping[Arm, np.ndarray], found: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return charts of the losses over training and of the final differences, for one kind of unembedding."""
    series = [
        Series.of(rows, curve[0, :, 0].tolist(), [estimates.mean(values) for values in curve[:, :, 1].T])
        for (rows, kind), curve in curves.items()
        if kind == tied
    ]
    where = "untied unembedding" if tied == "untied" else "tied unembedding"
    title = f"Validation loss, {where}"
    label = "nats per token"
    charts = [
        Chart(
            f"frozen-embedding-loss-{tied}",
            title,
            series,
            "optimizer step",
            label,
            caption="Bands: 95 % intervals over seeds.",
        )
    ]
    gaps = [arm for arm in found if arm["tied"] == tied and arm["gap"]]
    if gaps:
        bars = Series.of(
            "loss minus that of learned rows", [arm["rows"] for arm in gaps], [arm["gap"] for arm in gaps], "bars"
        )
        label = "difference in nats, same seed"
        title = f"Final loss minus that of learned rows, {where}"
        charts.append(Chart(f"frozen-embedding-gap-{tied}", title, [bars], "", label))
    return charts
