"""What does a token embedding contain that superposition does not explain?

The verdict depends on two questions. Does training need the embedding: is the validation loss higher by more than a
margin if the embedding is random and frozen? Does sparse coding explain the embedding: is the error at a small L0 below
a tolerance, while the error of Gaussian rows with the same covariance is above it? An answer is yes or no only if the
whole 95 % interval lies on one side of the threshold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveInt

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate
from zoo.report import Report, Section, Verdict
from zoo.shared_tasks import pursuit
from zoo.shared_tasks.pursuit import LEAST_ATOMS, compared_at, default_atoms, rows_gauged
from zoo.shared_tasks.rows import LEAST_DIMENSIONS, LEAST_ROWS, opened, refuse_trivial
from zoo.shared_tasks.structure import ALPHA
from zoo.source import Source
from zoo.studies.atom_neighbours import AtomNeighbours
from zoo.studies.basis_pursuit import BasisPursuit
from zoo.studies.binding import Binding
from zoo.studies.circles import Circles
from zoo.studies.description_length import DescriptionLength
from zoo.studies.frozen_embedding import FrozenEmbedding
from zoo.studies.recognised_superpositions import RecognisedSuperpositions
from zoo.studies.row_reset import RowReset
from zoo.studies.sparse_rows import BASELINE_L0, SparseRows
from zoo.studies.untrained_rows import UntrainedRowsStudy
from zoo.study import AtLeastTwo, NotTested, Study
from zoo.wording import listed

DEFAULT = "gpt2-mini.learned"
ARMS = ("learned", "frozen Gaussian", "frozen norm-matched", "frozen covariance-matched", "frozen copied")
LEAST = {"null_draws": 5, "training_steps": 8, "reset_rows": 8, "n_atoms": LEAST_ATOMS}

Answer = Literal["yes", "no", "undecided", "not tested", "as a Gaussian's", "not measured"]
CASES: dict[tuple[Answer, Answer], tuple[str, str]] = {  # by answers: does training need it, is it explained
    ("yes", "yes"): ("explained by superposition", "The embedding is explained by superposition."),
    ("yes", "no"): (
        "structure outside superposition",
        "The embedding is not explained by superposition, as far as this was tested, although training needs it.",
    ),
    ("no", "yes"): (
        "explained, and hardly needed",
        "The embedding is explained by superposition, but training hardly needs it.",
    ),
    ("no", "no"): (
        "not sparse, and hardly needed",
        "The embedding is not explained by superposition, but training hardly needs it, so the unexplained part may "
        "be random.",
    ),
    ("not tested", "yes"): ("explained by superposition", "The embedding is explained by superposition."),
    ("not tested", "no"): (
        "not explained by sparse coding",
        "The embedding is not explained by superposition, as far as this was tested.",
    ),
}
UNDECIDED = ("undecided", "The verdict is undecided.")
UNTOLD = {
    "as a Gaussian's": ("the error tells nothing", "No conclusion: sparse coding fits Gaussian rows equally well."),
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
        train: Config of the training runs that compare a learned embedding with frozen ones. By default the config of
            gpt2-mini.learned if that is the source; otherwise there are no training runs, and training is not tested.
        training_steps: Number of optimizer steps of the training runs.
        n_atoms: Number of atoms of a dictionary; by default 4 per dimension, and at most half the number of rows.
        frequency_power: Each row is weighted by p^power, where p is the frequency of its token.
        seeds: Number of dictionaries per matrix, and of training runs and autoencoders per arm.
        null_draws: Number of draws of the covariance-matched null model that are searched for circles and binding.
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
    train: str | None = None
    training_steps: PositiveInt = 640
    n_atoms: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    null_draws: PositiveInt = 20
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
    def _atoms(self) -> int:
        return default_atoms(self.n_atoms, *self._shape)

    @cached_property
    def _parts(self) -> dict[str, Study | NotTested]:
        first, *others = self.source
        self._check_rows()
        rows: dict[str, Any] = {"source": first, "step": self._steps[-1] if self._steps else None}
        rows |= {"other_runs": tuple(others), "tokens": self.tokens, "keep_untrained": self.keep_untrained}
        rows |= {"tensor": self.tensor}
        coded = rows | {"n_atoms": self._atoms, "frequency_power": self.frequency_power, "seeds": self.seeds}
        searched = {"families": self.families, "null_draws": self.null_draws}
        return {
            "untrained-rows": UntrainedRowsStudy(**coded, families=self.families),
            "sparse-rows": self._autoencoders(rows),
            "basis-pursuit": BasisPursuit(
                self.source,
                self._steps,
                self._atoms,
                pursuit.PENALTIES,
                pursuit.DICTIONARY_STEPS,
                frequency_power=self.frequency_power,
                seeds=self.seeds,
                at_l0=compared_at(self._shape[1]),
                gauged=rows_gauged(self._shape[1]),
                tolerance=self.tolerance,
                keep_untrained=self.keep_untrained,
                tokens=self.tokens,
                tensor=self.tensor,
            ),
            "recognised-superpositions": RecognisedSuperpositions(**coded, tolerance=self.tolerance),
            "atom-neighbours": self._named(AtomNeighbours(**coded, **searched)),
            "frozen-embedding": self._training(),
            "row-reset": self._resets(),
            "description-length": DescriptionLength(**coded),
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
        if V < LEAST_ROWS or D < LEAST_DIMENSIONS:
            raise ZooError(
                f"{self.source[0]} has {V} rows in {D} dimensions; the study needs {LEAST_ROWS} in {LEAST_DIMENSIONS}"
            )
        refuse_trivial("n_atoms", self._atoms, V)
        last = self._steps[-1] if self._steps else None
        if self.frequency_power and self._first.row_counts(last, V) is None:
            raise ZooError(f"how often the tokens of {self.source[0]} occur is not known; leave frequency_power out")

    def _named(self, study: Study) -> Study | NotTested:
        """Return a study that needs the rows' tokens, or why it cannot be done."""
        known = self.tokens or self._first.token_strings(self._steps[-1] if self._steps else None)
        return study if known else NotTested("The tokens of the rows are not known; add --tokens FILE.")

    def _autoencoders(self, rows: dict[str, Any]) -> Study | NotTested:
        V, D = self._shape
        if min(D, self._atoms) < max(BASELINE_L0):
            return NotTested(
                f"Autoencoders have up to {max(BASELINE_L0)} active latents per row, which is more than the number of "
                f"dimensions ({D}) or atoms ({self._atoms})."
            )
        shared = {"frequency_power": self.frequency_power, "seeds": self.seeds, "batch_size": min(512, V)}
        return SparseRows(**rows, **shared, d_sae=self._atoms, variants=("TopK",))

    def _training(self) -> Study | NotTested:
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
            return NotTested(f"There is no network to fine-tune: {error}.")
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
        if len(self.source) > 1:
            subject = f"{subject} Other runs: {', '.join(self.source[1:])}; only `basis-pursuit` uses them."
        return Report(subject, self._verdict(told, sections), sections)

    def _verdict(self, told: Mapping[str, dict[str, Any]], sections: Sequence[Section]) -> Verdict:
        coding, training = told.get("basis-pursuit"), told.get("frozen-embedding")
        same = bool(training) and tuple(training["trained_shape"]) == self._shape  # type: ignore[index]
        gap, arm = (training["gap"], training["cheapest"]) if training and same else (None, None)
        error, null, difference = (coding[k] if coding else UNKNOWN for k in ("error", "null", "difference"))
        limit = coding["limit"] if coding else None
        searched = told.get("circles") or told.get("binding") or {"findings": [], "false_findings": [], "tests": []}
        found = [line for line in searched["findings"] if line["kind"] in STRUCTURES and line["kind"] in told]
        rounding = coding["rounding"] if coding else None
        floor = (rounding or {}).get("fvu") or 0.0
        measured = Measured(gap, error, null, difference, limit, compared_at(self._shape[1]), self._atoms, floor)
        sentence, numbers = decide(measured, found, self.margin, self.tolerance)
        controls = next(s.finding for s in sections if s.id == "recognised-superpositions")
        untested = [] if gap else ["training with a frozen random embedding"]
        untested += [name for name in self._parts if name not in told and name != "frozen-embedding"]
        going = "not tested" if not self._steps or len(self._steps) == 1 else "a limit cannot be fitted"
        structure = ", ".join(f"{line['name']} (p {line['adjusted']:.2g})" for line in found) or "nothing"
        lines = [
            "| question | measured | threshold | answer |",
            "|---|---|---|---|",
            f"| Does training need the embedding? | {f'{arm}: loss higher by {gap} nats' if gap else 'not tested'} | "
            f"{self.margin:g} nats | {numbers['needed']} |",
            f"| Does sparse coding explain the embedding? | held-out FVU {error} with {measured.at_l0} of "
            f"{self._atoms} atoms in every row, by matching pursuit, all rows weighted equally | {self.tolerance:g} | "
            f"{numbers['explained']} |",
            f"| Which limit does this error have over pretraining? | {f'limit {limit}' if limit else going} | "
            f"{self.tolerance:g} | |",
            f"| Is this error smaller than that of Gaussian rows with the same covariance? | Gaussian rows {null}, "
            f"difference {difference} | 0 | {LESS[difference.sign] if coding else 'not tested'} |",
            f"| Which superpositions would have been recognised? | {controls} | {self.tolerance:g} | |",
            f"| Are there circles, or matrices that relate tokens? | {structure} | adjusted p {ALPHA:g} | "
            f"{('yes' if found else 'no') if searched['tests'] else 'not tested'} |",
        ]
        if rounding:
            known = ("yes" if error.low > 2 * floor else "no") if floor else "not known"
            lines.append(
                f"| Is this error more than twice that of the rounding to {rounding['kind']}? | held-out FVU {error}; "
                f"error of the rounding {f'{floor:.2g}' if floor else 'not known'} | "
                f"{f'{2 * floor:.2g}' if floor else ''} | {known} |"
            )
        changes = (told.get("untrained-rows") or {}).get("changes")
        if changes:
            lines.append(f"| What changes if rows that look untrained are kept? | {changes['told']} | | |")
        numbers |= {"at_l0": measured.at_l0, "gap": gap, "arm": arm, "error": error, "null_error": null}
        numbers |= {"difference": difference, "limit": limit, "controls": controls, "rounding": rounding}
        numbers |= {key: searched[key] for key in ("tests", "findings", "false_findings")}
        return Verdict(sentence, self._certainty(controls, searched, untested), "\n".join(lines), numbers)

    def _certainty(self, controls: str, searched: Mapping[str, Any], untested: Sequence[str]) -> str:
        from zoo.analysis.structure import false_rate

        runs = len(self.source)
        units = f"{runs} runs of pretraining, of {self.seeds} seeds each" if runs > 1 else f"{self.seeds} seeds"
        one = "" if runs > 1 else " (of held-out rows, dictionaries, null models and training runs; one embedding)"
        text = f"Brackets are 95 % Student t intervals; the intervals of errors are over {units}{one}. {controls}"
        if searched["false_findings"]:
            text += (
                " Circles and matrices that relate tokens were also searched for in Gaussian null models with the same "
                f"mean and covariance: {false_rate(searched['false_findings'])}."
            )
        return (
            text
            + (f" Not tested: {', '.join(untested)}." if untested else "")
            + " A superposition can also have an error above the tolerance, if it has more atoms per row, more atoms "
            "than the dictionaries, or more noise than the superpositions that would have been recognised."
        )


