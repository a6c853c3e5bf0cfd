import re

import numpy as np
import pytest
import torch
from doing_studies import answer

from zoo.analysis import dictionaries
from zoo.null_models import planted
from zoo.shared_tasks import pursuit
from zoo.studies.basis_pursuit import BasisPursuit, Lines


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    """Rows that are sums of 2 of 24 atoms, as a source."""
    rows, _, _ = planted(1200, 16, 24, 2, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "rows.npy", rows.numpy())
    monkeypatch.setattr(dictionaries, "BASELINE_L0", (1, 2, 4))
    settings = {"n_atoms": 24, "penalties": (0.4, 0.1), "dictionary_steps": 15, "seeds": 2, "at_l0": 3}
    return lambda **changed: BasisPursuit((str(tmp_path / "rows.npy"),), **settings | changed)


def test_the_study_tells_superposition_from_its_covariance(small_study, tmp_path):
    report = answer(small_study(), tmp_path)
    section = report.sections[0]
    lines = section.numbers["lines"]

    def at_smallest_penalty(matrix, key):
        return np.array([r[key] for r in lines if r["matrix"] == matrix and key in r and r.get("penalty") == 0.1])

    for key, factor in (("fvu_debiased", 0.5), ("l0", 0.5), ("fvu", 0.7)):
        real, null = (at_smallest_penalty(m, key) for m in ("embedding", "covariance-matched"))
        assert (real < factor * null).all(), key
    assert at_smallest_penalty("embedding", "cosine") > 0.95
    assert at_smallest_penalty("covariance-matched", "cosine") < 0.9
    # The smallest codes without error: those the rows were made of, and never more than a Gaussian's.
    assert (at_smallest_penalty("embedding", "gauge") < at_smallest_penalty("covariance-matched", "gauge")).all()
    learned = [r for r in lines if r["coder"] == "basis pursuit" and "penalty" in r]
    assert len(learned) > 10
    assert [r["uncertified"] for r in learned] == [0] * len(learned)
    assert "codes none lack a certificate" in section.finding
    assert "held-out FVU, debiased" in [row[0] for row in section.tables[0].rows]
    drawn = {series.name: series for series in section.charts[0].series if series.style == "line"}
    at_penalties = [
        np.mean(
            [
                r["fvu_debiased"]
                for r in lines
                if (r["matrix"], r["coder"], r.get("penalty")) == ("isotropic", "basis pursuit", p)
            ]
        )
        for p in (0.4, 0.1)
    ]
    assert sorted(at_penalties) == pytest.approx(sorted(drawn["isotropic"].y))


def test_other_null_models_get_fewer_rows_beside_the_embedding_with_as_many(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(pursuit, "FEWER_ROWS", 400)
    report = answer(small_study(gauged=0, dictionary_steps=3), tmp_path)
    section = report.sections[0]
    coded = {}
    for line in section.numbers["lines"]:
        if "coded" in line:
            coded.setdefault(line["matrix"], set()).add(line["coded"])
    assert {matrix for matrix, rows in coded.items() if rows == {1200}} == {"embedding", "covariance-matched"}
    assert all(rows == {400} for matrix, rows in coded.items() if matrix not in ("embedding", "covariance-matched"))
    columns = section.tables[0].columns
    assert columns[1:5] == [
        "embedding",
        "covariance-matched",
        "embedding, fewer rows",
        "covariance-matched, fewer rows",
    ]
    assert "have 400 random rows" in section.tables[0].note
    lines = [line for line in section.numbers["lines"] if line.get("penalty") == 0.1 and "coded" in line]
    found = {line["matrix"]: line["fvu_pursued"] for line in lines}
    assert found["embedding"] < found["embedding, fewer rows"]  # fewer rows teach a dictionary less


def test_at_most_so_many_rows_are_coded(small_study, tmp_path):
    report = answer(small_study(max_rows=300, null_models="covariance-matched", gauged=0), tmp_path)
    section = report.sections[0]
    assert {line["coded"] for line in section.numbers["lines"] if "coded" in line} == {300}
    assert {line["matrix"] for line in section.numbers["lines"]} == {"embedding", "covariance-matched"}
    assert "Only 300 rows are used: evenly spaced in the order of frequency" in section.tables[0].note


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"penalties": (0.1, 0.4)}, "penalties must be descending"),
        ({"penalties": (0.1, 0.0)}, "penalties is 0.0; it must be above 0"),
        ({"steps": (512, 8)}, "steps must be ascending"),
        ({"n_atoms": 1100}, "FVU 0 at L0 1"),
    ],
)
def test_settings_that_make_no_study_are_refused_before_anything_is_learned(small_study, refused, changed, words):
    with refused(words):
        small_study(**changed).tasks()


def test_the_limit_of_a_falling_error_and_of_a_growing_distance_are_told():
    steps = (0, 1, 4, 16, 64, 256)
    lines = []
    for step in steps:
        for matrix, end in (("embedding", 0.2), ("covariance-matched", 0.5)):
            for seed in (0, 1):
                for l0 in (8, 32):
                    fvu = end + (0.8 - end) * (max(step, 0.5) / 0.5) ** -0.5
                    line = {"source": "a", "step": step, "matrix": matrix, "seed": seed, "coder": "basis pursuit"}
                    lines.append(line | {"l0": l0, "fvu_debiased": fvu})
    error, distance = Lines(lines, BasisPursuit(("a",), steps, seeds=2, at_l0=16), steps).limits()
    assert re.search(r"embedding's error under limit \+ b step\^-c, .*: 0\.(19|20|21)\d \[", error)
    assert re.search(r"difference from the null model's error under .*: -0\.(29|30|31)\d \[", distance)
