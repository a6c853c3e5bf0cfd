import numpy as np
import pytest

from zoo.row_choice import chosen_rows

ZIPF = np.random.default_rng(0).permutation(100_000 // np.arange(1, 1001))  # counts of 1,000 tokens, in any order


def test_all_rows_are_kept_if_there_are_no_more():
    for choice in ("random", "stratified", "most frequent"):
        assert chosen_rows(5, 5, choice).tolist() == [0, 1, 2, 3, 4]


def test_the_most_frequent_tokens_are_those_that_occur_most():
    chosen = chosen_rows(1000, 100, "most frequent", ZIPF)
    left = np.setdiff1d(np.arange(1000), chosen)
    assert len(chosen) == 100
    assert ZIPF[chosen].min() >= ZIPF[left].max()


@pytest.mark.parametrize("counts", [ZIPF, None])
def test_stratified_rows_have_the_quantiles_of_all_rows(counts):
    chosen = chosen_rows(1000, 100, "stratified", counts)
    assert len(set(chosen.tolist())) == 100
    assert (np.diff(chosen) > 0).all()
    place = np.arange(1000) if counts is None else np.argsort(np.argsort(-counts, kind="stable"))
    np.testing.assert_array_equal(np.sort(place[chosen]), np.arange(5, 1000, 10))


def test_random_rows_are_the_same_ones_every_time_and_no_more_frequent_than_others():
    chosen = chosen_rows(1000, 500, "random")
    np.testing.assert_array_equal(chosen, chosen_rows(1000, 500, "random"))
    assert abs(chosen.mean() - 499.5) < 3 * 1000 / 12**0.5 / 500**0.5


def test_the_most_frequent_tokens_of_unknown_counts_are_refused(refused):
    with refused("how often the tokens occur is not known, so the most frequent ones cannot be chosen; use stratified"):
        chosen_rows(10, 5, "most frequent")
