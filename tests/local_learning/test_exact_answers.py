"""The local learning coefficient where it is known exactly.

Every interval is a 95 % interval of one fixed seed: a right sampler is outside of it in one of twenty seeds.
"""

import math

import pytest
import torch
from llc_potentials import TwoMatrices, Vector, monomial, product

import zoo
from zoo.local_learning import HMC, SGLD, RMSPropSGLD
from zoo.local_learning.linear import population_error, squared_error

CURVATURES = torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64)
W0 = (1.0, 2.0, 3.0)


def quadratic(model, batch):
    """The loss 1/2 Σ h_i (w_i - w*_i)²."""
    return (CURVATURES * (model.w - torch.tensor(W0, dtype=torch.float64)) ** 2).sum() / 2


def expected(step_size, n_beta=100.0, localization=20.0):
    """Mean of the estimate for the quadratic loss."""
    a = n_beta * CURVATURES + localization
    return float((n_beta * CURVATURES / a / (1 - step_size * a / 4)).sum() / 2)


def test_sgld_on_a_quadratic_has_the_bias_of_localization_and_step_size_and_no_other():
    step = 0.01
    sampler = SGLD(step, steps=600, burn_in=100)
    result = zoo.local_learning_coefficient(
        Vector(*W0), quadratic, sampler=sampler, chains=512, n_beta=100.0, localization=20.0, seed=1
    )
    assert expected(step) in result.unchecked
    a = 100 * CURVATURES + 20
    exact = 100 * CURVATURES / a / 2
    wrong = {
        "drift ε instead of ε/2": float((exact / (2 * (1 - step * a / 2))).sum()),
        "noise √(2ε) instead of √ε": 2 * expected(step),
        "no localization": float((0.5 / (1 - step * 100 * CURVATURES / 4)).sum()),
        "no bias of the step size": float(exact.sum()),
        "burn-in counted": expected(step) * 600 / 700,
        "the loss without n β": expected(step) / 100,
    }
    for name, value in wrong.items():
        assert value not in result.unchecked, name
    bias = expected(step) - float(exact.sum())
    assert result.diagnostics.step_size_bias == pytest.approx(bias, rel=0.05)
    assert result.diagnostics.equipartition == pytest.approx(1, abs=0.02)
    assert not result.trustworthy  # the bias is above a tenth of the estimate
    assert math.isnan(result.estimate.mean)


@pytest.mark.parametrize(
    "sampler", [HMC(steps=60, burn_in=60, leapfrogs=8), RMSPropSGLD(steps=600, burn_in=200)], ids=repr
)
def test_other_samplers_on_a_quadratic(sampler):
    result = zoo.local_learning_coefficient(
        Vector(*W0), quadratic, sampler=sampler, chains=256, n_beta=100.0, localization=20.0
    )
    assert result.trustworthy, result.problems
    bias = result.diagnostics.step_size_bias if isinstance(sampler, RMSPropSGLD) else 0.0
    assert expected(0.0) + bias in result.estimate
    assert bias < 0.04


@pytest.mark.parametrize(("k", "n_beta"), [(1, 1e6), (2, 10.0), (2, 1e6), (3, 1e6)])
def test_a_power_of_one_parameter_has_half_its_reciprocal_at_every_n(k, n_beta):
    result = zoo.local_learning_coefficient(
        Vector(0.0),
        monomial(2 * k),
        sampler=HMC(steps=60, burn_in=60, leapfrogs=8),
        chains=512,
        n_beta=n_beta,
        localization=0.0,
    )
    assert result.trustworthy, result.problems
    assert 1 / (2 * k) in result.estimate
    assert result.estimate.high - result.estimate.low < 0.1 / k


EXPECTED = {  # (powers): E[nβ K] under the prior exp(-|w|²/2) at each nβ, by quadrature
    (2, 2): {1e2: 0.3542, 1e3: 0.3903, 1e4: 0.4123, 1e6: 0.4375},
    (2, 4): {1e2: 0.2057, 1e3: 0.2249, 1e4: 0.2358, 1e6: 0.2455},
    (4, 4): {1e2: 0.1471, 1e3: 0.1652, 1e4: 0.1785, 1e6: 0.1960},
}


