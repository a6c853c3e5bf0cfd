"""How many of the latest outputs do the sublayers of a language model need, and how does this change over training?

The residual stream that a sublayer reads is the sum of the embedding and of what all earlier sublayers added. Here,
every sublayer reads only what the last k of them added. The effective layer horizon is the smallest k such that for
every k' >= k the loss stays within a tolerance (A. Turner 2024, turntrout.com/effective-layer-horizon). It is counted
in sublayers: the embedding is output 0, attention and MLP of each of L layers are 1 to 2L, and the unembedding reads as
number 2L + 1.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Grid, Report, Section, Series, Style, Table, Verdict
from zoo.shared_tasks.horizon import Clean, Documents, LeaveOut, Truncate, Variant, text_of, windows_of
from zoo.shared_tasks.models import steps_of, wanted_steps
from zoo.source import Source
from zoo.study import AtLeastTwo, Results, Study, Task
from zoo.wording import listed

READINGS = {
    "all": "all inputs, sums of clean outputs",
    "one": "one input at a time",
    "recursive": "all inputs, recursive",
}
FILLERS = {"mean": "mean", "zero": "zero", "resampled": "another document's"}
NORMS = {"recomputed": "recomputed", "frozen": "frozen"}
POSITION_0 = {"truncated": "truncated", "clean": "clean"}
SHORTEST = 3  # tokens of a window
INCREASE = "increase of the loss, nats"
STYLES: tuple[Style, ...] = ("line", "dashed", "dotted")
DARKEST = 1.0  # nats
DARKEST_CHANGE = 1.0  # change of an output by its own norm
FEW = 16  # values of k
SMALLEST = 1e-3  # nats; smaller increases are drawn at this height
LEAVES = ("the whole residual stream", "one input only")


@dataclass(frozen=True)
class LayerHorizon(Study):
    """Inputs of sublayers are truncated in several ways, and the increase of the loss is measured.

    The first value of each of `readings`, `fillers`, `norms` and `position_0` makes the main variant, on which the
    verdict rests. All combinations of the others are measured too, at the last step.

    Args:
        model: One or several language models, each as `zoo.load` takes it.
        steps: Training steps of all models, ascending, or "all" for all that a source holds; by default the last one.
            At other steps than the last one, only the main variant is measured, in all readings.
        text_config: Config whose `data` part defines the text; by default the text of the model's own training, or
            Python's standard library for a model that the zoo did not train. `--config` is the same setting.
        documents: Number of documents, which are neither trained on nor used for means. Each gives one window.
        length: Number of tokens that the model reads of a document; at most its context length.
        tolerance: Increase of the loss in nats per token up to which the loss counts as unchanged.
        readings: How inputs are truncated: all, one, recursive.
        fillers: What stands for outputs that are left out: mean, zero, resampled.
        norms: Whether layer norms are recomputed from truncated inputs, or frozen: recomputed, frozen.
        position_0: Whether position 0 is truncated as well, or keeps its clean inputs: truncated, clean.
        seeds: Number of draws of other documents, of random outputs and of untrained networks.
        batch: Number of documents that are in memory at a time.
        ks: Number of values of k that are measured, from 1 to the number N of sublayers, evenly spread, with both ends.
            By default all if N is at most 24, and 16 otherwise. If not all are measured, a horizon is known only to lie
            between two of them.
    """

    model: tuple[str, ...] = ("gpt2-mini.learned",)
    steps: tuple[str, ...] | None = None
    text_config: str | None = None
    documents: AtLeastTwo = 32
    length: PositiveInt = 128
    tolerance: PositiveFloat = 0.1
    readings: tuple[str, ...] = tuple(READINGS)
    fillers: tuple[str, ...] = tuple(FILLERS)
    norms: tuple[str, ...] = tuple(NORMS)
    position_0: tuple[str, ...] = tuple(POSITION_0)
    seeds: AtLeastTwo = 3
    batch: AtLeastTwo = 8
    ks: AtLeastTwo | None = None
    title = "How many of the latest outputs do the sublayers of a language model need?"
    aliases: ClassVar[Mapping[str, str]] = {"config": "text_config"}

    def check(self) -> None:
        """Refuse unknown names, repeated values and windows that are too short."""
        for name, known in (
            *(("readings", READINGS), ("fillers", FILLERS), ("norms", NORMS), ("position_0", POSITION_0)),
        ):
            for value in getattr(self, name):
                if value not in known:
                    raise ZooError(f"{name} has {value!r}; expected some of {', '.join(known)}")
        for name in ("model", "readings", "fillers", "norms", "position_0"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ZooError(f"{name} has a value twice")
        if self.length < SHORTEST:
            raise ZooError(f"length is {self.length}; it must be at least {SHORTEST}")
        wanted_steps(self.steps)

    @cached_property
    def _models(self) -> dict[str, "_Model"]:
        """What is known about every model, by its source."""
        short = {name: name if name.startswith("hf:") else Path(name).name or name for name in self.model}
        clear = len(set(short.values())) == len(short)
        return {name: self._opened(name, short[name] if clear else name) for name in self.model}

    def _opened(self, name: str, shown: str) -> "_Model":
        from zoo.analysis.layer_horizon import can_freeze, values_of_k
        from zoo.interventions import sublayers
        from zoo.protocols import LanguageModel, missing_in

        source = Source.open(name)
        steps = steps_of(source, wanted_steps(self.steps))
        model: Any = source.load(steps[-1])
        if missing_in(model, LanguageModel):
            raise ZooError(f"{name} is a {type(model).__name__}; the study needs a language model")
        parts = sublayers(model)
        if not parts:
            raise ZooError(f"{name} has no layer, so it has no horizon")
        vocab_size, of_text = len(model.W_E), Source.open(name.replace("{step}", str(steps[-1])))
        data, _ = text_of(of_text, self.text_config, vocab_size)
        length = min(self.length, model.context_length or self.length)
        windows_of(data, self.documents, length)
        tokens = hashlib.sha256(json.dumps(data.cache.meta["sha256"], sort_keys=True).encode()).hexdigest()
        documents = Documents(of_text, self.text_config, tokens, vocab_size, self.documents, length)
        if 0 in source.steps or 0 in steps:
            untrained = [Clean(documents, source, 0, None, self.batch)]
        else:
            untrained = [Clean(documents, source, steps[-1], seed, self.batch) for seed in range(self.seeds)]
        clean = {step: Clean(documents, source, step, None, self.batch) for step in steps}
        norms = tuple(norm for norm in self.norms if norm != "frozen" or can_freeze(model))
        if not norms:
            raise ZooError(f"{name} does not have the scales of its layer norms as sites, so they cannot be frozen")
        parallel = len(parts) == model.n_layers
        return _Model(shown, documents, clean, untrained, norms, values_of_k(self.ks, len(parts)), parallel)

    @property
    def _main(self) -> Variant:
        return Variant(self.readings[0], self.fillers[0], self.norms[0], self.position_0[0])

    def _seeds_of(self, variant: Variant, kept: str = "last") -> int:
        return self.seeds if variant.filler == "resampled" or kept == "random" else 1

    def _task(
        self, one: "_Model", clean: Clean, variant: Variant, kept: Literal["last", "random"] = "last"
    ) -> Truncate:
        return Truncate(clean, variant, kept, self._seeds_of(variant, kept), one.ks)

    def _variants(self, norms: Sequence[str]) -> list[Variant]:
        return [Variant(*each) for each in itertools.product(self.readings, self.fillers, norms, self.position_0)]

    def _main_readings(self, norms: Sequence[str]) -> list[Variant]:
        return [self._main._replace(reading=reading, norm=norms[0]) for reading in self.readings]

    def notes(self) -> Sequence[str]:
        """Return which models have no sites to freeze layer norms."""
        return [
            f"{one.name} does not have the scales of its layer norms as sites; frozen layer norms are left out"
            for one in self._models.values()
            if len(one.norms) < len(self.norms)
        ]

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of all models, steps and variants, of the null models, and of leaving outputs out."""
        found: list[Task] = []
        for one in self._models.values():
            main = self._main_readings(one.norms)
            found += [self._task(one, one.last, variant) for variant in self._variants(one.norms)]
            found += [self._task(one, one.last, variant, "random") for variant in main]
            found += [LeaveOut(one.last, self.fillers[0], self.position_0[0])]
            found += [self._task(one, clean, variant) for clean in one.untrained for variant in main]
            found += [self._task(one, clean, variant) for clean in one.clean.values() for variant in main]
        return list(dict.fromkeys(found))

    def report(self, results: Results) -> Report:
        """Return a report on the horizons, on every input, on the effects of single outputs, and on training."""
        found = [_Measured(self, one, results) for one in self._models.values()]
        sections = [self._horizons(found)]
        if "one" in self.readings:
            sections.append(self._by_input(found))
        sections.append(self._effects(found))
        if any(len(one.model.clean) > 1 for one in found):
            sections.append(self._training(found))
        headline = f"The effective layer horizon of {'; of '.join(one.told() for one in found)}."
        main = found[0].main
        certainty = (
            f"A horizon is the smallest k such that for every k' >= k the loss rises by less than {self.tolerance:g} "
            f"nats per token if {_described(main)}. It counts as shown only if the whole 95 % interval over "
            f"{self.documents} documents is below the tolerance. "
            + " ".join(told for one in found for told in (one.grid_told(), one.range_told()) if told)
        )
        numbers = {one.model.name: one.horizons[one.main]._asdict() | {"largest": one.N + 1} for one in found}
        subject = "; ".join(one.subject() for one in found)
        verdict = Verdict(
            headline,
            certainty,
            numbers=numbers,
            recognised=(
                f"Any increase of the loss of {self.tolerance:g} nats or more, if its interval over {self.documents} "
                "documents is narrow enough to exclude smaller ones. For comparison, k random outputs are kept instead "
                "of the last k, and untrained networks are truncated in the same way."
            ),
            not_tested=(
                f"Other texts, documents of more than {found[0].length} tokens, and rare behaviour, which the mean "
                "loss over tokens does not show. A high horizon does not show that there are shallow circuits."
            ),
        )
        return Report(subject, verdict, sections)

    def _horizons(self, found: Sequence["_Measured"]) -> Section:
        tables: list[Table | str] = []
        for one in found:
            columns = ["left out", "layer norm", "position 0", *(READINGS[reading] for reading in self.readings)]
            rows: list[list[Any]] = []
            for filler, norm, first in itertools.product(self.fillers, one.model.norms, self.position_0):
                cells = [one.written(Variant(reading, filler, norm, first)) for reading in self.readings]
                rows.append([FILLERS[filler], norm, first, *cells])
            tables += [f"**{one.model.name}**: horizons of at most {one.N + 1}", Table(columns, rows)]
            names = ["clean loss in nats", *(READINGS[reading] for reading in self.readings)]
            nulls: list[list[Any]] = [["the model", one.loss, *(one.written(v) for v in one.main_readings)]]
            nulls.append(["k random outputs", one.loss, *(one.of_draws(v) for v in one.main_readings)])
            nulls += [[name, loss, *horizons] for name, loss, horizons in one.untrained_rows()]
            tables.append(Table([f"null models, {_short(one.main)}", *names], nulls))
        tables.append(
            "A cell is the horizon in sublayers; the embedding counts as one. *a to b*: the intervals over documents, "
            "or values of k that were not measured, do not decide between these horizons. The horizon in layers is "
            "(k - 1) L / N for L layers with N sublayers. A layer whose attention and MLP read the same stream is one "
            "sublayer. For random outputs, the horizons of all draws are given."
        )
        charts = [chart for one in found for chart in one.curves()]
        of_nulls = " ".join(one.null_told() for one in found)
        return Section(
            self.name,
            self.question,
            " ".join(one.finding() for one in found),
            tables=tables,
            charts=charts,
            null_models=(
                "k random earlier outputs are kept instead of the last k, for every input by itself "
                f"({self.seeds} draws). The untrained network is step 0 of the same model if there is one, and "
                f"otherwise the same architecture with random weights ({self.seeds} seeds). Both are measured in the "
                f"main variant: {_described(found[0].main)}. {of_nulls}"
            ),
            not_shown=(
                "A low horizon is evidence against an ensemble of shallow circuits, because circuits that the loss "
                "needs then pass through many sublayers. It does not say which circuits there are. A high horizon does "
                "not show that there are shallow circuits: leaving outputs out may only shift the input of a sublayer "
                "away from those that it was trained on. The loss is the mean over tokens; rare behaviour may need "
                "more. An untrained network can have a low horizon, because its loss hardly depends on its sublayers. "
                f"Other texts, more than {found[0].length} tokens, and null models in other variants are not tested."
            ),
            numbers={one.model.name: one.numbers() for one in found},
        )

    def _by_input(self, found: Sequence["_Measured"]) -> Section:
        charts: list[Chart] = []
        rows: list[list[Any]] = []
        told: list[str] = []
        for one in found:
            variant = one.main._replace(reading="one")
            increases, ks = one.increases(one.model.last, variant).mean((0, 1)), one.model.ks  # (N + 1, K)
            cells = [
                [v if k < n else None for k, v in zip(ks, row, strict=True)] for n, row in enumerate(increases[1:], 2)
            ]
            charts.append(
                Chart(
                    f"inputs-{one.slug}",
                    f"{one.model.name}: one input truncated",
                    [],
                    "k, number of outputs kept",
                    "input of",
                    caption="Nothing is left out where a cell is empty.",
                    grid=Grid([*map(str, ks)], one.readers[1:], cells, INCREASE, darkest=DARKEST),
                )
            )
            own = {name: one.horizon_of_input(variant, n) for n, name in enumerate(one.readers, 1)}
            rows += [[one.model.name, name, _span(h), n] for n, (name, h) in enumerate(own.items(), 1)]
            later = list(own.items())[1:]
            needs_all = [name for n, (name, h) in enumerate(later, 2) if h.most == n]
            needs_one = [name for name, h in later if h.most == 1]
            told.append(
                f"{one.model.name}: it is not shown that anything can be left out of what is read by "
                f"{listed(needs_all) or 'any of them'}. Only the latest output is needed by "
                f"{listed(needs_one) or 'none of them'}."
            )
        return Section(
            "inputs",
            "Which input needs outputs from how far back?",
            f"One input at a time is truncated ({_short(found[0].main)}). {' '.join(told)}",
            tables=[Table(["model", "input of", "horizon of this input", "number of outputs before it"], rows)],
            charts=charts,
            null_models="An input that keeps all outputs is not changed, so its increase is exactly 0.",
            not_shown="Inputs that are harmless to truncate one at a time may not be so together.",
            numbers={"horizons": [dict(zip(("model", "input", "horizon", "n"), row, strict=True)) for row in rows]},
        )

    def _effects(self, found: Sequence["_Measured"]) -> Section:
        charts: list[Chart] = []
        rows: list[list[Any]] = []
        told: list[str] = []
        for one in found:
            left_out = one.results[LeaveOut(one.model.last, self.fillers[0], self.position_0[0])]
            for kind, where in zip(("total", "direct"), LEAVES, strict=True):
                changes = left_out[kind].mean(0)  # (N + 1, N + 1)
                cells = [[changes[m, n] if m < n else None for n in range(1, one.N + 1)] for m in range(one.N)]
                charts.append(
                    Chart(
                        f"effects-{kind}-{one.slug}",
                        f"{one.model.name}: an output left out of {where}",
                        [],
                        "changed output",
                        "output left out",
                        caption=(
                            f"Cells are darkest from {DARKEST_CHANGE:g} on: the output then changes by as much as its "
                            "own norm, or by more."
                        ),
                        grid=Grid(
                            one.outputs[1:],
                            one.outputs[:-1],
                            cells,
                            "relative change |o' - o| / |o|",
                            darkest=DARKEST_CHANGE,
                        ),
                    )
                )
            losses = {kind: [*map(estimates.mean, left_out[f"{kind}_loss"].T)] for kind in ("total", "direct")}
            rows += [[one.model.name, *row] for row in zip(one.outputs, losses["total"], losses["direct"], strict=True)]
            most = max(range(1, one.N + 1), key=lambda m: losses["total"][m].mean)
            told.append(
                f"{one.model.name}: the loss rises by {losses['total'][0]} nats without the embedding. Of the "
                f"sublayers, {one.outputs[most]} matters most, with {losses['total'][most]} nats; leaving it out of "
                f"what the unembedding reads costs {losses['direct'][most]} nats."
            )
        columns = ["model", "output", f"left out of {LEAVES[0]}", "left out of what the unembedding reads"]
        return Section(
            "effects",
            "What changes if a single output is left out?",
            f"An output is replaced by its {FILLERS[self.fillers[0]]} value. {' '.join(told)}",
            tables=[Table(columns, rows, note="Increase of the loss in nats per token, with 95 % intervals.")],
            charts=charts,
            null_models="An output cannot change those before it; these cells are empty.",
            not_shown=(
                "A change of an output is not always a change of the prediction. The norms |.| are those over all "
                "positions of a document; Csordás, Manning and Potts (2025, arXiv 2505.13898) skip whole layers."
            ),
            numbers={"losses": [dict(zip(columns, row, strict=True)) for row in rows]},
        )

    def _training(self, found: Sequence["_Measured"]) -> Section:
        lines: list[Series] = []
        grids: list[Chart] = []
        rows: list[list[Any]] = []
        told: list[str] = []
        for one, style in zip(found, itertools.cycle(STYLES)):
            steps = [str(step) for step in one.model.clean]
            curves = [one.curve(clean, one.main) for clean in one.model.clean.values()]
            horizons = [one.horizon_of(curve) for curve in curves]
            lines.append(Series.of(one.model.name, steps, [Estimate(h.most, h.least, h.most) for h in horizons], style))
            increases = [[curve[i].mean for curve in curves] for i in range(len(one.model.ks))]
            grids.append(
                Chart(
                    f"training-{one.slug}",
                    f"{one.model.name}: {READINGS[one.main.reading]}",
                    [],
                    "training step",
                    "k, number of latest outputs kept",
                    grid=Grid(steps, [*map(str, one.model.ks)], increases, INCREASE, darkest=DARKEST),
                )
            )
            for step, clean in one.model.clean.items():
                cells = [_span(one.horizon_of(one.curve(clean, variant))) for variant in one.main_readings]
                rows.append([one.model.name, str(step), estimates.mean(one.results[clean]["loss"]), *cells])
            by_step = [f"{_span(h)} at step {step}" for step, h in zip(steps, horizons, strict=True)]
            told.append(f"{one.model.name}, of at most {one.N + 1}: {', '.join(by_step)}.")
        caption = f"{READINGS[found[0].main.reading].capitalize()}. Bands reach down to the smallest horizon that the "
        caption += "intervals over documents and the measured values of k allow."
        chart = Chart("training", "Horizon over training", lines, "training step", "horizon k", caption=caption)
        columns = ["model", "training step", "clean loss in nats", *(READINGS[r] for r in self.readings)]
        return Section(
            "training",
            "How does the horizon change over training?",
            f"Horizons in the main variant: {' '.join(told)}",
            tables=[Table(columns, rows)],
            charts=[chart, *grids],
            null_models="Step 0 is the untrained network.",
            not_shown="One run of training is shown. With other seeds, horizons may change at other steps.",
        )


