"""The decision (E0): is what an embedding learns explained by superposition?

Two questions decide. Does training need the embedding: is the validation loss with a frozen random one higher by more
than a margin? Does sparse coding explain it: is, or will be, the error at a small L0 below a tolerance? An answer is
yes or no only if a whole 95 % interval lies on one side of its threshold.
"""

from collections.abc import Sequence
from typing import Any, Literal

Answer = Literal["yes", "no", "undecided", "not tested"]

CASES: dict[tuple[Answer, Answer], tuple[str, str]] = {  # does training need it, does sparse coding explain it
    ("yes", "yes"): (
        "explained by superposition",
        "Explained by superposition: training needs the embedding, and sparse combinations of its atoms give it back.",
    ),
    ("yes", "no"): (
        "structure outside superposition",
        "Not explained by superposition: training needs the embedding, and sparse coding leaves much of it over.",
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
        "Sparse coding leaves much of the embedding over. Whether training needs it was not tested, so this alone does "
        "not tell structure outside superposition from noise.",
    ),
}


def needed(gap: dict[str, float] | None, margin: float) -> Answer:
    """Whether training needs the embedding.

    Args:
        gap: Interval of what the cheapest frozen random embedding costs, in nats; None if that was not tested.
        margin: Nats above which that is much.
    """
    if gap is None:
        return "not tested"
    return "yes" if gap["low"] > margin else "no" if gap["high"] <= margin else "undecided"


def explained(error: dict[str, float], limit: dict[str, float] | None, tolerance: float) -> Answer:
    """Whether sparse coding explains the embedding, now or where its error is going.

    Args:
        error: Interval of the held-out FVU at the last step.
        limit: Interval of the limit of the error over pretraining, if one was fitted.
        tolerance: FVU below which nothing much is left.
    """
    if error["high"] <= tolerance or (limit is not None and limit["high"] <= tolerance):
        return "yes"
    if error["low"] > tolerance and (limit is None or limit["low"] > tolerance):
        return "no"
    return "undecided"


def decide(
    gap: dict[str, float] | None,
    error: dict[str, float],
    limit: dict[str, float] | None,
    found: Sequence[dict[str, Any]],
    margin: float,
    tolerance: float,
) -> tuple[str, str, dict[str, Any]]:
    """The case, its sentence, and the answers to both questions; arguments as above.

    Args:
        gap: See `needed`.
        error: See `explained`.
        limit: See `explained`.
        found: Structure that was found (A4, A8, A9), see `structure.findings`.
        margin: In nats.
        tolerance: Of the FVU.
    """
    answers: tuple[Answer, Answer] = (needed(gap, margin), explained(error, limit, tolerance))
    undecided = (
        "undecided",
        "Undecided: an interval lies on both sides of its threshold, so more seeds or more training are needed.",
    )
    case, sentence = CASES.get(answers, undecided)
    structures = [f"{line['name']} ({line['experiment']})" for line in found if line["experiment"] != "A4"]
    if structures:
        sentence += f" It also holds {_listed(structures)}."
    return case, sentence, {"case": case, "needed": answers[0], "explained": answers[1], "structure": structures}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
