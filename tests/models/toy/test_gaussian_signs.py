import math

import numpy as np
import pytest
import torch
from scipy import stats

from zoo.models.toy.gaussian_signs import kappa, mean_abs_times_signs

NODES, WEIGHTS = np.polynomial.legendre.leggauss(120)


def mean_relu(mean, sd):
    """E[ReLU(mean + sd g)]."""
    return mean * stats.norm.cdf(mean / sd) + sd * stats.norm.pdf(mean / sd) if sd else np.maximum(mean, 0)


def integrated_kappa(n_active):
    """1 / E[ReLU(a + b + sigma g) sgn a sgn b] by Gauss-Legendre quadrature over 0 < b < a, without kinks."""
    a, t = 5 * (NODES[:, None] + 1), (NODES + 1) / 2
    b, sd = a * t, math.sqrt(n_active - 2)
    density = stats.norm.pdf(a) * stats.norm.pdf(b) * a * 5 / 2 * np.outer(WEIGHTS, WEIGHTS)
    f = sum(sign * mean_relu(mean, sd) for mean, sign in ((a + b, 1), (-a - b, 1), (a - b, -1), (b - a, -1)))
    return 1 / (2 * (f * density).sum())


def covariances(rng, rank=3):
    """Covariance matrix of z, a and b, of which a and b have variance 1."""
    factor = rng.normal(size=(3, rank))
    covariance = factor @ factor.T
    sd = np.sqrt(np.diag(covariance)) * [0, 1, 1] + [1, 0, 0]
    return covariance / np.outer(sd, sd)


def closed_form(variance, with_a, with_b, ab):
    return mean_abs_times_signs(*(torch.tensor(v, dtype=torch.float64) for v in (variance, with_a, with_b, ab))).item()


def simulated(rng, covariance, n=400_000):
    """Mean of |z| sgn a sgn b and its standard error."""
    z, a, b = rng.multivariate_normal(np.zeros(3), covariance, n, method="eigh").T
    found = np.abs(z) * np.sign(a) * np.sign(b)
    return found.mean(), found.std() / math.sqrt(n)


@pytest.mark.parametrize("n_active", [2, 2.5, 3, 4, 7, 30])
def test_kappa_is_one_over_the_integral_that_defines_it(n_active):
    assert kappa(n_active).item() == pytest.approx(integrated_kappa(n_active), rel=1e-9)


def test_kappa_of_two_and_of_four_are_those_of_the_paper():
    assert [kappa(n).item() for n in (2, 4)] == pytest.approx([4.279, 7.142], abs=5e-4)


def test_kappa_grows_as_the_root_of_many_active_inputs():
    limit = math.pi * math.sqrt(math.pi / 2)
    off = [kappa(n).item() / math.sqrt(n) / limit - 1 for n in (10**2, 10**4, 10**6)]
    assert abs(off[2]) < 1e-5
    assert off[1] / off[0] == pytest.approx(0.01, rel=0.05)  # what is left falls as 1 / n_active


def test_kappa_of_several_numbers_is_that_of_each():
    n = torch.tensor([[2.0, 3.0], [5.0, 9.0]])
    assert kappa(n).tolist() == [[kappa(v).item() for v in row] for row in n.tolist()]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_the_mean_of_a_size_times_two_signs_is_that_of_a_simulation(seed, rank):
    rng = np.random.default_rng(seed)
    covariance = covariances(rng, rank)
    mean, error = simulated(rng, covariance)
    assert closed_form(*covariance[0], covariance[1, 2]) == pytest.approx(mean, abs=4 * error)


def test_some_simulated_means_are_far_from_zero():
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mean, error = simulated(rng, covariances(rng), 10_000)
        found.append(abs(mean) / error)
    assert sum(f > 10 for f in found) > 5


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.3, 1.0])
def test_independent_of_both_signs_a_size_is_multiplied_by_their_agreement(rho):
    expected = math.sqrt(2 / math.pi) * 3 * 2 / math.pi * math.asin(rho)
    assert closed_form(9.0, 0.0, 0.0, rho) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("with_both", [-1.5, 0.0, 0.7])
def test_two_equal_signs_leave_the_mean_size(with_both):
    assert closed_form(4.0, with_both, with_both, 1.0) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-9)


@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.5])
@pytest.mark.parametrize("other_way", [False, True])
def test_a_variable_times_its_own_sign_is_itself_without_it(rho, other_way):
    with_a, with_b = (2 * rho, 2.0) if other_way else (2.0, 2 * rho)  # z is 2a, or 2b
    assert closed_form(4.0, with_a, with_b, rho) == pytest.approx(2 * rho * math.sqrt(2 / math.pi), abs=1e-9)
