import numpy as np
import pytest
from scipy import stats

from zoo.analysis.limits import last_trend, limit

STEPS = np.array([64, 128, 256, 512, 1024, 2048, 4096, 8192])


@pytest.mark.parametrize(("end", "slope", "exponent"), [(0.3, 0.5, 0.5), (0.0, 1.0, 1.0), (0.2, -0.4, 0.3)])
def test_the_limit_of_a_power_law_is_found(end, slope, exponent):
    found = limit(STEPS, end + slope * (STEPS / 64.0) ** -exponent)
    assert found.value == pytest.approx(end, abs=0.01)
    assert found.exponent == pytest.approx(exponent, rel=0.1)
    assert found.low <= end <= found.high or abs(found.low - end) < 0.01
    assert found.at([64, 256, 8192]) == pytest.approx(end + slope * np.array([1, 4, 128.0]) ** -exponent, abs=0.01)


def test_the_interval_covers_the_limit_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), []
    for _ in range(100):
        found = limit(STEPS, 0.2 + 0.5 * (STEPS / 64.0) ** -0.6 + rng.normal(0, 0.01, len(STEPS)))
        covered.append(found.low <= 0.2 <= found.high)
    assert 0.88 <= np.mean(covered) <= 1


def squares(end, values):
    """Least sum of squares of a power law of the steps that goes to a limit."""

    def left(exponent):
        power, rest = (STEPS / 64.0) ** -exponent, values - end
        return ((rest - (rest @ power) / (power @ power) * power) ** 2).sum()

    return min(left(exponent) for exponent in np.geomspace(0.05, 4, 2000))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ends_of_the_interval_are_the_outermost_limits_that_fit_by_an_f_test(seed):
    values = 0.2 + 0.5 * (STEPS / 64.0) ** -0.6 + np.random.default_rng(seed).normal(0, 0.03, len(STEPS))
    found = limit(STEPS, values)
    allowed = squares(found.value, values) * (1 + stats.f.ppf(0.95, 1, len(STEPS) - 3) / (len(STEPS) - 3))
    far = 1.1 * 3 * np.ptp(values) / 400  # a little more than from one candidate to the next
    for end, outwards in ((found.low, -far), (found.high, far)):
        assert squares(end - outwards, values) < allowed < squares(end + outwards, values)


def test_a_curve_that_falls_with_the_logarithm_has_no_lower_end():
    found = limit(STEPS, 1 - 0.1 * np.log2(STEPS / 64) + 1e-3 * np.array([1, -1, 1, -1, 1, -1, 1, -1]))
    assert found.low < 0.3 - 1
    assert found.high < 0.31


def test_a_constant_is_its_own_limit():
    assert limit(STEPS, np.full(len(STEPS), 0.4))[:3] == (0.4, 0.4, 0.4)


@pytest.mark.parametrize("steps", [STEPS[:4], np.array([0, *STEPS])])
def test_too_few_steps_and_step_zero_are_refused(steps, refused):
    with refused("at least 5 steps above 0"):
        limit(steps, np.linspace(1, 0, len(steps)))


def measured(curve, n, seed, sd=0.01):
    """Measurements (steps, n) of a curve; each is higher or lower as a whole, and has noise."""
    rng = np.random.default_rng(seed)
    return np.asarray(curve)[:, None] + rng.normal(0, 0.1, n) + rng.normal(0, sd, (len(curve), n))


def test_a_flat_curve_has_a_trend_by_chance_in_at_most_5_percent_of_cases():
    found = [last_trend(measured([0.3] * 8, 3, seed)) is not None for seed in range(400)]
    assert 0 < np.mean(found) < 0.08


def test_points_that_vary_by_chance_have_no_trend():
    points = np.random.default_rng(0).normal(0.3, 0.01, (200, 8))
    curves = [measured(point, 3, seed, 0.001) for seed, point in enumerate(points)]
    assert np.mean([last_trend(curve, 0.01**2) is not None for curve in curves]) < 0.08
    assert np.mean([last_trend(curve) is not None for curve in curves]) > 0.5


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.9, 0.7, 0.5, 0.4, 0.35, 0.33, 0.32, 0.32], (0, False, False)),  # it ends in noise, which is no turn
        ([0.3, 0.4, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2], (3, False, True)),
        ([0.9, 0.6, 0.3, 0.28, 0.33, 0.36, 0.39, 0.42], (3, True, True)),
        ([0.3, 0.2, 0.4, 0.1, 0.2, 0.3, 0.4, 0.5], (3, True, True)),  # the last of three turns
    ],
)
def test_the_last_trend_starts_at_the_last_turn_that_is_not_noise(curve, expected):
    assert {last_trend(measured(curve, 3, seed, 0.003)) for seed in range(50)} == {expected}
