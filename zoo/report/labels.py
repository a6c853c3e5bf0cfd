"""Texts from anywhere, tokens above all, as something that can be seen and written."""

import textwrap

LONGEST = 80


def visible(text: str, keep: str = "") -> str:
    r"""The text with characters that have no shape (controls, lone surrogates, marks of direction) as `\n` or `\x00`.

    Args:
        text: Any text.
        keep: Such characters that stay.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in str(text))


def label(text: str) -> str:
    """A text that is seen as a label: on one line, not too long, blanks in quotes."""
    seen = visible(text)
    if not seen.strip():
        return f"'{seen}'"
    return seen if len(seen) <= LONGEST else seen[: LONGEST - 1] + "…"


def lines(text: str, width: int) -> list[str]:
    """A title in lines of at most so many characters, if its words allow it."""
    return textwrap.wrap(visible(text, "\n"), width, break_long_words=False)


def number(value: float) -> str:
    """A number for readers: whole ones in full, others to four digits."""
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e12 else f"{value:.4g}"
