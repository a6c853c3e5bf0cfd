"""Simple functions are listed completely, and counted by their probabilities."""

import numpy as np
import pytest

from zoo.functions.complexity import lempel_ziv
from zoo.functions.corner import Corner, corner, counts_of, functions_below
from zoo.functions.exact import complexity_prior, linear_thresholds, uniform
from zoo.functions.keys import inputs, keys_from_tables, tables_from_keys
from zoo.functions.maps import LinearThreshold, RandomTable
from zoo.functions.names import all_keys
from zoo.functions.prior import simple_functions, simple_keys
from zoo.functions.sampling import sample_counts

AVERAGE = 2.0**-16


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_list_of_simple_functions_is_that_of_brute_force(n):
    keys = all_keys(n)
    C = lempel_ziv(keys, n)
    for c in (n + 0.5, *np.unique(C)[1:], C.max() + 1):
        assert np.array_equal(functions_below(c, n), keys[c > C])


def test_the_list_for_7_inputs_has_no_other_functions_and_is_closed_under_reversal_and_negation():
    keys = functions_below(28, 7)
    assert len(keys) == len(np.unique(keys, axis=0)) == 4374
    assert lempel_ziv(keys, 7).max() == 24.5
    tables = tables_from_keys(keys, 7)
    everything = np.ones(len(keys), np.int64)
    assert counts_of(keys_from_tables(tables[:, ::-1]), keys, everything).all()
    assert counts_of(keys_from_tables(~tables), keys, everything).all()


def test_the_list_for_7_inputs_has_every_simple_function_that_is_found_in_another_way():
    """Pieces of two periods, single changes, and functions of few samples of a network are tried."""
    texts = set()
    for period in (1, 2, 3, 4, 5, 8, 16, 31, 63):
        for place in range(period):
            one = "".join("1" if i % period == place else "0" for i in range(128))
            for cut in range(0, 129, 3):
                for rest in ("0", "1"):
                    texts.add(one[:cut] + rest * (128 - cut))
                    texts.add(rest * cut + one[cut:])
    tables = np.array([[c == "1" for c in text] for text in sorted(texts)])
    tried = keys_from_tables(np.concatenate([tables, ~tables]))
    simple = tried[lempel_ziv(tried, 7) < 28]
    keys = functions_below(28, 7)
    assert len(np.unique(simple, axis=0)) > 1000
    assert counts_of(simple, keys, np.ones(len(keys), np.int64)).all()


def test_5_inputs_have_the_simple_functions_that_a_random_walk_finds():
    rng, n = np.random.default_rng(0), 5
    keys = functions_below(22.5, n)
    known = {int(key) for (key,) in keys}
    table, found = np.zeros(32, np.uint8), set()
    for _ in range(4000):  # changes up to three values of a simple table at a time
        other = table.copy()
        other[rng.integers(0, 32, rng.integers(1, 4))] ^= 1
        key = keys_from_tables(other[None])
        if lempel_ziv(key, n)[0] < 22.5:
            found.add(int(key[0, 0]))
            table = other
    assert len(found) > 100
    assert found <= known


def test_counts_of_functions_that_were_not_met_are_0():
    keys = np.array([[1, 0], [1, 5], [7, 0]], np.uint64)
    wanted = np.array([[7, 0], [0, 1], [1, 5], [7, 0]], np.uint64)
    assert counts_of(wanted, keys, np.array([3, 4, 5])).tolist() == [5, 0, 4, 5]
    assert counts_of(wanted, keys[:0], np.array([], np.int64)).tolist() == [0] * 4


def test_a_function_whose_interval_contains_tau_is_counted_apart():
    assert corner(np.array([0.3, 0.1, 0.0, 0.2]), np.array([0.4, 0.3, 0.1, 0.2]), 0.2) == Corner(1, 2, 1)


def test_of_all_functions_of_4_inputs_the_perceptron_makes_370_probable_and_all_others_impossible():
    of, keys = LinearThreshold(4, bias=False), simple_keys(4, "lempel-ziv", 31)
    assert len(keys) == 65_536
    counts = sample_counts(of, 200_000)
    found = simple_functions(of, keys, counts.keys, counts.counts, counts.n_samples)
    assert found.corner(AVERAGE) == Corner(370, 0, 65_166)
    possible = counts_of(keys, linear_thresholds(4, bias=False), np.ones(370, np.int64)) == 1
    # every possible function has a probability of at least 7.7e-4: 154 of 200,000 samples, give or take 12
    assert (found.high[possible] >= 7.7e-4).all()
    assert (found.probabilities[possible] > 7.7e-4 * (1 - 5 * 154**-0.5)).all()
    assert found.high[~possible].max() == 0


def test_random_tables_make_no_function_more_probable_than_the_average():
    of, keys = RandomTable(4), all_keys(4)
    counts = sample_counts(of, 1000)
    found = simple_functions(of, keys, counts.keys, counts.counts, counts.n_samples)
    assert uniform(4) == AVERAGE
    assert found.corner(AVERAGE).above == 0
    assert found.corner(AVERAGE) == Corner(0, 65_536, 0)  # all are exactly at the average
    assert found.corner(AVERAGE * 1.01) == Corner(0, 0, 65_536)


def test_the_prior_of_complexities_makes_all_functions_below_its_own_limit_probable():
    """2^-C / Z > tau if and only if C < -log2(tau Z): up to this c all simple functions are above tau, then not."""
    C = lempel_ziv(all_keys(4), 4)
    prior = complexity_prior(C)
    limit = -np.log2(AVERAGE * (2.0**-C).sum())
    assert prior.sum() == pytest.approx(1)
    simple = prior[limit > C]
    assert corner(simple, simple, AVERAGE) == Corner(len(simple), 0, 0)
    assert 282 < len(simple) < 65_536
    wider = prior[limit + 2 > C]  # complexities of 4 inputs are 2 bits apart
    assert corner(wider, wider, AVERAGE) == Corner(len(simple), 0, len(wider) - len(simple))
    assert len(wider) > len(simple)


def test_parities_are_complex_and_single_changes_are_simple():
    keys = functions_below(28, 7)
    parity = keys_from_tables((inputs(7).sum(1) % 2)[None])
    steps = keys_from_tables(np.arange(128) >= np.arange(1, 128)[:, None])
    everything = np.ones(len(keys), np.int64)
    assert not counts_of(parity, keys, everything).any()
    assert counts_of(steps, keys, everything).all()


def test_a_complexity_below_which_there_is_no_function_is_refused(refused):
    with refused("c is 7; no function of 7 inputs has a complexity below 7, that of a constant"):
        functions_below(7, 7)
    with refused("c is 0; no function of 3 inputs has a circuit complexity below it"):
        simple_keys(3, "circuit", 0)
    with refused("simple functions are listed for 1 to 7 inputs"):
        functions_below(40, 8)
    with refused("more than 100 functions of 4 inputs"):
        functions_below(40, 4, most=100)
