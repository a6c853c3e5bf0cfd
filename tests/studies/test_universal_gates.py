import numpy as np
import pytest
from changed_results import Changed
from doing_studies import do_tasks

from zoo.models.toy.pair_bounds import least_balanced_loss
from zoo.studies.universal_gates import (
    Arm,
    UniversalGates,
    against_bounds,
    comparisons,
    errors,
    over_bound,
    overall,
    places,
)

WIDTHS = (6, 8)
SMALL = UniversalGates(n_features=8, widths=WIDTHS, steps=40, seeds=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return do_tasks(SMALL, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def runs(results):
    return {arm: results[SMALL.task(arm)] for arm in SMALL.arms()}


def test_the_affine_readoff_errs_alike_in_all_cases(runs):
    for d in WIDTHS:
        assert errors(runs, "and", d, "affine").mean(0).tolist() == [0.25] * 4
        assert errors(runs, "xor", d, "affine").mean(0).tolist() == [0.5] * 4


@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("d", WIDTHS)
def test_no_trained_readoff_of_the_same_random_layer_beats_least_squares(runs, gate, d):
    best, trained = (errors(runs, gate, d, method, name="rms") for method in ("least squares", "frozen"))
    assert ((best**2).mean(1) <= (trained**2).mean(1) * 1.0001).all()


def test_the_discriminant_is_right_on_average_where_the_gate_is_1(runs):
    for d in WIDTHS:
        assert errors(runs, "and", d, "discriminant", name="bias")[:, 3].mean() == pytest.approx(0, abs=1e-4)


def test_no_network_is_below_the_bound_and_the_best_readoff_is_below_the_trained_one(runs):
    bounded = against_bounds(runs, 8)
    assert [*bounded] == [("and", "zero_one"), ("and", "four"), ("xor", "four")]
    for found in bounded.values():
        for one in found.values():
            for name in ("trained", "best", "frozen", "signs", "explicit"):
                assert (one[name] >= one["bound"]).all()
            assert (one["best"] <= one["frozen"] * 1.0001).all()


def test_the_bound_of_and_with_zeros_and_ones_weighing_equally_is_that_of_the_balanced_loss():
    known = {12: 0.0647, 20: 0.0342, 40: 0.0099}
    runs = {arm: dict.fromkeys(("rms",), [[1.0, 0, 0, 0]] * 2) for arm in UniversalGates(12, (11, 19, 39)).arms()}
    for d, one in against_bounds(runs, 12)["and", "zero_one"].items():
        assert 2 * one["bound"] == pytest.approx(least_balanced_loss(12, d + 1))  # here zeros and ones weigh 1/2
        assert 2 * one["bound"] == pytest.approx(known[d + 1], abs=5e-5)
        assert 2 * one["trained"] == pytest.approx(45 / 65)  # an error of 1 at 00 alone: 45 of the 65 zeros of a pair


def test_the_loss_over_its_bound_is_told_in_the_verdict_and_in_its_section(results, runs):
    report = SMALL.report(results)
    one = against_bounds(runs, 8)["and", "zero_one"][6]
    assert over_bound(one, "trained").mean == pytest.approx((one["trained"] / one["bound"]).mean())
    [section] = [section for section in report.sections if section.id == "bounds"]
    assert f"both layers trained have {over_bound(one, 'trained'):.2f} and" in section.finding
    [row] = [row for row in report.verdict.numbers["evidence"] if "AND, zeros and ones" in row[0]]
    assert f"trained {over_bound(one, 'trained'):.2f}" in row[1]


def test_with_as_many_neurons_as_pairs_the_bound_is_0_and_no_ratio_is_told(runs):
    wide = {arm._replace(d_mlp=28): r for arm, r in runs.items() if arm.d_mlp == 6}
    one = against_bounds(wide, 8)["and", "four"][28]
    assert one["bound"] == 0
    assert f"{over_bound(one, 'trained')}" == "-"


def test_every_exponent_and_weighting_is_trained_at_the_first_width():
    arms = {arm for arm in SMALL.arms() if arm.d_mlp == 6}
    for method in ("frozen", "trained"):
        for weights in ("natural", "ones", "four"):
            assert {Arm("and", 6, method, weights, p) for p in (2, 3, 4, 6)} <= arms
        assert {Arm("xor", 6, method, "four", p) for p in (2, 3, 4, 6)} <= arms
        assert Arm("xor", 6, method, "zero_one", 2) in arms


def test_readoffs_that_are_computed_do_not_depend_on_how_long_others_are_trained():
    longer = {task.key for task in UniversalGates(8, WIDTHS, 41, 2).tasks()}
    assert {type(task).__name__ for task in SMALL.tasks() if task.key in longer} == {"ComputeReadoff"}


def sections(results):
    return {section.id: section for section in SMALL.report(results).sections}


def test_findings_tell_the_numbers_of_the_results(results, runs):
    found = sections(results)
    for gate in ("and", "xor"):
        mean = overall(runs, gate, 6, "trained").mean()
        assert f"over the four cases it is {mean:.3f} [" in found["cases"].finding
    assert f"AND {overall(runs, 'and', 6, 'trained').mean():.3f} [" in found["random-layers"].finding
    assert len(found["losses"].tables[0].rows) == 2 * (3 * 4 + 4 + 2)


def with_trained(results, error):
    """Results whose networks with both layers trained err by so much in every case."""
    changed = dict.fromkeys(("mean", "rms"), [[error] * 4] * 2)
    trained = [SMALL.task(arm) for arm in SMALL.arms() if arm.method == "trained"]
    return Changed(results, {task: results[task] | changed for task in trained})


def test_the_headline_says_whether_training_wins(results, runs):
    wins, loses = (SMALL.report(with_trained(results, error)) for error in (0.0, 100.0))
    assert "gives smaller errors than the best readoff of random neurons at every width" in wins.verdict.headline
    better = "training is better for AND at d = 6 and 8 and XOR at d = 6 and 8."
    assert better in sections(with_trained(results, 0.0))["random-layers"].finding
    assert "gives larger errors than the best readoff of random neurons at every width" in loses.verdict.headline
    assert "compute neither gate with a smaller mean error" in sections(with_trained(results, 100.0))["cases"].finding
    mixed = [r | {"answer": answer} for r, answer in zip(comparisons(runs), ("better", "worse") * 2, strict=True)]
    assert places(mixed, "better") == "AND at d = 6 and XOR at d = 6"
    assert places(mixed, "undecided") == ""


def test_training_is_compared_with_the_better_of_two_readoffs(runs):
    first = comparisons(runs)[0]
    closed = [overall(runs, "and", 6, method).mean() for method in ("least squares", "discriminant")]
    assert first["best"].mean == pytest.approx(min(closed))
    assert first["trained"].mean == pytest.approx(np.mean(runs[Arm("and", 6, "trained")]["mean"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 1}, "seeds is 1; it must be"),
        ({"n_features": 3}, "n_features is 3"),
        ({"steps": 0}, "steps is 0"),
        ({"widths": (0,)}, "widths is 0"),
        ({"widths": ()}, "widths is empty"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(refused, wrong, message):
    with refused(message):
        UniversalGates(**wrong)
