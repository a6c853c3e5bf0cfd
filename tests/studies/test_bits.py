import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from doing_studies import do_tasks

from zoo.analysis.known_minima import CASES
from zoo.analysis.small_networks import loss, minimum_near
from zoo.estimates import Estimate
from zoo.studies.bits import (
    MAIN,
    Bits,
    Check,
    CheckSampler,
    CountFunctions,
    FindCoefficients,
    Function,
    MeasureVolume,
    agreements_of,
    answers,
    disagreements_section,
    functions,
    headline,
    network_and_target,
    samplers_section,
)
from zoo.study import Work


def made(values, bits, exponents=None, repeats=None):
    """Functions whose coefficients, bits and exponents are given."""
    told = []
    for i, (value, bit) in enumerate(zip(values, bits, strict=True)):
        b = Estimate(bit, bit, bit, 4)
        e = b if exponents is None else Estimate(exponents[i], exponents[i], exponents[i], 4)
        own = [value] * 4 if repeats is None else repeats[i]
        coefficient = Estimate(value, value, value, 4)
        told.append(Function(str(i), [b, b], [e, e], [b, b], own, coefficient, value, value, 0))
    return told


@pytest.mark.parametrize("family", ["linear", "tanh", "boolean"])
def test_networks_can_compute_their_targets(family):
    generator = torch.Generator().manual_seed(0)
    for index in range(0, len(functions(family)), 4):
        network, target = network_and_target(family, index)
        w = torch.randn(6, network.n_parameters, generator=generator, dtype=torch.float64)
        w, K = minimum_near(network, target, w, steps=150)
        assert K.min() < 1e-20
        assert torch.allclose(network.outputs(w[K.argmin()][None])[0], target.double(), atol=1e-8)


def test_random_targets_of_few_units_are_those_of_a_network_with_the_others_off():
    network, target = network_and_target("tanh", 0)  # no unit: a constant
    assert (target == target[0]).all()
    w = torch.zeros(1, network.n_parameters, dtype=torch.float64)
    w[0, -1] = target[0]
    assert loss(network, target, w).item() == 0


def test_hmc_finds_the_value_of_a_generic_point():
    case = next(i for i, one in enumerate(CASES) if one.generic)
    found = Check.of(task := CheckSampler(case, "HMC", 50), task.do(Work({}, None)))
    assert found.limit == found.expected == 7.5
    assert found.ratio.mean == pytest.approx(1, abs=0.05)


def test_refused_estimates_are_told_apart():
    ends = {"mean": 0.7, "low": 0.65, "high": 0.75, "n": 4, "bias": 0.0}
    task = CheckSampler(0, "HMC", 100)
    good, bad = Check.of(task, ends | {"problems": []}), Check.of(task, ends | {"problems": ["R-hat is 3"]})
    assert good.expected == pytest.approx(0.3542, abs=1e-4)
    assert good.ratio.mean == pytest.approx(0.7 / 0.3542, rel=1e-3)
    section = samplers_section([good, bad])
    assert "HMC: of 2 estimates, the diagnostics accept 1, of which 0 are within 10 %" in section.finding
    assert "Of the 1 refused estimates, 1 are wrong by more than 10 %" in section.finding


def test_a_linear_function_has_the_volume_and_the_coefficient_of_its_rank():
    # Rank 3 of 4-3-4: λ is 7.5 everywhere, and the volume shrinks with this exponent.
    volume = MeasureVolume("linear", 9, (0.1, 1e-2), 1000, 60, 2)
    results = {volume: volume.do(Work({}, None))}
    found = FindCoefficients(volume, 4000.0, 8, 30).do(Work(results, None))
    assert max(found["K"]) < 1e-20
    assert found["half_rank"] == [7.5] * 2
    assert np.mean(found["values"]) == pytest.approx(7.5, rel=0.08)
    assert results[volume]["split"][1]["exponent"]["mean"] == pytest.approx(7.5, rel=0.1)


def test_counts_of_perceptrons_are_solid_angles():
    found = CountFunctions(40_000).do(Work({}, None))
    # Bit i is the label of (1, 0), (0, 1), (1, 1): two quarters and four eighths of the circle.
    share = np.array(found["perceptron"]) / 40_000
    assert share == pytest.approx([1 / 4, 1 / 8, 1 / 8, 0, 0, 1 / 8, 1 / 8, 1 / 4], abs=0.008)
    assert sum(found["counts"]) == 40_000
    assert found["counts"][0] == max(found["counts"])


