"""The search for circles and binding alone, of rows of which it is known what they hold."""

import json
import math

import numpy as np
import pytest
import torch
from doing_studies import answer

from zoo.analysis.token_families import CYCLIC, LINEAR
from zoo.studies.structure import Structure
from zoo.study import all_tasks

WEEK, MONTHS, DIGITS = CYCLIC["weekdays"].split(), CYCLIC["months"].split(), LINEAR["digits"].split()
OWN = ["low", "lower", "middle", "higher", "high", "top", "summit"]
TOKENS = [*WEEK, *MONTHS, *DIGITS, *OWN, *(f"filler{i}" for i in range(60))]


def planted():
    """Weekdays on a circle, digits on a line, the others anywhere."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(len(TOKENS), 16, generator=g)
    plane = torch.linalg.qr(torch.randn(16, 2, generator=g)).Q.T
    angle = 2 * math.pi * torch.arange(7) / 7
    rows[:7] += 5 * torch.stack([angle.cos(), angle.sin()], 1) @ plane
    rows[19:29] += 2 * torch.arange(10).unsqueeze(1) * plane[:1]
    return rows


@pytest.fixture
def structure(tmp_path):
    def made(rows=None, tokens=TOKENS, **settings):
        np.save(tmp_path / "W.npy", (planted() if rows is None else rows).numpy())
        if tokens:
            (tmp_path / "W.tokens.json").write_text(json.dumps(tokens))
        return Structure(str(tmp_path / "W.npy"), **{"null_draws": 1, "keep_untrained": True} | settings)

    return made


@pytest.fixture
def study(structure, tmp_path):
    return lambda *args, **settings: answer(structure(*args, **settings), tmp_path)


def test_circle_line_and_disorder_are_told_apart(study):
    written = study()
    binding, circles = written.sections
    assert not binding.tested
    assert circles.finding == "On a circle: weekdays. On an open line or arc: digits. Not in order: months."
    found = [line for line in written.verdict.numbers["findings"] if line["kind"] == "circles"]
    assert [line["name"] for line in found] == ["weekdays"]
    assert "0 of 1 null models had a finding; the 95 % upper limit of the rate is 0.95" in written.verdict.certainty
    assert (
        "Not tested, because not all members are tokens in one and the same form: weekdays, short; months, short"
        in "".join(map(str, circles.tables))
    )
    assert [chart.name for chart in circles.charts][:3] == ["circles-shares", "circles-weekdays", "circles-digits"]


def test_a_users_families_are_searched_and_searched_again_when_the_file_changes(structure, study, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(f"heights: {{order: linear, members: [{', '.join(OWN[:6])}]}}")
    searched = study(families=str(file)).sections[1].numbers["families"]["heights"]
    assert (searched["order"], searched["members"]) == ("linear", OWN[:6])
    before = {task.key for task in all_tasks(structure(families=str(file)))}
    file.rename(tmp_path / "moved.yaml")
    assert {task.key for task in all_tasks(structure(families=str(tmp_path / "moved.yaml")))} == before
    file.write_text(f"heights: [{', '.join(OWN)}]")
    assert {task.key for task in all_tasks(structure(families=str(file)))} != before
    assert study(families=str(file)).sections[1].numbers["families"]["heights"]["members"] == OWN


def test_of_a_long_family_some_members_are_written_and_all_are_drawn(study):
    numbers = [str(n) for n in range(1, 101)]
    rows = torch.arange(100).unsqueeze(1) * torch.ones(1, 16) + torch.randn(100, 16)
    written = study(rows, numbers)
    chart = next(c for c in written.sections[1].charts if c.name == "circles-numbers-1-100")
    sizes = {series.written: len(series.x) for series in chart.series if series.style == "points"}
    assert sizes[True] <= 12
    assert sum(sizes.values()) == 100


def test_wrong_settings_are_told_in_one_line(structure, refused):
    with refused("null_draws is 0; it must be above 0"):
        structure(null_draws=0)
    with refused("none.yaml cannot be read"):
        all_tasks(structure(families="none.yaml"))


def test_of_rows_without_tokens_it_says_what_to_give(study):
    binding, circles = study(tokens=None).sections
    assert binding.finding == "The tokens are not known; add --tokens."
    assert circles.finding == "None of the families with a known order has all of its members among the tokens."
