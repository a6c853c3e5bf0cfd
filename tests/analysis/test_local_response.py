"""Sphere, ascent and exponent on responders of which it is known what they respond to."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import normalize

from zoo.analysis.local_response import (
    ANGLES,
    ascend,
    bernoulli_kl,
    circle,
    exponent,
    fisher_matrix,
    on_sphere,
    quadratic,
    share_below,
)
from zoo.analysis.perturbations import cosines_to_atoms
from zoo.errors import ZooError
from zoo.null_models import permuted_coordinates


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(d, seed):
    A = drawn(d, d, seed=seed)
    return A @ A.T / d


def powers(features, p):
    """The responder sum_i |w_i x|^p."""
    return lambda x: (x @ features.T).abs().pow(p).sum(1)


def exponents(respond, atoms, pairs):
    """The exponents on the circles through consecutive atoms."""
    found = []
    for u, v in atoms[: 2 * pairs].view(pairs, 2, -1):
        found.append(exponent(respond(circle(u, v)).numpy(), float(u @ v)).mean)
    return np.array(found)


@pytest.mark.parametrize("p", [2, 3, 4])
def test_the_exponent_of_a_planted_response_is_recovered(p):
    features = normalize(drawn(1200, 1024), dim=1)  # more features than dimensions, not orthogonal
    found = exponents(powers(features, p), features, 20)
    assert abs(found - p).max() < 0.1


@pytest.mark.parametrize("p", [2, 3, 4])
@pytest.mark.parametrize("cosine", [-0.8, 0.0, 0.5])
def test_the_exponent_is_exact_for_two_features_at_any_angle_and_of_any_strength(p, cosine):
    u, v = torch.tensor([[1.0, 0.0, 0.0], [cosine, (1 - cosine**2) ** 0.5, 0.0]]).double()
    strength = torch.tensor([1.0, 3.0])[:, None]
    found = exponent(powers(strength * torch.stack([u, v]), p)(circle(u, v)).numpy(), cosine)
    assert found.mean == pytest.approx(p, abs=1e-4)
    assert found.high - found.low < 1e-3


@pytest.mark.parametrize(("cosine", "p"), [(0.0, 4), (0.1, 3.705), (0.2, 3.237)])
def test_the_exponent_is_too_low_if_two_features_are_read_without_interference(cosine, p):
    u, v = torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]]).double()
    duals = torch.linalg.inv(torch.stack([u, v])).T
    assert exponent(powers(duals, 4)(circle(u, v)).numpy(), cosine).mean == pytest.approx(p, abs=0.01)


def test_away_from_the_planted_directions_the_exponent_falls_to_2():
    features = normalize(drawn(128, 64), dim=1)
    rotated = features @ torch.linalg.qr(drawn(64, 64, seed=1)).Q
    respond = powers(features, 4)
    assert exponents(respond, features, 30).mean() > 3
    assert abs(exponents(respond, rotated, 30).mean() - 2) < 0.15


def coverage(n, angles, noise=0.01):
    """How often the interval contains 2, for random quadratic forms and noise of a given size."""
    rng, covered = np.random.default_rng(0), 0
    for seed in range(n):
        u, v = normalize(drawn(2, 6, seed=seed), dim=1)
        response = quadratic(spd(6, n + seed), circle(u, v, angles)).numpy()
        noisy = response + noise * response.mean() * rng.normal(size=len(response))
        covered += 2 in exponent(noisy, float(u @ v), angles)
    return covered / n


def test_the_exponent_of_a_quadratic_form_is_2():
    for seed in range(50):
        u, v = normalize(drawn(2, 6, seed=seed), dim=1)
        found = exponent(quadratic(spd(6, 99 + seed), circle(u, v)).numpy(), float(u @ v))
        assert found.mean == pytest.approx(2, abs=1e-4)


EIGHT = np.pi * np.arange(8) / 8 + 0.2


@pytest.mark.parametrize("angles", [ANGLES, EIGHT])
def test_intervals_of_the_exponent_cover_2_as_often_as_they_say(angles):
    assert 0.91 <= coverage(300, angles) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("angles", [ANGLES, EIGHT])
def test_intervals_of_the_exponent_cover_2_in_95_percent_of_2000_quadratic_forms(angles):
    assert 0.93 <= coverage(2000, angles) <= 0.97


def test_an_exponent_needs_angles_of_both_signs():
    assert not np.isfinite(exponent(np.zeros(16), 0.1).mean)
    for angles in (ANGLES[:7], np.linspace(0, np.pi / 2, 12), 2 * np.pi * np.arange(8) / 8):
        with pytest.raises(ZooError, match=r"at least 8 angles that differ .* both signs"):
            exponent(np.ones(len(angles)), 0.0, angles)


# The sphere.


def test_a_quadratic_responder_has_no_spikes():
    F = spd(12, 0)
    atoms, random = drawn(500, 12, seed=1), drawn(10_000, 12, seed=2)
    values, null = (on_sphere(lambda x: quadratic(F, x), x, 0.3) for x in (atoms, random))
    assert stats.kstest(share_below(values, null), "uniform").pvalue > 0.01
    assert null.mean().item() == pytest.approx(0.3**2 / 2 * F.trace().item() / 12, rel=0.02)
    ends, highest = ascend(lambda x: quadratic(F, x), random[:20], 0.3)
    eigen = torch.linalg.eigh(F)
    assert ((ends @ eigen.eigenvectors[:, -1]).abs() > 0.999).all()
    torch.testing.assert_close(highest, (0.3**2 / 2 * eigen.eigenvalues[-1]).expand(20), rtol=1e-3, atol=0)


def test_equal_values_count_half():
    assert share_below(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 2.0, 3.0])).tolist() == [0.25, 0.5, 0.625]


class Plateau:
    """A network that reads more features than it has dimensions, each with a threshold: Bernoulli outputs."""

    radius = 1.0

    def __init__(self, d=16, n_features=32):
        self.features = normalize(drawn(n_features, d, seed=4), dim=1)
        for _ in range(200):  # apart from one another
            near = self.features @ self.features.T - 2 * torch.eye(n_features)
            self.features = normalize(self.features - 0.1 * near.clamp(min=0).pow(3) @ self.features, dim=1)

    def logits(self, x):
        return 8 * (40 * (x @ self.features.T - 0.85)).sigmoid() - 4

    def respond(self, changes):
        return bernoulli_kl(self.logits(torch.zeros_like(changes)), self.logits(changes))


def test_all_features_of_a_plateau_network_are_found_by_the_sphere():
    net = Plateau()
    random = on_sphere(net.respond, drawn(10_000, 16), net.radius)
    planted = share_below(on_sphere(net.respond, net.features, net.radius), random)
    assert (planted > 0.99).all()
    null = permuted_coordinates(net.features).double()
    assert share_below(on_sphere(net.respond, null, net.radius), random).mean() < 0.75
    F = fisher_matrix(net.logits, torch.zeros(16, dtype=torch.float64), bernoulli=True)
    changes = net.radius * net.features
    assert (net.respond(changes) > 100 * quadratic(F, changes)).all()


def test_all_features_of_a_plateau_network_are_found_by_ascent():
    net = Plateau()
    ends, _ = ascend(net.respond, drawn(600, 16), net.radius, steps=60)
    cosine, nearest = cosines_to_atoms(ends, net.features)
    assert set(nearest[cosine > 0.95].tolist()) == set(range(32))
    assert (cosine > 0.9).double().mean() > 0.95
    null, _ = cosines_to_atoms(ends, permuted_coordinates(net.features).double())
    assert null.median() < 0.8


def test_where_there_is_no_slope_ascent_stays():
    starts = normalize(drawn(5, 8), dim=1)
    ends, highest = ascend(lambda x: 0 * x.sum(1), starts, 1.0, steps=5)
    torch.testing.assert_close(ends, starts)
    assert (highest == 0).all()


def test_the_divergence_of_bernoulli_variables_and_its_fisher_matrix():
    a, b = 3 * drawn(7, 5), 3 * drawn(7, 5, seed=1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=a), torch.distributions.Bernoulli(logits=b)
    ).sum(1)
    torch.testing.assert_close(bernoulli_kl(a, b), expected)
    W, x = drawn(5, 4), drawn(4, seed=2)
    F = fisher_matrix(lambda x: (x @ W.T).tanh(), x, bernoulli=True)
    hessian = torch.autograd.functional.hessian(lambda y: bernoulli_kl((W @ x).tanh(), (W @ y).tanh()), x)
    torch.testing.assert_close(F, hessian)


def test_a_radius_of_0_is_refused():
    for call in (on_sphere, ascend):
        with pytest.raises(ZooError, match=r"the radius is 0\.0; it must be positive"):
            call(lambda x: x.sum(1), drawn(2, 3), 0.0)
