import copy
import json
from functools import partial

import numpy as np
import pytest

from zoo import ZooError
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.report import read
from zoo.studies import attention_features, explicit_gates, superposition_phases, toys, universal_gates
from zoo.studies.intervals import interval
from zoo.studies.toys import pentagon, study
from zoo.studies.toys.gate_errors import comparisons, overall, places
from zoo.studies.toys.measured import agreement, agrees
from zoo.studies.toys.pentagon import regular
from zoo.studies.toys.sections import write_up

IDS = ["B1, B2", "B3, B9", "B4", "B5", "B6", "B7", "B8", "B10", "B11", "C1", "C2", "C3", "C4", "C5"]
STUDIES = (explicit_gates, universal_gates, superposition_phases, attention_features)
SMALL = {
    explicit_gates: {
        "ACTIVE": {"2": FixedActive(2), "4": FixedActive(4), "Bernoulli 4": BernoulliActive(4.0)},
        "USED_AT": (2, 4, 8),
        "SUPERPOSED_IN": (10, 80),
        "SUPERPOSED_WIDTHS": (64, 256),
        "DEPTH_WIDTHS": (128, 256),
        "IN_GROUP": 6,
    },
    attention_features: {
        "DIMENSIONS": (2, 8),
        "NOISE_PAIRS": (16, 64),
        "NOISE_SHAPES": ((256, 16), (512, 16)),
        "USABLE": ((128, 16, 20),),
        "TIES": ((1, 4, 16, 0.1), (10, 4, 16, 0.1)),
    },
    pentagon: {"NETWORKS": 6, "STEPS": 300},
}
SIZES = {
    explicit_gates: {"n_features": 16, "n_vectors": 20, "widths": (64, 256)},
    universal_gates: {"n_features": 8, "widths": (6, 8), "steps": 10},
    superposition_phases: {"points": 3, "steps": 40, "batch_size": 32},
    attention_features: {"vocabularies": (100, 200), "n_pairs": (16, 32), "steps": 20},
}


@pytest.fixture(scope="module")
def small():
    """The studies made small, in this process; gives the list of tasks that were done."""
    made = []

    def do_all(do, tasks, out, jobs):
        made.extend(tasks)
        for task in tasks:
            do(task, out)

    with pytest.MonkeyPatch.context() as patch:
        for part, constants in SMALL.items():
            for name, value in constants.items():
                patch.setattr(part, name, value)
        for part in (*STUDIES, pentagon):
            patch.setattr(part, "do_all", do_all)
        for part, sizes in SIZES.items():
            patch.setattr(part, "run", partial(part.run, **sizes))
        yield made


@pytest.fixture(scope="module")
def done(small, tmp_path_factory):
    """Folder, report, and what every part gave."""
    out, given = tmp_path_factory.mktemp("toys"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "write_up", lambda out, done, *rest: given.update(done) or write_up(out, done, *rest))
        report = toys.run(out, seeds=2, command="python -m zoo study toys --out runs/toys --seeds 2")
    return out, report, given


def told(done, **changed):
    """The report of results of which some are changed."""
    out, _, given = done
    return write_up(out, copy.deepcopy(given) | changed, {"seeds": 2, "jobs": 1}, {}, "")


def finding(report, id):
    [section] = [section for section in report.sections if section.id == id]
    return section.finding


def test_page_and_data_have_every_experiment_with_what_it_was_compared_with(done):
    out, report, _ = done
    content, page = read(out), (out / "report.html").read_text("utf-8")
    assert [section["id"] for section in content["sections"]] == [section.id for section in report.sections] == IDS
    for section in report.sections:
        assert section.title in page
        assert f"python -m zoo study {section.command.split()[4]} --out {out.as_posix()}/" in section.command
        for part in (section.finding, section.tables, section.charts, section.null_models, section.not_shown):
            assert part
        assert section.numbers
    names = [f"{chart.name}.png" for section in report.sections for chart in section.charts]
    pictures = ["universal_gates.png", "explicit_gates.png", "phases.png", "attention_features.png"]
    assert sorted(names + pictures) == sorted(file.name for file in (out / "figures").iterdir())
    assert report.verdict.headline in content["verdict"]["headline"]
    assert "nan" not in json.dumps([section.finding for section in report.sections])


