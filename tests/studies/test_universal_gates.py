import numpy as np
import pytest

from zoo import ZooError
from zoo.studies import universal_gates
from zoo.studies.universal_gates_report import chosen

SMALL = {"n_features": 8, "widths": (6, 8), "steps": 40, "seeds": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(universal_gates, "do_all", lambda do, tasks, out, jobs: [do(task, out) for task in tasks])
        return out, universal_gates.run(out, **SMALL)


def cases(results, name="mean", **settings):
    """Errors by case, mean over seeds, of the one run with these settings."""
    [run] = chosen(results, **settings)
    return np.array(run[name]).mean(0)


def test_the_affine_readoff_errs_alike_in_all_cases(study):
    for d in SMALL["widths"]:
        assert cases(study[1], gate="and", method="affine", d_mlp=d).tolist() == [0.25] * 4
        assert cases(study[1], gate="xor", method="affine", d_mlp=d).tolist() == [0.5] * 4


@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("d", SMALL["widths"])
def test_no_trained_readoff_of_the_same_random_layer_beats_least_squares(study, gate, d):
    settings = {"gate": gate, "d_mlp": d, "weights": "four", "p": 2}
    best, trained = (np.array(chosen(study[1], method=m, **settings)[0]["rms"]) for m in ("least squares", "frozen"))
    assert ((best**2).mean(1) <= (trained**2).mean(1) * 1.0001).all()


def test_the_discriminant_is_right_on_average_where_the_gate_is_1(study):
    for d in SMALL["widths"]:
        assert cases(study[1], "bias", gate="and", method="discriminant", d_mlp=d)[3] == pytest.approx(0, abs=1e-4)


def test_every_exponent_and_weighting_is_trained_at_the_first_width(study):
    arms = {(r["gate"], r["method"], r["weights"], r["p"]) for r in chosen(study[1], d_mlp=6)}
    for method in ("frozen", "trained"):
        for weights in ("natural", "ones", "four"):
            assert {("and", method, weights, p) for p in (2, 3, 4, 6)} <= arms
        assert {("xor", method, "four", p) for p in (2, 3, 4, 6)} | {("xor", method, "zero_one", 2)} <= arms


def test_table_and_picture_are_written_and_nothing_is_done_twice(study, monkeypatch):
    out, results = study
    assert (out / "universal_gates.png").stat().st_size > 10_000
    assert len((out / "table.md").read_text().splitlines()) == 2 + len(results)
    left = []
    monkeypatch.setattr(universal_gates, "do_all", lambda do, tasks, out, jobs: left.extend(tasks))
    assert universal_gates.run(out, **SMALL) == results
    assert not left


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"n_features": 3}, {"steps": 0}, {"widths": (0,)}, {"steps": 41}])
def test_wrong_arguments_and_other_settings_in_the_same_folder_are_refused(study, wrong):
    with pytest.raises(ZooError):
        universal_gates.run(study[0], **SMALL | wrong)
