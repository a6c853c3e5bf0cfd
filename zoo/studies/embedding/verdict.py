"""The decision: is what an embedding learns explained by superposition?

Two questions decide. Does training need the embedding: is the validation loss with a frozen random one higher by more
than a margin? Does sparse coding explain it: is the error at a small L0 below a tolerance, where that of Gaussian rows
with the same covariance is not? An answer is yes or no only if a whole 95 % interval lies on one side of its threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.studies.embedding.numbers import Interval, spelled

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
STRUCTURES = {"A8": "a matrix relates the rows of {}", "A9": "{} on a circle"}


@dataclass(frozen=True)
class Measured:
    """What the decision rests on.

    Args:
        gap: Interval of what the cheapest frozen random embedding costs, in nats; None if that was not tested.
        error: Of the held-out FVU at the last step.
        null: The same of Gaussian rows with the same covariance.
        difference: Of the two, see `numbers.difference`.
        limit: Of the error over pretraining, if one was fitted.
        at_l0: Atoms in every row.
        n_atoms: Of a dictionary.
    """

    gap: Interval | None
    error: Interval
    null: Interval
    difference: Interval
    limit: Interval | None
    at_l0: int
    n_atoms: int


def needed(gap: Interval | None, margin: float) -> Answer:
    """Whether training needs the embedding.

    Args:
        gap: See `Measured`.
        margin: Nats above which that is much.
    """
    if gap is None:
        return "not tested"
    return "yes" if gap["low"] > margin else "no" if gap["high"] <= margin else "undecided"


def explained(
    error: Interval, null: Interval, limit: Interval | None, tolerance: float, difference: Interval | None = None
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
    if not all(math.isfinite(value) for value in (*error.values(), *null.values())):
        return "not measured"
    if error["high"] <= tolerance:
        return "yes" if null["low"] > tolerance else "as a Gaussian's"
    if error["low"] > tolerance:
        return "no" if limit is None or limit["low"] > tolerance else "undecided"
    alike = difference is not None and difference["low"] <= 0 <= difference["high"]
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
    structures = [(line["experiment"], line["name"]) for line in found if line["experiment"] in STRUCTURES]
    if structures:
        sentences.append(f"The embedding also holds structure of another kind: {_structure(structures)}.")
    numbers = {"case": case, "needed": answers[0], "explained": answers[1], "structure": [n for _, n in structures]}
    return " ".join(sentences), numbers


def _of_coding(m: Measured, answer: Answer, tolerance: float) -> str:
    if answer == "not measured":
        return "The error of sparse coding could not be measured."
    sums = f"Sums of {m.at_l0} of {m.n_atoms} learned atoms"
    leave = f"{sums} leave {spelled(m.error)} of the variance of rows that they were not learned from unexplained"
    if answer == "yes":
        return (
            f"{leave}, less than the {tolerance:g} allowed; of Gaussian rows with the same mean and covariance they "
            f"leave {spelled(m.null)}."
        )
    if answer == "as a Gaussian's":
        return (
            f"{leave}, but of Gaussian rows with the same mean and covariance no more, {spelled(m.null)}: with so many "
            "atoms for so few dimensions a small error says nothing, and more seeds would not change that."
        )
    if answer == "no":
        return f"{leave}, more than the {tolerance:g} allowed."
    if m.limit is not None and m.error["low"] > tolerance:
        return (
            f"{leave}, more than the {tolerance:g} allowed, but with more pretraining the error may fall below it "
            f"(limit {spelled(m.limit)}): later checkpoints are needed."
        )
    return f"{leave}; whether that is less than the {tolerance:g} allowed, more seeds would tell."


def _of_training(gap: Interval | None, answer: Answer, margin: float) -> str:
    if gap is None:
        return "Whether training needs this embedding was not tested."
    costs = f"GPT-2 trained with a frozen random embedding ends {spelled(gap)} nats above one that learns it"
    if answer == "yes":
        return f"{costs}, more than the {margin:g} that count as much."
    if answer == "no":
        return f"{costs}, no more than the {margin:g} that count as much."
    return f"{costs}; whether that is more than the {margin:g} that count as much, more seeds would tell."


def _structure(structures: Sequence[tuple[str, str]]) -> str:
    kinds = {kind: [name for own, name in structures if own == kind] for kind in STRUCTURES}
    return "; ".join(STRUCTURES[kind].format(_listed(names)) for kind, names in kinds.items() if names)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
