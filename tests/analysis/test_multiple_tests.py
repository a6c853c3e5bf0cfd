import numpy as np
import pytest
import torch

from zoo.analysis.multiple_tests import draws_needed, holm, monte_carlo, rate_limit


def test_holm_is_that_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.005]).tolist()[:3] == [0.03, 0.06, 0.06]
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.005])[4] == 0.02
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def drawn(found, most, seed=0):
    g = torch.Generator().manual_seed(seed)
    return monte_carlo(lambda count: torch.rand(count, generator=g, dtype=torch.float64), found, most)


def test_draws_end_where_the_p_value_is_of_no_interest_and_go_on_where_it_is():
    assert drawn(0.5, 10**9).p_value == pytest.approx(0.5, abs=0.08)  # which would take minutes
    assert drawn(2.0, 999).p_value == 1 / 1000
    assert drawn(0.99, 20_000).p_value == pytest.approx(0.01, abs=0.004)
    assert drawn(0.5, 5000).mean == pytest.approx(0.5, abs=0.05)


def test_p_values_by_draws_that_end_early_are_at_most_5_percent_in_5_percent():
    at = np.random.default_rng(0).random(2000)
    p = np.array([drawn(found, 1000, seed).p_value for seed, found in enumerate(at)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("n", [1, 12, 60])
def test_as_many_draws_are_made_that_each_of_all_tests_can_pass_the_correction(n):
    least = 1 / (1 + draws_needed(n))
    assert holm([least, *[1.0] * (n - 1)])[0] <= 0.005


def test_the_limit_of_a_rate_is_that_of_tables():
    assert rate_limit(0, 20) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert rate_limit(2, 100) == pytest.approx(0.0616, abs=1e-4)
    assert rate_limit(5, 5) == 1
