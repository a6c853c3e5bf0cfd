"""What the zoo reads, and what it answers where it does not: the tables that tests and `docs/what_is_read.md` share.

Each module here holds one table: a `TITLE`, an `INTRODUCTION` of a sentence or two, and `CASES`. A test runs every
case and compares what happens with `answer` and `refusal`; `python tests/write_what_is_read.py` makes the page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """Something that users have, and what the zoo makes of it.

    Attributes:
        what: What it is, in the page's first column; also the test's id.
        make: Makes it, from arguments that the module's test says.
        answer: What the zoo does with it, in the page's second column, such as "read" or "refused: names the file".
        refusal: For what is refused, a regular expression of the error's message; None for what is read.
    """

    what: str
    make: Callable[..., Any]
    answer: str = "read"
    refusal: str | None = None