@dataclass(frozen=True)
class _Model:
    """The tasks of a model.

    Args:
        name: The model's name in texts: of a folder, the last part of its path, unless two models share it.
        documents: The task that draws its documents.
        clean: The runs without truncation, by training step.
        untrained: The same for its untrained networks; empty if there is none.
        norms: What is done with layer norms.
        ks: The K values of k that are measured, ascending.
        parallel: Whether attention and MLP of every layer are one sublayer.
    """

    name: str
    documents: Documents
    clean: dict[int | None, Clean]
    untrained: list[Clean]
    norms: tuple[str, ...]
    ks: tuple[int, ...]
    parallel: bool

    @property
    def last(self) -> Clean:
        """The run of the last step."""
        return list(self.clean.values())[-1]


class _Measured:
    """The curves and horizons of a model, from the results.

    Attributes:
        outputs: Names of outputs 0 to N.
        readers: Names of what reads inputs 1 to N + 1.
        horizons: Horizons at the last step, by variant.
    """

    def __init__(self, study: LayerHorizon, model: _Model, results: Results) -> None:
        self.study, self.model, self.results = study, model, results
        clean = results[model.last]
        self.outputs: list[str] = clean["outputs"]
        self.readers = [*self.outputs[1:], "unembedding"]
        self.N, self.L = len(self.outputs) - 1, clean["n_layers"]
        self.loss = estimates.mean(clean["loss"])
        self.length = results[model.documents]["evaluation"].shape[1] - 1
        self.main_readings = study._main_readings(model.norms)
        self.main = self.main_readings[0]
        variants = study._variants(model.norms)
        self.curves_of = {variant: self.curve(model.last, variant) for variant in variants}
        self.horizons = {variant: self.horizon_of(curve) for variant, curve in self.curves_of.items()}
        self.random = {variant: self.curve(model.last, variant, "random") for variant in self.main_readings}
        self.slug = re.sub(r"[^\w.-]", "-", model.name, flags=re.ASCII)

    def increases(self, clean: Clean, variant: Variant, kept: Literal["last", "random"] = "last") -> np.ndarray:
        """Increases of the loss, (seeds, n, K) or, one input at a time, (seeds, n, N + 1, K)."""
        found: np.ndarray = self.results[self.study._task(self.model, clean, variant, kept)]["increases"]
        return found

    def curve(
        self,
        clean: Clean,
        variant: Variant,
        kept: Literal["last", "random"] = "last",
        seeds: slice = slice(None),
    ) -> list[Estimate]:
        """The increase of the loss at every k, over documents; one input at a time, that of the worst input."""
        values = self.increases(clean, variant, kept)[seeds].mean(0)  # averaged over seeds
        if variant.reading != "one":
            return [*map(estimates.mean, values.T)]
        return [
            _largest([estimates.mean(values[:, n - 1, i]) for n in range(k + 1, self.N + 2)])
            for i, k in enumerate(self.model.ks)
        ]

    def horizon_of(self, curve: Sequence[Estimate], largest: int | None = None) -> Any:
        """The horizon, a `zoo.analysis.layer_horizon.Horizon`, of at most `largest`, by default N + 1."""
        from zoo.analysis.layer_horizon import horizon

        return horizon(curve, self.study.tolerance, [*self.model.ks[: len(curve)], largest or self.N + 1])

    def horizon_of_input(self, variant: Variant, n: int) -> Any:
        """The horizon of input n alone, at most n."""
        values = self.increases(self.model.last, variant).mean(0)[:, n - 1]
        return self.horizon_of([estimates.mean(values[:, i]) for i, k in enumerate(self.model.ks) if k < n], n)

    def written(self, variant: Variant) -> str:
        """A horizon at the last step, as it is written in a table."""
        return _span(self.horizons[variant])

    def of_draws(self, variant: Variant) -> str:
        """The horizons of all draws of random outputs."""
        draws = range(self.study.seeds)
        curves = [self.curve(self.model.last, variant, "random", slice(draw, draw + 1)) for draw in draws]
        return ", ".join(_span(self.horizon_of(curve)) for curve in curves)

    def untrained_rows(self) -> list[tuple[str, Estimate, list[str]]]:
        """Name, loss and horizons of every untrained network."""
        rows = []
        for clean in self.model.untrained:
            name = "untrained, step 0" if clean.untrained is None else f"untrained, seed {clean.untrained}"
            horizons = [_span(self.horizon_of(self.curve(clean, variant))) for variant in self.main_readings]
            rows.append((name, estimates.mean(self.results[clean]["loss"]), horizons))
        return rows

    def layers(self, k: int) -> str:
        """A horizon in layers."""
        return f"{(k - 1) * self.L / self.N:.3g}"

    def told(self) -> str:
        """The main horizon in words."""
        found = self.horizons[self.main]
        if found.least == found.most:
            of_layers = f"{self.layers(found.most)} of {self.L} layers"
            return f"{self.model.name} is {found.most} of {self.N + 1} sublayers ({of_layers})"
        between = range(found.least, found.most + 1)
        if not {*between} <= {*self.model.ks, self.N + 1}:
            measured = [str(k) for k in self.model.ks if k in between]
            return (
                f"{self.model.name} is between {found.least} and {found.most} of {self.N + 1} sublayers "
                f"({self.layers(found.least)} to {self.layers(found.most)} of {self.L} layers; of these k, only "
                f"{listed(measured)} {'was' if len(measured) == 1 else 'were'} measured)"
            )
        return (
            f"{self.model.name} is not decided between {found.least} and {found.most} of {self.N + 1} sublayers "
            f"({self.layers(found.least)} and {self.layers(found.most)} of {self.L} layers)"
        )

    def finding(self) -> str:
        """What follows from the main horizon."""
        found = self.horizons[self.main]
        if found.least == self.N + 1:
            what = "some input needs every earlier output, so paths of any length are in use"
        elif found.most == self.N + 1:
            what = "whether the oldest outputs are needed is not decided"
        else:
            what = (
                f"no input needs outputs from more than {found.most} sublayers back, so no circuit that leads straight "
                "from the embedding to the unembedding is needed"
            )
        return f"{self.told().replace(' is ', ': the horizon is ', 1)}; {what}."

    def range_told(self) -> str:
        """Between which numbers the horizons of all variants lie; an empty text for one variant."""
        low, high = min(h.least for h in self.horizons.values()), max(h.most for h in self.horizons.values())
        if len(self.horizons) == 1:
            return ""
        if low == high:
            return f"In all {len(self.horizons)} variants, the horizon of {self.model.name} is {low}."
        return f"Over all {len(self.horizons)} variants, horizons of {self.model.name} lie between {low} and {high}."

    def grid_told(self) -> str:
        """Which values of k were measured; an empty text for all of them."""
        ks = [*map(str, self.model.ks)]
        if len(ks) == self.N:
            return ""
        return (
            f"Of {self.model.name}, only k = {listed(ks)} were measured. Its horizons are therefore known only to lie "
            "between such k. An upper end holds only if the loss stays within the tolerance at the larger k that were "
            "not measured."
        )

    def subject(self) -> str:
        """The model with its size."""
        one = ": attention and MLP of a layer read the same stream and are one" if self.model.parallel else ""
        return f"{self.model.name} ({self.L} layers, {self.N} sublayers{one})"

    def null_told(self) -> str:
        """The horizons of the null models in words."""
        untrained = [horizons[0] for _, _, horizons in self.untrained_rows()]
        random, of_untrained = self.of_draws(self.main), f"that of untrained networks is {listed(untrained)}"
        return f"{self.model.name}: in the draws of random outputs the horizon is {random}, and {of_untrained}."

    def curves(self) -> list[Chart]:
        """Charts of the increase of the loss over k: by reading with null models, by filler, and by the rest."""
        ks: list[Any] = [str(k) if len(self.model.ks) <= FEW else k for k in self.model.ks]  # names have a tick each
        limit = Series("tolerance", [ks[0], ks[-1]], [self.study.tolerance] * 2, "dotted")
        labels = ("k, number of latest outputs kept", INCREASE)
        bands = f"Bands: 95 % intervals over documents. Increases below {SMALLEST:g} are drawn at {SMALLEST:g}."
        if len(ks) < self.N:
            bands += " Marks are at the measured k; nothing was measured between them."

        def series(name: str, curve: Sequence[Estimate], **options: Any) -> Series:
            raised = [Estimate(max(e.mean, SMALLEST), max(e.low, SMALLEST), max(e.high, SMALLEST)) for e in curve]
            return Series.of(name, ks, raised, **options)

        def chart(kind: str, title: str, lines: Sequence[Series], caption: str) -> Chart:
            name, title = f"curves-{kind}-{self.slug}", f"{self.model.name}: {title}"
            return Chart(name, title, [*lines, limit], *labels, log_y=True, caption=f"{caption} {bands}")

        charts = []
        for variant in self.main_readings:
            lines = [
                series("last k outputs", self.curves_of[variant]),
                series("k random outputs", self.random[variant], style="dashed"),
            ]
            if self.model.untrained:
                many = [self.increases(clean, variant) for clean in self.model.untrained]
                lines.append(series("untrained network", self._mean_curve(many, variant), style="dotted"))
            charts.append(
                chart(
                    variant.reading,
                    READINGS[variant.reading],
                    lines,
                    f"{_short(variant).capitalize()}. Of random outputs and untrained networks, means over all draws.",
                )
            )
        if len(self.study.fillers) > 1:
            lines = [
                series(f"left out: {FILLERS[filler]}", self.curves_of[self.main._replace(filler=filler)])
                for filler in self.study.fillers
            ]
            charts.append(
                chart(
                    "fillers", "what stands for left-out outputs", lines, f"{READINGS[self.main.reading].capitalize()}."
                )
            )
        others = [self.main._replace(norm=n, position_0=p) for n in self.model.norms for p in self.study.position_0]
        if len(others) > 1:
            styles: dict[str, Style] = {"truncated": "line", "clean": "dashed"}
            lines = [
                series(f"norm {v.norm}, position 0 {v.position_0}", self.curves_of[v], style=styles[v.position_0])
                for v in others
            ]
            charts.append(
                chart("norms", "layer norms and position 0", lines, f"{READINGS[self.main.reading].capitalize()}.")
            )
        return charts

    def _mean_curve(self, many: Sequence[np.ndarray], variant: Variant) -> list[Estimate]:
        """The curve of the mean over several networks."""
        values = np.mean([one.mean(0) for one in many], 0)
        if variant.reading == "one":
            values = np.max(values, 1)
        return [*map(estimates.mean, values.T)]

    def numbers(self) -> dict[str, Any]:
        """All curves and horizons."""
        return {
            "variants": [
                v._asdict() | {"horizon": self.horizons[v]._asdict(), "increase": curve}
                for v, curve in self.curves_of.items()
            ],
            "random": [v._asdict() | {"increase": curve} for v, curve in self.random.items()],
            "untrained": [
                {"name": name, "loss": loss, "horizons": dict(zip(self.study.readings, horizons, strict=True))}
                for name, loss, horizons in self.untrained_rows()
            ],
            "loss": self.loss,
            "layers": self.L,
            "outputs": self.outputs,
            "ks": self.model.ks,
            "length": self.length,
            "notes": self.results[self.model.documents]["notes"],
        }


