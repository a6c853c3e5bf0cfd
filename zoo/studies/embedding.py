"""What does a token embedding contain that superposition does not explain?

The verdict depends on two questions. Does training need the embedding: is the validation loss higher by more than a
margin if the embedding is random and frozen? Does sparse coding explain the embedding: is the error at a small L0 below
a tolerance, while the error of Gaussian rows with the same covariance is above it? An answer is yes or no only if the
whole 95 % interval lies on one side of the threshold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveInt

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.row_choice import IN_WORDS, RowChoice
from zoo.shared_tasks import pursuit
from zoo.shared_tasks.pursuit import LEAST_ATOMS, MANY_CODES, compared_at, default_atoms, rows_gauged
from zoo.shared_tasks.rows import LEAST_DIMENSIONS, LEAST_ROWS, opened, refuse_trivial
from zoo.shared_tasks.structure import ALPHA
from zoo.source import Source
from zoo.studies.atom_neighbours import AtomNeighbours
from zoo.studies.basis_pursuit import BasisPursuit
from zoo.studies.binding import Binding
from zoo.studies.circles import Circles
from zoo.studies.description_length import DescriptionLength
from zoo.studies.frozen_embedding import DESCRIBED, FrozenEmbedding
from zoo.studies.recognised_superpositions import RecognisedSuperpositions
from zoo.studies.row_reset import RowReset
from zoo.studies.sparse_rows import BASELINE_L0, SparseRows
from zoo.studies.untrained_rows import UntrainedRowsStudy
from zoo.study import AtLeastTwo, NotTested, Study
from zoo.wording import listed

DEFAULT = "gpt2-mini.learned"
ARMS = ("learned", "frozen Gaussian", "frozen norm-matched", "frozen covariance-matched", "frozen copied")
LEAST = {"null_draws": 5, "training_steps": 8, "reset_rows": 8, "n_atoms": LEAST_ATOMS}

QUICK_ROWS, QUICK_ROWS_PER_DIMENSION = 4096, 5
LEFT_OUT = NotTested("It is left out by --quick.")

Answer = Literal["yes", "no", "undecided", "not tested", "cannot tell: Gaussian rows fit as well", "not measured"]
AS_GAUSSIAN: Answer = "cannot tell: Gaussian rows fit as well"
CASES: dict[tuple[Answer, Answer], tuple[str, str]] = {  # by answers: does training need it, is it explained
    ("yes", "yes"): ("explained by superposition", "The embedding is explained by superposition."),
    ("yes", "no"): (
        "structure outside superposition",
        "The embedding is not explained by superposition, as far as this was tested, and training needs it.",
    ),
    ("no", "yes"): (
        "explained, and hardly needed",
        "The embedding is explained by superposition, but training hardly needs it.",
    ),
    ("no", "no"): (
        "not sparse, and hardly needed",
        "The embedding is not explained by superposition. The unexplained part may be random, because training hardly "
        "needs the embedding.",
    ),
    ("not tested", "yes"): ("explained by superposition", "The embedding is explained by superposition."),
    ("not tested", "no"): (
        "not explained by sparse coding",
        "The embedding is not explained by superposition, as far as this was tested.",
    ),
}
UNDECIDED = {  # headlines if an answer is undecided, by the answer to whether sparse coding explains the embedding
    "yes": "The embedding is explained by superposition; whether training needs it is undecided.",
    "no": "The embedding is not explained by superposition, as far as this was tested; whether training needs it is "
    "undecided.",
    "undecided": "Whether the embedding is explained by superposition is undecided.",
}
UNTOLD = {
    AS_GAUSSIAN: ("the error tells nothing", "No conclusion: sparse coding fits Gaussian rows equally well."),
    "not measured": ("not measured", "No conclusion: the error of sparse coding was not measured."),
}
STRUCTURES = {"binding": "tokens related by a matrix ({})", "circles": "tokens on a circle ({})"}


@dataclass(frozen=True)
class Embedding(Study):
    """All studies of one embedding, and a verdict that combines their results.

    Args:
        source: The embeddings of one or several runs of pretraining. Each is what `zoo.embedding` takes, or a name that
            contains {step} if every step has its own name.
        steps: Steps of pretraining, ascending; by default all steps that the source holds.
        tokens: File with the rows' tokens, for a source without tokens: .txt with one token per line, or .json.
        quick: Answer in minutes for a large vocabulary too. At most 4,096 rows (5 per dimension if that is more) are
            coded, with at most 2 atoms per dimension. Circles and binding are searched for in all rows, and in 5 draws
            of the null model. Training, autoencoders, row resets, description length, the other null models, and the
            comparison with untrained rows kept are left out. Settings that are given are kept.
        max_rows: Largest number of rows that are coded sparsely, held-out rows included; by default all. Circles and
            binding are always searched for in all rows.
        row_choice: How these rows are chosen: stratified (evenly spaced in the order of frequency, or of the rows if
            frequencies are not known), most frequent, or random.
        train: Config of the training runs that compare a learned embedding with frozen ones. By default the config of
            gpt2-mini.learned if that is the source; otherwise there are no training runs, and training is not tested.
        training_steps: Number of optimizer steps of the training runs.
        n_atoms: Number of atoms of a dictionary; by default 4 per dimension, and at most half the number of rows. With
            `quick`, 2 per dimension and at most a quarter of the rows.
        frequency_power: Each row is weighted by p^power, where p is the frequency of its token.
        seeds: Number of dictionaries per matrix, and of training runs and autoencoders per arm; by default 3.
        null_draws: Number of draws of the covariance-matched null model that are searched for circles and binding; by
            default 20, or 5 with `quick`.
        reset_rows: Number of rows that are reset, one at a time.
        keep_untrained: Whether to keep rows that look untrained.
        margin: Loss in nats above which the cost of a frozen embedding counts as large.
        tolerance: FVU (fraction of variance unexplained) up to which sparse coding counts as explaining the rows.
        families: YAML or JSON file with families of tokens in a known order, in addition to the built-in ones.
        tensor: Name of the tensor that is the embedding; by default the token embedding, if its name is a usual one.
    """

    source: tuple[str, ...] = (DEFAULT,)
    steps: tuple[NonNegativeInt, ...] | None = None
    tokens: str | None = None
    quick: bool = False
    max_rows: PositiveInt | None = None
    row_choice: RowChoice = "stratified"
    train: str | None = None
    training_steps: PositiveInt = 640
    n_atoms: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    null_draws: PositiveInt | None = None
    reset_rows: PositiveInt = 128
    keep_untrained: bool = False
    margin: NonNegativeFloat = 0.1
    tolerance: OpenUnitInterval = 0.05
    families: str | None = None
    tensor: str | None = None
    aliases = {"embedding": "source"}  # noqa: RUF012

    def check(self) -> None:
        """Refuse numbers that are too small, and steps out of order."""
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ZooError(f"{name} is {value}; it must be at least {least}")
        if self.steps and list(self.steps) != sorted(set(self.steps)):
            raise ZooError("steps must be ascending, without repeated values")

    @property
    def _first(self) -> Source:
        """The first run."""
        return opened(self.source[0], self.tensor)

    @cached_property
    def _steps(self) -> tuple[int, ...] | None:
        return self.steps or self._first.steps or None

    @cached_property
    def _shape(self) -> tuple[int, int]:
        return self._first.shape(self._steps[-1] if self._steps else None)

    @cached_property
    def _max_rows(self) -> int | None:
        """Largest number of rows that are coded; None for all."""
        quick = max(QUICK_ROWS, QUICK_ROWS_PER_DIMENSION * self._shape[1]) if self.quick else None
        most = self.max_rows or quick
        return most if most and most < self._shape[0] else None

    @cached_property
    def _atoms(self) -> int:
        V, D = self._shape
        V = self._max_rows or V
        return self.n_atoms or (min(2 * D, V // 4) if self.quick else default_atoms(None, V, D))

    @cached_property
    def _parts(self) -> dict[str, Study | NotTested]:
        first, *others = self.source
        self._check_rows()
        rows: dict[str, Any] = {"source": first, "step": self._steps[-1] if self._steps else None}
        rows |= {"other_runs": tuple(others), "tokens": self.tokens, "keep_untrained": self.keep_untrained}
        rows |= {"tensor": self.tensor}
        limits: dict[str, Any] = {"max_rows": self._max_rows, "row_choice": self.row_choice}
        coded = rows | limits | {"n_atoms": self._atoms, "frequency_power": self.frequency_power, "seeds": self.seeds}
        searched: dict[str, Any] = {
            "families": self.families,
            "null_draws": self.null_draws or (5 if self.quick else 20),
        }
        controls: dict[str, Any] = {"tolerance": self.tolerance}
        at_l0 = compared_at(self._shape[1])
        controls |= {"sparsities": tuple(sorted({max(2, at_l0 // 4), at_l0})), "noises": (0.0,)} if self.quick else {}
        return {
            "untrained-rows": UntrainedRowsStudy(**coded, families=self.families, compare=not self.quick),
            "sparse-rows": LEFT_OUT if self.quick else self._autoencoders(rows | limits),
            "basis-pursuit": BasisPursuit(
                self.source,
                self._steps,
                self._atoms,
                pursuit.PENALTIES,
                frequency_power=self.frequency_power,
                seeds=self.seeds,
                at_l0=compared_at(self._shape[1]),
                gauged=rows_gauged(self._shape[1], self._max_rows),
                tolerance=self.tolerance,
                keep_untrained=self.keep_untrained,
                tokens=self.tokens,
                tensor=self.tensor,
                null_models="covariance-matched" if self.quick else "all",
                **limits,
            ),
            "recognised-superpositions": RecognisedSuperpositions(**coded, **controls),
            "atom-neighbours": self._named(AtomNeighbours(**coded, **searched)),
            "frozen-embedding": self._training(),
            "row-reset": LEFT_OUT if self.quick else self._resets(),
            "description-length": LEFT_OUT if self.quick else DescriptionLength(**coded),
            "binding": self._named(Binding(**rows, **searched)),
            "circles": Circles(**rows, **searched),
        }

    def notes(self) -> Sequence[str]:
        """Return a note if there are fewer atoms than dimensions."""
        if self._atoms >= self._shape[1]:
            return ()
        return [
            f"{self._atoms} atoms do not span the {self._shape[1]} dimensions of the rows: no dictionary has error 0 "
            "at any L0, and there are no positive controls. --n-atoms sets the number of atoms"
        ]

    def parts(self) -> Mapping[str, Study | NotTested]:
        """Return the studies of the rows, of training, and of structure."""
        return self._parts

    def _check_rows(self) -> None:
        V, D = self._shape
        if self._max_rows and self._max_rows < LEAST_ROWS:
            raise ZooError(f"max_rows is {self._max_rows}; it must be at least {LEAST_ROWS}")
        if V < LEAST_ROWS or D < LEAST_DIMENSIONS:
            raise ZooError(
                f"{self.source[0]} has {V} rows in {D} dimensions; the study needs {LEAST_ROWS} in {LEAST_DIMENSIONS}"
            )
        refuse_trivial("n_atoms", self._atoms, self._max_rows or V)
        last = self._steps[-1] if self._steps else None
        if self.frequency_power and self._first.row_counts(last, V) is None:
            raise ZooError(f"how often the tokens of {self.source[0]} occur is not known; leave frequency_power out")
        if not self._max_rows and self.row_choice != "stratified":
            raise ZooError(f"row_choice is {self.row_choice}, but all rows are used; set max_rows too")
        for name in self.source if self._max_rows and self.row_choice == "most frequent" else ():
            if opened(name, self.tensor).row_counts(last, V) is None:
                raise ZooError(f"how often the tokens of {name} occur is not known; use --row-choice stratified")

    def _named(self, study: Study) -> Study | NotTested:
        """Return a study that needs the rows' tokens, or why it cannot be done."""
        known = self.tokens or self._first.token_strings(self._steps[-1] if self._steps else None)
        return study if known else NotTested("The tokens of the rows are not known; add --tokens FILE.")

    def _autoencoders(self, rows: dict[str, Any]) -> Study | NotTested:
        V, D = self._max_rows or self._shape[0], self._shape[1]
        if min(D, self._atoms) < max(BASELINE_L0):
            return NotTested(
                f"Autoencoders have up to {max(BASELINE_L0)} active latents per row, which is more than the number of "
                f"dimensions ({D}) or atoms ({self._atoms})."
            )
        shared: dict[str, Any] = {"frequency_power": self.frequency_power, "seeds": self.seeds}
        if V * self._atoms >= MANY_CODES:  # training takes longer with more latents
            shared["null_models"] = "covariance-matched"
        return SparseRows(**rows, **shared, batch_size=min(512, V), d_sae=self._atoms, variants=("TopK",))

    def _training(self) -> Study | NotTested:
        if self.quick and self.train is None:
            return LEFT_OUT
        train = self.train or (DEFAULT if self.source == (DEFAULT,) and self.tensor is None else None)
        if train is None:
            return NotTested("There is no config of training runs; add --train CONFIG.")
        often = max(1, self.training_steps // 8)
        words = ("--trainer.max_steps", str(self.training_steps), "--trainer.val_check_interval", str(often))
        fit_arguments = (*words, "--trainer.enable_progress_bar", "false")
        return FrozenEmbedding(train, ARMS, ("untied",), self.seeds, fit_arguments, self.margin)

    def _resets(self) -> Study | NotTested:
        source = self._first
        if self.tensor:
            return NotTested("Rows are reset in the network's own token embedding, but --tensor names another matrix.")
        if self.steps and source.steps and self.steps[-1] != source.steps[-1]:
            return NotTested("Rows are reset in the network of the last step, but `steps` ends at an earlier step.")
        try:
            study = RowReset(self.source[0], rows=self.reset_rows)
            study.tasks()
        except ZooError as error:
            why = str(error).partition("; its embedding can be studied")[0]  # which is what is being done
            return NotTested(f"There is no network to fine-tune: {why}.")
        return study

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Return a report with the verdict and the sections of all parts."""
        told = {name: part.verdict.numbers for name, part in parts.items() if isinstance(part, Report)}
        sections = self.sections(parts)
        rows = parts["untrained-rows"]
        subject = rows.subject if isinstance(rows, Report) else ", ".join(self.source)
        if self.tensor:
            subject = f"{subject} The embedding is the tensor {self.tensor}."
        if rounding := (told.get("basis-pursuit") or {}).get("rounding"):
            subject = f"{subject} The rows are dequantised from {rounding['kind']}."
        if self._max_rows:
            subject = f"{subject} Only {self._max_rows:,} rows are coded sparsely: {IN_WORDS[self.row_choice]}."
        if len(self.source) > 1:
            subject = f"{subject} Other runs: {', '.join(self.source[1:])}; only `basis-pursuit` uses them."
        verdict = self._verdict(told, sections)
        trend = next((s.charts[0] for s in sections if s.id == "pretraining" and s.tested), None)
        if trend and verdict.chart:  # the answer has the chart of the trend, so another section has that of the errors
            bars = verdict.chart
            sections = [replace(s, charts=[bars, *s.charts]) if s.id == "basis-pursuit" else s for s in sections]
            verdict = replace(verdict, chart=trend)
        return Report(subject, verdict, sections)

    def _verdict(self, told: Mapping[str, dict[str, Any]], sections: Sequence[Section]) -> Verdict:
        coding, training = told.get("basis-pursuit"), told.get("frozen-embedding")
        same = bool(training) and tuple(training["trained_shape"]) == self._shape  # type: ignore[index]
        gap, arm = (training["gap"], training["cheapest"]) if training and same else (None, None)
        error, null, difference = (coding[k] if coding else UNKNOWN for k in ("error", "null", "difference"))
        limit = coding["limit"] if coding else None
        controls = next(section for section in sections if section.id == "recognised-superpositions")
        searched = told.get("circles") or told.get("binding") or {"findings": [], "false_findings": [], "tests": []}
        found = [line for line in searched["findings"] if line["kind"] in STRUCTURES and line["kind"] in told]
        rounding = coding["rounding"] if coding else None
        floor = (rounding or {}).get("fvu") or 0.0
        measured = Measured(gap, error, null, difference, limit, compared_at(self._shape[1]), self._atoms, floor)
        sentence, numbers = decide(measured, found, self.margin, self.tolerance)
        untested = [] if gap else ["training with a frozen random embedding"]
        untested += [name for name in self._parts if name not in told and name != "frozen-embedding"]
        structure = ", ".join(f"{line['name']} (p {line['adjusted']:.2g})" for line in found) or "none found"
        rows = DESCRIBED.get(str(arm), "")
        loss = f"GPT-2 with frozen {rows} ends {gap} nats above GPT-2 with a learned embedding"
        lines: list[list[str]] = [
            [
                "Does training need the embedding?",
                loss if gap else "",
                f"loss higher by more than {self.margin:g} nats",
                numbers["needed"],
            ],
            [
                "Does sparse coding explain the embedding?",
                f"Sums of {measured.at_l0} of {self._atoms} learned atoms leave {error} of the variance of held-out "
                "rows unexplained (matching pursuit)",
                f"at most {self.tolerance:g}, but more than {self.tolerance:g} for Gaussian rows with the same "
                "covariance",
                numbers["explained"],
            ],
            [
                "Does sparse coding leave less than for Gaussian rows with the same covariance?",
                f"Gaussian rows: {null} unexplained; embedding minus Gaussian rows: {difference}" if coding else "",
                "difference below 0",
                LESS[difference.sign] if coding else "not tested",
            ],
            [
                f"With more pretraining, would sparse coding leave at most {self.tolerance:g}?",
                f"Over the steps of pretraining the error goes to {limit}" if limit else "",
                f"at most {self.tolerance:g}",
                _below(limit, self.tolerance) if limit else self._no_limit,
            ],
            *self._falls((coding or {}).get("trend")),
            [
                "Do tokens lie on circles (such as weekdays), or does a matrix relate them (such as plurals)?",
                structure if searched["tests"] else "",
                f"p below {ALPHA:g}, corrected for {len(searched['tests'])} tests",
                ("yes" if found else "no") if searched["tests"] else "not tested",
            ],
        ]
        if rounding:
            known = ("yes" if error.low > 2 * floor else "no") if floor else "not known"
            lines.append(
                [
                    f"Is this error larger than that of the rounding to {rounding['kind']}?",
                    f"Rounding alone leaves {f'{floor:.2g}' if floor else 'an unknown share'} of the variance",
                    f"the error above {2 * floor:.2g}, twice that of the rounding" if floor else "",
                    known,
                ]
            )
        changes = (told.get("untrained-rows") or {}).get("changes")
        if changes:
            lines.append(["What changes if rows that look untrained are kept?", changes["told"], "", ""])
        table = Table(["question", "result, with 95 % interval", "it is a yes if", "answer"], lines).markdown()
        numbers |= {"at_l0": measured.at_l0, "gap": gap, "arm": arm, "error": error, "null_error": null}
        numbers |= {"difference": difference, "limit": limit, "controls": controls.finding, "rounding": rounding}
        numbers |= {key: searched[key] for key in ("tests", "findings", "false_findings")}
        return Verdict(
            sentence,
            self._certainty(searched),
            table,
            numbers,
            recognised=_recognised(controls),
            not_tested=self._not_tested(untested),
            chart=_chart(measured, controls.numbers.get("lines", []), self.tolerance) if coding else None,
        )

    def _falls(self, trend: Mapping[str, Any] | None) -> list[list[str]]:
        """Return the line of the table on the error over pretraining; none if there is one step."""
        if trend is None or not self._steps:
            return []
        rows = f" (the same {trend['rows']:,} random rows at every step)" if trend["rows"] else ""
        return [
            [
                "Does the error of sparse coding fall over pretraining?",
                f"From step {self._steps[0]:,} to step {self._steps[-1]:,} it changes by {trend['change']}, and by "
                f"{trend['null_change']} for Gaussian rows with the covariance of each step{rows}",
                "change below 0, and no rise in the end",
                trend["falls"],
            ]
        ]

    @property
    def _no_limit(self) -> str:
        return "not tested" if not self._steps or len(self._steps) == 1 else "unknown: no limit can be fitted"

    def _not_tested(self, parts: Sequence[str]) -> str:
        left = f"{listed(parts)} (the reasons are below). " if parts else ""
        left = left[:1].upper() + left[1:]
        return (
            f"{left}Other methods of sparse coding, which may leave less unexplained than matching pursuit. "
            "Superpositions whose coefficients or atoms differ in kind from the planted ones."
        ) + (" Other embeddings than this one." if len(self.source) == 1 else "")

    def _certainty(self, searched: Mapping[str, Any]) -> str:
        from zoo.analysis.structure import false_rate

        runs = len(self.source)
        units = f"{runs} runs of pretraining, of {self.seeds} seeds each" if runs > 1 else f"{self.seeds} seeds"
        one = "" if runs > 1 else " of held-out rows, dictionaries, null models and training runs, for one embedding"
        text = (
            f"Brackets are 95 % Student t intervals over {units}{one}. Yes or no requires a whole interval on one side "
            "of the threshold."
        )
        if searched["false_findings"]:
            text += (
                " Circles and matrices that relate tokens were also searched for in Gaussian rows with the same mean "
                f"and covariance, where any finding is false: {false_rate(searched['false_findings'])}."
            )
        return text


LESS = {"below": "yes", "above": "no, it leaves more", "undecided": "undecided"}


def _below(limit: Estimate, tolerance: float) -> Answer:
    return "yes" if limit.high <= tolerance else "no" if limit.low > tolerance else "undecided"


def _recognised(controls: Section) -> str:
    """Return which superpositions would have been recognised, and what this means for a no."""
    if any(line["recognised"] for line in controls.numbers.get("lines", [])):
        return (
            f"{controls.finding} Superpositions with more atoms per row, more atoms than the dictionary, or more noise "
            "can be missed."
        )
    return f"{controls.finding} The study cannot show that the embedding is no superposition."


def _chart(m: "Measured", planted: Sequence[Mapping[str, Any]], tolerance: float) -> Chart:
    """Draw the errors of the embedding, of Gaussian rows and of planted rows beside the tolerance.

    Args:
        m: The measurements.
        planted: Errors of planted rows, see `zoo.studies.recognised_superpositions`.
        tolerance: FVU up to which rows count as explained.
    """
    noise = max((line["noise"] for line in planted if line["recognised"]), default=0.0)
    errors = {str(line["sparsity"]): line["error"] for line in planted if line["noise"] == noise}
    names = ["this", "Gaussian", *errors]
    level = f"{100 * noise:g} % noise" if noise else "no noise"
    series = [
        Series.of("this embedding", names[:1], [m.error], "bars"),
        Series.of("Gaussian rows, same covariance", names[1:2], [m.null], "bars"),
    ]
    if errors:
        series.append(Series.of(f"planted superpositions, {level}", [*errors], [*errors.values()], "bars"))
    series.append(Series("highest error that counts as explained", names, [tolerance] * len(names), "dashed"))
    return Chart(
        "verdict",
        f"What sums of {m.at_l0} learned atoms leave unexplained",
        series,
        "rows; of planted rows, the number of atoms in each" if errors else "rows",
        "share of the variance",
        caption="Held-out rows; whiskers are 95 % intervals.",
    )


@dataclass(frozen=True)
class Measured:
    """The measurements that the verdict depends on.

    Args:
        gap: Increase of the loss in nats by the frozen random embedding that costs least; None if not tested.
        error: Held-out FVU at the last step.
        null: Held-out FVU of Gaussian rows with the same covariance.
        difference: Difference of `error` and `null`, see `zoo.estimates.difference`.
        limit: Limit of the error over pretraining; None if it was not fitted.
        at_l0: Number of atoms in every row.
        n_atoms: Number of atoms of a dictionary.
        rounding: Error of the rounding of quantised rows, as FVU; 0 if they are not quantised.
    """

    gap: Estimate | None
    error: Estimate
    null: Estimate
    difference: Estimate
    limit: Estimate | None
    at_l0: int
    n_atoms: int
    rounding: float = 0.0


def needed(gap: Estimate | None, margin: float) -> Answer:
    """Return whether training needs the embedding.

    Args:
        gap: See `Measured`.
        margin: Nats above which the gap counts as large.
    """
    if gap is None:
        return "not tested"
    return "yes" if gap.low > margin else "no" if gap.high <= margin else "undecided"


def explained(
    error: Estimate,
    null: Estimate,
    limit: Estimate | None,
    tolerance: float,
    difference: Estimate | None = None,
    rounding: float = 0.0,
) -> Answer:
    """Return whether sparse coding explains the embedding.

    A limit that may lie below the tolerance changes a no to undecided, but never makes a yes: only a measured error
    does. If an error is close to the tolerance and does not differ from that of Gaussian rows, more seeds cannot
    decide; the answer is then "cannot tell". An error that is above the tolerance only because the rows are rounded is
    undecided: no dictionary explains rounding.

    Args:
        error: Held-out FVU, see `Measured`.
        null: Held-out FVU of Gaussian rows, see `Measured`.
        limit: Limit of the error over pretraining; None if it was not fitted.
        tolerance: FVU up to which the embedding counts as explained.
        difference: Difference of `error` and `null`; None if it is not known.
        rounding: Error of the rounding of quantised rows, as FVU.
    """
    if not all(math.isfinite(value) for value in (error.mean, error.low, error.high, null.mean, null.low, null.high)):
        return "not measured"
    if error.high <= tolerance:
        return "yes" if null.low > tolerance else AS_GAUSSIAN
    if error.low - rounding > tolerance:
        return "no" if limit is None or limit.low > tolerance else "undecided"
    if error.low > tolerance:
        return "undecided"
    alike = difference is not None and 0 in difference and null.low <= tolerance
    return AS_GAUSSIAN if alike else "undecided"


def decide(
    measured: Measured, found: Sequence[dict[str, Any]], margin: float, tolerance: float
) -> tuple[str, dict[str, Any]]:
    """Return the verdict in words, and a dict with the case and the answers to both questions.

    Args:
        measured: The measurements.
        found: Circles and matrices that were found, see `zoo.analysis.structure.findings`.
        margin: Threshold of the gap in nats, see `needed`.
        tolerance: Threshold of the FVU, see `explained`.
    """
    m = measured
    answers: tuple[Answer, Answer] = (
        needed(m.gap, margin),
        explained(m.error, m.null, m.limit, tolerance, m.difference, m.rounding),
    )
    open_question = ("undecided", UNDECIDED.get(answers[1], ""))
    case, opening = CASES.get(answers, UNTOLD.get(answers[1], open_question))
    sentences = [_of_coding(m, answers[1], tolerance), _of_training(m.gap, answers[0], margin)]
    structures = [(line["kind"], line["name"]) for line in found if line["kind"] in STRUCTURES]
    if structures:
        sentences.append(f"The embedding also has structure of another kind: {_structure(structures)}.")
    numbers = {"case": case, "needed": answers[0], "explained": answers[1], "structure": [n for _, n in structures]}
    return f"{opening}\n\n{' '.join(sentences)}", numbers


def _of_coding(m: Measured, answer: Answer, tolerance: float) -> str:
    if answer == "not measured":
        return "The error of sparse coding could not be measured."
    sums = f"Sums of {m.at_l0} atoms per row, from a learned dictionary of {m.n_atoms} atoms,"
    leave = f"{sums} leave {m.error} of the variance of held-out rows unexplained"
    if answer == "yes":
        return (
            f"{leave}, and up to {tolerance:g} counts as explained; for Gaussian rows with the same mean and "
            f"covariance it is {m.null}."
        )
    if answer == AS_GAUSSIAN:
        return (
            f"{leave}. For Gaussian rows with the same mean and covariance the error may be as small ({m.null}): with "
            "so many atoms for so few dimensions a small error is no evidence, and more seeds would not change that."
        )
    if answer == "no":
        return f"{leave}; up to {tolerance:g} would count as explained."
    if m.rounding and m.error.low > tolerance >= m.error.low - m.rounding:
        return (
            f"{leave}; up to {tolerance:g} would count as explained, but the rounding of the rows alone leaves "
            f"{m.rounding:.2g}: rows that are not quantised are needed to decide."
        )
    if m.limit is not None and m.error.low > tolerance:
        return (
            f"{leave}; up to {tolerance:g} would count as explained. With more pretraining the error may fall below "
            f"this (limit {m.limit}): later checkpoints are needed."
        )
    return f"{leave}; more seeds are needed to decide whether this is at most {tolerance:g}, which counts as explained."


def _of_training(gap: Estimate | None, answer: Answer, margin: float) -> str:
    if gap is None:
        return "Whether training needs this embedding was not tested."
    costs = (
        f"GPT-2 with the best frozen random embedding ends {gap} nats above GPT-2 that learns its embedding; more than "
        f"{margin:g} nats count as needing it."
    )
    return costs if answer in ("yes", "no") else f"{costs} More seeds are needed to decide this."


def _structure(structures: Sequence[tuple[str, str]]) -> str:
    kinds = {kind: [name for own, name in structures if own == kind] for kind in STRUCTURES}
    return "; ".join(STRUCTURES[kind].format(listed(names)) for kind, names in kinds.items() if names)
