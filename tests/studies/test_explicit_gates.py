import json

import numpy as np
import pytest

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.studies import explicit_gates
from zoo.studies.explicit_gates import run
from zoo.studies.explicit_gates_report import exponents, of_kind

WIDTHS = (64, 256, 1024)


@pytest.fixture
def done(monkeypatch):
    """A study made small, in this process; gives the list of tasks it has done."""
    done = []

    def do_all(do, tasks, out, jobs):
        done.extend(tasks)
        for task in tasks:
            do(task, out)

    monkeypatch.setattr(explicit_gates, "do_all", do_all)
    monkeypatch.setattr(explicit_gates, "ACTIVE", {"2": FixedActive(2), "Bernoulli 4": BernoulliActive(4.0)})
    monkeypatch.setattr(explicit_gates, "USED_AT", (2, 4, 8))
    monkeypatch.setattr(explicit_gates, "SUPERPOSED_IN", (10, 80))
    monkeypatch.setattr(explicit_gates, "SUPERPOSED_WIDTHS", (256, 4096))
    monkeypatch.setattr(explicit_gates, "DEPTH_WIDTHS", (2048,))
    monkeypatch.setattr(explicit_gates, "IN_GROUP", 6)
    return done


def study(out, **options):
    return run(out, **{"n_features": 40, "n_vectors": 100, "widths": WIDTHS, "seeds": 4} | options)


def test_simulations_agree_with_what_theory_says_of_them(tmp_path, done):
    results = study(tmp_path)
    for d in WIDTHS:
        for gate in ("and", "xor"):
            rows = of_kind(results, "width", gate, "2", d)
            assert np.mean([r["rms"]["00"] for r in rows]) == pytest.approx(rows[0]["theory"], rel=0.06)
    for on in (2, 4, 8):
        rows = of_kind(results, "used_at", on)
        assert np.mean([1 + r["bias"]["11"] for r in rows]) == pytest.approx(rows[0]["theory"], rel=0.08)
        assert np.mean([r["bias"]["00"] for r in rows]) == pytest.approx(0, abs=0.02)
    slope = exponents(results, "and", "2")
    assert slope["mean"]["mean"] == pytest.approx(-0.5, abs=0.05)
    assert slope["max"]["mean"] == pytest.approx(-0.5, abs=0.1)


def test_errors_of_superposed_inputs_are_a_floor_and_a_part_that_more_neurons_remove(tmp_path, done):
    results = study(tmp_path)
    for d0 in (10, 80):
        for d in (256, 4096):
            rows = of_kind(results, "superposed", d0, d)
            found, theory = (np.mean([f(r) for r in rows]) for f in (lambda r: r["rms"]["00"], lambda r: r["theory"]))
            assert found == pytest.approx(theory, rel=0.06)
            assert found > np.mean([r["floor"] for r in rows])
        narrow, wide = (of_kind(results, "superposed", d0, d) for d in (256, 4096))
        assert [r["floor"] for r in narrow] == pytest.approx([r["floor"] for r in wide])
        assert [r["theory"] ** 2 - r["floor"] ** 2 for r in narrow] == pytest.approx(
            [16 * (r["theory"] ** 2 - r["floor"] ** 2) for r in wide]
        )
    few, many = (np.mean([r["floor"] for r in of_kind(results, "superposed", d0)]) for d0 in (10, 80))
    assert few > 2 * many > 0
    wide = of_kind(results, "superposed", 10, 4096)
    assert few > 0.8 * np.mean([r["rms"]["00"] for r in wide])  # nearly all that is left


def test_error_correction_keeps_errors_small_in_depth(tmp_path, done):
    results = study(tmp_path)
    without, with_it = (of_kind(results, "depth", 2048, correction) for correction in (False, True))
    assert [r["rms"][0] for r in without] == [r["rms"][0] for r in with_it]
    last = [np.mean([r["rms"][3] for r in rows]) for rows in (without, with_it)]
    assert last[0] > 1.5 * last[1]


def test_a_table_and_a_picture_are_made_and_what_is_done_is_not_done_again(tmp_path, done):
    results = study(tmp_path, widths=(32, 64), seeds=2)
    assert len(done) == len(results) == 2 * (2 * 2 * 2 + 3 + 2 * 2 + 2)
    assert len({task.file(tmp_path) for task in done}) == len(done)
    assert (tmp_path / "explicit_gates.png").stat().st_size > 10_000
    text = (tmp_path / "table.md").read_text("utf-8")
    assert text.count("\n\n") == 4
    [line] = [line for line in text.splitlines() if line.startswith("| and | 2 | 64 |")]
    rows = of_kind(results, "width", "and", "2", 64)
    assert f"| {np.mean([r['rms']['00'] for r in rows]):.4f} [" in line
    assert f"| {rows[0]['theory']:.4f} |" in line
    done.clear()
    again = study(tmp_path, widths=(32, 64), seeds=2)
    assert not done
    assert json.dumps(again) == json.dumps(results)
    assert (tmp_path / "table.md").read_text("utf-8") == text


def test_the_picture_names_the_number_of_inputs_that_were_simulated(tmp_path, done, monkeypatch):
    figures, draw = [], explicit_gates.draw
    monkeypatch.setattr(explicit_gates, "draw", lambda *args: figures.append(draw(*args)) or figures[-1])
    study(tmp_path, n_features=12, n_vectors=5, widths=(32, 64), seeds=2)
    words = [text for axes in figures[0].axes for text in (axes.get_title(), axes.get_xlabel())]
    assert [text for text in words if "100 inputs" in text] == []


def test_more_seeds_are_added_to_what_is_done(tmp_path, done):
    few = study(tmp_path, widths=(32, 64), seeds=2)
    done.clear()
    many = study(tmp_path, widths=(32, 64), seeds=3)
    assert {task.seed for task in done} == {2}
    assert json.dumps([r for r in many if r["seed"] < 2]) == json.dumps(few)


@pytest.mark.parametrize(("setting", "value"), [("n_features", 20), ("n_vectors", 7)])
def test_a_folder_with_other_settings_is_refused_in_one_line(tmp_path, done, refused, setting, value):
    small = {"n_features": 12, "n_vectors": 5, "widths": (32, 64), "seeds": 2}
    study(tmp_path, **small)
    with refused(f"holds a study with {setting} {small[setting]}, and {setting} is {value} now"):
        study(tmp_path, **small | {setting: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds is 1 and jobs is 1; an interval needs at least 2 seeds"),
        ({"jobs": 0}, "jobs is 0"),
        ({"n_features": 9}, "n_features is 9, at least 10 are needed"),
        ({"n_vectors": 0}, "vectors and widths from 1 up"),
        ({"widths": (0, 64)}, "vectors and widths from 1 up"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(tmp_path, done, refused, options, message):
    with refused(message):
        study(tmp_path, **options)
