import math

import numpy as np
import pytest
import torch

from zoo.analysis.circles import circle, first_harmonic, open_path


def on_circle(n, d=16, noise=0.0, seed=0, turns=1):
    g = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(d, 2, generator=g)).Q.T
    angle = 2 * math.pi * turns * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()], 1) @ plane + noise * torch.randn(n, d, generator=g)


def test_the_waves_are_orthonormal_and_have_no_mean():
    for n in (5, 8, 12):
        for waves in (first_harmonic(n), open_path(n)):
            assert torch.allclose(waves @ waves.T, torch.eye(2, dtype=torch.float64), atol=1e-12)
            assert waves.sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("n", [5, 7, 12, 26])
def test_a_circle_in_order_has_all_of_its_variance_in_the_first_harmonic(n):
    found = circle(on_circle(n) + 3.0, n_permutations=2000)
    assert found.share == pytest.approx(1, abs=1e-6)
    assert found.closed
    assert found.p_value <= 1 / 12  # of 5 members, 12 orders differ
    radii = found.plane[0].norm(dim=1)
    assert radii.std() < 1e-3 * radii.mean()  # drawn as a circle


def test_the_best_of_all_orders_has_the_p_value_of_one_order():
    assert circle(on_circle(7)).p_value == pytest.approx(2 / math.factorial(6))  # rotations and reflections are alike
    assert circle(on_circle(7, turns=2)).p_value > 0.5  # on a circle in another order


def test_isotropic_rows_have_the_expected_share_and_uniform_p_values():
    g = torch.Generator().manual_seed(0)
    found = [circle(torch.randn(10, 24, generator=g), n_permutations=200, seed=s) for s in range(300)]
    assert np.mean([f.share for f in found]) == pytest.approx(2 / 9, rel=0.03)
    assert np.mean([f.p_value <= 0.05 for f in found]) < 0.08
    assert 0.44 < np.mean([f.closed for f in found]) < 0.65


def test_a_straight_line_is_in_order_but_not_closed():
    line = torch.linspace(-1, 1, 10).unsqueeze(1) * torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    found = circle(line)
    assert 0.55 < found.share < 0.65  # 6 / pi^2 in the limit of many
    assert found.p_value < 0.05
    assert not found.closed


def test_forms_are_pooled_under_one_permutation():
    noisy = torch.stack([on_circle(7, noise=0.5, seed=s) for s in range(6)])
    pooled = circle(noisy)
    assert pooled.plane.shape == (6, 7, 2)
    shares = [circle(form).share for form in noisy]
    assert min(shares) <= pooled.share <= max(shares)
    assert pooled.p_value == pytest.approx(1 / 360)


def test_too_small_a_family_and_equal_rows_are_refused(refused):
    with refused("at least 5 members"):
        circle(torch.eye(4))
    with refused("all have the same row"):
        circle(torch.ones(6, 3))