def test_findings_tell_the_numbers_of_the_results(done):
    _, report, given = done
    gates = given["universal-gates"]
    for gate in ("and", "xor"):
        mean = interval(overall(gates, gate=gate, d_mlp=6, method="trained"))
        assert f"over the four {mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]" in finding(report, "B1, B2")
    first = comparisons(gates)[0]
    assert f"AND {first['trained']['mean']:.3f} [" in finding(report, "B3, B9")
    polygon = given["pentagon"][0]
    assert finding(report, "B11").startswith(f"{polygon['reach']} of 6 networks reach the pentagon")
    heads = [r for r in given["attention-features"] if r["kind"] == "head"]
    assert f"{np.mean(heads[0]['learned']):.3f} [" in finding(report, "C5")
    ratio = np.mean([r["rms"]["00"] / r["theory"] for r in given["explicit-gates"] if r["kind"] == "superposed"])
    assert f"measured over theory is {ratio:.3f} [" in finding(report, "B8")


def test_what_is_finished_is_not_made_again(done, small, monkeypatch):
    out, report, _ = done
    monkeypatch.setattr(study.report, "write", lambda written, folder: None)
    small.clear()
    again = toys.run(out, seeds=2, command=report.command)
    assert not small
    assert [section.finding for section in again.sections] == [section.finding for section in report.sections]
    assert again.verdict.evidence == report.verdict.evidence
    with pytest.raises(ZooError, match="holds a study with seeds 2, and seeds is 3 now"):
        toys.run(out, seeds=3)


def with_trained(results, error):
    """Results whose networks with both layers trained err by so much in every case."""
    changed = {"mean": np.full((2, 4), error).tolist(), "rms": np.full((2, 4), error).tolist()}
    return [r | changed if r["method"] == "trained" else r for r in results]


def test_the_headline_says_whether_training_wins(done):
    gates = done[2]["universal-gates"]
    wins, loses = (told(done, **{"universal-gates": with_trained(gates, error)}) for error in (0.0, 100.0))
    assert "beats their best readoff at every width" in wins.verdict.headline
    assert "training is better for AND at d = 6 and 8 and XOR at d = 6 and 8." in finding(wins, "B3, B9")
    assert "does not come up to their best readoff at any width" in loses.verdict.headline
    assert "Neither on average" in finding(loses, "B1, B2")
    mixed = [r | {"answer": answer} for r, answer in zip(comparisons(gates), ("better", "worse") * 2, strict=True)]
    assert places(mixed, "better") == "AND at d = 6 and XOR at d = 6"
    assert places(mixed, "undecided") == ""


def test_a_theory_that_is_wrong_is_called_wrong(done):
    results = copy.deepcopy(done[2]["explicit-gates"])
    for r in results:
        if "theory" in r:
            r["theory"] *= 2
    report = told(done, **{"explicit-gates": results})
    assert report.verdict.headline.startswith("Random neurons do not compute")
    assert "do not agree" in finding(report, "B6")
    assert "do not agree" in finding(report, "B8")


def test_polygons_that_nobody_finds_are_not_found(done):
    missed = [polygon | {"reach": 0} for polygon in done[2]["pentagon"]]
    headline = told(done, pentagon=missed).verdict.headline
    assert headline.endswith("No network with features in two dimensions finds the pentagon or the hexagon.")
    headline = told(done, pentagon=[missed[0] | {"reach": 1}, missed[1]]).verdict.headline
    assert headline.endswith("Features in two dimensions find the pentagon, but not the hexagon.")


@pytest.mark.parametrize(
    ("n", "length", "bias", "loss"), [(5, 1.17046, -0.2823, 0.015826), (6, 1.32053, -0.61814, 0.048192)]
)
def test_regular_polygons_are_those_that_are_known(n, length, bias, loss):
    found = regular(n, n)
    assert [found["length"], found["bias"]] == pytest.approx([length, bias], abs=1e-4)
    assert found["loss"] == pytest.approx(loss, abs=1e-6)
    assert regular(n, n - 1)["loss"] > found["loss"]


def test_theory_and_measurement_agree_only_if_an_interval_lies_within_the_tolerance():
    near = np.array([[0.99, 1.0, 1.01], [1.01, 1.0, 0.99]])
    assert agrees(agreement(near)) == "yes"
    assert agrees(agreement(near + 0.2)) == "no"
    assert agrees(agreement(np.array([[0.8, 1.0, 1.2]]))) == "undecided"
    assert agrees(agreement(np.concatenate([near, near + 0.2, near - 0.2]))) == "no"