def sampled(powers, n_beta, sampler, chains, seed=0):
    return zoo.local_learning_coefficient(
        Vector(0.0, 0.0),
        monomial(*powers),
        sampler=sampler,
        chains=chains,
        n_beta=n_beta,
        localization=0.0,
        prior_precision=1.0,
        seed=seed,
    )


def test_two_parameters_whose_minima_cross_have_the_integral_at_finite_n():
    result = sampled((2, 2), 1e2, HMC(steps=80, burn_in=60, leapfrogs=15), 256)
    assert result.trustworthy, result.problems
    assert EXPECTED[2, 2][1e2] in result.estimate
    assert 0.5 not in result.estimate  # the limit of large n


@pytest.mark.slow
@pytest.mark.parametrize("powers", EXPECTED, ids=str)
@pytest.mark.parametrize("n_beta", [1e2, 1e3, 1e4, 1e6])
def test_all_monomials_have_the_integral_at_finite_n(powers, n_beta):
    leapfrogs = 20 if n_beta < 1e4 else 100 if n_beta < 1e6 else 400
    result = sampled(powers, n_beta, HMC(steps=150, burn_in=100, leapfrogs=leapfrogs), 512)
    assert result.trustworthy, result.problems
    half = (result.estimate.high - result.estimate.low) / 2
    assert abs(result.estimate.mean - EXPECTED[powers][n_beta]) < 1.6 * half  # one of 600 is outside, not of 20


RANKS = {3: (6.5, 8, 9.5, 10.5), 4: (8, 9.5, 10.5, 11.5, 12)}  # hidden width: λ at true rank 0, 1, ... (Aoyagi 2005)
CASES = [(hidden, rank, value) for hidden, values in RANKS.items() for rank, value in enumerate(values)]


def regression(hidden, rank, sampler, generic=False, n_beta=1e5, chains=32, localization=1.0):
    model = TwoMatrices(hidden, rank, generic)
    loss = population_error(product, product(model).detach())
    return zoo.local_learning_coefficient(
        model, loss, sampler=sampler, n_beta=n_beta, chains=chains, localization=localization
    )


def test_reduced_rank_regression_at_the_point_whose_unused_factors_are_zero():
    result = regression(3, 1, HMC(steps=60, burn_in=60, leapfrogs=20))
    assert result.trustworthy, result.problems
    assert result.estimate.mean == pytest.approx(8, rel=0.1)
    assert 8.5 not in result.estimate  # what it is at a generic parameter of the same function


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [HMC(steps=200, burn_in=200, leapfrogs=30), SGLD(None, 8000, 8000)], ids=repr)
@pytest.mark.parametrize(("hidden", "rank", "value"), CASES)
def test_reduced_rank_regression_at_every_rank(hidden, rank, value, sampler):
    if isinstance(sampler, SGLD) and rank == 0:
        sampler = SGLD(None, 8000, 8000, share=0.02)  # the Hessian is 0 at the centre, and grows away from it
    result = regression(hidden, rank, sampler, n_beta=1e5 if isinstance(sampler, HMC) else 1e4, chains=64)
    assert result.trustworthy, result.problems
    assert result.estimate.mean == pytest.approx(value, rel=0.1)
    if isinstance(sampler, SGLD):
        assert result.diagnostics.step_size_bias < 0.1 * value


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "value"), [(0, 7.5), (1, 8.5)])
def test_reduced_rank_regression_at_a_generic_parameter_has_half_the_rank_of_the_jacobian(rank, value):
    for sampler in (HMC(steps=200, burn_in=200, leapfrogs=30), SGLD(None, 4000, 4000)):
        result = regression(3, rank, sampler, True, n_beta=1e6, chains=64, localization=100.0)
        assert result.trustworthy, result.problems
        within = 0.02 if isinstance(sampler, HMC) else 0.05  # SGLD has a bias of its step size
        assert value in result.estimate or result.estimate.mean == pytest.approx(value, rel=within)


def test_losses_from_second_moments_are_those_of_the_data():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    model = TwoMatrices(3, 2)
    assert squared_error(product, x, y)(model, None).item() == pytest.approx(
        (model(x) - y).square().sum(1).mean().item() / 2
    )
    true = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    from_data = squared_error(product, x, x @ true.T)(model, None).item()
    assert population_error(product, true, x.T @ x / 50)(model, None).item() == pytest.approx(from_data)