def _largest(spans: Sequence[Estimate]) -> Estimate:
    """The largest of several increases: all of them are within a tolerance if and only if this one is."""
    mean, low, high = (max(getattr(one, end) for one in spans) for end in ("mean", "low", "high"))
    return Estimate(mean, low, high, spans[0].n)


def _span(found: Any) -> str:
    """A horizon as text: the two between which the documents do not decide, or only one."""
    return str(found.most) if found.least == found.most else f"{found.least} to {found.most}"


def _short(variant: Variant) -> str:
    first = "truncated too" if variant.position_0 == "truncated" else "clean"
    return f"left out: {FILLERS[variant.filler]}, layer norms {variant.norm}, position 0 {first}"


def _described(variant: Variant) -> str:
    """A variant in words, after "if"."""
    what = {
        "all": "all inputs are replaced by sums of the last k clean outputs",
        "one": "one input, whichever it is, is replaced by the sum of the last k outputs",
        "recursive": "all inputs are replaced by sums of the last k outputs of the truncated run",
    }[variant.reading]
    filler = {
        "mean": "the mean of an output stands for it where it is left out",
        "zero": "outputs that are left out are 0",
        "resampled": "the same output of another document stands for an output where it is left out",
    }[variant.filler]
    first = "position 0 is truncated as well" if variant.position_0 == "truncated" else "position 0 is not truncated"
    return f"{what}; {filler}, layer norms are {variant.norm}, and {first}"
