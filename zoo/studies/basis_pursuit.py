"""How small does the error of sparse coding an embedding get, and does it go to zero over pretraining?

Dictionaries are learned on the embedding at several steps of pretraining, and on null models made from it. Codes
minimise the squared error plus an L1 penalty, and a duality gap certifies that each code is optimal. Penalties are used
in descending order, and each dictionary starts from that of the penalty before. A seed determines the held-out rows,
the normal numbers from which null models are drawn, and which rows are the initial atoms; these are the same at every
step, so that steps differ as little as possible by chance. A dictionary never starts from that of another step, because
later steps would then have been fitted for longer. Several sources are several runs of pretraining: seeds are then
averaged within each run, and intervals are over runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.matrices import MATRICES, NOTHING_LEFT, TRAINED_ON, explained, matrices
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.row_choice import IN_WORDS, RowChoice
from zoo.shared_tasks.dictionaries import LearnDictionaries, UnlearnedDictionaries, likeness
from zoo.shared_tasks.dictionary_curves import AT_EVERY_STEP, FEWER, Lines, on_a_logarithmic_axis
from zoo.shared_tasks.pursuit import PENALTIES, dictionary_steps, fewer, limited
from zoo.shared_tasks.rows import Rows, UntrainedRows, opened, refuse_trivial
from zoo.study import AtLeastTwo, Results, Study, Task


@dataclass(frozen=True)
class BasisPursuit(Study):
    """Dictionaries with certified codes are learned on the embedding and on null models, and their errors compared.

    Args:
        source: The embeddings of one or several runs of pretraining. Each is what `zoo.embedding` takes, or a name that
            contains {step} if every step has its own name, such as hf:EleutherAI/pythia-160m@step{step}.
        steps: Steps of pretraining, ascending; by default only the last. Null models other than the covariance-matched
            one are made from the last step only.
        n_atoms: Number of atoms of every dictionary.
        penalties: Weights of the L1 penalty on codes, relative to the rows' rms length, descending. Larger and smaller
            penalties are added until codes have `at_l0` atoms per row on average.
        dictionary_steps: Number of times that all rows are coded at every penalty. By default 10, or 5 if rows x atoms
            are 4 million or more.
        frequency_power: Each row is weighted by p^power, where p is the frequency of its token.
        seeds: Number of dictionaries for each matrix.
        at_l0: Number of atoms per row at which matrices are compared.
        gauged: Number of held-out rows whose gauge norm is computed, which takes most of the time if there are many
            dimensions.
        tolerance: FVU (fraction of variance unexplained) up to which sparse coding counts as explaining the rows.
        keep_untrained: Whether to keep rows that look untrained.
        tokens: File with the rows' tokens, for a source without tokens: .txt with one token per line, or .json.
        tensor: Name of the tensor that is the embedding; by default the token embedding, if its name is a usual one.
        max_rows: Largest number of rows from which dictionaries are learned, held-out rows included; by default all.
        row_choice: How these rows are chosen: stratified (evenly spaced in the order of frequency, or of the rows if
            frequencies are not known), most frequent, or random.
        null_models: Whether to code all null models, or only the covariance-matched one.
    """

    source: tuple[str, ...] = ("gpt2-stdlib.learned",)
    steps: tuple[NonNegativeInt, ...] | None = None
    n_atoms: PositiveInt = 512
    penalties: tuple[PositiveFloat, ...] = PENALTIES
    dictionary_steps: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    at_l0: PositiveInt = 16
    gauged: NonNegativeInt = 50
    tolerance: PositiveFloat = 0.05
    keep_untrained: bool = True
    tokens: str | None = None
    tensor: str | None = None
    max_rows: PositiveInt | None = None
    row_choice: RowChoice = "stratified"
    null_models: Literal["all", "covariance-matched"] = "all"
    aliases = {"embedding": "source"}  # noqa: RUF012

    def check(self) -> None:
        """Refuse steps and penalties out of order."""
        for name, values in (("steps", self.steps or ()), ("penalties", [-p for p in self.penalties])):
            if any(a >= b for a, b in pairwise(values)):
                raise ZooError(
                    f"{name} must be {'ascending' if name == 'steps' else 'descending'}, without repeated values"
                )

    @cached_property
    def _steps(self) -> tuple[int | None, ...]:
        return self.steps or (None,)

    @cached_property
    def _rows(self) -> dict[tuple[str, int | None], Rows]:
        """Tasks that read the rows, by source and step."""
        sources = tuple(opened(name, self.tensor) for name in self.source)
        for source in sources:
            V = source.shape(self._steps[-1])[0]
            for step in self._steps:
                if (n := source.shape(step)[0]) != V:
                    raise ZooError(f"{source.name} has {n:,} rows at step {step}, but {V:,} at step {self._steps[-1]}")
            refuse_trivial("n_atoms", self.n_atoms, min(V, self.max_rows or V))
        aside = UntrainedRows(sources, self._steps[-1], self.tokens) if self.tokens or not self.keep_untrained else None
        keep = self.keep_untrained
        rows = {(s.name, step): Rows(s, step, aside, keep) for s in sources for step in self._steps}
        return {key: limited(own, self.max_rows, self.row_choice) for key, own in rows.items()}

    @cached_property
    def d_model(self) -> int:
        """Dimensions D of the rows."""
        return opened(self.source[0], self.tensor).shape(self._steps[-1])[1]

    @cached_property
    def fewer_rows(self) -> int | None:
        """Number of rows of what is compared besides the embedding and its covariance-matched null model.

        None if these are all rows.
        """
        rows = self._rows[self.source[0], self._steps[-1]]
        few = fewer(rows, self.n_atoms)
        return None if few == rows else few.number

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The matrices that are compared at the last step."""
        others = matrices(self.n_atoms, self.d_model)[2:] if self.null_models == "all" else ()
        again = FEWER if self.fewer_rows and (others or len(self._steps) > 1) else ()
        return (*AT_EVERY_STEP, *again, *others)

    @cached_property
    def _learned(self) -> dict[tuple[str, int | None, str, int], LearnDictionaries]:
        """Tasks that learn dictionaries, by source, step, matrix and seed."""
        earlier = FEWER if self.fewer_rows else AT_EVERY_STEP
        return {
            (source, step, matrix, seed): self._learn(rows, matrix, seed)
            for seed in range(self.seeds)
            for (source, step), rows in self._rows.items()
            for matrix in (self.present if step == self._steps[-1] else earlier)
        }

    def _learn(self, rows: Rows, matrix: str, seed: int) -> LearnDictionaries:
        rows = rows if matrix in AT_EVERY_STEP else fewer(rows, self.n_atoms)
        steps = self.dictionary_steps or dictionary_steps(self._rows[self.source[0], self._steps[-1]], self.n_atoms)
        shared = (self.n_atoms, self.penalties, steps, self.frequency_power, self.at_l0)
        gauged = 0 if matrix in FEWER or rows.step != self._steps[-1] else self.gauged
        made = AT_EVERY_STEP[FEWER.index(matrix)] if matrix in FEWER else matrix
        return LearnDictionaries(rows, made, seed, seed, *shared, gauged)

    @cached_property
    def _unlearned(self) -> dict[tuple[str, int | None, str, int], UnlearnedDictionaries]:
        return {
            key: UnlearnedDictionaries(task.rows, task.matrix, task.seed, task.draw, self.n_atoms, self.frequency_power)
            for key, task in self._learned.items()
            if key[1] == self._steps[-1] and key[2] in AT_EVERY_STEP
        }

    @cached_property
    def _again(self) -> dict[tuple[str, int | None, str], tuple[LearnDictionaries, LearnDictionaries]]:
        """Pairs of tasks that learn dictionaries of the same rows, or of a null model's first draw, with two seeds."""
        pairs = {}
        for (source, step, matrix, seed), task in self._learned.items():
            if seed == 0 and step == self._steps[-1] and (matrix in AT_EVERY_STEP or not self.fewer_rows):
                pairs[source, step, matrix] = task, replace(task, seed=1, draw=1 if matrix == "embedding" else 0)
        return pairs

    def tasks(self) -> Sequence[Task]:
        """Return one task for every matrix, step and seed, and those that compare the dictionaries of two seeds."""
        again = [other for _, other in self._again.values()]
        return [*self._learned.values(), *self._unlearned.values(), *again]

    def report(self, results: Results) -> Report:
        """Return a report on the errors at one L0, by matrix and by step."""
        found = Lines(self._lines(results), self, self._steps)
        sections = [self._dictionaries(found, results), self._pretraining(found, results)]
        errors = found.errors()
        trend = found.trend()
        headline = sections[0].finding
        if trend:
            headline = f"{trend.answer}\n\n{trend.details} {found.told_of_limit()}\n\n{headline}"
        numbers = {
            "error": errors["embedding"],
            "null": errors["null"],
            "difference": errors["difference"],
            "limit": self._limit_of_all_rows(found),
            "trend": trend and trend.numbers | {"rows": self.fewer_rows},
            "at_l0": self.at_l0,
            "n_atoms": self.n_atoms,
            "rounding": self._rounding(results),
        }
        subject = f"{', '.join(self.source)}: rows in {self.d_model} dimensions"
        return Report(
            subject,
            Verdict(
                headline,
                f"Brackets are 95 % intervals over {found.units}.",
                numbers=numbers,
                chart=sections[1].charts[0] if trend else None,
            ),
            sections,
        )

    def _rounding(self, results: Results) -> dict[str, Any] | None:
        """Return how the rows of the first run at the last step were rounded, see `Rows`; None if they were not."""
        found: dict[str, Any] | None = results[self._rows[self.source[0], self._steps[-1]]].get("rounding")
        return found

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

    def _dictionaries(self, found: Lines, results: Results) -> Section:
        last, errors = self._steps[-1], found.errors()
        coded = [line for line in found.lines if "uncertified" in line]
        uncertified = sum(int(line["uncertified"]) for line in coded)
        n_codes = round(sum(line["coded"] for line in coded))
        certified = {m: estimates.share(found.at(last, m, "fvu_debiased")) for m in AT_EVERY_STEP}
        stable = {m: np.mean(found.all(last, m, "cosine")) for m in AT_EVERY_STEP}
        largest = max(line["largest_gap"] for line in coded)
        first = self._learned[self.source[0], last, MATRICES[0], 0]
        n_eff, steps = results[first]["effective_rows"], first.dictionary_steps
        return Section(
            self.name,
            "How small is the error of certified sparse codes?",
            f"Sums of {self.at_l0} of {self.n_atoms} learned atoms, found by matching pursuit, leave "
            f"{errors['embedding']} of the variance of held-out rows unexplained. For Gaussian rows with the same "
            f"covariance this is {errors['null']}; the difference is {errors['difference']}. The L1-penalised optima "
            f"with which the atoms were learned leave {certified[MATRICES[0]]} and {certified[MATRICES[1]]} "
            f"unexplained after debiasing, with {self.at_l0} atoms per row on average; of all {n_codes:,} such codes "
            f"{uncertified or 'none'} lack a certificate of optimality. Codes by matching pursuit have no "
            "certificate: other codes may have a smaller error. The mean best |cosine| between the atoms of two seeds "
            f"is {stable[MATRICES[0]]:.2f} ({stable[MATRICES[1]]:.2f} for Gaussian rows).",
            tables=[
                found.by_matrix(
                    f"Data: {found.units}. Brackets are {found.told}. FVU is the fraction of variance unexplained; the "
                    "mean row alone has FVU 1. Shrunk: error of the L1-penalised optimum itself. Debiased: error after "
                    "least squares on the atoms that the optimum uses. The optima are computed at penalties "
                    f"{', '.join(f'{p:g}' for p in self.penalties)}, and at further ones if these do not reach L0 "
                    f"{self.at_l0}; their errors are interpolated in log L0. If fewer atoms leave less than "
                    f"{NOTHING_LEFT:g} of the variance unexplained, the error at these fewer atoms is used. Codes by "
                    f"matching pursuit have {self.at_l0} atoms in every row and no certificate; for learned atoms, the "
                    "penalty whose dictionary has the smallest error is used. Each dictionary has "
                    f"{self.n_atoms} atoms and is learned with {steps} codings of all rows at each penalty. "
                    f"{self._told_of_rows}Rows have weights p^{self.frequency_power:g} of token "
                    f"frequencies p (effective number of rows: {round(n_eff):,}). The largest duality gap of a code is "
                    f"{largest:.1e} of its objective."
                ),
                *self._without_control(found),
                *told_of_rounding(self._rounding(results), errors["embedding"], errors["difference"]),
            ],
            charts=found.charts(),
            null_models=explained(self.present)
            + " The table also has atoms that were not learned (random directions, tokens).",
            not_shown=(
                "A small error by itself does not show superposition. If the atoms span all dimensions, the error of "
                "any rows is 0 at L0 = D. Only the error at a small L0, compared with null models, is informative."
            ),
            numbers={"at_l0": self.at_l0, **errors, "uncertified": uncertified, "lines": found.lines},
        )

    @property
    def _told_of_rows(self) -> str:
        """Sentences on rows that were left out."""
        told = ""
        if (rows := self._rows[self.source[0], self._steps[-1]]).at_most is not None:
            told += f"Only {rows.at_most:,} rows are used: {IN_WORDS[rows.choice]}. "
        if self.fewer_rows and len(self.present) > 2:
            told += (
                f"Columns of the other null models, and those with fewer rows, have {self.fewer_rows:,} random rows. "
                "With fewer rows the held-out error is larger, so only columns with equally many rows can be compared. "
            )
        if rows.number > TRAINED_ON:
            told += f"At most {TRAINED_ON:,} of the rows trained on are used to measure errors. "
        return told

    def _without_control(self, found: Lines) -> list[str]:
        """Return sentences on controls that the sizes do not allow, and on how well planted atoms were found."""
        told = []
        if self.n_atoms < self.d_model:
            told.append(
                f"{self.n_atoms} atoms do not span {self.d_model} dimensions: the gauge norm at error 0 does not "
                "exist. There is no positive control either: planted rows would have more atoms than the dictionary."
            )
        elif "planted" not in matrices(self.n_atoms, self.d_model):
            told.append(
                f"With {self.n_atoms} atoms in {self.d_model} dimensions there is no positive control: planted rows "
                "need more atoms than dimensions, and the dictionary needs more atoms than the planted rows."
            )
        if planted := found.all(self._steps[-1], "planted", "matched_cosine"):
            told.append(
                "Mean cosine between planted and learned atoms, matched one to one, at the penalty and seed where it "
                f"is largest: {max(planted):.3f}."
            )
        return told

    def _pretraining(self, found: Lines, results: Results) -> Section:
        title, steps = "Does the error of sparse codes go to zero over pretraining?", self._steps
        if len(steps) < 2:
            why = "Only one step of pretraining was given; set several with --steps."
            return Section("pretraining", title, why, tested=False)
        trend, limit = found.trend(), found.limit()
        assert trend is not None
        values = {m: [found.pursued(step, m) for step in steps] for m in found.over_steps}
        real, null = values.values()
        gaps = [found.against_null(a, b) for a, b in zip(real, null, strict=True)]
        shares = {m: [estimates.share(v) for v in values[m]] for m in values}
        paired = [estimates.mean(a - b) for a, b in zip(real, null, strict=True)]
        x, label = on_a_logarithmic_axis(steps)
        charts = [
            found.over_pretraining(),
            Chart(
                "pretraining-difference",
                "Error of the embedding minus error of its null model",
                [Series.of("embedding minus null model", x, paired, labels=[f"step {s:,}" for s in steps])],
                label,
                "difference in FVU",
                log_x=True,
            ),
            self._drift(results, x, label),
            found.at_every_step(),
        ]
        by_step = Table(
            ["step", *found.over_steps, "difference"],
            [[s, a, b, gap] for s, a, b, gap in zip(steps, *shares.values(), gaps, strict=True)],
            note="Held-out FVU of learned atoms with codes by matching pursuit. Brackets are 95 % Student t intervals "
            f"over {found.units}. With one run, the interval of a difference contains 0 if one more draw of the null "
            f"model could have the embedding's error. {self._told_of_steps(found)}",
        )
        return Section(
            "pretraining",
            title,
            f"{trend.answer} {trend.details} {found.told_of_limit()} The error minus that of the null model changes "
            f"from {gaps[0]} to {gaps[-1]}.{self._told_of_fewer}",
            tables=[by_step, found.by_step(), *found.limits()],
            charts=charts,
            null_models="Gaussian rows with the mean and covariance of each step's own matrix. With one seed they are "
            "made of the same normal numbers at every step.",
            not_shown=(
                "The errors after the last step are not measured. The limit assumes a power law, and its interval "
                "assumes that errors are independent between steps."
            ),
            numbers={
                "steps": steps,
                **{m: [estimates.mean(v) for v in own] for m, own in zip(AT_EVERY_STEP, values.values(), strict=True)},
                "difference": gaps,
                "limit": limit,
                **trend.numbers,
            },
        )

    def _limit_of_all_rows(self, found: Lines) -> Estimate | None:
        """Return the limit over pretraining, minus what more rows take from the error at the last step."""
        limit = found.limit()
        if limit is None or not self.fewer_rows:
            return limit
        few, every = (float(found.pursued(self._steps[-1], m).mean()) for m in (FEWER[0], AT_EVERY_STEP[0]))
        mean, low, high = (min(max(v - few + every, 0.0), 1.0) for v in (limit.mean, limit.low, limit.high))
        return Estimate(mean, low, high, limit.n)

    @property
    def _told_of_fewer(self) -> str:
        """A sentence on the number of rows at every step, if these are not all rows."""
        if not self.fewer_rows:
            return ""
        return (
            f" All these numbers are for the same {self.fewer_rows:,} random rows at every step, and not for all rows."
        )

    def _told_of_steps(self, found: Lines) -> str:
        """Sentences on what is the same at every step."""
        told = (
            "Every step has the same rows; with one seed, the same of them are held out, the same are the initial "
            "atoms, and the null model is made of the same normal numbers."
        )
        if self.fewer_rows:
            all_rows = found.errors()["embedding"]
            told += (
                f" These are {self.fewer_rows:,} random rows. With fewer rows the held-out error is larger: at the "
                f"last step, with more rows, the error of the embedding is {all_rows}."
            )
        return told

    def _drift(self, results: Results, x: list[float], label: str) -> Chart:
        """Return a chart of how far rows have moved since the first step.

        The unit is the rms distance of rows from their mean at the last step.
        """
        import torch

        matrix = (FEWER if self.fewer_rows else AT_EVERY_STEP)[0]
        read = [self._learned[self.source[0], step, matrix, 0].rows for step in self._steps]
        rows = [torch.from_numpy(results[task]["W_E"]) for task in read]
        unit = (rows[-1] - rows[-1].mean(0)).square().sum(1).mean().sqrt()
        moved = [((W - rows[0]).norm(dim=1) / unit).numpy() for W in rows]
        middle, low, high = ([float(np.quantile(m, q)) for m in moved] for q in (0.5, 0.1, 0.9))
        return Chart(
            "pretraining-drift",
            "Distance of rows from where they were at the first step",
            [Series("median row", x, middle, "line", low, high, [f"step {s:,}" for s in self._steps])],
            label,
            "distance / rms row length",
            log_x=True,
            caption="Band: from the 10th to the 90th percentile of rows.",
        )


