import numpy as np
import pytest
from changed_results import Changed
from doing_studies import do_tasks

from zoo.studies.explicit_gates import ExplicitGates, On, exponents

WIDTHS = (64, 256, 1024)
LISTS = {"active": (2,), "used_at": (2, 4, 8), "superposed_in": (10, 80), "superposed_widths": (256, 4096)}
SMALL = ExplicitGates(40, 100, WIDTHS, **LISTS, depth_widths=(2048,), in_group=6, seeds=4)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return do_tasks(SMALL, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def report(results):
    return SMALL.report(results)


def runs(report, id, **chosen):
    """Simulations of a section, of those with these settings."""
    [section] = [section for section in report.sections if section.id == id]
    found = section.numbers["used_at" if id == "width" else "runs"]
    return [r for r in found if all(r[key] == value for key, value in chosen.items())]


def test_simulations_agree_with_what_theory_says_of_them(report, results):
    for d in WIDTHS:
        for gate in ("and", "xor"):
            rows = runs(report, "closed-form", gate=gate, on="2", d=d)
            assert np.mean([r["rms"]["00"] for r in rows]) == pytest.approx(rows[0]["theory"], rel=0.06)
    for on in (2, 4, 8):
        rows = runs(report, "width", on=on)
        assert np.mean([1 + r["bias"]["11"] for r in rows]) == pytest.approx(rows[0]["theory"], rel=0.08)
        assert np.mean([r["bias"]["00"] for r in rows]) == pytest.approx(0, abs=0.02)
    gates = {setting: [results[task] for task in tasks] for setting, tasks in SMALL._gates().items()}
    slope = exponents(gates, "and", On(2))
    assert slope["mean"].mean == pytest.approx(-0.5, abs=0.05)
    assert slope["max"].mean == pytest.approx(-0.5, abs=0.1)


def test_weights_of_1_and_minus_1_have_the_error_sqrt_3_over_d_and_gaussian_ones_4_279_over_sqrt_d(report):
    known = {"and": (3**0.5, 4.279), "xor": (18**0.5, 9.263)}
    for gate, (signs, gaussian) in known.items():
        for d in WIDTHS:
            rows = runs(report, "signs", gate=gate, on="2", d=d)
            assert rows[0]["theory"] * d**0.5 == pytest.approx(signs)
            assert np.mean([r["rms"]["00"] for r in rows]) == pytest.approx(rows[0]["theory"], rel=0.06)
            assert runs(report, "closed-form", gate=gate, on="2", d=d)[0]["theory"] * d**0.5 == pytest.approx(
                gaussian, rel=1e-3
            )
    rows = runs(report, "signs", gate="and", on="2", d=1024)
    assert np.mean([r["bias"]["11"] for r in rows]) == pytest.approx(0, abs=0.02)
    assert np.mean([r["rms"]["11"] ** 2 for r in rows]) == pytest.approx(2 / 1024, rel=0.2)  # 3 / d less 1 / d
    [section] = [section for section in report.sections if section.id == "signs"]
    assert section.numbers["gains"]["and, 2"].mean == pytest.approx(4.279 / 3**0.5, rel=0.05)
    assert "the rms error of 00 of AND is in theory 1.732 / sqrt(d) with weights 1 and -1, and 4.279" in section.finding


def test_errors_of_superposed_inputs_are_a_floor_and_a_part_that_more_neurons_remove(report):
    for d0 in (10, 80):
        for d in (256, 4096):
            rows = runs(report, "superposed-inputs", d0=d0, d=d)
            found, theory = (np.mean([f(r) for r in rows]) for f in (lambda r: r["rms"]["00"], lambda r: r["theory"]))
            assert found == pytest.approx(theory, rel=0.06)
            assert found > np.mean([r["floor"] for r in rows])
        narrow, wide = (runs(report, "superposed-inputs", d0=d0, d=d) for d in (256, 4096))
        assert [r["floor"] for r in narrow] == pytest.approx([r["floor"] for r in wide])
        assert [r["theory"] ** 2 - r["floor"] ** 2 for r in narrow] == pytest.approx(
            [16 * (r["theory"] ** 2 - r["floor"] ** 2) for r in wide]
        )
    few, many = (np.mean([r["floor"] for r in runs(report, "superposed-inputs", d0=d0)]) for d0 in (10, 80))
    assert few > 2 * many > 0
    wide = runs(report, "superposed-inputs", d0=10, d=4096)
    assert few > 0.8 * np.mean([r["rms"]["00"] for r in wide])  # nearly all that is left


def test_error_correction_keeps_errors_small_in_depth(report):
    without, with_it = (runs(report, "depth", d=2048, error_correction=correction) for correction in (False, True))
    assert [r["rms"][0] for r in without] == [r["rms"][0] for r in with_it]
    last = [np.mean([r["rms"][3] for r in rows]) for rows in (without, with_it)]
    assert last[0] > 1.5 * last[1]


def test_findings_and_tables_tell_the_numbers_of_the_results(report):
    sections = {section.id: section for section in report.sections}
    ratio = np.mean([r["rms"]["00"] / r["theory"] for r in runs(report, "superposed-inputs")])
    assert f"the ratio measured / theory is {ratio:.3f} [" in sections["superposed-inputs"].finding
    [row] = [row for row in sections["closed-form"].tables[1].rows if row[:3] == ["and", "2", 64]]
    rows = runs(report, "closed-form", gate="and", on="2", d=64)
    assert row[3].mean == pytest.approx(np.mean([r["rms"]["00"] for r in rows]))
    assert row[4] == rows[0]["theory"]
    assert report.verdict.headline.startswith("Random neurons compute gates")


def test_a_theory_that_is_wrong_is_called_wrong(results):
    told = {task: results[task] for task in SMALL.tasks() if "theory" in results[task]}
    report = SMALL.report(Changed(results, {task: r | {"theory": 2 * r["theory"]} for task, r in told.items()}))
    assert report.verdict.headline.startswith("Random neurons do not compute")
    for section in report.sections:
        assert ("do not agree" in section.finding) == (section.id in ("closed-form", "signs", "superposed-inputs"))


def test_there_is_a_task_for_every_setting_and_seed_and_more_seeds_are_added_to_what_is_done():
    few, many = (
        {task.key: task for task in ExplicitGates(40, 100, (32, 64), **LISTS, depth_widths=(2048,), seeds=n).tasks()}
        for n in (2, 3)
    )
    assert len(few) == 2 * (2 * 2 * 2 + 2 * 2 + 3 + 2 * 2 + 2)
    assert few.keys() < many.keys()
    assert {task.seed for key, task in many.items() if key not in few} == {2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 1}, "seeds is 1; it must be"),
        ({"n_features": 9}, "n_features is 9; it must be at least 10"),
        ({"n_vectors": 0}, "n_vectors is 0"),
        ({"widths": (0, 64)}, "widths is 0"),
        ({"widths": (64,)}, "at least 2 different widths"),
        ({"superposed_in": ()}, "superposed_in is empty"),
        ({"active": (1,)}, "active and used_at must be at least 2"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(refused, wrong, message):
    with refused(message):
        ExplicitGates(**{"active": (2,), "used_at": (2, 4, 8)} | wrong)
