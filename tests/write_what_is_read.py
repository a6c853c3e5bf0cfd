"""Write docs/what_is_read.md from the tables that the tests run: python tests/write_what_is_read.py."""

import importlib
import pkgutil
from pathlib import Path

import supported

PAGE = Path(__file__).parents[1] / "docs" / "what_is_read.md"
HEAD = """# What the zoo reads

This page lists which autoencoders, checkpoints, text files, embeddings, precisions and tokenizers the zoo reads, which
it refuses, and what the error message says. The tests run every line as a case. `python tests/write_what_is_read.py`
writes the page from the tables of the tests.
"""


def page():
    """The page's text."""
    parts = [HEAD]
    for name in sorted(module.name for module in pkgutil.iter_modules(supported.__path__)):
        table = importlib.import_module(f"supported.{name}")
        lines = [f"| {case.what} | {case.answer} |" for case in table.CASES]
        parts += [
            f"## {table.TITLE}\n\n{table.INTRODUCTION}\n",
            "\n".join(["| what | the zoo |", "|---|---|", *lines]) + "\n",
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
