"""Functions that make any text, such as a token, readable in labels, titles and tables."""

import textwrap

LONGEST = 80
HOVER_WIDTH, HOVER_LINES = 64, 4


def visible(text: str, keep: str = "") -> str:
    r"""Replace invisible characters (controls, lone surrogates, marks of direction) by escapes such as `\n` or `\x00`.

    Args:
        text: Any text.
        keep: Invisible characters that are not replaced.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in str(text))


def label(text: str) -> str:
    """Return a text as a label: on one line, at most 80 characters long, and in quotes if it is blank."""
    seen = visible(text)
    if not seen.strip():
        return f"'{seen}'"
    return seen if len(seen) <= LONGEST else seen[: LONGEST - 1] + "…"


def hover(text: str) -> list[str]:
    """Return the lines of a text that is shown when the mouse is over a point: at most 4 of 64 characters.

    Texts of up to 80 characters are on one line, as in `label`. Longer words are broken.
    """
    if len(seen := visible(text)) <= LONGEST:
        return [label(text)]
    found = textwrap.wrap(seen, HOVER_WIDTH)
    return found if len(found) <= HOVER_LINES else [*found[:HOVER_LINES], "…"]


def lines(text: str, width: int) -> list[str]:
    """Break a title into lines of at most `width` characters; longer words are not broken."""
    return textwrap.wrap(visible(text, "\n"), width, break_long_words=False)


def number(value: float) -> str:
    """Return a number as text: whole numbers in full, others with four significant digits."""
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e12 else f"{value:.4g}"
