"""Helpers for the wording of texts."""

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: "a, b and c"; an empty text for no words."""
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"
