"""The pages docs/python.md and docs/adding_to_the_zoo.md: all their code runs, and prints what they say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def page(name):
    """The text of a page."""
    return (DOCS / name).read_text("utf-8")


def blocks(text, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def stated(code):
    """The lines that a block says it prints: comments behind a `print`, and comments at the margin."""
    behind = r"^ *print\(.*\)  # (.+)$"
    return [one or other for one, other in re.findall(rf"{behind}|^# (.+)$", code, re.MULTILINE)]


def assert_agree(printed, line):
    """The words are the same, and numbers with a point differ by at most 15 % or two units of the last digit."""
    assert NUMBER.sub("0", printed) == NUMBER.sub("0", line)
    for found, said in zip(NUMBER.findall(printed), NUMBER.findall(line), strict=True):
        digits = len(said.partition(".")[2])
        slack = max(0.15 * abs(float(said)), 2 * 10**-digits) if digits else 0
        assert float(found) == pytest.approx(float(said), abs=slack), f"{printed} is not {line}"


def test_every_line_of_the_page_in_python_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    names = {"__name__": "page", "print": lambda *values: lines.append(" ".join(map(str, values)))}
    codes = blocks(page("python.md"), "python")
    assert len(codes) == page("python.md").count("```") / 2 == 12
    for code in codes:
        exec(compile(code, "docs/python.md", "exec"), names)
        assert len(lines) == len(stated(code)), code
        for printed, line in zip(lines, stated(code), strict=True):
            assert_agree(printed, line)
        lines.clear()
