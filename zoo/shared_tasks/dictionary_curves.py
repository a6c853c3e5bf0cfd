"""Tables, charts and sentences about the dictionaries of several matrices, at one or several steps of pretraining."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zoo import estimates
from zoo.estimates import Estimate
from zoo.matrices import MATRICES, NOTHING_LEFT
from zoo.report import Chart, Series, Table
from zoo.shared_tasks.dictionaries import at_l0, pursued_error

if TYPE_CHECKING:
    from zoo.analysis.limits import LastTrend, Limit

AT_EVERY_STEP = MATRICES[:2]
FEWER = tuple(f"{name}, fewer rows" for name in AT_EVERY_STEP)
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")
LEAST_STEPS = 5  # least number of steps to which a limit is fitted


class StudyOfMatrices(Protocol):
    """Settings of a study that compares matrices, see `zoo.studies.basis_pursuit.BasisPursuit`."""

    @property
    def name(self) -> str:
        """Name of the study, with which the names of charts begin."""

    @property
    def source(self) -> tuple[str, ...]:
        """The embeddings of one or several runs of pretraining."""

    @property
    def seeds(self) -> int:
        """Number of dictionaries for each matrix."""

    @property
    def at_l0(self) -> int:
        """Number of atoms per row at which matrices are compared."""

    @property
    def tolerance(self) -> float:
        """FVU up to which sparse coding counts as explaining the rows."""

    @property
    def present(self) -> tuple[str, ...]:
        """The matrices that are compared at the last step."""


def on_a_logarithmic_axis(steps: Sequence[int | None]) -> tuple[list[float], str]:
    """Return where steps of pretraining are drawn on a logarithmic axis, and the label of the axis.

    Step 0 is as far before the next step as steps are from each other on average, and at most half of it.
    """
    later = [float(step) for step in steps if step]
    if len(later) == len(steps):
        return later, "step of pretraining"
    ratio = (later[-1] / later[0]) ** (1 / max(1, len(later) - 1))
    zero = float(f"{later[0] / max(2.0, ratio):.1g}")
    return [zero, *later], f"step of pretraining (step 0 is drawn at {zero:g})"


@dataclass(frozen=True)
class Trend:
    """How the error of sparse coding changes over pretraining.

    Args:
        steps: The first and the last step.
        first: Held-out FVU at the first step.
        last: Held-out FVU at the last step.
        change: `last` minus `first`, see `zoo.estimates.change`.
        null_change: The same for Gaussian rows with the covariance of each step.
        turn: The step of the error's last turn and the error there, see `zoo.analysis.limits.last_trend`; None if the
            error does not turn.
        rises: Whether the error rises after the turn.
    """

    steps: tuple[Any, Any]
    first: Estimate
    last: Estimate
    change: Estimate
    null_change: Estimate
    turn: tuple[int, Estimate] | None
    rises: bool

    @property
    def answer(self) -> str:
        """A sentence that says whether the error falls or rises."""
        verbs = {"below": "falls", "above": "rises", "undecided": "neither clearly falls nor clearly rises"}
        verb = f"{verbs[self.change.sign]} over pretraining"
        if self.turn:
            before, after = ("falls", "rises") if self.rises else ("rises", "falls")
            verb = f"{before} until step {self.turn[0]:,} of pretraining and then {after}"
        return f"The error of sparse coding {verb}."

    @property
    def details(self) -> str:
        """The errors and changes in words."""
        at_turn = f", {self.turn[1]} at step {self.turn[0]:,}" if self.turn else ""
        return (
            f"It is {self.first} at step {self.steps[0]:,}{at_turn} and {self.last} at step {self.steps[1]:,}. From "
            f"the first to the last step it changes by {self.change}; for Gaussian rows with the covariance of each "
            f"step the change is {self.null_change}."
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """The changes, and an answer to whether the error falls."""
        answer = {"below": "yes", "above": "no, it rises", "undecided": "undecided"}[self.change.sign]
        if self.turn and self.rises:
            answer = f"no, from step {self.turn[0]:,} on it rises"
        return {"change": self.change, "null_change": self.null_change, "falls": answer}


class Lines:
    """The measurements of a study, one dict for every dictionary and penalty, and tables and charts of them.

    Args:
        lines: Measurements; each has its source, step, matrix, seed and coder.
        study: The study with whose settings they were made.
        steps: Steps of pretraining, ascending; the only one may be None.
    """

    def __init__(self, lines: list[dict[str, Any]], study: StudyOfMatrices, steps: Sequence[int | None]) -> None:
        self.lines, self.study, self.steps, self.sources = lines, study, tuple(steps), study.source
        self.seeds = range(study.seeds)
        self.over_steps = FEWER if any(line["matrix"] in FEWER for line in lines) else AT_EVERY_STEP
        self.by: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for line in lines:
            key = (line["step"], line["matrix"], line["coder"], line["source"], line["seed"])
            self.by.setdefault(key, []).append(line)

    @property
    def units(self) -> str:
        """The samples over which intervals are computed, in words."""
        if len(self.sources) > 1:
            return f"{len(self.sources)} runs of pretraining, of {len(self.seeds)} seeds each"
        return f"{len(self.seeds)} seeds"

    @property
    def told(self) -> str:
        """The kind of a table's intervals, in words."""
        if len(self.sources) > 1:
            return "95 % Student t intervals over runs, and differences are paired by run"
        return (
            "95 % Student t intervals over seeds; the interval of a difference contains 0 if one more draw of the null "
            "model could have the embedding's value"
        )

    def curve(self, step: Any, matrix: str, coder: str, x: str, y: str, source: str, seed: int) -> np.ndarray:
        """Return the points (n, 2) of the dictionaries of one seed along the penalties, ascending in x."""
        chosen = [line for line in self.by.get((step, matrix, coder, source, seed), []) if y in line]
        return np.array(sorted((line[x], line[y]) for line in chosen)).reshape(-1, 2)

    def values(self, read: Callable[[str, int], float]) -> np.ndarray:
        """Return one number per independent sample: a source, averaged over seeds, or a seed if there is one source."""
        table = np.array([[read(source, seed) for seed in self.seeds] for source in self.sources])
        return table.mean(1) if len(self.sources) > 1 else table[0]

    def at(self, step: Any, matrix: str, y: str, coder: str = "basis pursuit", x: str = "l0") -> np.ndarray:
        """Return a measure at one L0, interpolated along each curve, for every independent sample.

        If codes with fewer atoms leave next to no error, the measure of these codes is returned.
        """

        def read(source: str, seed: int) -> float:
            points = self.curve(step, matrix, coder, x, y, source, seed)
            errors = self.curve(step, matrix, coder, "train_l0", "train_fvu_debiased", source, seed)
            if len(points) and len(errors) and errors[:, 1].min() < NOTHING_LEFT and points[-1, 0] < self.study.at_l0:
                return float(points[-1, 1])
            return at_l0(points, self.study.at_l0)

        return self.values(read)

    def pursued(self, step: Any, matrix: str) -> np.ndarray:
        """Return the held-out FVU of matching pursuit at the best penalty, for every independent sample."""
        coder = "basis pursuit"
        return self.values(lambda source, seed: pursued_error({"lines": self.by[step, matrix, coder, source, seed]}))

    def errors(self) -> dict[str, Estimate]:
        """Return the held-out error at the last step, that of the null model, and the difference of the two."""
        real, null = (self.pursued(self.steps[-1], m) for m in AT_EVERY_STEP)
        return {
            "embedding": estimates.share(real),
            "null": estimates.share(null),
            "difference": self.against_null(real, null),
        }

    def against_null(self, real: np.ndarray, null: np.ndarray) -> Estimate:
        """Return the difference from the null model, with the interval of `estimates.difference`."""
        return estimates.difference(real, null, len(self.sources))

    def all(self, step: Any, matrix: str, key: str) -> list[float]:
        """Return all numbers under a key, for one step and matrix."""
        return [line[key] for line in self.lines if (line["step"], line["matrix"]) == (step, matrix) and key in line]

    @cached_property
    def _last_trend(self) -> "LastTrend | None":
        """Whether the error falls or rises in the end; None if this is not clear, or if there is one step.

        It is clear only if draws of the null model would not differ as much, see `estimates.change`.
        """
        from zoo.analysis.limits import last_trend

        if len(self.steps) < 2:
            return None
        real, null = (np.array([self.pursued(step, m) for step in self.steps]) for m in self.over_steps)
        if not (np.isfinite(real).all() and np.isfinite(null).all()):
            return None
        runs = len(self.sources)
        trend = last_trend(real, 0.0 if runs > 1 else float(null.var(1, ddof=1).mean()))
        if trend is None:
            return None
        change = estimates.change([real[trend.start], real[-1]], [null[trend.start], null[-1]], runs)
        return trend if change.sign == ("above" if trend.rises else "below") else None

    @cached_property
    def _falling(self) -> list[int]:
        """Steps above 0 along which the error falls until the last step; empty if it does not fall in the end."""
        trend = self._last_trend
        return [] if trend is None or trend.rises else [step for step in self.steps[trend.start :] if step]

    @cached_property
    def _fit(self) -> "Limit | None":
        """The power law of the falling error; None for too few steps, or if all fitting limits lie outside [0, 1]."""
        from zoo.analysis.limits import limit

        if len(self._falling) < LEAST_STEPS:
            return None
        curve = np.array([self.pursued(step, self.over_steps[0]).mean() for step in self._falling])
        fitted = limit(np.array(self._falling), curve)
        return None if fitted.high < 0 or fitted.low > 1 else fitted

    def limit(self) -> Estimate | None:
        """Return the limit of the error over pretraining under limit + b step^-c; None if it was not fitted."""
        if (fitted := self._fit) is None:
            return None
        value, low, high = (min(max(number, 0.0), 1.0) for number in (fitted.value, fitted.low, fitted.high))
        return Estimate(value, low, high, len(self._falling))

    def told_of_limit(self) -> str:
        """Return a sentence on the limit of the error, or on why there is none."""
        limit, tolerance, trend = self.limit(), self.study.tolerance, self._last_trend
        if trend is None:
            return "No limit is fitted, because it is not clear whether the error falls in the end."
        if trend.rises:
            return f"No limit is fitted, because the error rises from step {self.steps[trend.start]:,} on."
        if limit is None:
            return (
                f"No limit can be fitted: the error falls along {len(self._falling)} steps above 0 in the end, and a "
                f"limit in [0, 1] from at least {LEAST_STEPS} steps is needed."
            )
        if limit.low <= tolerance < limit.high:
            side = "which may be below or above"
        else:
            side = "above" if limit.low > tolerance else "below"
        return (
            f"A power law fitted from step {self._falling[0]:,} on has the limit {limit}, {side} the tolerance "
            f"of {tolerance:g}; a limit of 0 is {'inside' if 0 in limit else 'outside'} this interval."
        )

    def trend(self) -> "Trend | None":
        """Return how the error changes from the first to the last step; None if there is one step."""
        if len(self.steps) < 2:
            return None
        ends, trend = (self.steps[0], self.steps[-1]), self._last_trend
        real, null = ([self.pursued(step, m) for step in ends] for m in self.over_steps)
        turn = None
        if trend and trend.turned and (step := self.steps[trend.start]) is not None:
            turn = step, estimates.share(self.pursued(step, self.over_steps[0]))
        return Trend(
            ends,
            estimates.share(real[0]),
            estimates.share(real[1]),
            estimates.change(real, null, len(self.sources)),
            estimates.mean(null[1] - null[0]),
            turn,
            rises=bool(trend and trend.rises),
        )

    def over_pretraining(self) -> Chart:
        """Return a chart of the errors at every step, with the tolerance, the power law and its limit."""
        x, label = on_a_logarithmic_axis(self.steps)
        labels = [f"step {step:,}" for step in self.steps]
        series = []
        for matrix in self.over_steps:
            errors = [estimates.share(self.pursued(step, matrix)) for step in self.steps]
            series.append(Series.of(matrix, x, errors, labels=labels))
        caption = "Bands: 95 % intervals. Covariance-matched: Gaussian rows with each step's mean and covariance."
        if (limit := self.limit()) and (law := self._fit):
            drawn = np.geomspace(law.first, x[-1], 3 * len(self._falling))
            series.append(Series("power law", drawn.tolist(), law.at(drawn).tolist(), "dotted"))
            ends = [limit] * 2
            series.append(Series.of("limit of the power law", [law.first, x[-1]], ends, "dashed"))
            caption += f" The limit is {limit}."
        tolerance = [self.study.tolerance] * 2
        series.append(Series("highest error that counts as explained", [x[0], x[-1]], tolerance, "dashed"))
        return Chart(
            "pretraining-error",
            f"What sums of {self.study.at_l0} learned atoms leave unexplained, over pretraining",
            series,
            label,
            "share of the variance of held-out rows",
            log_x=True,
            caption=caption,
        )

    def limits(self) -> list[str]:
        """Return sentences on the limits of the error of certified codes and of its difference from the null model."""
        from zoo.analysis.limits import limit

        steps = [s for s in self.steps if s]
        real, null = (np.array([self.at(s, m, "fvu_debiased") for s in steps]) for m in self.over_steps)
        told = []
        for name, curves in (
            ("the embedding's error", real),
            ("its difference from the null model's error", real - null),
        ):
            after = int(np.abs(curves.mean(1) - curves[-1].mean()).argmax())  # the step farthest from the last value
            if len(steps) - after < LEAST_STEPS or not np.isfinite(curves).all():
                told.append(
                    f"Limit of {name}: not fitted. A fit starts at the step whose value is farthest from the last one, "
                    f"and requires {LEAST_STEPS} steps with values from there on."
                )
                continue
            fitted = limit(np.array(steps[after:]), curves[after:].mean(1))
            text = f"{Estimate(fitted.value, fitted.low, fitted.high)}"
            text += f" with exponent {fitted.exponent:.2f}, from step {steps[after]} on"
            if len(self.sources) > 1:
                own = [limit(np.array(steps[after:]), curve).value for curve in curves[after:].T]
                text += f"; if every run is fitted separately, {estimates.mean(own)}"
            told.append(f"Limit of {name} under limit + b step^-c, for certified codes: {text}.")
        return told

    def by_matrix(self, note: str) -> Table:
        """Return a table of errors and bits at one L0, by matrix."""
        step, present = self.steps[-1], self.study.present

        def row(label: str, values: Callable[[str], np.ndarray]) -> list[Any]:
            cells = [values(matrix) for matrix in present]
            return [label, *map(estimates.mean, cells), self.against_null(cells[0], cells[1])]

        def plain(label: str, key: str) -> list[Any]:
            found = [self.all(step, matrix, key) for matrix in present]
            return [label, *(float(np.mean(v)) if v else None for v in found), None]

        rows = [
            row("held-out FVU, debiased", lambda m: self.at(step, m, "fvu_debiased")),
            row("held-out FVU, shrunk", lambda m: self.at(step, m, "fvu")),
            row("FVU of rows trained on, debiased", lambda m: self.at(step, m, "train_fvu_debiased", x="train_l0")),
            row("held-out FVU, learned atoms, matching pursuit", lambda m: self.pursued(step, m)),
            *(
                row(f"held-out FVU, {n}, matching pursuit", partial(self.at, step, y="fvu_debiased", coder=n))
                for n in UNLEARNED
            ),
            row("FVU of principal components at the same bits", lambda m: self.at(step, m, "pca_fvu")),
            row("bits per row, 8 bits per number", lambda m: self.at(step, m, "bits_per_row")),
            row("FVU of all rows at these bits", lambda m: self.at(step, m, "fvu_at_bits")),
            row("bits per row of a Gaussian at this FVU", lambda m: self.at(step, m, "gaussian_bits_per_row")),
            plain("gauge norm of the atoms at error 0", "gauge"),
            plain("gauge norm of random directions at error 0", "gauge_of_random_directions"),
            plain("mean best |cosine| of two seeds' atoms, mean over penalties", "cosine"),
            plain("mean best |cosine| of two seeds' random rows", "cosine_of_rows"),
        ]
        columns = [f"{f'step {step}, ' if step is not None else ''}at L0 {self.study.at_l0}", *present]
        return Table([*columns, "embedding - covariance-matched"], estimates.with_values(rows), note=note)

    def by_step(self) -> Table:
        """Return a table of the errors of certified codes at one L0, by step."""
        rows: list[list[Any]] = []
        for step in self.steps:
            real, null = (self.at(step, m, "fvu_debiased") for m in self.over_steps)
            shrunk = self.against_null(*(self.at(step, m, "fvu") for m in self.over_steps))
            cells = [estimates.mean(real), estimates.mean(null), self.against_null(real, null), shrunk]
            rows.append([f"step {step}", *cells])
        columns = ["held-out FVU, debiased", *self.over_steps, "difference", "difference, shrunk"]
        return Table(columns, rows, note="Errors of certified codes.")

    def charts(self) -> list[Chart]:
        """Return charts of the error against L0, penalty and bits, and of the similarity of two seeds' atoms."""
        present, last = self.study.present, self.steps[-1]
        held_out = [self._banded(m, last, m, "l0", "fvu_debiased") for m in present]
        trained = [self._trained(m, last) for m in present]
        bits = [self._banded(m, last, m, "bits_per_row", "fvu_at_bits") for m in present]
        for matrix in present:
            bound = zip(*(self.all(last, matrix, k) for k in ("gaussian_bits_per_row", "fvu_at_bits")), strict=True)
            x, y = np.array(sorted(bound)).T.tolist()
            bits.append(Series(matrix, x, y, "dotted", labels=["Gaussian bound"] * len(x)))
        alike = []
        for matrix in present:
            for style, key in (("line", "cosine"), ("dotted", "cosine_of_rows")):
                own = [r for r in self.lines if (r["coder"], r["matrix"], r["step"]) == ("stability", matrix, last)]
                if not own:
                    continue
                points = sorted(
                    {(r["penalty"], float(np.mean([q[key] for q in own if q["penalty"] == r["penalty"]]))) for r in own}
                )
                x, y = np.array(points).T.tolist()
                alike.append(Series(matrix, x, y, style))  # type: ignore[arg-type]
        shrunk = [self._banded(m, last, m, "penalty", "fvu") for m in present]
        pursued = [self._banded(m, last, m, "penalty", "fvu_pursued") for m in present]
        bands, name = "Bands: 95 % intervals.", self.study.name
        return [
            Chart(
                f"{name}-fvu",
                "Error against atoms per row (L0)",
                held_out + trained,
                "L0",
                "FVU, debiased",
                log_x=True,
                caption=f"{bands} Solid: held-out rows. Dotted: rows trained on.",
            ),
            Chart(
                f"{name}-bits",
                "Error against bits",
                bits,
                "bits per row, dictionary included",
                "FVU of all rows",
                caption=f"{bands} Dotted: least bits for a Gaussian with the same covariance at the same error.",
            ),
            Chart(
                f"{name}-shrunk",
                "Held-out error of the L1-penalised optima",
                shrunk,
                "penalty",
                "FVU, shrunk",
                log_x=True,
                caption=bands,
            ),
            Chart(
                f"{name}-pursued",
                f"Held-out error of matching pursuit with {self.study.at_l0} atoms per row",
                pursued,
                "penalty",
                "FVU, held out",
                log_x=True,
                caption=bands,
            ),
            Chart(
                f"{name}-likeness",
                "Similarity of the atoms of two seeds",
                alike,
                "penalty",
                "mean best |cosine|",
                log_x=True,
                caption="Dotted: the same number of random rows instead of atoms.",
            ),
        ]

    def at_every_step(self) -> Chart:
        """Return a chart of the embedding's error against L0 at every step."""
        own = self.over_steps[0]
        series = [self._banded(f"step {step}", step, own, "l0", "fvu_debiased") for step in self.steps]
        title = "The embedding's error at every step"
        return Chart(
            "pretraining-every-step",
            title,
            series,
            "L0",
            "FVU, debiased",
            log_x=True,
            caption="Bands: 95 % intervals.",
        )

    def _banded(self, name: str, step: Any, matrix: str, x: str, y: str) -> Series:
        """Return a series of means over sources and seeds, with their intervals."""
        stack = self._common(step, matrix, x, y)
        spans = [estimates.mean(values) for values in stack[:, :, 1].T]
        return Series.of(name, stack[:, :, 0].mean(0).tolist(), spans)

    def _trained(self, matrix: str, step: Any) -> Series:
        x, y = self._common(step, matrix, "train_l0", "train_fvu_debiased").mean(0).T.tolist()
        return Series(matrix, x, y, "dotted", labels=["rows trained on"] * len(x))

    def _common(self, step: Any, matrix: str, x: str, y: str) -> np.ndarray:
        """Return the points (runs, penalties, 2) of all sources and seeds, at the penalties that all of them have."""
        own = [(source, seed) for source in self.sources for seed in self.seeds]
        by_penalty = [
            [self.curve(step, matrix, "basis pursuit", "penalty", key, *of).round(12) for key in (x, y)] for of in own
        ]
        shared = set.intersection(*(set(a[:, 0].tolist()) for a, _ in by_penalty))
        stacks = [[curve[[p in shared for p in curve[:, 0]], 1] for curve in pair] for pair in by_penalty]
        return np.array(stacks).transpose(0, 2, 1)[:, ::-1]
