from math import comb

import numpy as np
import pytest
from changed_results import Changed
from doing_studies import do_tasks

from zoo.models.toy.circuits import interference, interference_of_active
from zoo.models.toy.pair_bounds import least_balanced_loss, least_squared_loss
from zoo.studies.circuits_in_depth import CircuitsInDepth, _most_circuits
from zoo.studies.compressed_computation import Arm as Functions
from zoo.studies.compressed_computation import CompressedComputation
from zoo.studies.continuous_gates import ContinuousGates
from zoo.studies.pair_products import PairProducts
from zoo.studies.product_readoffs import ProductReadoffs
from zoo.studies.shared_dimensions import Arm as Case
from zoo.studies.shared_dimensions import SharedDimensions
from zoo.study import NotTested

FUNCTIONS = CompressedComputation(8, (2, 4, 6), (0.1, 0.3), 20, 2)
DIMENSIONS = SharedDimensions(20, 2)
READOFFS = ProductReadoffs((6, 5), (2, 3), (64, 256, 1024), (4, 10), 2)
PRODUCTS = PairProducts((6, 5), (3, 5), (2, 3), 20, 2)
CIRCUITS = CircuitsInDepth((12, 30), (1, 2), 16, 2, 10, 2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of every part, by its name."""
    studies = (FUNCTIONS, DIMENSIONS, READOFFS, PRODUCTS, CIRCUITS)
    return {study.name: do_tasks(study, tmp_path_factory.mktemp(study.name)) for study in studies}


@pytest.fixture(scope="module")
def sections(results):
    """The sections of every part, by their ids."""
    studies = (FUNCTIONS, DIMENSIONS, READOFFS, PRODUCTS, CIRCUITS)
    return {section.id: section for study in studies for section in study.report(results[study.name]).sections}


def rows(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def with_losses(results, study, losses):
    """Results in which the losses of some arms are others."""
    tasks = {study.task(arm): loss for arm, loss in losses.items()}
    return Changed(results, {task: results[task] | {"loss": loss} for task, loss in tasks.items()})


def test_dedicated_neurons_cost_more_if_labels_contain_m(sections):
    found = {row["labels"]: row for row in rows(sections["labels"].tables[0])}
    for labels in ("mixed, +1", "mixed, -1", "residual stream"):
        assert found[labels]["dedicated"] > found[labels]["dedicated, M left out"]
        assert found[labels]["bound"] < found[labels]["dedicated"]
    assert found["clean"]["dedicated"] == found["clean"]["dedicated, M left out"]


def test_losses_of_functions_are_told_as_multiples_of_dedicated_neurons(results):
    d, p = FUNCTIONS.middle, FUNCTIONS.probabilities[0]
    arms = {q: Functions("clean", q, d, p) for q in (2.0, 4.0)}
    exact = {q: results[FUNCTIONS.name][FUNCTIONS.task(arm)]["lines"]["dedicated"] for q, arm in arms.items()}
    losses = {arms[2.0]: np.array([1.0, 1.0]) * exact[2.0], arms[4.0]: np.array([0.1, 0.1]) * exact[4.0]}
    report = FUNCTIONS.report(with_losses(results[FUNCTIONS.name], FUNCTIONS, losses))
    assert "have 1.000 [1.000, 1.000] times" in report.verdict.headline
    answers = [row[2] for row in report.verdict.numbers["evidence"]]
    assert (answers[0], answers[2]) == ("no", "yes")


def test_sharing_pays_for_exponents_above_two_and_for_weights_below_the_threshold(results):
    from zoo.models.toy.power_loss import grouped_loss

    best = {arm: np.full(32, grouped_loss(*arm)) for arm in DIMENSIONS.arms()}
    report = DIMENSIONS.report(with_losses(results[DIMENSIONS.name], DIMENSIONS, best))
    powers, weights = report.sections
    assert "share dimensions exactly if the exponent q of the error is above 2" in powers.finding
    shares = {(row["q"], row["features"]): row["shares"] for row in rows(powers.tables[0])}
    assert [shares[q, 6] for q in ("1.5", "2", "2.5", "3", "4")] == ["no", "no", "yes", "yes", "yes"]
    threshold = {row["q"]: row for row in rows(weights.tables[0])}
    assert threshold["2"]["threshold in theory"] == pytest.approx(1)
    assert threshold["1.5"]["threshold in theory"] == pytest.approx(3**-0.5)
    for row in threshold.values():
        assert row["largest weight that shares"] < row["threshold in theory"] < row["smallest that does not"]
    assert [row[2] for row in report.verdict.numbers["evidence"]] == ["yes", "yes"]
    wrong = with_losses(results[DIMENSIONS.name], DIMENSIONS, best | {Case(6, 3, 4.0, 1.0): np.full(32, 0.5)})
    assert [row[2] for row in DIMENSIONS.report(wrong).verdict.numbers["evidence"]] == ["no", "yes"]


def test_written_readoffs_fall_as_one_over_d_and_have_their_exact_variance(sections):
    errors, fits = map(rows, sections["written"].tables)
    assert len(fits) == 7
    for row in fits:
        assert row["exponent in d"].mean == pytest.approx(-1, abs=0.12)
        assert (row["exact, d"], row["exact, m"]) == (pytest.approx(-1), pytest.approx(0))
    assert len(errors) == 7 * 2
    for row in errors:
        for case in ("none on", "one on"):
            assert row[f"error² x d, {case}"].mean == pytest.approx(row[f"exact, {case}"], rel=0.25)
    exact = {(r["neurons"], r["weights"], r["on"]): [v for k, v in r.items() if k.startswith("exact")] for r in errors}
    assert exact["square", "signs", 3] == pytest.approx([3, 3, 2])
    assert exact["relu", "signs", 2] == pytest.approx([3, 3, 2])
    assert exact["bilinear", "gaussian", 2] == pytest.approx([2, 4, 9])


def test_the_r2_of_square_neurons_add_up_to_their_number_or_to_all_products_and_squares(sections):
    for row in rows(sections["squares"].tables[0]):
        if row["weights"] == "gaussian":
            assert row["both"].mean == pytest.approx(min(row["d"], 15 + 6), abs=1e-9) == row["in theory"]
        assert row["both"].mean <= row["in theory"] + 1e-9
    assert max(sections["squares"].numbers["errors"]) < 1e-9


def test_no_trained_network_is_below_the_bound_and_an_output_bias_counts_as_a_neuron(sections):
    found = rows(sections["trained"].tables[0])
    for row in found:
        if row["q"] == "2":
            assert row["loss"].mean > 0.97 * row["bound"]
    ands = [row for row in found if row["inputs"] == "AND" and row["m"] == 6 and row["on"] == 2]
    bounds = {(row["varied"], row["d"]): row["bound"] for row in ands}
    for d in (3, 5):
        assert bounds["neurons", d] == pytest.approx(least_balanced_loss(6, d + 1))
        assert bounds["neurons, without output biases", d] == pytest.approx(least_balanced_loss(6, d))
    assert all(row["bound"] != row["bound"] for row in found if row["q"] != "2")  # not known: NaN


def test_the_best_readoffs_of_random_neurons_are_above_the_bound_and_gain_by_output_biases(sections):
    for d, ratio, loss, biased_ratio, biased in sections["trained"].tables[2].rows:
        assert min(ratio.low, biased_ratio.low) > 1
        assert biased.mean < loss.mean < 1 - d / comb(6, 2)


def test_the_plain_squared_error_of_dedicated_neurons_is_the_bound(sections):
    for row in rows(sections["plain"].tables[0]):
        assert row["dedicated, 1 - d / M"] == pytest.approx(row["bound"]) == least_squared_loss(6, row["d"])
        assert row["plain loss"].mean > 0.97 * row["bound"]


def test_networks_without_biases_have_the_known_largest_r2(sections):
    found = [row["largest possible"] for row in rows(sections["degree"].tables[0])]
    assert found == [pytest.approx(24 / 25), None, pytest.approx(35 / 36), None]


def test_circuits_are_told_with_their_exact_errors(sections):
    for row in rows(sections["growth"].tables[0]):
        if row["maps"] == "rotation" and row["correction"] != "learned":
            T, z = row["circuits T"], row["active z"]
            none = row["correction"] == "none"
            exact = interference(2, 16, T, z) if none else interference_of_active(2, 16, z)
            assert row["exact, last depth"] == pytest.approx(exact)
            assert row["error at depth 2"].mean == pytest.approx(exact, rel=0.6)
    lost, kept = interference(2, 16, 256, 2), interference_of_active(2, 16, 2)
    assert f"With 2 active, it is {lost:,.0f} and {kept:.3f} after 2 layers" in sections["growth"].finding
    assert "the exact error is 0.9961 after one layer already" in sections["growth"].finding  # 1 - 1 / 16²


def test_circuits_in_blocks_have_no_error_if_one_is_active_and_idle_blocks_are_silenced(results, sections):
    blocks = results[CIRCUITS.name][CIRCUITS.blocks()]
    silenced, loud = np.asarray(blocks["silenced"]), np.asarray(blocks["not_silenced"])  # active, depths, networks
    assert silenced.shape == loud.shape == (3, 3, 8)
    assert (silenced[0] == 0).all()
    assert (silenced[1:, 1:] > 0.1).all()
    assert (loud[0, -1] > 0.1).all()
    assert silenced[1, 0].mean() == pytest.approx(1 / 9, rel=0.1)  # 7 of the 63 others have the same first block
    found = {(row["active z"], row["idle blocks silenced"]): row for row in rows(sections["growth"].tables[2])}
    assert found[1, "yes"]["error at depth 2"].high == 0 < found[2, "yes"]["error at depth 2"].low
    assert "the states is exactly 0 with one active circuit, " in sections["growth"].finding


def test_a_written_network_with_an_error_is_not_called_exact(results):
    task = CIRCUITS.blocks()
    done = results[CIRCUITS.name]
    wrong = done[task] | {"silenced": np.asarray(done[task]["silenced"]) + 1e-9}
    answers = [
        [row[2] for row in CIRCUITS.report(of).verdict.numbers["evidence"]]
        for of in (done, Changed(done, {task: wrong}))
    ]
    assert [last for _, last in answers] == ["yes", "no"]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_largest_number_of_circuits_is_the_last_with_a_small_error(depth):
    most = _most_circuits(64, 3, depth)
    assert interference(depth, 64, most, 3) < 0.5 <= interference(depth, 64, most + 1, 3)


def test_the_whole_report_has_the_answers_of_all_parts(results):
    studies = (FUNCTIONS, DIMENSIONS, READOFFS, PRODUCTS, CIRCUITS)
    parts = {study.name: study.report(results[study.name]) for study in studies}
    report = ContinuousGates(2).report_of_parts(parts)
    assert list(parts) == list(ContinuousGates().parts())
    assert all(part.verdict.headline in report.verdict.headline for part in parts.values())
    assert len(report.verdict.numbers["evidence"]) == 4 + 2 + 2 + 3 + 2
    missing = ContinuousGates(2).report_of_parts(parts | {"pair-products": NotTested("Left out by --parts.")})
    assert "Parts without an answer: pair-products." in missing.verdict.certainty


def test_seeds_are_those_of_every_part():
    assert {part.seeds for part in ContinuousGates(7).parts().values()} == {7}


@pytest.mark.parametrize(
    ("study", "wrong", "message"),
    [
        (ContinuousGates, {"seeds": 1}, "seeds is 1; it must be"),
        (CompressedComputation, {"widths": (50,)}, "all must be below n_functions, 40"),
        (CompressedComputation, {"probabilities": (1.5,)}, "probabilities is 1.5"),
        (ProductReadoffs, {"active": (1,)}, "numbers must be 2 to the first of inputs, 12"),
        (ProductReadoffs, {"active": (9, 2)}, "all must be at least the first of active, 9"),
        (PairProducts, {"active": (2, 7)}, "numbers must be 2 to half of the first of inputs, 6"),
        (PairProducts, {"active": (3, 2)}, "it must begin with 2"),
        (PairProducts, {"inputs": (12, 3)}, "all must be at least 4"),
        (PairProducts, {"widths": (12, 20, 80)}, "number of pairs of 12 inputs, 66"),
        (CircuitsInDepth, {"active": (1, 200)}, "at most the smallest of circuits, 100"),
        (CircuitsInDepth, {"active": (3,)}, "at least two numbers"),
        (CircuitsInDepth, {"depth": 1}, "depth is 1; it must be at least 2"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(refused, study, wrong, message):
    with refused(message):
        study(**wrong)
