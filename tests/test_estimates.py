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