LESS = {"below": "yes", "above": "no, it is larger", "undecided": "undecided"}


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
    decide; the answer is then "as a Gaussian's". An error that is above the tolerance only because the rows are rounded
    is undecided: no dictionary explains rounding.

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
        return "yes" if null.low > tolerance else "as a Gaussian's"
    if error.low - rounding > tolerance:
        return "no" if limit is None or limit.low > tolerance else "undecided"
    if error.low > tolerance:
        return "undecided"
    alike = difference is not None and 0 in difference
    return "as a Gaussian's" if alike else "undecided"


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
    case, opening = CASES.get(answers, UNTOLD.get(answers[1], UNDECIDED))
    sentences = [opening, _of_coding(m, answers[1], tolerance), _of_training(m.gap, answers[0], margin)]
    structures = [(line["kind"], line["name"]) for line in found if line["kind"] in STRUCTURES]
    if structures:
        sentences.append(f"The embedding also has structure of another kind: {_structure(structures)}.")
    numbers = {"case": case, "needed": answers[0], "explained": answers[1], "structure": [n for _, n in structures]}
    return " ".join(sentences), numbers


def _of_coding(m: Measured, answer: Answer, tolerance: float) -> str:
    if answer == "not measured":
        return "The error of sparse coding could not be measured."
    sums = f"Sums of {m.at_l0} of {m.n_atoms} learned atoms"
    leave = f"{sums} leave {m.error} of the variance of held-out rows unexplained"
    if answer == "yes":
        return (
            f"{leave}, which is below the tolerance of {tolerance:g}; for Gaussian rows with the same mean and "
            f"covariance it is {m.null}."
        )
    if answer == "as a Gaussian's":
        return (
            f"{leave}. For Gaussian rows with the same mean and covariance the error may be as small ({m.null}): with "
            "so many atoms for so few dimensions a small error is no evidence, and more seeds would not change that."
        )
    if answer == "no":
        return f"{leave}, which is above the tolerance of {tolerance:g}."
    if m.rounding and m.error.low > tolerance >= m.error.low - m.rounding:
        return (
            f"{leave}, which is above the tolerance of {tolerance:g}, but the rounding of the rows alone has an error "
            f"of {m.rounding:.2g}: rows that are not quantised are needed to decide."
        )
    if m.limit is not None and m.error.low > tolerance:
        return (
            f"{leave}, which is above the tolerance of {tolerance:g}. With more pretraining the error may fall below "
            f"it (limit {m.limit}): later checkpoints are needed."
        )
    return f"{leave}; more seeds are needed to decide whether this is below the tolerance of {tolerance:g}."


def _of_training(gap: Estimate | None, answer: Answer, margin: float) -> str:
    if gap is None:
        return "Whether training needs this embedding was not tested."
    costs = f"The final loss of GPT-2 with a frozen random embedding is {gap} nats above that with a learned embedding"
    if answer == "yes":
        return f"{costs}, which is more than the margin of {margin:g}."
    if answer == "no":
        return f"{costs}, which is not more than the margin of {margin:g}."
    return f"{costs}; more seeds are needed to decide whether this is more than the margin of {margin:g}."


def _structure(structures: Sequence[tuple[str, str]]) -> str:
    kinds = {kind: [name for own, name in structures if own == kind] for kind in STRUCTURES}
    return "; ".join(STRUCTURES[kind].format(listed(names)) for kind, names in kinds.items() if names)
