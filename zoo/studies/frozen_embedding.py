"""How much worse does GPT-2 train when its embedding is random and never updated?

The arms: a learned embedding, and frozen ones that are Gaussian at GPT-2's own scale (standard deviation 0.02),
Gaussian with longer rows, or of low coherence; each with an unembedding of its own and with a tied one. A learned
embedding that starts with the longer rows tells what is owed to their length. Other arms (`LEARNED_ROWS`) freeze rows
made from what the learned run of the next seed has learned: its norms, its covariance, or the rows themselves. Runs of
one seed share the initial weights of everything but the embedding, so gaps to the learned arm are paired by seed. All
runs see the data in one order.
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
    "frozen Gaussian": "Gaussian rows at GPT-2's own scale",
    "frozen Gaussian, std 0.09": "longer Gaussian rows, against learned ones that start as long",
    "frozen low-coherence": "random rows of which no two are close to parallel",
    "frozen norm-matched": "random directions with the norms of learned rows",
    "frozen covariance-matched": "Gaussian rows with the covariance of learned ones",
    "frozen permuted": "learned rows of another seed dealt out to the tokens at random",
    "frozen copied": "the learned rows of another seed as they are, which shows what freezing alone costs",
}
RANDOM = ("frozen Gaussian", "frozen Gaussian, std 0.09", "frozen low-coherence", "frozen norm-matched")
Arm = tuple[str, str]  # kinds of embedding and of unembedding


@dataclass(frozen=True)
class TrainingRun(Task):
    """One `python -m zoo fit`, gone on with if it was interrupted.

    It is a process of its own: Lightning cannot handle signals in a thread, as a worker of Dask does tasks in, and the
    worker is left as it was.

    Args:
        configs: Texts of the YAML files it is configured by, each building on the one before.
        rows: Kind of embedding, a key of `ROWS` or `LEARNED_ROWS`.
        tied: A key of `TIED`.
        seed: Of weights and embedding.
        fit_arguments: Further arguments of `fit`.
        learned: The run whose rows those of `LEARNED_ROWS` are made from.
    """

    configs: tuple[str, ...]
    rows: str
    tied: str
    seed: int
    fit_arguments: tuple[str, ...]
    learned: "TrainingRun | None" = None
    on_gpu = True

    def needs(self) -> Sequence[Task]:
        """The learned run whose rows it takes, if it does."""
        return () if self.learned is None else (self.learned,)

    def do(self, work: Work) -> Result:
        """Validation loss over training, [optimizer step, nats per token], the text's hash, and `W_E` if learned."""
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
        """Of a network of the size of those in cli_configs/gpt2/."""
        steps = re.findall(r"\bmax_steps\W+(\d+)", " ".join((*self.configs, *self.fit_arguments)))
        return 10 + 0.3 * int(steps[-1]) if steps else None

    def __str__(self) -> str:
        return f"TrainingRun({self.rows}, {self.tied}, seed {self.seed})"

    def _rows(self, work: Work) -> Sequence[str]:
        """The embedding's arguments; learned rows are named so that the folder may be moved before the run goes on."""
        if self.learned is None:
            return ROWS[self.rows]
        np.save(work.folder / "W_E.npy", work[self.learned]["W_E"])
        source = ("--model.embedding.source", f"${FOLDER}/W_E.npy")
        return ("--model.frozen_rows", "all", "--model.embedding", LEARNED_ROWS[self.rows], *source)