def told_of_rounding(rounding: dict[str, Any] | None, error: Estimate, difference: Estimate) -> list[str]:
    """Return sentences that compare the error of sparse coding with that of the rows' own rounding.

    Args:
        rounding: See `zoo.shared_tasks.rows.Rows`; None if the rows are not quantised.
        error: Held-out FVU of sparse coding.
        difference: Difference from the FVU of Gaussian rows.
    """
    if rounding is None:
        return []
    kind, fvu = rounding["kind"], rounding["fvu"]
    if fvu is None:
        return [
            f"The rows are dequantised from {kind}. Its values are not equally spaced, so the error of this rounding "
            "is not known, and a part of the error of sparse coding may be due to it."
        ]
    ratio = error.mean / fvu
    told = (
        f"The rows are dequantised from {kind}. If numbers are spread evenly within a step, this rounding alone makes "
        f"an error of {fvu:.2g} of the variance of the rows. The error of sparse coding, {error}, is "
        f"{format(ratio, ',.0f' if ratio >= 1000 else '.3g')} times as large."
    )
    if max(error.mean - fvu, 0) < fvu:
        told += " Most of the error of sparse coding may be rounding, which no dictionary explains."
    if difference.sign != "undecided" and abs(difference.mean) < fvu:
        told += (
            f" The difference from Gaussian rows, {difference}, is smaller than the error of rounding, and may be due "
            "to it."
        )
    return [told]
