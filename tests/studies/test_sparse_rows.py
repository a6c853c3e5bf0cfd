import numpy as np
import pytest
from doing_studies import do_tasks

from zoo.models import TopKSAE
from zoo.shared_tasks.dictionaries import at_l0, likeness, pursued_error
from zoo.studies import sparse_rows
from zoo.studies.sparse_rows import SparseRows


def test_an_error_between_two_runs_is_linear_in_the_logarithm_of_l0():
    points = np.array([[4.0, 0.8], [16.0, 0.4], [64.0, 0.3]])
    assert at_l0(points, 8) == pytest.approx(0.6)
    assert at_l0(points, 16) == pytest.approx(0.4)


@pytest.mark.parametrize("l0", [3, 65])
def test_an_error_outside_of_the_runs_is_not_made_up(l0):
    assert np.isnan(at_l0(np.array([[4.0, 0.8], [64.0, 0.3]]), l0))


def test_the_error_by_pursuit_is_that_of_the_best_penalty():
    assert pursued_error({"lines": [{"fvu_pursued": 0.5}, {"fvu_pursued": 0.3}, {"fvu_pursued": 0.4}]}) == 0.3


def test_atoms_of_two_seeds_are_alike_whatever_their_order_and_signs():
    atoms = np.random.default_rng(0).normal(size=(2, 6, 10)).astype(np.float32)  # at two penalties
    turned = atoms[:, ::-1] * np.array([1, -1, 1, -1, -1, 1], np.float32)[:, None]
    others = np.random.default_rng(1).normal(size=(2, 6, 10)).astype(np.float32)
    results = {"one": {"atoms": atoms}, "turned": {"atoms": turned.copy()}, "others": {"atoms": others}}
    assert likeness(results, "one", "turned") == pytest.approx([1, 1], abs=1e-6)
    cosines = [
        np.abs((a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T)
        for a, b in zip(atoms, others, strict=True)
    ]
    assert likeness(results, "one", "others") == pytest.approx([c.max(0).mean() for c in cosines], rel=1e-5)


def test_a_curve_holds_one_seed_of_one_coder_in_order_of_l0():
    lines = [
        {"matrix": "embedding", "coder": "TopK", "seed": seed, "l0": l0, "fvu": 1 / l0 + seed}
        for l0 in (8.0, 2.0)
        for seed in (0, 1)
    ]
    assert SparseRows()._curve(lines, "embedding", "TopK", 1).tolist() == [[2.0, 1.5], [8.0, 1.125]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        (
            {"variants": ("TopK", "Topk")},
            "there is no variant 'Topk'; the variants are BatchTopK, Gated, JumpReLU",
        ),
        ({"d_sae": 16}, "d_sae is 16, but the study uses up to 32 atoms"),
        (
            {"d_sae": 4096},
            "d_sae is 4096, but a tenth of the 4096 rows is held out, and a dictionary with an atom for every training "
            "row has FVU 0 at L0 1",
        ),
    ],
)
def test_settings_that_make_no_study_are_refused(refused, settings, words):
    with refused(words):
        SparseRows(**settings).tasks()


def test_rows_of_few_dimensions_are_refused_before_anything_is_trained(tmp_path, refused):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(300, 16)))
    with refused("has 16 dimensions, but the study uses up to 32 atoms"):
        SparseRows(str(tmp_path / "rows.npy"), d_sae=64).tasks()


def test_the_study_tells_superposition_from_its_covariance(tmp_path, monkeypatch):
    import torch

    from zoo.null_models import planted

    rows, _, _ = planted(1500, 16, 24, 2, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "rows.npy", rows.numpy())
    monkeypatch.setattr(TopKSAE, "swept", ("k", (2, 4)))
    monkeypatch.setattr(sparse_rows, "BASELINE_L0", (1, 2, 16))
    compared = ("embedding", "covariance-matched", "covariance- and norm-matched", "planted")
    monkeypatch.setattr(sparse_rows, "matrices", lambda n_atoms, d_model: compared)
    shared = {"d_sae": 24, "steps": 300, "batch_size": 256, "seeds": 2, "variants": ("TopK",)}
    study = SparseRows(str(tmp_path / "rows.npy"), **shared)
    report = study.report(do_tasks(study, tmp_path))
    (section,) = report.sections
    lines = section.numbers["lines"]
    error = {r["matrix"]: r["fvu"] for r in lines if r["coder"] == "TopK" and r.get("level") == 2 and r["seed"] == 0}
    assert error["embedding"] < 0.5 * error["covariance-matched"]
    assert [row[0] for row in section.tables[0].rows][:2] == ["TopK", "TopK atoms, matching pursuit"]
    (chart,) = section.charts
    drawn = {series.name: series for series in chart.series}
    assert set(drawn) == {*compared, "random directions as atoms", "random tokens as atoms"}
    of_seeds = [
        [r["fvu"] for r in lines if (r["coder"], r["matrix"], r.get("level")) == ("TopK", "planted", k)] for k in (2, 4)
    ]
    assert drawn["planted"].y == pytest.approx(np.mean(of_seeds, 1))
