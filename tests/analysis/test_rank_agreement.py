import math

import numpy as np
import pytest
from scipy import stats

from zoo.analysis.rank_agreement import rank_agreement


def test_correlations_are_those_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 30)).astype(float)
    found = rank_agreement(x, y + x / 2)
    assert found.spearman.mean == pytest.approx(stats.spearmanr(x, y + x / 2).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y + x / 2).statistic)


def test_p_values_are_those_of_all_pairings():
    # Of the 120 orders of 5 items, one and its reverse have |r| = 1, and 4 + 4 more have |r| >= 0.9.
    assert rank_agreement([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).p_value == pytest.approx(2 / 120, abs=0.003)
    assert rank_agreement([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).p_value == pytest.approx(10 / 120, abs=0.006)


def test_shuffled_pairings_are_called_a_finding_one_time_in_twenty():
    rng = np.random.default_rng(1)
    found = [rank_agreement(np.arange(12), rng.permutation(12), 500) for _ in range(400)]
    assert 0.02 < np.mean([one.p_value <= 0.05 for one in found]) < 0.08
    assert 0.90 < np.mean([0.0 in one.spearman for one in found]) < 0.98


def test_the_interval_of_correlated_normals_contains_the_population_value():
    # The rank correlation of normals with correlation r is 6/π asin(r/2).
    rng = np.random.default_rng(2)
    truth = 6 / math.pi * math.asin(0.8 / 2)
    inside = []
    for _ in range(400):
        x, noise = rng.normal(size=(2, 14))
        inside.append(truth in rank_agreement(x, 0.8 * x + 0.6 * noise, 1).spearman)
    assert np.mean(inside) > 0.92


def test_the_same_order_has_an_interval_that_ends_at_1():
    found = rank_agreement(range(10), np.exp(range(10))).spearman
    assert found.mean == found.high == pytest.approx(1)
    assert 0.9 < found.low < 1


def test_a_quantity_that_is_the_same_everywhere_orders_nothing():
    found = rank_agreement([1.0] * 6, range(6))
    assert math.isnan(found.spearman.mean)
    assert math.isnan(found.p_value)


def test_wrong_arguments_are_refused(refused):
    with refused("there are 4 and 5 values"):
        rank_agreement([1, 2, 3, 4], [1, 2, 3, 4, 5])
    with refused("a value is not finite"):
        rank_agreement([1, 2, 3, 4, math.inf], [1, 2, 3, 4, 5])
