"""Tables of what the zoo reads and refuses, shared by the tests and `docs/what_is_read.md`.

Each module here holds one table: a `TITLE`, an `INTRODUCTION` of a few sentences, and `CASES`. A test runs every case
and compares the result with `answer` and `refusal`. `python tests/write_what_is_read.py` writes the page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One kind of input, and how the zoo treats it.

    Attributes:
        what: Name of the input, in the page's first column; also the test's id.
        make: Function that makes the input; the module's test gives its arguments.
        answer: How the zoo treats it, in the page's second column, such as "read" or "refused: names the file".
        refusal: Regular expression of the error message, if the input is refused; None if it is read.
    """

    what: str
    make: Callable[..., Any]
    answer: str = "read"
    refusal: str | None = None
