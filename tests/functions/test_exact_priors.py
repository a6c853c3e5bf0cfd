"""Exact probabilities, the bound that is fixed before sampling, and the envelope."""

import numpy as np
import pytest

from zoo.functions.bound import Bound, bound, envelope, excess
from zoo.functions.exact import linear_thresholds, perceptron_of_two_inputs
from zoo.functions.keys import tables_from_keys
from zoo.functions.maps import LinearThreshold, RandomTable
from zoo.functions.names import all_keys
from zoo.functions.prior import halves
from zoo.functions.sampling import sample_counts


def test_numbers_of_linear_thresholds_are_those_of_the_literature():
    assert [len(linear_thresholds(n)) for n in (1, 2, 3, 4)] == [4, 14, 104, 1882]
    assert [len(linear_thresholds(n, bias=False)) for n in (2, 3, 4)] == [6, 32, 370]


def test_linear_thresholds_without_bias_are_those_with_bias_whose_first_value_is_0_and_more():
    with_bias = {int(key) for (key,) in linear_thresholds(3)}
    without = {int(key) for (key,) in linear_thresholds(3, bias=False)}
    assert without < with_bias
    assert not tables_from_keys(linear_thresholds(3, bias=False), 3)[:, 0].any()


def test_the_perceptron_of_two_inputs_has_the_probabilities_of_its_angles():
    exact = perceptron_of_two_inputs()
    assert exact.sum() == 1
    found = sample_counts(LinearThreshold(2, bias=False), 100_000)
    assert found.keys[:, 0].tolist() == np.flatnonzero(exact).tolist()
    expected = exact[exact > 0] * 100_000
    assert ((found.counts - expected) ** 2 / expected).sum() < 20.5  # chi-square of 5 degrees: p = 0.001


def test_the_bound_is_1_for_the_simplest_and_the_average_for_the_most_complex_function():
    for n in (2, 3, 4, 7):
        found = bound(n)
        assert found.smallest == n
        assert found.log2(np.array([found.smallest, found.largest])) == pytest.approx([0, -(2**n)])
    assert bound(4).largest == 30
    assert bound(3, "circuit").a == pytest.approx(8 / 6)


def test_complexities_that_are_all_the_same_have_no_bound(refused):
    with refused("all functions of 1 inputs have the same circuit complexity"):
        bound(1, "circuit")


def test_functions_above_the_bound_are_counted_with_their_share():
    of = Bound(a=1.0, b=0.0, smallest=0.0, largest=4.0)
    C, P = np.array([1.0, 2.0, 3.0]), np.array([0.4, 0.5, 0.1])
    found = excess(of, C, P, np.array([0.3, 0.4, 0.125]))
    assert (found.functions, found.worst) == (1, 1)
    assert found.mass == 0.5
    assert found.bits == pytest.approx(np.log2(0.4 / 0.25))


def test_the_envelope_names_the_most_probable_function_of_each_complexity():
    C, top = envelope(np.array([3.0, 1.0, 3.0, 3.0]), np.array([0.1, 0.2, 0.5, 0.3]))
    assert C.tolist() == [1, 3]
    assert top.tolist() == [1, 2]


def test_functions_of_random_tables_that_were_met_once_do_not_exceed_the_bound():
    """One half of the seeds chooses functions. If it estimated their probabilities too, all would exceed the bound."""
    n = 7
    parts = [sample_counts(RandomTable(n), 2000, seed) for seed in range(2)]
    keys = np.concatenate([part.keys for part in parts])
    counts = np.zeros((2, len(keys)), np.int64)
    counts[0, :2000], counts[1, 2000:] = parts[0].counts, parts[1].counts
    C = np.full(len(keys), 150.0)
    met = halves(keys, C, counts, [2000, 2000])
    assert met.n_samples == 2000
    assert len(met.keys) == 2000
    assert met.excess(bound(n)).functions == 0
    assert halves(keys[:2000], C[:2000], counts[[0, 0], :2000], [2000, 2000]).excess(bound(n)).functions == 2000


@pytest.mark.parametrize("n", [1, 2])
def test_every_function_of_few_inputs_is_met_and_has_an_interval(n):
    counts = sample_counts(RandomTable(n), 4000)
    assert len(counts) == len(all_keys(n))
