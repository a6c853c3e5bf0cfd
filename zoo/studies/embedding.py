"""What does a token embedding contain that superposition does not explain?

Two questions decide. Does training need the embedding: is the validation loss with a frozen random one higher by more
than a margin? Does sparse coding explain it: is the error at a small L0 below a tolerance, where that of Gaussian rows
with the same covariance is not? An answer is yes or no only if a whole 95 % interval lies on one side of its threshold.
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
CASES: dict[tuple[Answer, Answer], tuple[str, str]] = {  # does training need it, does sparse coding explain it
    ("yes", "yes"): ("explained by superposition", "Explained by superposition."),
    ("yes", "no"): (
        "structure outside superposition",
        "Not explained by superposition, as far as this was tested, although training needs it.",
    ),
    ("no", "yes"): ("explained, and hardly needed", "Explained by superposition, but training hardly needs it."),
    ("no", "no"): (
        "not sparse, and hardly needed",
        "Not explained by superposition, but training hardly needs it, so what is unexplained need not be learned.",
    ),
    ("not tested", "yes"): ("explained by superposition", "Explained by superposition."),
    ("not tested", "no"): (
        "not explained by sparse coding",
        "Not explained by superposition, as far as this was tested.",
    ),
}
UNDECIDED = ("undecided", "Undecided.")
UNTOLD = {
    "as a Gaussian's": ("the error tells nothing", "Sparse coding cannot tell."),
    "not measured": ("not measured", "Nothing is decided."),
}
STRUCTURES = {"binding": "a matrix relates the rows of {}", "circles": "{} on a circle"}


@dataclass(frozen=True)
class Embedding(Study):
    """All studies of one embedding, and the verdict over them.

    Args:
        source: The embeddings of one or several runs of pretraining: what `zoo.embedding` takes, or a name with {step}
            in it where every step has a name of its own.
        steps: Of pretraining, ascending; all that the source holds by default.
        tokens: File with the rows' tokens, for a source that has none: .txt with a token per line, or .json.
        train: Config of the runs that learned and frozen embeddings are compared by. By default that of
            gpt2-mini.learned, if that is what is studied, and otherwise none: training is then not tested.
        training_steps: Optimizer steps of these runs.
        n_atoms: Atoms of a dictionary; by default 4 per dimension, and at most half as many as rows.
        frequency_power: Rows have weight p^power of their token's frequency p.
        seeds: Runs, dictionaries and autoencoders per arm.
        null_draws: Draws of the covariance-matched null model that are searched for circles and binding.
        reset_rows: Rows that are reset one at a time.
        keep_untrained: Whether rows that look untrained are studied too.
        margin: Nats above which a frozen embedding is much worse.
        tolerance: FVU below which sparse coding leaves nothing much unexplained.
        families: File with families of tokens in a known order, beside the zoo's: YAML or JSON.
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
    aliases = {"embedding": "source"}  # noqa: RUF012

    def check(self) -> None:
        """Refuse numbers that are too small, and steps out of order."""
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ZooError(f"{name} is {value}; it must be at least {least}")
        if self.steps and list(self.steps) != sorted(set(self.steps)):
            raise ZooError("steps must be ascending, each given once")

    @cached_property
    def _steps(self) -> tuple[int, ...] | None:
        return self.steps or opened(self.source[0]).steps or None

    @cached_property
    def _shape(self) -> tuple[int, int]:
        return opened(self.source[0]).shape(self._steps[-1] if self._steps else None)

    @cached_property
    def _atoms(self) -> int:
        return default_atoms(self.n_atoms, *self._shape)

    @cached_property
    def _parts(self) -> dict[str, Study | NotTested]:
        first, *others = self.source
        self._check_rows()
        rows: dict[str, Any] = {"source": first, "step": self._steps[-1] if self._steps else None}
        rows |= {"other_runs": tuple(others), "tokens": self.tokens, "keep_untrained": self.keep_untrained}
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
        """That there are fewer atoms than dimensions."""
        if self._atoms >= self._shape[1]:
            return ()
        return [
            f"{self._atoms} atoms do not span the {self._shape[1]} dimensions of the rows, so no dictionary has error "
            "0 at any L0, and there are no positive controls; --n-atoms sets their number"
        ]

    def parts(self) -> Mapping[str, Study | NotTested]:
        """The studies of the rows, of training, and of structure."""
        return self._parts

    def _check_rows(self) -> None:
        V, D = self._shape
        if V < LEAST_ROWS or D < LEAST_DIMENSIONS:
            raise ZooError(
                f"{self.source[0]} has {V} rows in {D} dimensions; the study needs {LEAST_ROWS} in {LEAST_DIMENSIONS}"
            )
        refuse_trivial("n_atoms", self._atoms, V)
        last = self._steps[-1] if self._steps else None
        if self.frequency_power and opened(self.source[0]).row_counts(last, V) is None:
            raise ZooError(f"how often the tokens of {self.source[0]} occur is not known; leave frequency_power out")

    def _named(self, study: Study) -> Study | NotTested:
        """A study that needs the tokens' names."""
        known = self.tokens or opened(self.source[0]).token_strings(self._steps[-1] if self._steps else None)
        return study if known else NotTested("The tokens of the rows are not known; give --tokens.")

    def _autoencoders(self, rows: dict[str, Any]) -> Study | NotTested:
        V, D = self._shape
        if min(D, self._atoms) < max(BASELINE_L0):
            return NotTested(
                f"It turns on up to {max(BASELINE_L0)} latents, more than there are dimensions ({D}) or atoms "
                f"({self._atoms})."
            )
        shared = {"frequency_power": self.frequency_power, "seeds": self.seeds, "batch_size": min(512, V)}
        return SparseRows(**rows, **shared, d_sae=self._atoms, variants=("TopK",))

    def _training(self) -> Study | NotTested:
        train = self.train or (DEFAULT if self.source == (DEFAULT,) else None)
        if train is None:
            return NotTested("No training runs: give --train CONFIG.")
        often = max(1, self.training_steps // 8)
        words = ("--trainer.max_steps", str(self.training_steps), "--trainer.val_check_interval", str(often))
        fit_arguments = (*words, "--trainer.enable_progress_bar", "false")
        return FrozenEmbedding(train, ARMS, ("untied",), self.seeds, fit_arguments, self.margin)

    def _resets(self) -> Study | NotTested:
        source = opened(self.source[0])
        if self.steps and source.steps and self.steps[-1] != source.steps[-1]:
            return NotTested("Rows are reset in a network at its last step, and the study ends at another.")
        try:
            study = RowReset(self.source[0], rows=self.reset_rows)
            study.tasks()
        except ZooError as error:
            return NotTested(f"No network to fine-tune: {error}.")
        return study

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """The verdict."""
        told = {name: part.verdict.numbers for name, part in parts.items() if isinstance(part, Report)}
        sections = self.sections(parts)
        rows = parts["untrained-rows"]
        subject = rows.subject if isinstance(rows, Report) else ", ".join(self.source)
        if len(self.source) > 1:
            subject = f"{subject} Other runs: {', '.join(self.source[1:])}; all but `basis-pursuit` look at the first."
        return Report(subject, self._verdict(told, sections), sections)

    def _verdict(self, told: Mapping[str, dict[str, Any]], sections: Sequence[Section]) -> Verdict:
        coding, training = told.get("basis-pursuit"), told.get("frozen-embedding")
        same = bool(training) and tuple(training["trained_shape"]) == self._shape  # type: ignore[index]
        gap, arm = (training["gap"], training["cheapest"]) if training and same else (None, None)
        error, null, difference = (coding[k] if coding else UNKNOWN for k in ("error", "null", "difference"))
        limit = coding["limit"] if coding else None
        searched = told.get("circles") or told.get("binding") or {"findings": [], "false_findings": [], "tests": []}
        found = [line for line in searched["findings"] if line["kind"] in STRUCTURES and line["kind"] in told]
        measured = Measured(gap, error, null, difference, limit, compared_at(self._shape[1]), self._atoms)
        sentence, numbers = decide(measured, found, self.margin, self.tolerance)
        controls = next(s.finding for s in sections if s.id == "recognised-superpositions")
        untested = [] if gap else ["training with a frozen random embedding"]
        untested += [name for name in self._parts if name not in told and name != "frozen-embedding"]
        going = "not tested" if not self._steps or len(self._steps) == 1 else "no limit can be fitted"
        structure = ", ".join(f"{line['name']} (p {line['adjusted']:.2g})" for line in found) or "nothing"
        lines = [
            "| question | measured | threshold | answer |",
            "|---|---|---|---|",
            f"| Does training need the embedding? | {f'{arm}: {gap} nats more' if gap else 'not tested'} | "
            f"{self.margin:g} nats | {numbers['needed']} |",
            f"| Does sparse coding explain it? | held-out FVU {error} with {measured.at_l0} of {self._atoms} atoms in "
            f"every row, by matching pursuit, every row counted alike | {self.tolerance:g} | {numbers['explained']} |",
            f"| Where is that error going over pretraining? | {f'limit {limit}' if limit else going} | "
            f"{self.tolerance:g} | |",
            f"| Is it less than that of Gaussian rows with the same covariance? | {null} for these, difference "
            f"{difference} | 0 | {LESS[difference.sign] if coding else 'not tested'} |",
            f"| Which superpositions would have been recognised? | {controls} | {self.tolerance:g} | |",
            f"| Is there structure that sparse coding does not look for? | {structure} | adjusted p {ALPHA:g} | "
            f"{('yes' if found else 'no') if searched['tests'] else 'not tested'} |",
        ]
        changes = (told.get("untrained-rows") or {}).get("changes")
        if changes:
            lines.append(f"| What changes if untrained rows are kept? | {changes['told']} | | |")
        numbers |= {"at_l0": measured.at_l0, "gap": gap, "arm": arm, "error": error, "null_error": null}
        numbers |= {"difference": difference, "limit": limit, "controls": controls}
        numbers |= {key: searched[key] for key in ("tests", "findings", "false_findings")}
        return Verdict(sentence, self._certainty(controls, searched, untested), "\n".join(lines), numbers)

    def _certainty(self, controls: str, searched: Mapping[str, Any], untested: Sequence[str]) -> str:
        from zoo.analysis.structure import false_rate

        runs = len(self.source)
        units = f"{runs} runs of pretraining, of {self.seeds} seeds each" if runs > 1 else f"{self.seeds} seeds"
        one = "" if runs > 1 else " (of held-out rows, dictionaries, null models and trained networks; one embedding)"
        text = f"Brackets are 95 % intervals, Student t; those of errors are over {units}{one}. {controls}"
        if searched["false_findings"]:
            text += (
                " The same search for circles and matrices was made in Gaussian null models with the same mean and "
                f"covariance: {false_rate(searched['false_findings'])}."
            )
        return (
            text
            + (f" Not tested: {', '.join(untested)}." if untested else "")
            + " An error above the tolerance can also come from a superposition of more atoms a row, of more atoms "
            "than the dictionaries have, or with more noise than those that would have been recognised."
        )


LESS = {"below": "yes", "above": "no, it is more", "undecided": "not told apart"}


@dataclass(frozen=True)
class Measured:
    """What the decision rests on.

    Args:
        gap: What the cheapest frozen random embedding costs, in nats; None if that was not tested.
        error: Of the held-out FVU at the last step.
        null: The same of Gaussian rows with the same covariance.
        difference: Of the two, see `zoo.estimates.difference`.
        limit: Of the error over pretraining, if one was fitted.
        at_l0: Atoms in every row.
        n_atoms: Of a dictionary.
    """

    gap: Estimate | None
    error: Estimate
    null: Estimate
    difference: Estimate
    limit: Estimate | None
    at_l0: int
    n_atoms: int


def needed(gap: Estimate | None, margin: float) -> Answer:
    """Whether training needs the embedding.

    Args:
        gap: See `Measured`.
        margin: Nats above which that is much.
    """
    if gap is None:
        return "not tested"
    return "yes" if gap.low > margin else "no" if gap.high <= margin else "undecided"


def explained(
    error: Estimate, null: Estimate, limit: Estimate | None, tolerance: float, difference: Estimate | None = None
) -> Answer:
    """Whether sparse coding explains the embedding.

    A limit that may lie below the tolerance takes back a no, and never makes a yes: that has to be measured. An error
    about as large as the tolerance that does not differ from a Gaussian's stays undecided with any number of seeds.

    Args:
        error: See `Measured`, as for `null`, `limit` and `difference`.
        null: Of Gaussian rows.
        limit: Of the error over pretraining.
        tolerance: FVU below which nothing much is left.
        difference: Of error and null, if known.
    """
    if not all(math.isfinite(value) for value in (error.mean, error.low, error.high, null.mean, null.low, null.high)):
        return "not measured"
    if error.high <= tolerance:
        return "yes" if null.low > tolerance else "as a Gaussian's"
    if error.low > tolerance:
        return "no" if limit is None or limit.low > tolerance else "undecided"
    alike = difference is not None and 0 in difference
    return "as a Gaussian's" if alike else "undecided"


def decide(
    measured: Measured, found: Sequence[dict[str, Any]], margin: float, tolerance: float
) -> tuple[str, dict[str, Any]]:
    """The verdict in plain words, and the case with the answers to both questions.

    Args:
        measured: What was measured.
        found: Structure of other kinds that was found, see `structure.findings`.
        margin: In nats, see `needed`.
        tolerance: Of the FVU, see `explained`.
    """
    m = measured
    answers: tuple[Answer, Answer] = (
        needed(m.gap, margin),
        explained(m.error, m.null, m.limit, tolerance, m.difference),
    )
    case, opening = CASES.get(answers, UNTOLD.get(answers[1], UNDECIDED))
    sentences = [opening, _of_coding(m, answers[1], tolerance), _of_training(m.gap, answers[0], margin)]
    structures = [(line["kind"], line["name"]) for line in found if line["kind"] in STRUCTURES]
    if structures:
        sentences.append(f"The embedding also holds structure of another kind: {_structure(structures)}.")
    numbers = {"case": case, "needed": answers[0], "explained": answers[1], "structure": [n for _, n in structures]}
    return " ".join(sentences), numbers


def _of_coding(m: Measured, answer: Answer, tolerance: float) -> str:
    if answer == "not measured":
        return "The error of sparse coding could not be measured."
    sums = f"Sums of {m.at_l0} of {m.n_atoms} learned atoms"
    leave = f"{sums} leave {m.error} of the variance of rows that they were not learned from unexplained"
    if answer == "yes":
        return (
            f"{leave}, less than the {tolerance:g} allowed; of Gaussian rows with the same mean and covariance they "
            f"leave {m.null}."
        )
    if answer == "as a Gaussian's":
        return (
            f"{leave}, but of Gaussian rows with the same mean and covariance no more, {m.null}: with so many "
            "atoms for so few dimensions a small error says nothing, and more seeds would not change that."
        )
    if answer == "no":
        return f"{leave}, more than the {tolerance:g} allowed."
    if m.limit is not None and m.error.low > tolerance:
        return (
            f"{leave}, more than the {tolerance:g} allowed, but with more pretraining the error may fall below it "
            f"(limit {m.limit}): later checkpoints are needed."
        )
    return f"{leave}; whether that is less than the {tolerance:g} allowed, more seeds would tell."


def _of_training(gap: Estimate | None, answer: Answer, margin: float) -> str:
    if gap is None:
        return "Whether training needs this embedding was not tested."
    costs = f"GPT-2 trained with a frozen random embedding ends {gap} nats above one that learns it"
    if answer == "yes":
        return f"{costs}, more than the {margin:g} that count as much."
    if answer == "no":
        return f"{costs}, no more than the {margin:g} that count as much."
    return f"{costs}; whether that is more than the {margin:g} that count as much, more seeds would tell."


def _structure(structures: Sequence[tuple[str, str]]) -> str:
    kinds = {kind: [name for own, name in structures if own == kind] for kind in STRUCTURES}
    return "; ".join(STRUCTURES[kind].format(listed(names)) for kind, names in kinds.items() if names)