@dataclass(frozen=True)
class FrozenEmbedding(Study):
    """GPT-2 is trained with embeddings that are learned and with others that stay as they were.

    Args:
        fit_config: Config the runs build on, or a shipped checkpoint, whose own training is then the config.
            `--config` means the same.
        arms: Embeddings: learned, "learned, std 0.09" (untied only), "frozen Gaussian", "frozen Gaussian, std 0.09",
            "frozen low-coherence", "frozen norm-matched", "frozen covariance-matched", "frozen permuted",
            "frozen copied".
        unembedding: Kinds of output layers: untied, tied to the embedding.
        seeds: Runs per arm.
        fit_arguments: What stands after `--`: further arguments of every `python -m zoo fit`.
        margin: Nats above which a frozen embedding is much worse.
    """

    fit_config: str = "cli_configs/gpt2/base.yaml"
    arms: tuple[str, ...] = tuple(ROWS)
    unembedding: tuple[str, ...] = tuple(TIED)
    seeds: AtLeastTwo = 3
    fit_arguments: tuple[str, ...] = ()
    margin: NonNegativeFloat = 0.1
    aliases: ClassVar[Mapping[str, str]] = {"config": "fit_config"}

    def check(self) -> None:
        """Refuse arms that do not exist, and others without the learned one, which they are compared with."""
        for name, chosen, known in (
            ("arms", self.arms, [*ROWS, *LEARNED_ROWS]),
            ("unembedding", self.unembedding, list(TIED)),
        ):
            if wrong := [one for one in chosen if one not in known]:
                close = difflib.get_close_matches(wrong[0], known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(map(repr, known))}"
                raise ZooError(f"{name} has no {wrong[0]!r}; {hint}")
            if len(set(chosen)) < len(chosen):
                raise ZooError(f"{name} is {', '.join(chosen)}; each may stand there once")
        if "learned" not in self.arms:
            raise ZooError("arms needs 'learned', which all others are compared with")

    @cached_property
    def _configs(self) -> tuple[str, ...]:
        return config_texts(self.fit_config)  # read once

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

        def other(seed: int) -> TrainingRun | None:  # whose other weights differ
            return one("learned", (seed + 1) % self.seeds) if arm[0] in LEARNED_ROWS else None

        return [one(arm[0], seed, other(seed)) for seed in range(self.seeds)]

    def tasks(self) -> Sequence[TrainingRun]:
        """One run for every arm and seed."""
        return [run for arm in self._arms() for run in self._runs(arm)]

    def report(self, results: Results) -> Report:
        """Losses of all arms, and what frozen rows cost against learned ones of the same seed."""
        runs = {arm: [results[run] for run in self._runs(arm)] for arm in self._arms()}
        if len({result["text"] for own in runs.values() for result in own}) > 1:
            why = (
                "The runs were trained on different texts, such as those of two versions of Python. Choose another "
                "--out."
            )
            return Report("", Verdict("No answer.", why), [Section(self.name, self.question, why, tested=False)])
        curves = {arm: np.array([result["curve"] for result in own]) for arm, own in runs.items()}
        found = [_arm(arm, curves) for arm in curves]
        shape = next(list(own[0]["W_E"].shape) for arm, own in runs.items() if arm[0] == "learned")
        cheapest = _cheapest(found, "untied") or _cheapest(found, "tied")
        sentences = _sentences(found, cheapest, self.margin)
        steps, tied = found[0]["steps"], "tied" in self.unembedding
        charts = [chart for kind in self.unembedding for chart in _charts(kind, curves, found)]
        without = "" if tied else ", a tied unembedding (which a frozen random embedding hurts far more)"
        section = Section(
            self.name,
            self.question,
            " ".join(sentences),
            tables=[self._table(found)],
            charts=charts,
            null_models="Frozen rows: "
            + "; ".join(DESCRIBED[rows] for rows in self.arms if rows in DESCRIBED)
            + ". All other initial weights are shared by the arms of a seed.",
            not_shown=(
                f"Training beyond {steps:,} steps, other sizes{without}, and learning rates of each arm's own. Gaps "
                "that shrink with more training are possible. Seeds do not change the order of the data."
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
            f"Brackets are 95 % Student t intervals over {self.seeds} seeds, paired where arms are compared; one size "
            "of network, one text."
        )
        subject = f"GPT-2 with an embedding of {shape[0]:,} x {shape[1]}, {steps:,} steps"
        return Report(subject, Verdict(sentences[0], certainty, numbers=numbers), [section])

    def _table(self, found: Sequence[dict[str, Any]]) -> Table:
        rows = []
        for arm in found:
            share = arm["share_of_training"]
            reach = f"{share:.2f} of the steps" if share else "-" if arm["gap"] is None else "not within the run"
            if arm.get("share_is_upper_bound"):
                reach = f"less than {share.mean:.2f} of the steps"
            baseline = "-" if arm["gap"] is None else arm["baseline"]
            rows.append([arm["tied"], arm["rows"], arm["loss"], arm["gap"], baseline, reach])
        columns = ["unembedding", "embedding", "validation loss, nats", "gap, nats", "to"]
        note = (
            f"{self.seeds} seeds, {found[0]['steps']} steps; brackets are 95 % Student t intervals; gaps are paired by "
            "seed."
        )
        return Table([*columns, "learned run gets there after"], rows, note=note)


def steps_to_reach(curve: np.ndarray, loss: float) -> float:
    """Step at which a falling curve (points, 2) first reaches a loss, linear between points; infinite if never.

    Before the first point the step is that of the first point, an upper bound.
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
    """What is told of an arm.

    Args:
        arm: Which.
        curves: Of every arm, (seeds, points, 2).
    """
    rows, tied = arm
    twin = rows.replace("frozen Gaussian", "learned")  # starts with rows of the same length
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
    """The arm of frozen random rows, which know nothing of a trained embedding but its lengths, that costs least."""
    arms = [arm for arm in found if arm["rows"] in RANDOM and arm["tied"] == tied]
    return min(arms, key=lambda arm: arm["gap"].mean, default=None)


def _sentences(found: Sequence[dict[str, Any]], cheapest: dict[str, Any] | None, margin: float) -> list[str]:
    """The finding; its first sentence is the headline."""
    steps, kind = found[0]["steps"], (cheapest or found[0])["tied"]
    arms = {arm["rows"]: arm for arm in found if arm["tied"] == kind}
    if cheapest is None:
        told = "; ".join(f"{arm['rows']}: {arm['loss']} nats" for arm in arms.values())
        sentences = [f"After {steps:,} steps the validation loss is, {kind}, {told}."]
    else:
        gap: Estimate = cheapest["gap"]
        is_much = "more than" if gap.low > margin else "no more than" if gap.high <= margin else "not clearly more than"
        sentences = [
            f"After {steps:,} steps the frozen random embedding that costs least ({cheapest['rows']}) costs {gap} "
            f"nats, {is_much} {margin:g}."
        ]
    if kind == "untied" and (tied := _cheapest(found, "tied")):
        sentences.append(
            f"Tied to the unembedding, where it is the output layer too, the one that costs least ({tied['rows']}) "
            f"costs {tied['gap']}."
        )
    shared, copied = arms.get("frozen covariance-matched"), arms.get("frozen copied")
    if shared and copied:
        worth = estimates.mean(np.array(shared["final_losses"]) - np.array(copied["final_losses"]))
        sentences.append(
            f"Frozen Gaussian rows with the covariance of learned ones cost {shared['gap']}; learned rows of another "
            f"run, frozen, {copied['gap']} (they were trained before): which row belongs to which token, and what else "
            f"the covariance does not hold, is worth {worth} nats."
        )
    return sentences


def _charts(tied: str, curves: Mapping[Arm, np.ndarray], found: Sequence[dict[str, Any]]) -> list[Chart]:
    """Losses over training, and gaps at its end, of the arms with one kind of unembedding."""
    series = [
        Series.of(rows, curve[0, :, 0].tolist(), [estimates.mean(values) for values in curve[:, :, 1].T])
        for (rows, kind), curve in curves.items()
        if kind == tied
    ]
    where = "untied unembedding" if tied == "untied" else "embedding tied to the unembedding"
    title = f"Validation loss, {where}"
    label = "nats per token"
    charts = [
        Chart(
            f"frozen-embedding-loss-{tied}", title, series, "optimizer step", label, caption="Bands: 95 % over seeds."
        )
    ]
    gaps = [arm for arm in found if arm["tied"] == tied and arm["gap"]]
    if gaps:
        bars = Series.of(
            "cost against a learned embedding", [arm["rows"] for arm in gaps], [arm["gap"] for arm in gaps], "bars"
        )
        label = "nats, against learned rows of the same seed"
        title = f"What other rows cost at the end, {where}"
        charts.append(Chart(f"frozen-embedding-gap-{tied}", title, [bars], "", label))
    return charts
