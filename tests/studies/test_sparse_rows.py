import csv

import numpy as np
import pytest

from zoo.studies import sparse_rows
from zoo.studies.sparse_rows_report import at_l0, curve


def test_an_error_between_two_runs_is_linear_in_the_logarithm_of_l0():
    points = np.array([[4.0, 0.8], [16.0, 0.4], [64.0, 0.3]])
    assert at_l0(points, 8) == pytest.approx(0.6)
    assert at_l0(points, 16) == pytest.approx(0.4)


@pytest.mark.parametrize("l0", [3, 65])
def test_an_error_outside_of_the_runs_is_not_made_up(l0):
    assert np.isnan(at_l0(np.array([[4.0, 0.8], [64.0, 0.3]]), l0))


def test_a_curve_holds_one_seed_of_one_coder_in_order_of_l0():
    results = [
        {"matrix": "embedding", "coder": "TopK", "seed": seed, "l0": l0, "fvu": 1 / l0 + seed}
        for l0 in (8.0, 2.0)
        for seed in (0, 1)
    ]
    assert curve(results, "embedding", "TopK", 1).tolist() == [[2.0, 1.5], [8.0, 1.125]]


def test_one_seed_is_refused_since_it_has_no_interval(tmp_path, refused):
    with refused("at least 2"):
        sparse_rows.run(tmp_path, seeds=1)


def test_more_atoms_than_rows_are_refused_as_no_finding(tmp_path, refused):
    with refused("FVU 0 at L0 1"):
        sparse_rows.run(tmp_path, d_sae=4096)


def test_rows_of_few_dimensions_are_refused_before_anything_is_trained(tmp_path, refused):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(300, 16)))
    with refused("the rows' dimension is 16, and the study turns on up to 32 atoms"):
        sparse_rows.run(tmp_path / "study", str(tmp_path / "rows.npy"), d_sae=64)


def test_damaged_settings_of_a_study_are_named(tmp_path, refused):
    (tmp_path / "settings.json").write_text('{"source":')
    with refused("settings.json is damaged"):
        sparse_rows.run(tmp_path)


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    """Rows that are sums of 2 of 24 atoms, as a source, and one variant at two sparsities."""
    import torch

    from zoo.null_models import planted

    rows, _, _ = planted(1500, 16, 24, 2, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "rows.npy", rows.numpy())
    monkeypatch.setattr(sparse_rows, "VARIANTS", {"TopK": (*sparse_rows.VARIANTS["TopK"][:2], (2, 4))})
    monkeypatch.setattr(sparse_rows, "BASELINE_L0", (1, 2, 16))
    compared = ("embedding", "covariance-matched", "covariance- and norm-matched", "planted")
    monkeypatch.setattr(sparse_rows, "matrices", lambda n_atoms, d_model: compared)
    # In this process: a spawned one would not see the settings above.
    monkeypatch.setattr(sparse_rows, "do_all", lambda do, tasks, out, jobs: [do(t, out) for t in tasks])
    settings = {"source": str(tmp_path / "rows.npy"), "d_sae": 24, "steps": 300, "batch_size": 256, "seeds": 2}
    return lambda **changed: sparse_rows.run(tmp_path / "study", **settings | changed)


def test_the_study_tells_superposition_from_its_covariance(small_study, tmp_path):
    results = small_study()
    error = {r["matrix"]: r["fvu"] for r in results if r["coder"] == "TopK" and r["level"] == 2 and r["seed"] == 0}
    assert error["embedding"] < 0.5 * error["covariance-matched"]
    with (tmp_path / "study" / "results.csv").open() as f:
        assert len(list(csv.DictReader(f))) == len(results)
    assert "| TopK |" in (tmp_path / "study" / "table.md").read_text()
    assert (tmp_path / "study" / "curves.png").stat().st_size > 10_000


def test_a_finished_study_is_not_made_again_and_not_mixed_with_another(small_study, tmp_path, refused):
    first = small_study(steps=20)
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "study" / "runs").iterdir()}
    assert small_study(steps=20) == first
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "study" / "runs").iterdir()} == times
    with refused("a study with steps 20, and steps is 21 now"):
        small_study(steps=21)
