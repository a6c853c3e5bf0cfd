"""How small does the error of sparse coding an embedding get, and does it go to zero over pretraining?

Dictionaries are learned with certified codes on the embedding at several steps of pretraining and on null models made
of it, along a falling penalty, each dictionary started from that of the penalty before. A seed names the held-out rows,
the null models' draws and the first atoms, so differences between matrices are paired by seed; several sources are
several runs of pretraining, over which seeds are then averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.matrices import EXPLAINED, MATRICES, NOTHING_LEFT, matrices
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import (
    LearnDictionaries,
    UnlearnedDictionaries,
    at_l0,
    likeness,
    pursued_error,
)
from zoo.shared_tasks.pursuit import DICTIONARY_STEPS, PENALTIES
from zoo.shared_tasks.rows import Rows, UntrainedRows, opened, refuse_trivial
from zoo.study import AtLeastTwo, Results, Study, Task

AT_EVERY_STEP = MATRICES[:2]
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")
LEAST_STEPS = 5  # to which a limit is fitted


@dataclass(frozen=True)
class BasisPursuit(Study):
    """Dictionaries with certified codes, of the embedding and of null models.

    Args:
        source: The embeddings of one or several runs of pretraining: what `zoo.embedding` takes, or a name with {step}
            in it where every step has a name of its own, as in hf:EleutherAI/pythia-160m@step{step}.
        steps: Steps of pretraining, ascending; by default the last. Null models other than the covariance-matched are
            made of the last.
        n_atoms: Atoms of every dictionary.
        penalties: Weights of the codes' absolute values, relative to the rows' rms length, descending. Others are added
            on either side of them until codes have `at_l0` atoms a row on average.
        dictionary_steps: Codings of all rows at every penalty.
        frequency_power: Rows have weight p^power of their token's frequency p.
        seeds: Dictionaries per matrix.
        at_l0: Atoms per row at which matrices are compared.
        gauged: Held-out rows whose gauge norm is found, the costliest number of all where dimensions are many.
        tolerance: FVU below which sparse coding leaves nothing much unexplained.
        keep_untrained: Whether rows that look untrained stay.
        tokens: File with the rows' tokens, for a source that has none: .txt with a token per line, or .json.
    """

    source: tuple[str, ...] = ("gpt2-stdlib.learned",)
    steps: tuple[NonNegativeInt, ...] | None = None
    n_atoms: PositiveInt = 512
    penalties: tuple[PositiveFloat, ...] = PENALTIES
    dictionary_steps: PositiveInt = DICTIONARY_STEPS
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    at_l0: PositiveInt = 16
    gauged: NonNegativeInt = 50
    tolerance: PositiveFloat = 0.05
    keep_untrained: bool = True
    tokens: str | None = None

    def check(self) -> None:
        """Refuse steps and penalties out of order."""
        for name, values in (("steps", self.steps or ()), ("penalties", [-p for p in self.penalties])):
            if any(a >= b for a, b in pairwise(values)):
                raise ZooError(f"{name} must be {'ascending' if name == 'steps' else 'descending'}, each given once")

    @cached_property
    def _steps(self) -> tuple[int | None, ...]:
        return self.steps or (None,)

    @cached_property
    def _rows(self) -> dict[tuple[str, int | None], Rows]:
        """The rows of every run and step."""
        sources = tuple(opened(name) for name in self.source)
        for source in sources:
            refuse_trivial("n_atoms", self.n_atoms, source.shape(self._steps[-1])[0])
        aside = UntrainedRows(sources, self._steps[-1], self.tokens) if self.tokens or not self.keep_untrained else None
        keep = self.keep_untrained
        return {(s.name, step): Rows(s, step, aside, keep) for s in sources for step in self._steps}

    @cached_property
    def d_model(self) -> int:
        """Dimensions D of the rows."""
        return opened(self.source[0]).shape(self._steps[-1])[1]

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The matrices that are compared."""
        return matrices(self.n_atoms, self.d_model)

    @cached_property
    def _learned(self) -> dict[tuple[str, int | None, str, int], LearnDictionaries]:
        """By source, step, matrix and seed."""
        shared = (self.n_atoms, self.penalties, self.dictionary_steps, self.frequency_power, self.at_l0, self.gauged)
        return {
            (source, step, matrix, seed): LearnDictionaries(rows, matrix, seed, seed, *shared)
            for seed in range(self.seeds)
            for (source, step), rows in self._rows.items()
            for matrix in (self.present if step == self._steps[-1] else AT_EVERY_STEP)
        }

    @cached_property
    def _unlearned(self) -> dict[tuple[str, int | None, str, int], UnlearnedDictionaries]:
        return {
            key: UnlearnedDictionaries(task.rows, task.matrix, task.seed, task.draw, self.n_atoms, self.frequency_power)
            for key, task in self._learned.items()
            if key[1] == self._steps[-1] and key[2] in AT_EVERY_STEP
        }

    @cached_property
    def _again(self) -> dict[tuple[str, int | None, str], tuple[LearnDictionaries, LearnDictionaries]]:
        """Two seeds' dictionaries of the same rows; of a null model, of its first draw."""
        pairs = {}
        for (source, step, matrix, seed), task in self._learned.items():
            if seed == 0 and step == self._steps[-1]:
                pairs[source, step, matrix] = task, replace(task, seed=1, draw=1 if matrix == "embedding" else 0)
        return pairs

    def tasks(self) -> Sequence[Task]:
        """One for every matrix, step and seed, and those that tell how alike two seeds' dictionaries are."""
        again = [other for _, other in self._again.values()]
        return [*self._learned.values(), *self._unlearned.values(), *again]

    def report(self, results: Results) -> Report:
        """Errors at one L0, over matrices and over steps."""
        found = Lines(self._lines(results), self)
        sections = [self._dictionaries(found, results), self._pretraining(found, results)]
        errors = found.errors()
        headline = sections[0].finding
        numbers = {
            "error": errors["embedding"],
            "null": errors["null"],
            "difference": errors["difference"],
            "limit": found.limit(),
            "isotropic": found.pursued(self._steps[-1], "isotropic"),
            "at_l0": self.at_l0,
            "n_atoms": self.n_atoms,
        }
        subject = f"{', '.join(self.source)}, in {self.d_model} dimensions"
        return Report(
            subject, Verdict(headline, f"Brackets are 95 % intervals over {found.units}.", numbers=numbers), sections
        )

    def _lines(self, results: Results) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for (source, step, matrix, seed), task in self._learned.items():
            own = {"source": source, "step": step, "matrix": matrix, "seed": seed, "coder": "basis pursuit"}
            lines += [own | line for line in results[task]["lines"]]
        for (source, step, matrix, seed), unlearned in self._unlearned.items():
            own = {"source": source, "step": step, "matrix": matrix, "seed": seed}
            lines += [own | line for line in results[unlearned]["lines"]]
        for (source, step, matrix), pair in self._again.items():
            *alike, by_chance = likeness(results, *pair)
            own = {"source": source, "step": step, "matrix": matrix, "seed": 0, "coder": "stability"}
            for penalty, cosine in zip(self.penalties, alike, strict=True):
                lines.append(own | {"penalty": penalty, "cosine": cosine, "cosine_of_rows": by_chance})
        return lines

    def _dictionaries(self, found: "Lines", results: Results) -> Section:
        last, errors = self._steps[-1], found.errors()
        coded = [line for line in found.lines if "uncertified" in line]
        uncertified = sum(int(line["uncertified"]) for line in coded)
        n_codes = len(coded) * len(results[self._rows[self.source[0], last]]["W_E"])
        certified = {m: estimates.share(found.at(last, m, "fvu_debiased")) for m in AT_EVERY_STEP}
        stable = {m: np.mean(found.all(last, m, "cosine")) for m in AT_EVERY_STEP}
        largest = max(line["largest_gap"] for line in coded)
        n_eff = results[next(iter(self._learned.values()))]["effective_rows"]
        return Section(
            self.name,
            "How small is the error of certified sparse codes?",
            f"Sums of {self.at_l0} of {self.n_atoms} learned atoms, found by matching pursuit, leave "
            f"{errors['embedding']} of the variance of held-out rows unexplained, and {errors['null']} of that of "
            f"Gaussian rows with the same covariance; difference {errors['difference']}. The optima that the atoms "
            f"were learned with leave {certified[MATRICES[0]]} and {certified[MATRICES[1]]} with {self.at_l0} atoms a "
            f"row on average; of {n_codes:,} such codes {uncertified or 'none'} lack a certificate. Codes by matching "
            f"pursuit have no certificate: other codes may leave less. Two seeds' atoms have a mean best |cosine| of "
            f"{stable[MATRICES[0]]:.2f} ({stable[MATRICES[1]]:.2f} for Gaussian rows).",
            tables=[
                found.by_matrix(
                    f"{found.units}; brackets are {found.told}. Codes are the certified optima at penalties "
                    f"{', '.join(f'{p:g}' for p in self.penalties)}, and at others beyond these where that takes to "
                    f"reach L0 {self.at_l0}; their errors are interpolated in log L0. Where fewer atoms leave less "
                    f"than {NOTHING_LEFT:g} of the variance over, the error is that of these. Codes by matching "
                    f"pursuit have {self.at_l0} atoms in every row and no certificate; for learned atoms the best "
                    f"dictionary along the penalties counts. {self.n_atoms} atoms, {self.dictionary_steps} codings of "
                    f"all rows at each penalty, weights p^{self.frequency_power:g} (n_eff {round(n_eff):,}). Largest "
                    f"gap of a certificate: {largest:.1e} of the objective. The mean alone has FVU 1."
                ),
                *self._without_control(found),
            ],
            charts=found.charts(),
            null_models=EXPLAINED + " Atoms that were not learned (random directions, random tokens) are in the table.",
            not_shown=(
                "That a small error would mean superposition by itself: where atoms span all dimensions the error is 0 "
                "for any rows at L0 = D, so only its size at a small L0, beside null models, tells anything."
            ),
            numbers={"at_l0": self.at_l0, **errors, "uncertified": uncertified, "lines": found.lines},
        )

    def _without_control(self, found: "Lines") -> list[str]:
        """What the sizes do not allow, and how well planted atoms were found."""
        told = []
        if self.n_atoms < self.d_model:
            told.append(
                f"{self.n_atoms} atoms do not span {self.d_model} dimensions: the gauge norm at error 0 does not "
                "exist, and no rows can be planted that would be superpositions of more atoms than dimensions and "
                "still be found."
            )
        elif "planted" not in self.present:
            told.append(
                f"With {self.n_atoms} atoms in {self.d_model} dimensions there is no positive control: planted rows "
                "need more atoms than dimensions, and a dictionary more than these."
            )
        if planted := found.all(self._steps[-1], "planted", "matched_cosine"):
            told.append(
                f"Largest mean cosine of the planted atoms, each matched with an atom of its own: {max(planted):.3f}."
            )
        return told

    def _pretraining(self, found: "Lines", results: Results) -> Section:
        title, steps = "Does that error go to zero over pretraining?", self._steps
        if len(steps) < 2:
            why = "Only one step of pretraining was given; give several with --steps."
            return Section("pretraining", title, why, tested=False)
        values = {m: [found.pursued(step, m) for step in steps] for m in AT_EVERY_STEP}
        real, null = values.values()
        change, limit = estimates.mean(real[-1] - real[0]), found.limit()
        gaps = [found.against_null(a, b) for a, b in zip(real, null, strict=True)]
        side = (
            ""
            if limit is None
            else "below"
            if limit.high <= self.tolerance
            else "above"
            if limit.low > self.tolerance
            else ""
        )
        going = (
            f"A fitted power law goes to {limit} (from step {found.turn()[0]} on)"
            if limit
            else f"No limit can be fitted: fewer than {LEAST_STEPS} steps lie after its last turn"
        )
        label, x = "step of pretraining (the first at 1 if it is 0)", [float(max(step or 0, 1)) for step in steps]
        shares = {m: [estimates.share(v) for v in values[m]] for m in values}
        paired = [estimates.mean(a - b) for a, b in zip(real, null, strict=True)]
        bands = "Bands: 95 %. The null model is made anew of every step; an untrained matrix is a Gaussian itself."
        charts = [
            Chart(
                "pretraining-error",
                f"Held-out error with {self.at_l0} atoms a row",
                [Series.of(m, x, [estimates.mean(v) for v in values[m]]) for m in values],
                label,
                "FVU",
                log_x=True,
                caption=bands,
            ),
            Chart(
                "pretraining-difference",
                "What the covariance does not explain",
                [Series.of("embedding less null model", x, paired)],
                label,
                "difference in FVU",
                log_x=True,
            ),
            self._drift(results, x, label),
            found.at_every_step(),
        ]
        by_step = Table(
            ["step", "embedding", "covariance-matched", "difference"],
            [[s, a, b, gap] for s, a, b, gap in zip(steps, *shares.values(), gaps, strict=True)],
            note=f"By matching pursuit. Brackets are 95 % Student t intervals over {found.units}; those of differences "
            "from one embedding ask whether one more draw of the null model could be as far away.",
        )
        return Section(
            "pretraining",
            title,
            f"From step {steps[0]:,} to {steps[-1]:,} the error changes by {change}, to {shares[MATRICES[0]][-1]}. "
            f"{going}{f', {side} the tolerance of {self.tolerance:g}' if side else ''}. Its distance from the null "
            "model "
            f"goes from {gaps[0]} to {gaps[-1]}.",
            tables=[by_step, found.by_step(), *found.limits()],
            charts=charts,
            null_models="Gaussian rows with the mean and covariance of each step's own matrix.",
            not_shown=(
                "What comes after the last step: the limit rests on a power law, and its interval on errors being "
                "independent over steps."
            ),
            numbers={
                "steps": steps,
                **{m: [estimates.mean(v) for v in values[m]] for m in values},
                "difference": gaps,
                "limit": limit,
            },
        )

    def _drift(self, results: Results, x: list[float], label: str) -> Chart:
        """How far rows have moved since the first step, in units of their rms distance from the mean at the last."""
        import torch

        rows = [torch.from_numpy(results[self._rows[self.source[0], step]]["W_E"]) for step in self._steps]
        unit = (rows[-1] - rows[-1].mean(0)).square().sum(1).mean().sqrt()
        moved = [((W - rows[0]).norm(dim=1) / unit).numpy() for W in rows]
        middle, low, high = ([float(np.quantile(m, q)) for m in moved] for q in (0.5, 0.1, 0.9))
        return Chart(
            "pretraining-drift",
            "How far rows move",
            [Series("median row", x, middle, "line", low, high)],
            label,
            "distance from the first step, in rms row lengths",
            log_x=True,
            caption="Band: from the 10th to the 90th percentile of rows.",
        )


