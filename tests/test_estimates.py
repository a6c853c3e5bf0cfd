import math

import numpy as np
import pytest

from zoo import estimates


def test_the_interval_of_a_mean_is_students_t():
    # Three values with standard error 1: t(0.975, 2) = 4.302653
    found = estimates.mean([10 - 3**0.5, 10, 10 + 3**0.5])
    assert found.mean == pytest.approx(10)
    assert found.high - 10 == pytest.approx(4.302653, rel=1e-6)
    assert 10 - found.low == pytest.approx(4.302653, rel=1e-6)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = np.mean([0 in estimates.mean(rng.normal(size=3)) for _ in range(4000)])
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_the_interval_of_a_share_ends_where_shares_do():
    found = estimates.mean([0.99, 1.0, 1.0], 0.0, 1.0)
    assert found.high == 1.0
    assert found.low == estimates.mean([0.99, 1.0, 1.0]).low
    assert estimates.share([0.0, 0.01]).low == 0.0


def test_a_difference_from_draws_has_the_variance_of_one_more_draw():
    # Variances 1 and 2 of three values and two draws: 1 / 3 + 2 (1 + 1 / 2) = 10 / 3; t(0.975, 1) = 12.706205
    found = estimates.difference([1, 2, 3], [0, 2])
    assert (found.mean, found.n) == (1, 2)
    half = 12.706205 * (10 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (6, 3), (3, 8)])
def test_a_matrix_that_is_a_draw_of_its_null_model_is_told_from_it_in_at_most_5_percent_of_cases(n, m):
    rng, trials = np.random.default_rng(0), 2000
    told = 0
    for _ in range(trials):
        values, null = rng.normal() + 0.5 * rng.normal(size=n), rng.normal(size=m) + 0.5 * rng.normal(size=m)
        told += 0 not in estimates.difference(values, null)
    assert told / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_a_change_has_the_variance_of_two_draws_in_addition():
    # Changes 1, 2, 3 of variance 1 and draws of variances 1 and 4: 1 / 3 + 1 + 4 = 16 / 3; t(0.975, 2) = 4.302653
    found = estimates.change([[0, 0, 0], [1, 2, 3]], [[1, 2, 3], [2, 4, 6]])
    assert (found.mean, found.n) == (2, 3)
    half = 4.302653 * (16 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert estimates.change([[0, 0], [1, 2]], [[0, 9], [0, 9]], runs=2) == estimates.mean([1, 2])


def test_two_draws_of_one_null_model_count_as_a_change_in_at_most_5_percent_of_cases():
    rng, trials = np.random.default_rng(0), 2000
    told = 0
    for _ in range(trials):
        seeds = 0.5 * rng.normal(size=3)  # with one seed, both matrices have the same held-out rows
        values = [rng.normal() + seeds + 0.2 * rng.normal(size=3) for _ in range(2)]
        null = rng.normal(size=3) + seeds  # at both steps it is drawn from the same normal numbers
        told += 0 not in estimates.change(values, [null, null + 0.1 * rng.normal(size=3)])
    assert told / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_between_runs_of_pretraining_differences_are_paired():
    found = estimates.difference([1.0, 20.0, 300.0], [0.5, 19.25, 299.5], runs=3)
    assert found == estimates.mean([0.5, 0.75, 0.5])
    assert found.low > 0


@pytest.mark.parametrize(("values", "null"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [1.0, 2.0])])
def test_a_difference_is_unknown_where_a_value_is_or_with_fewer_than_two(values, null):
    for found in (estimates.difference(values, null), estimates.difference(null, values)):
        assert math.isnan(found.mean)
        assert found.sign == "undecided"
        assert str(found) == "-"


def test_the_interval_of_a_rate_is_wilsons():
    # With z² = 3.841459: z² / (n + z²) is the upper end for no success, and the ends are symmetric for a half.
    none, half = estimates.rate(0, 10), estimates.rate(5, 10)
    assert (none.mean, none.low, none.high, none.n) == (0, 0, pytest.approx(3.841459 / 13.841459, rel=1e-6), 10)
    assert (half.low, half.high) == pytest.approx((0.236593, 0.763407), abs=1e-6)


def test_an_estimate_says_on_which_side_of_0_its_interval_lies_and_what_it_holds():
    below, above, across = (estimates.Estimate(x, x - 1, x + 1) for x in (-2, 2, 0.5))
    assert (below.sign, above.sign, across.sign) == ("below", "above", "undecided")
    assert 0 in across
    assert 0 not in below
    assert f"{above:.1f}" == "2.0 [1.0, 3.0]"
    assert f"{estimates.Estimate(0.5, 0.25, 0.75):.0%}" == "50 % [25, 75]"


def test_many_rates_have_wilsons_intervals_and_an_exact_bound_for_no_success():
    n = 1000
    means, low, high = estimates.rates(np.array([0, 1, 37, 1000]), n)
    for i, k in ((1, 1), (2, 37), (3, 1000)):
        one = estimates.rate(k, n)
        assert (means[i], low[i], high[i]) == pytest.approx((one.mean, one.low, one.high), abs=1e-12)
    assert (means[0], low[0]) == (0, 0)
    assert (1 - high[0]) ** n == pytest.approx(0.05)  # no success in n trials then has a chance of 5 %
    assert high[0] == pytest.approx(3 / n, rel=0.01)


def test_rows_without_any_number_are_left_out_of_a_table():
    known, unknown = estimates.mean([0.1, 0.2]), estimates.UNKNOWN
    rows = [["a", unknown, known], ["b", unknown, None], ["c", None, 0.5], ["d", float("nan"), None], ["e", 0.0, None]]
    assert [row[0] for row in estimates.with_values(rows)] == ["a", "c", "e"]
