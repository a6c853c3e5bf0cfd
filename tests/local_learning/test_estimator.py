"""What is refused, what is said, and what is the same after an interruption."""

import math

import numpy as np
import pytest
import torch
from llc_potentials import Vector, monomial
from torch import nn

import zoo
from zoo.local_learning import HMC, SGLD, Limits, RMSPropSGLD
from zoo.local_learning.diagnostics import effective_draws, r_hat

SHORT = SGLD(steps=20, burn_in=10)
SAMPLERS = [SHORT, RMSPropSGLD(steps=20, burn_in=10), HMC(steps=8, burn_in=4, leapfrogs=3)]


@pytest.fixture
def regression():
    """A linear map at the least squares solution of 60 rows, its loss, and the rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 3, generator=generator), torch.randn(60, 2, generator=generator)
    net = nn.Linear(3, 2).eval()
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(60, 1)], 1), y).solution
    net.load_state_dict({"weight": solution[:3].T, "bias": solution[3]})
    return net, lambda model, batch: (model(batch["x"]) - batch["y"]).square().sum(1).mean() / 2, {"x": x, "y": y}


def estimate(model, loss, data=None, sampler=SHORT, chains=4, **kwargs):
    return zoo.local_learning_coefficient(model, loss, data, sampler=sampler, chains=chains, **kwargs)


def test_a_regular_model_has_half_its_number_of_parameters_with_and_without_batches(regression):
    for batch_size in (None, 20):
        sampler = SGLD(steps=400, burn_in=150)
        result = estimate(*regression, sampler=sampler, chains=64, batch_size=batch_size, localization=1e-3)
        assert result.trustworthy, result.problems
        assert 4 + result.diagnostics.step_size_bias in result.estimate
        assert result.n_beta == pytest.approx(60 / math.log(60))
        assert result.center_loss == pytest.approx(regression[1](regression[0], regression[2]).item(), rel=1e-5)


def test_the_model_is_not_changed_and_only_the_named_parameters_move(regression):
    net, loss, data = regression
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    result = estimate(net, loss, data, parameters=["bi*"])
    assert result.n_parameters == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.weight.grad is None


@pytest.mark.parametrize("batch_size", [None, 7])
def test_chains_one_by_one_are_the_chains_that_vmap_computes(regression, batch_size):
    together, apart, twos = (
        estimate(*regression, batch_size=batch_size, chains_at_once=k).traces for k in (None, 1, 2)
    )
    np.testing.assert_allclose(apart, together, rtol=1e-4)
    np.testing.assert_allclose(twos, together, rtol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_interrupted_chains_continue_bit_for_bit(regression, sampler, tmp_path):
    net, loss, data = regression
    file = tmp_path / "folder" / "chains.pt"
    whole = estimate(net, loss, data, sampler, batch_size=10)
    calls = 0

    def interrupted(model, batch):
        nonlocal calls
        calls += 1
        if file.exists() and calls > limit:
            raise KeyboardInterrupt
        return loss(model, batch)

    for limit in (0, 10**9):  # noqa: B007, read by `interrupted`
        try:
            resumed = estimate(net, interrupted, data, sampler, batch_size=10, checkpoint=file, checkpoint_every=5)
        except KeyboardInterrupt:
            assert torch.load(file, weights_only=True)["step"] == 5
    assert np.array_equal(resumed.traces, whole.traces)
    assert np.array_equal(resumed.chains, whole.chains)
    assert str(resumed.diagnostics) == str(whole.diagnostics)  # NaN differs from itself


def test_a_file_of_other_chains_is_refused(regression, tmp_path, refused):
    file = tmp_path / "chains.pt"
    estimate(*regression, checkpoint=file)
    with refused("belongs to other chains"):
        estimate(*regression, checkpoint=file, localization=2.0)
    file.write_bytes(b"nothing")
    with refused("is not a file of interrupted chains"):
        estimate(*regression, checkpoint=file)


def test_a_chain_that_is_not_finite_is_named_and_left_out():
    # The gradient at 0 is NaN left of a wall, which few chains reach.
    model, wall = Vector(0.0), -2.4
    result = estimate(
        model,
        lambda model, batch: (model.w**2).sum() / 2 + (model.w - wall).sqrt().sum() * 0,
        sampler=SGLD(0.1, steps=60, burn_in=0),
        chains=32,
        n_beta=1.0,
        localization=0.0,
        limits=Limits(divergent=0.5),
    )
    lost = np.flatnonzero(np.isnan(result.chains))
    assert 0 < len(lost) < 16
    assert result.notes[0] == f"left out because their loss is not finite: chains {', '.join(map(str, lost))}"
    assert result.unchecked.n == 32 - len(lost)


def test_all_chains_that_are_not_finite_are_an_error(refused):
    with refused("the loss of none of the 4 chains is finite"):
        estimate(Vector(0.0), monomial(4), sampler=SGLD(1e30, 20, 10), n_beta=1.0)


def test_a_point_that_is_not_a_minimum_is_pointed_out():
    model = Vector(3.0)
    result = estimate(model, monomial(2), sampler=SGLD(steps=200, burn_in=100), n_beta=100.0)
    assert not result.trustworthy
    assert math.isnan(result.estimate.mean)
    assert result.unchecked.high < 0
    assert any("negative" in line for line in result.problems)
    assert any("not at a minimum" in line for line in result.notes)
    assert "refused" in str(result)


def test_a_burn_in_that_is_too_short_is_refused():
    # The steep direction chooses the step size, with which the other is far from equilibrium after 100 steps.
    result = estimate(
        Vector(0.0, 0.0),
        lambda model, batch: model.w[0] ** 2 + 1e-2 * model.w[1] ** 2,
        sampler=SGLD(steps=200, burn_in=0),
        n_beta=1e3,
        chains=128,
    )
    assert any(line.startswith("chains drift") for line in result.problems)


def test_sensitivity_finds_the_bias_of_the_step_size():
    result = estimate(
        Vector(0.0),
        monomial(2),
        sampler=SGLD(0.005, steps=200, burn_in=20),
        chains=512,
        n_beta=100.0,
        localization=20.0,
        sensitivity=True,
        limits=Limits(step_size_bias=math.inf),
    )

    def mean(step, localization):
        a = 200 + localization
        return 100 / a / (1 - step * a / 4)

    assert mean(0.0025, 20) - mean(0.005, 20) in result.diagnostics.half_step_size
    assert mean(0.005, 40) - mean(0.005, 20) in result.diagnostics.double_localization
    assert any("half the step size" in line for line in result.problems)


def test_effective_draws_and_r_hat_of_an_autoregression_are_those_of_theory():
    rng, rho = np.random.default_rng(0), 0.8
    x = np.empty((4000, 8))
    x[0] = rng.normal(size=8)
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=8)
    assert effective_draws(x) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.15)
    assert r_hat(x) == pytest.approx(1, abs=0.01)
    assert r_hat(x + 3 * np.arange(8)) > 3


def test_wrong_arguments_are_refused_in_one_line(regression, refused):
    net, loss, data = regression
    for match, kwargs in {
        "chains is 1: an interval needs at least 2": {"chains": 1},
        "batch_size is 61: it must be between 1 and the 60 rows": {"batch_size": 61},
        "no parameter is named W_E: the model has weight, bias": {"parameters": ["W_E"]},
        "n is 1: n / ln n needs at least 2": {"n": 1},
        "localization is -1": {"localization": -1.0},
        'start="gaussian" requires': {"start": "gaussian", "localization": 0.0},
        "checkpoint_every is 0": {"checkpoint_every": 0},
    }.items():
        with refused(match):
            estimate(net, loss, data, **kwargs)
    with refused("n_beta must be given for a loss without data"):
        estimate(Vector(0.0), monomial(2))
    with refused("batch_size is given without data"):
        estimate(Vector(0.0), monomial(2), batch_size=2, n_beta=1.0)
    with refused("the tensors of the data have .* rows"):
        estimate(net, loss, {"x": data["x"], "y": data["y"][:3]})
    with refused("dropout is off"):
        estimate(nn.Sequential(net, nn.Dropout(0.1)).train(), loss, data)
    with refused("must be a mean over rows"):
        estimate(net.eval(), lambda model, batch: loss(model, batch) * len(batch["x"]), data, batch_size=10)
    with refused("it must be a scalar"):
        estimate(net, lambda model, batch: model(batch["x"]), data)
    with refused("the loss cannot be computed"):
        estimate(net, lambda model, batch: model(batch["y"]), data)
    with refused("float32 or float64"):
        estimate(nn.Linear(3, 2).bfloat16().eval(), loss, data)
    with refused("HMC is for up to 10000 parameters"):
        estimate(nn.Linear(1000, 11).eval(), loss, data, HMC())
    for match, make in {
        "step_size is 0": lambda: SGLD(0),
        "steps must be at least 4": lambda: HMC(steps=1),
        "decay is 1": lambda: RMSPropSGLD(decay=1),
    }.items():
        with refused(match):
            make()
