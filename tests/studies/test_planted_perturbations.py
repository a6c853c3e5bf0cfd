"""The study of perturbations where features are known, on small networks."""

import json

import numpy as np
import pytest
from doing_studies import do_tasks

from zoo.analysis.error_correction import MARGINS
from zoo.errors import ZooError
from zoo.report import write
from zoo.studies.planted_perturbations import LINEAR, NETWORKS, SIGNS, PlantedPerturbations

SIZES = {"d_in": 12, "n_features": 16, "d_mlp": 128, "steps": 400, "radii": (0.001, 0.5), "inputs": 3}
SMALL = PlantedPerturbations(**SIZES, directions=50, starts=12, pairs=3, seeds=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return do_tasks(SMALL, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def report(results):
    return SMALL.report(results)


def test_features_are_found_with_error_correction_and_not_in_a_linear_readout(report):
    signs = report.verdict.numbers["signs"]
    ratio, p, ends = (signs["trained, thresholded"][sign].mean for sign in SIGNS)
    assert ratio > 2
    assert p > 2.5
    assert ends > 0.2
    for name in (LINEAR, "trained, no threshold"):
        ratio, p, ends = (signs[name][sign].mean for sign in SIGNS)
        assert ratio < 1.5
        assert p == pytest.approx(2, abs=0.3)
        assert ends < 0.2
    above = report.verdict.numbers["above_linear"]
    assert above["trained, thresholded"]["errors"].low > 0
    assert "Trained, thresholded: features are found by errors" in report.verdict.headline


def test_the_rule_for_language_models_sees_error_correction_only_where_it_is_planted(report):
    signs = report.verdict.numbers["rule"]
    for name, (_, thresholded) in NETWORKS.items():
        sides = {sign: signs[name][sign].estimate.mean > least for sign, least in MARGINS.items()}
        assert set(sides.values()) == {thresholded}, (name, signs[name])


@pytest.mark.slow
def test_the_rule_decides_all_planted_networks(tmp_path):
    """Five networks of each kind; with Holm's correction of 15 comparisons, two of a kind could not decide anything."""
    study = PlantedPerturbations(radii=(0.5,), directions=50, starts=2)
    found = study.report(do_tasks(study, tmp_path)).verdict.numbers["error_correction"]
    assert found == {name: "seen" if thresholded else "not seen" for name, (_, thresholded) in NETWORKS.items()}


def test_small_changes_of_a_linear_readout_have_the_divergence_of_the_fisher_matrix(report):
    [networks] = [table for table in report.sections[0].tables if table.columns[1].startswith("mean |y")]
    rows = {row[0]: row for row in networks.rows}
    assert rows[LINEAR][-1].mean == pytest.approx(1, rel=1e-2)
    assert rows[LINEAR][-1].n == 6
    assert rows[LINEAR][3] == 0
    assert rows["trained, thresholded"][3] > 0


def test_the_report_has_counts_and_can_be_written(report, tmp_path):
    assert [section.id for section in report.sections] == ["planted-perturbations", "codes", "exponent", "sphere"]
    write(report, tmp_path)
    assert set(json.loads((tmp_path / "report.json").read_text())["verdict"]["numbers"]["signs"]) == set(NETWORKS)
    for section in report.sections:
        assert section.null_models
        assert section.not_shown
    for row in report.sections[0].tables[0].rows:
        assert (row[2].n, row[3].n) == (2, 6)


def test_networks_of_a_seed_have_the_same_features_and_inputs(results):
    found = [results[SMALL._task(name, 1)]["atoms_cosine"] for name in NETWORKS]
    assert len(set(found)) == 1
    assert found[0] != results[SMALL._task(LINEAR, 0)]["atoms_cosine"]


def test_a_task_done_again_has_the_same_result(results, tmp_path):
    from zoo.study import Work

    task = SMALL._task("random neurons, thresholded", 0)
    for name, value in task.do(Work(results, tmp_path)).items():
        np.testing.assert_allclose(value, results[task][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"n_features": 24}, "n_features is 24; features are in superposition above d_in, 24"),
        ({"radii": (0.5, 0.1)}, "radii must be ascending, without repeated values"),
        ({"radii": (0.0, 0.5)}, "radii is 0.0; it must be above 0"),
        ({"at": 0.3}, "at is 0.3; it must be one of radii, 0.001, 0.05, 0.1, 0.25, 0.5, 1"),
        ({"inputs": 500}, "inputs is 500; 32 features have 496 pairs"),
        ({"pairs": 16}, "pairs is 16; 30 inactive features have half as many pairs"),
        ({"starts": 3000}, "starts is 3000; it must be at most directions, 2000"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"slope": 0.0}, "slope is 0.0; it must be above 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong, told):
    with pytest.raises(ZooError) as caught:
        PlantedPerturbations(**wrong)
    assert str(caught.value) == told