class Lines:
    """What was measured, a line for every dictionary and penalty, by what it belongs to.

    Args:
        lines: Each has its source, step, matrix, seed and coder.
        study: How they were made.
    """

    def __init__(self, lines: list[dict[str, Any]], study: BasisPursuit) -> None:
        self.lines, self.study, self.steps, self.sources = lines, study, study._steps, study.source
        self.seeds = range(study.seeds)
        self.by: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for line in lines:
            key = (line["step"], line["matrix"], line["coder"], line["source"], line["seed"])
            self.by.setdefault(key, []).append(line)

    @property
    def units(self) -> str:
        """What intervals are over."""
        if len(self.sources) > 1:
            return f"{len(self.sources)} runs of pretraining, of {len(self.seeds)} seeds each"
        return f"{len(self.seeds)} seeds"

    @property
    def told(self) -> str:
        """What the intervals of a table say."""
        if len(self.sources) > 1:
            return "95 % Student t intervals over runs, differences paired"
        return (
            "95 % Student t intervals over seeds; those of differences ask whether one more draw of the null model "
            "could be as far from the others"
        )

    def curve(self, step: Any, matrix: str, coder: str, x: str, y: str, source: str, seed: int) -> np.ndarray:
        """One dictionary's points (n, 2) along the penalties, ascending in x."""
        chosen = [line for line in self.by.get((step, matrix, coder, source, seed), []) if y in line]
        return np.array(sorted((line[x], line[y]) for line in chosen)).reshape(-1, 2)

    def values(self, read: Callable[[str, int], float]) -> np.ndarray:
        """A number for every independent unit: for every source, its seeds averaged, or for every seed of the one."""
        table = np.array([[read(source, seed) for seed in self.seeds] for source in self.sources])
        return table.mean(1) if len(self.sources) > 1 else table[0]

    def at(self, step: Any, matrix: str, y: str, coder: str = "basis pursuit", x: str = "l0") -> np.ndarray:
        """A measure at one L0, interpolated along each curve, for every unit.

        Where codes of fewer atoms leave next to nothing over, it is that of these codes.
        """

        def read(source: str, seed: int) -> float:
            points = self.curve(step, matrix, coder, x, y, source, seed)
            errors = self.curve(step, matrix, coder, "train_l0", "train_fvu_debiased", source, seed)
            if len(points) and len(errors) and errors[:, 1].min() < NOTHING_LEFT and points[-1, 0] < self.study.at_l0:
                return float(points[-1, 1])
            return at_l0(points, self.study.at_l0)

        return self.values(read)

    def pursued(self, step: Any, matrix: str) -> np.ndarray:
        """Held-out FVU of learned atoms with codes by matching pursuit, of the best penalty, for every unit."""
        coder = "basis pursuit"
        return self.values(lambda source, seed: pursued_error({"lines": self.by[step, matrix, coder, source, seed]}))

    def errors(self) -> dict[str, Estimate]:
        """The held-out error at the last step, its null model's, and their difference."""
        real, null = (self.pursued(self.steps[-1], m) for m in AT_EVERY_STEP)
        return {
            "embedding": estimates.share(real),
            "null": estimates.share(null),
            "difference": self.against_null(real, null),
        }

    def against_null(self, real: np.ndarray, null: np.ndarray) -> Estimate:
        """A difference from the null model, over runs or from draws of it, see `estimates.difference`."""
        return estimates.difference(real, null, len(self.sources))

    def all(self, step: Any, matrix: str, key: str) -> list[float]:
        """All numbers under a key."""
        return [line[key] for line in self.lines if (line["step"], line["matrix"]) == (step, matrix) and key in line]

    def turn(self) -> tuple[int, np.ndarray] | tuple[None, None]:
        """The step of the error's last turn, and the error from there on; None with too few steps since."""
        steps = [step for step in self.steps if step]
        if len(steps) < LEAST_STEPS:
            return None, None
        curve = np.array([self.pursued(step, "embedding").mean() for step in steps])
        turns = np.flatnonzero(np.diff(np.sign(np.diff(curve))))
        start = int(turns[-1]) + 1 if len(turns) else 0
        return (steps[start], curve[start:]) if len(steps) - start >= LEAST_STEPS else (None, None)

    def limit(self) -> Estimate | None:
        """Where the error is going over pretraining, under limit + b step^-c, from its last turn on.

        None with too few steps since, or if what fits is no fraction of a variance.
        """
        from zoo.analysis.limits import limit

        start, curve = self.turn()
        if start is None or curve is None:
            return None
        fitted = limit(np.array([step for step in self.steps if step and step >= start]), curve)
        if fitted.high < 0 or fitted.low > 1:
            return None
        value, low, high = (min(max(number, 0.0), 1.0) for number in (fitted.value, fitted.low, fitted.high))
        return Estimate(value, low, high, len(curve))

    def limits(self) -> list[str]:
        """Sentences on where the certified codes' error and its distance from the null model are going."""
        from zoo.analysis.limits import limit

        steps = [s for s in self.steps if s]
        real, null = (np.array([self.at(s, m, "fvu_debiased") for s in steps]) for m in AT_EVERY_STEP)
        told = []
        for name, curves in (("the embedding's error", real), ("its distance from the null model's", real - null)):
            after = int(np.abs(curves.mean(1) - curves[-1].mean()).argmax())  # where the way to the last value begins
            if len(steps) - after < LEAST_STEPS or not np.isfinite(curves).all():
                told.append(
                    f"Limit of {name}: not fitted, as fewer than {LEAST_STEPS} steps lie on one way to the last value."
                )
                continue
            fitted = limit(np.array(steps[after:]), curves[after:].mean(1))
            text = f"{Estimate(fitted.value, fitted.low, fitted.high)}"
            text += f" with exponent {fitted.exponent:.2f}, from step {steps[after]} on"
            if len(self.sources) > 1:
                own = [limit(np.array(steps[after:]), curve).value for curve in curves[after:].T]
                text += f"; fitted for every run on its own {estimates.mean(own)}"
            told.append(f"Limit of {name} under limit + b step^-c, of certified codes: {text}.")
        return told

    def by_matrix(self, note: str) -> Table:
        """Errors and bits at one L0, by matrix."""
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
            row("learned atoms, matching pursuit", lambda m: self.pursued(step, m)),
            *(row(f"{n}, matching pursuit", lambda m, n=n: self.at(step, m, "fvu_debiased", n)) for n in UNLEARNED),  # type: ignore[misc]
            row("principal components at the same bits", lambda m: self.at(step, m, "pca_fvu")),
            row("bits per row, 8 a number", lambda m: self.at(step, m, "bits_per_row")),
            row("FVU of all rows at these bits", lambda m: self.at(step, m, "fvu_at_bits")),
            row("bits a Gaussian needs for it", lambda m: self.at(step, m, "gaussian_bits_per_row")),
            plain("gauge norm at error 0", "gauge"),
            plain("the same with random directions", "gauge_of_random_directions"),
            plain("likeness of two seeds' atoms, mean over penalties", "cosine"),
            plain("likeness of two seeds' random rows", "cosine_of_rows"),
        ]
        title = f"step {step}, " if step is not None else ""
        return Table([f"{title}at L0 {self.study.at_l0}", *present, "embedding - covariance-matched"], rows, note=note)

    def by_step(self) -> Table:
        """Errors of certified codes at one L0, by step."""
        rows: list[list[Any]] = []
        for step in self.steps:
            real, null = (self.at(step, m, "fvu_debiased") for m in AT_EVERY_STEP)
            shrunk = self.against_null(*(self.at(step, m, "fvu") for m in AT_EVERY_STEP))
            cells = [estimates.mean(real), estimates.mean(null), self.against_null(real, null), shrunk]
            rows.append([f"step {step}", *cells])
        columns = ["held-out FVU, debiased", *AT_EVERY_STEP, "difference", "shrunk, difference"]
        return Table(columns, rows, note="Of certified codes.")

    def charts(self) -> list[Chart]:
        """Error against L0, penalty and bits; likeness of dictionaries."""
        present, last = self.study.present, self.steps[-1]
        held_out = [self._banded(m, last, m, "l0", "fvu_debiased") for m in present]
        trained = [self._trained(m, last) for m in present]
        bits = [self._banded(m, last, m, "bits_per_row", "fvu_at_bits") for m in present]
        for matrix in present:
            bound = zip(*(self.all(last, matrix, k) for k in ("gaussian_bits_per_row", "fvu_at_bits")), strict=True)
            x, y = np.array(sorted(bound)).T.tolist()
            bits.append(Series(matrix, x, y, "dotted", labels=["a Gaussian's bound"] * len(x)))
        alike = []
        for matrix in present:
            for style, key in (("line", "cosine"), ("dotted", "cosine_of_rows")):
                own = [r for r in self.lines if (r["coder"], r["matrix"], r["step"]) == ("stability", matrix, last)]
                points = sorted(
                    {(r["penalty"], float(np.mean([q[key] for q in own if q["penalty"] == r["penalty"]]))) for r in own}
                )
                x, y = np.array(points).T.tolist()
                alike.append(Series(matrix, x, y, style))  # type: ignore[arg-type]
        shrunk = [self._banded(m, last, m, "penalty", "fvu") for m in present]
        pursued = [self._banded(m, last, m, "penalty", "fvu_pursued") for m in present]
        bands, name = "Bands: 95 %.", self.study.name
        return [
            Chart(
                f"{name}-fvu",
                "Held-out error",
                held_out + trained,
                "L0",
                "FVU, debiased",
                log_x=True,
                caption=f"{bands} Dotted: of the rows trained on.",
            ),
            Chart(
                f"{name}-bits",
                "Error at bits",
                bits,
                "bits per row, dictionary included",
                "FVU of all rows",
                caption=f"{bands} Dotted: the least bits of a Gaussian with the same covariance at the same error.",
            ),
            Chart(
                f"{name}-shrunk",
                "Error of the optima themselves",
                shrunk,
                "penalty",
                "FVU, shrunk",
                log_x=True,
                caption=bands,
            ),
            Chart(
                f"{name}-pursued",
                f"Matching pursuit with {self.study.at_l0} atoms a row",
                pursued,
                "penalty",
                "FVU, held out",
                log_x=True,
                caption=bands,
            ),
            Chart(
                f"{name}-likeness",
                "Likeness of two seeds' atoms",
                alike,
                "penalty",
                "mean best |cosine|",
                log_x=True,
                caption="Dotted: of as many random rows in the place of atoms.",
            ),
        ]

    def at_every_step(self) -> Chart:
        """The embedding's error against L0 at every step."""
        series = [self._banded(f"step {step}", step, "embedding", "l0", "fvu_debiased") for step in self.steps]
        title = "The embedding's error at every step"
        return Chart("pretraining-every-step", title, series, "L0", "FVU, debiased", log_x=True, caption="Bands: 95 %.")

    def _banded(self, name: str, step: Any, matrix: str, x: str, y: str) -> Series:
        """Means over sources and seeds with their intervals."""
        stack = self._common(step, matrix, x, y)
        spans = [estimates.mean(values) for values in stack[:, :, 1].T]
        return Series.of(name, stack[:, :, 0].mean(0).tolist(), spans)

    def _trained(self, matrix: str, step: Any) -> Series:
        x, y = self._common(step, matrix, "train_l0", "train_fvu_debiased").mean(0).T.tolist()
        return Series(matrix, x, y, "dotted", labels=["trained on"] * len(x))

    def _common(self, step: Any, matrix: str, x: str, y: str) -> np.ndarray:
        """Points (runs, penalties, 2) of all sources and seeds at the penalties that every one of them has, by L0."""
        own = [(source, seed) for source in self.sources for seed in self.seeds]
        by_penalty = [
            [self.curve(step, matrix, "basis pursuit", "penalty", key, *of).round(12) for key in (x, y)] for of in own
        ]
        shared = set.intersection(*(set(a[:, 0].tolist()) for a, _ in by_penalty))
        stacks = [[curve[[p in shared for p in curve[:, 0]], 1] for curve in pair] for pair in by_penalty]
        return np.array(stacks).transpose(0, 2, 1)[:, ::-1]
