"""The decision (E0): is what an embedding learns explained by superposition?

Two questions decide. Does training need the embedding: is the validation loss with a frozen random one higher by more
than a margin? Does sparse coding explain it: is the error at a small L0 below a tolerance, where that of Gaussian rows
with the same covariance is not? An answer is yes or no only if a whole 95 % interval lies on one side of its threshold.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from zoo.studies.embedding.numbers import Interval

Answer = Literal["yes", "no", "undecided", "not tested", "as a Gaussian's", "not measured"]

CASES: dict[tuple[Answer, Answer], tuple[str, str]] = {  # does training need it, does sparse coding explain it
    ("yes", "yes"): (
        "explained by superposition",
        "Explained by superposition: training needs the embedding, and sparse combinations of its atoms give it back.",
    ),
    ("yes", "no"): (
        "structure outside superposition",
        "Not explained by superposition, as far as these dictionaries go: training needs the embedding, and sparse "
        "coding leaves more of it over than the tolerance.",
    ),
    ("no", "yes"): (
        "explained, and hardly needed",
        "Explained by superposition, and training hardly needs it: a frozen random embedding does about as well.",
    ),
    ("no", "no"): (
        "not sparse, and hardly needed",
        "Not sparse, and training hardly needs it: what sparse coding leaves over need not be anything learned.",
    ),
    ("not tested", "yes"): (
        "explained by superposition",
        "Explained by superposition: sparse combinations of its atoms give the embedding back. Whether training needs "
        "it was not tested.",
    ),
    ("not tested", "no"): (
        "not explained by sparse coding",
        "Sparse coding leaves more of the embedding over than the tolerance. Whether training needs it was not tested, "
        "so this alone does not tell structure outside superposition from noise.",
    ),
}


UNDECIDED = (
    "undecided",
    "Undecided: an interval lies on both sides of its threshold, so more seeds or more training are needed.",
)
UNTOLD = {
    "as a Gaussian's": (
        "the error tells nothing",
        "The error is below the tolerance, but so is that of Gaussian rows with the same covariance: with so many "
        "atoms for so few dimensions it tells nothing.",
    ),
    "not measured": ("not measured", "The error could not be measured, so nothing is decided."),
}


def needed(gap: Interval | None, margin: float) -> Answer:
    """Whether training needs the embedding.

    Args:
        gap: Interval of what the cheapest frozen random embedding costs, in nats; None if that was not tested.
        margin: Nats above which that is much.
    """
    if gap is None:
        return "not tested"
    return "yes" if gap["low"] > margin else "no" if gap["high"] <= margin else "undecided"


def explained(error: Interval, null: Interval, limit: Interval | None, tolerance: float) -> Answer:
    """Whether sparse coding explains the embedding.

    A limit that may lie below the tolerance takes back a no, and never makes a yes: that has to be measured.

    Args:
        error: Of the held-out FVU at the last step.
        null: The same of Gaussian rows with the same covariance.
        limit: Of the error over pretraining, if one was fitted.
        tolerance: FVU below which nothing much is left.
    """
    if not all(math.isfinite(value) for value in (*error.values(), *null.values())):
        return "not measured"
    if error["high"] <= tolerance:
        return "yes" if null["low"] > tolerance else "as a Gaussian's"
    if error["low"] > tolerance and (limit is None or limit["low"] > tolerance):
        return "no"
    return "undecided"


def decide(
    gap: Interval | None,
    error: Interval,
    null: Interval,
    limit: Interval | None,
    found: Sequence[dict[str, Any]],
    margin: float,
    tolerance: float,
) -> tuple[str, dict[str, Any]]:
    """The sentence of the case, and the case with the answers to both questions.

    Args:
        gap: See `needed`.
        error: See `explained`.
        null: See `explained`.
        limit: See `explained`.
        found: Structure that was found (A4, A8, A9), see `structure.findings`.
        margin: In nats.
        tolerance: Of the FVU.
    """
    answers: tuple[Answer, Answer] = (needed(gap, margin), explained(error, null, limit, tolerance))
    case, sentence = CASES.get(answers, UNTOLD.get(answers[1], UNDECIDED))
    structures = [f"{line['name']} ({line['experiment']})" for line in found if line["experiment"] != "A4"]
    if structures:
        sentence += f" It also holds {_listed(structures)}."
    return sentence, {"case": case, "needed": answers[0], "explained": answers[1], "structure": structures}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
