"""Words for texts."""

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """Words as a list: a, b and c; nothing if there are none."""
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"
