import numpy as np
import pytest
from doing_studies import do_tasks
from scipy.optimize import minimize as scipy_minimize

from zoo.analysis.two_feature_phases import agree, flip_density, grid, phase
from zoo.analysis.two_feature_theory import _residuals, expected_loss, minimum
from zoo.studies.superposition_phases import FindLeastLoss, SuperpositionPhases

MIDDLES = (np.arange(1000) + 0.5) / 1000


def by_hand(theta, p, importance):
    """The expected loss by the midpoint rule over the unit square."""
    w, b = theta[:2], theta[2:]

    def error(x1, x2):
        h = w[0] * x1 + w[1] * x2
        return (np.maximum(w[0] * h + b[0], 0) - x1) ** 2 + importance * (np.maximum(w[1] * h + b[1], 0) - x2) ** 2

    one = error(MIDDLES, 0).mean() + error(0, MIDDLES).mean()
    both = error(MIDDLES[:, None], MIDDLES[None]).mean()
    return (1 - p) ** 2 * error(0.0, 0.0) + p * (1 - p) * one + p**2 * both


def random_networks(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)), rng.random(n), 10 ** rng.uniform(-1, 1, n)


def test_the_expected_loss_is_the_integral_over_both_features():
    theta, p, importance = random_networks(30)
    theta[:3, 1], theta[3:6, 0], theta[6] = 0, 0, 0
    expected = [by_hand(*point) for point in zip(theta, p, importance, strict=True)]
    assert expected_loss(theta, p, importance).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_slope_of_the_expected_loss_is_that_of_finite_differences():
    theta, p, importance = random_networks(30)
    residuals, jacobian = _residuals(theta, p, importance)
    slope = 2 * np.einsum("nqi,nq->ni", jacobian, residuals)
    for k, step in enumerate(1e-5 * np.eye(4)):
        up, down = (expected_loss(theta + sign * step, p, importance) for sign in (1, -1))
        assert slope[:, k] == pytest.approx((up - down) / 2e-5, abs=1e-7)


def test_the_minimum_is_not_worse_than_that_of_another_method_from_many_starts():
    rng = np.random.default_rng(1)
    p, importance = np.array([0.03, 0.3, 0.6, 0.9]), np.array([1.0, 0.2, 1.0, 3.0])
    _, least = minimum(p, importance)
    for k in range(4):
        one = p[k : k + 1], importance[k : k + 1]
        found = [
            scipy_minimize(lambda v, one=one: expected_loss(v[None], *one)[0], start, method="BFGS").fun
            for start in rng.normal(size=(12, 4)) * [1, 1, 0.2, 0.2]
        ]
        assert least[k] == pytest.approx(min(found), rel=1e-4)


def test_a_feature_alone_leaves_the_variance_of_the_other():
    # The other's output is its mean, p/2; its variance is p/3 - p²/4.
    p = np.array([0.2, 0.7])
    theta = np.stack([np.ones(2), np.zeros(2), np.zeros(2), p / 2], 1)
    loss = expected_loss(theta, p, np.array([1.0, 5.0]))
    assert loss.tolist() == pytest.approx((np.array([1, 5]) * (p / 3 - p**2 / 4)).tolist())


def test_an_antipodal_pair_fails_only_where_both_features_are_on():
    # Then the smaller output is 0 and the larger one is the difference: both are wrong by the smaller feature.
    p = np.array([0.01, 0.5])
    loss = expected_loss(np.tile([1.0, -1.0, 0.0, 0.0], (2, 1)), p, np.ones(2))
    assert loss.tolist() == pytest.approx((p**2 * 2 / 6).tolist())


def test_sparse_features_are_superposed_and_of_dense_ones_the_more_important_is_kept():
    p, importance = np.array([0.01, 0.01, 0.9, 0.9]), np.array([0.3, 3.0, 0.3, 3.0])
    theta, _ = minimum(p, importance)
    assert phase(theta).tolist() == [2, 2, 0, 1]
    assert (theta[:2, 0] * theta[:2, 1] < 0).all()


def test_mirror_images_agree_at_importance_1_only():
    one, other = np.array([0, 0, 0, 2]), np.array([1, 1, 2, 2])
    assert agree(one, other, np.array([1.0, 2.0, 1.0, 2.0])).tolist() == [True, False, False, True]


def test_the_flip_is_where_the_smaller_weight_falls_below_a_half():
    p = np.array([0.1, 0.2, 0.4, 0.8])
    theta = np.array([[1, -1, 0, 0], [1, 0.1, 0, 0], [-1, 0.75, 0, 0], [0.25, 1, 0, 0]])
    assert flip_density(p, theta) == pytest.approx(0.4 * 2**0.5)
    assert np.isnan(flip_density(p[:1], theta[:1]))
    assert np.isnan(flip_density(p[3:], theta[3:]))


def test_the_grid_has_importance_1_at_every_density():
    p, importance = grid(5)
    assert p[importance == 1].tolist() == pytest.approx(np.geomspace(0.01, 1, 5).tolist())
    assert importance.min() == pytest.approx(0.1)
    assert importance.max() == pytest.approx(10)


def test_training_finds_the_phases_of_the_theory(tmp_path):
    study = SuperpositionPhases(points=5, steps=400, batch_size=128, seeds=4)
    results = do_tasks(study, tmp_path)
    [section] = study.report(results).sections
    assert np.mean(section.numbers["agree"]) >= 0.92
    assert section.numbers["theory_flip"] == pytest.approx(0.745, abs=0.001)
    assert results[FindLeastLoss(5)]["flip"] == pytest.approx(0.713, abs=0.001)
    assert section.numbers["excess"].min() > -1e-4
    assert f"at {sum(section.numbers['agree'])} of 25 points" in section.finding
    maps = {chart.name: chart for chart in section.charts}
    for name in ("theory", "trained"):
        assert sum(len(series.x) for series in maps[f"phases-{name}"].series) == 25


def test_finished_seeds_are_kept_and_other_settings_are_other_tasks():
    few, many, longer = (
        {task.key for task in SuperpositionPhases(5, steps, 128, seeds).tasks()}
        for steps, seeds in ((400, 3), (400, 4), (300, 3))
    )
    assert len(many - few) == 1
    assert few < many
    assert few & longer == {FindLeastLoss(5).key}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds is 1; it must be"),
        ({"points": 8}, "points is 8; it must be odd and at least 3"),
        ({"points": 1}, "points is 1; it must be odd and at least 3"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(refused, options, message):
    with refused(message):
        SuperpositionPhases(**options)