def test_the_answer_is_yes_only_if_interval_and_shuffled_pairings_agree():
    rng = np.random.default_rng(0)
    values = np.arange(12.0)
    same = agreements_of(made(values, 3 * values + 1))
    reverse = agreements_of(made(values, -values))
    unrelated = agreements_of(made(values, rng.permutation(12)))
    found = answers({"linear": same, "tanh": reverse, "boolean": unrelated})
    assert found == {"linear": "yes", "tanh": "opposite", "boolean": "undecided"}
    text = headline({"linear": same, "tanh": reverse, "boolean": unrelated})
    assert "as their sampled probability does for matrices by linear networks (Spearman 1.00" in text
    assert "in the opposite way for functions of random tanh networks (Spearman -1.00" in text
    assert "no clear relation to it for Boolean functions" in text


def test_functions_without_a_coefficient_are_left_out_of_the_orders():
    told = made(np.arange(8.0), np.arange(8.0))
    unknown = replace(told[0], coefficient=Estimate(math.nan, math.nan, math.nan), repeats=[])
    assert agreements_of([unknown, *told[1:]])[MAIN].spearman.n == 7
    few = agreements_of(told[:4])
    assert answers({"linear": few}) == {"linear": "undecided"}


def test_minima_that_failed_are_left_out_of_the_mean():
    volume = {"split": [{"bits": _ends(1.0), "exponent": _ends(2.0)}] * 2, "plain": [{"bits": _ends("inf")}] * 2}
    found = {
        "values": [3.0, 4.0, 9.0, 9.0],
        "K": [0.0, 1e-25, 0.0, 1e-3],
        "problems": ["", "", "R-hat is 3", ""],
        "half_rank": [3.0, 5.0, 0.0, 0.0],
        "quadratic": [3.0, 4.0, 0.0, 0.0],
    }
    one = Function.of("linear", 0, volume, found)
    assert (one.coefficient.mean, one.half_rank, one.left_out) == (3.5, 4.0, 2)
    assert one.plain[0].mean == math.inf


def _ends(value):
    return {"mean": value, "low": value, "high": value, "n": 4}


def test_the_exact_disagreements():
    section = disagreements_section([0, 0, 0, 0, 0, 125, 0, 250], 1000)
    rows = {row[0]: row[1:] for row in section.numbers["rows"]}
    assert [row[0] for row in rows.values()][:4] == ["2", "3", "6.64", "6.64"]
    cross, line = (rows[name] for name in ("cross (w1 w2)² <= t", "line w1² <= t"))
    assert (cross[:3], line[:3]) == (["6.98", "0.437", "1/2"], ["9.97", "0.500", "1/2"])
    assert rows["line of the same volume as the cross"][0] == cross[0]
    assert section.numbers["expected_at_finite_n_beta"] == pytest.approx(0.4375, abs=5e-5)
    assert "6.64 bits more" in section.finding


@pytest.mark.slow
def test_ranks_of_matrices_are_ordered_alike_by_all_three(tmp_path):
    study = Bits(("linear",), samples=20_000, particles=100, seeds=2, chains=8, steps=60)
    report = study.report(do_tasks(study, tmp_path))
    told = report.verdict.numbers["agreements"]["linear"]
    assert told[MAIN].spearman.mean > 0.7
    assert told["LLC and volume exponent at the smallest t"].spearman.mean > 0.7
    assert [section.id for section in report.sections] == ["samplers", "volumes", "orders", "disagreements"]


def test_wrong_settings_are_refused(refused):
    with refused(r"thresholds are \[0.01, 0.1\]; at least two are needed, from large to small"):
        Bits(thresholds=(0.01, 0.1))
    with refused("thresholds is 0"):
        Bits(thresholds=(0.1, 0))
    with refused("particles is 5; it must be at least 20"):
        Bits(particles=5)
    with refused("steps is 5; it must be at least 20"):
        Bits(steps=5)
    with refused("families has 'relu'; it may have linear, tanh and boolean"):
        Bits(families=("relu",))
