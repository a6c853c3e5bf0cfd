import math

import numpy as np
import pytest
import torch
from scipy import stats

from zoo.analysis.circles import circle, first_harmonic, open_path, waves

OPEN = ("line", "uneven line", "logarithm", "bent line", "half a turn", "three quarters", "uneven three quarters")
CLOSED = ("circle", "uneven circle", "ellipse", "uneven ellipse")
# Members, and share of a family's energy that is no noise: 0.3 of real weekdays', 0.15 of real months'.
SIZES = ((7, 0.3), (12, 0.15), (24, 0.15))


def on_circle(n, d=16, noise=0.0, seed=0, turns=1):
    g = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(d, 2, generator=g)).Q.T
    angle = 2 * math.pi * turns * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()], 1) @ plane + noise * torch.randn(n, d, generator=g)


def curve(n, kind, g):
    """Two coordinates of n places on a curve (n, 2); uneven places are off by a fifth of a step on average."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    if "uneven" in kind:
        u = (u + 0.2 / n * torch.randn(n, generator=g, dtype=torch.float64)).sort().values
    turns = {"half a turn": 0.5, "three quarters": 0.75}.get(kind.removeprefix("uneven "), 1.0)
    angle = 2 * math.pi * turns * u
    if "line" in kind:
        x, y = u, 4 * u.square() * ("bent" in kind)
    elif kind == "logarithm":
        x, y = (n * (u + 0.5) + 0.5).log(), 0 * u
    else:
        x, y = angle.sin(), angle.cos()
    if "ellipse" in kind:  # axes 2 : 1, from any place on
        turned = torch.rand(1, generator=g, dtype=torch.float64) * 2 * math.pi
        x, y = x * turned.cos() - y * turned.sin(), 0.5 * (x * turned.sin() + y * turned.cos())
    return torch.stack([x - x.mean(), y - y.mean()], 1)


def planted(n, kind, signal, seed, d=384, steep=1.0):
    """A family on a curve in a plane, and noise of a covariance with eigenvalues i^-steep, (n, d)."""
    g = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, d + 1, dtype=torch.float64).pow(-steep / 2)
    plane, noise = (torch.randn(k, d, generator=g, dtype=torch.float64) * scales for k in (2, n))
    on_curve = curve(n, kind, g) @ torch.linalg.qr(plane.T).Q.T
    noise /= math.sqrt((n - 1) * float(scales.square().sum()))
    return math.sqrt(signal) * on_curve / on_curve.norm() + math.sqrt(1 - signal) * noise


def called(n, kind, signal, seed):
    found = circle(planted(n, kind, signal, seed), n_draws=500, seed=seed)
    return found.shape if found.p_value <= 0.05 else "not in order"


def test_the_waves_are_orthonormal_without_a_mean_and_span_circle_and_path():
    for n in (6, 7, 12, 30):
        found = waves(n)
        assert found.shape == (3 + min(n - 4, 8), n)
        assert torch.allclose(found @ found.T, torch.eye(len(found), dtype=torch.float64), atol=1e-12)
        assert found.sum(1).abs().max() < 1e-12
        for two in (first_harmonic(n), open_path(n)):
            assert torch.allclose(two @ two.T, torch.eye(2, dtype=torch.float64), atol=1e-12)
            assert torch.allclose(two @ found[:3].T @ found[:3], two)


@pytest.mark.parametrize("n", [6, 7, 12, 26])
def test_a_circle_in_order_has_all_of_its_variance_in_the_first_harmonic(n):
    found = circle(on_circle(n) + 3.0, n_draws=2000)
    assert found.share == pytest.approx(1, abs=1e-6)
    assert found.shape == "circle"
    assert found.p_value < 0.005
    radii = found.plane[0].norm(dim=1)
    assert radii.std() < 1e-3 * radii.mean()  # drawn as a circle


def test_a_circle_in_another_order_is_not_in_order():
    for n in (7, 12):
        assert circle(on_circle(n, turns=2)).p_value > 0.5


@pytest.mark.parametrize("n", [7, 10, 100])
def test_a_straight_line_is_in_order_and_open(n):
    line = torch.linspace(-1, 1, n).unsqueeze(1) * torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    found = circle(line)
    assert 0.55 < found.share < 0.71  # 6 / pi^2 in the limit of many
    assert found.arc_share > 0.95
    assert found.p_value < 0.05
    assert found.shape == "line or arc"


@pytest.mark.parametrize("turn", ["two tight clusters", "297 degrees"])
def test_halfway_between_closed_and_open_lie_two_clusters_and_an_arc_over_297_degrees(turn):
    u = (torch.arange(1001, dtype=torch.float64) + 0.5) / 1001 - 0.5
    antisymmetric = u.sign() if turn == "two tight clusters" else (math.radians(296.25) * u).sin()
    _, sweep, back, *_ = waves(1001)
    assert abs(back @ antisymmetric) < 2e-3 * abs(sweep @ antisymmetric)


@pytest.mark.parametrize("n", [6, 7, 12, 24])
def test_no_monotone_line_returns_and_a_circle_does(n):
    _, sweep, back, *_ = waves(n)
    steps = torch.triu(torch.ones(n, n, dtype=torch.float64), 1)[:-1]  # sums of these are all monotone sequences
    assert ((steps @ back) / (steps @ sweep)).max() < 2.6 / n**2  # at most 0 in the limit of many
    sine = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n).sin()
    assert (sine @ back) / (sine @ sweep) > 0.2


@pytest.mark.parametrize("n", [7, 12])
@pytest.mark.parametrize("steep", [0, 1, 2])
def test_rows_without_an_order_have_uniform_p_values_whatever_their_covariance(n, steep):
    scales = torch.arange(1, 65, dtype=torch.float64).pow(-steep / 2)
    g = torch.Generator().manual_seed(steep)
    found = [circle(torch.randn(n, 64, generator=g) * scales, n_draws=300, seed=s) for s in range(250)]
    assert stats.kstest([f.p_value for f in found], "uniform").pvalue > 0.002  # 6 such tests: 1 in 80
    assert np.mean([f.share for f in found]) == pytest.approx(2 / (n - 1), rel=0.08)


@pytest.mark.parametrize("n", [7, 12])
def test_superposed_rows_without_an_order_have_uniform_p_values(n):
    from zoo.null_models import planted as superposed

    rows = superposed(250 * n, 24, 96, 3, generator=torch.Generator().manual_seed(0))[0].view(250, n, 24)
    p = [circle(family, n_draws=300, seed=s).p_value for s, family in enumerate(rows)]
    assert stats.kstest(p, "uniform").pvalue > 0.005


def test_p_values_have_no_least_value_that_a_correction_cannot_pass():
    assert circle(on_circle(7), n_draws=20_000).p_value < 1 / 5000  # of 7 members only 360 orders differ


@pytest.mark.parametrize(("n", "signal"), SIZES)
def test_open_lines_are_called_circles_and_circles_open_in_at_most_5_percent(n, signal):
    for kinds, wrong in ((OPEN, "circle"), (CLOSED, "line or arc")):
        names = [called(n, kind, signal, seed) for kind in kinds for seed in range(120 // len(kinds))]
        assert names.count(wrong) <= 6  # of about 120


@pytest.mark.slow
@pytest.mark.parametrize(("n", "signal"), SIZES)
@pytest.mark.parametrize("kind", [*OPEN, *CLOSED])
def test_of_500_planted_families_of_any_kind_at_most_5_percent_are_called_the_other(n, signal, kind):
    names = [called(n, kind, signal, seed) for seed in range(500)]
    told = {name: names.count(name) for name in ("circle", "line or arc", "undecided", "not in order")}
    print(f"\n| {n} | {kind} | {' | '.join(map(str, told.values()))} |")
    assert told["circle" if kind in OPEN else "line or arc"] <= 25


def test_little_noise_leaves_nothing_undecided():
    for n in (7, 12, 24):
        assert called(n, "circle", 0.99, 0) == "circle"
        assert called(n, "half a turn", 0.99, 0) == called(n, "bent line", 0.99, 0) == "line or arc"


def test_forms_are_pooled_in_one_test():
    noisy = torch.stack([on_circle(7, noise=0.5, seed=s) for s in range(6)])
    pooled = circle(noisy)
    assert pooled.plane.shape == (6, 7, 2)
    shares = [circle(form).share for form in noisy]
    assert min(shares) <= pooled.share <= max(shares)
    assert pooled.p_value < min(circle(form).p_value for form in noisy)


def test_too_small_a_family_and_equal_rows_are_refused(refused):
    with refused("at least 6 members"):
        circle(torch.eye(5))
    with refused("all have the same row"):
        circle(torch.ones(6, 3))
