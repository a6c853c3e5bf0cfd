import numpy as np
import pytest
import torch

from zoo.analysis.continuous_toys import looks_computed
from zoo.analysis.product_readoffs import (
    best_readoff_loss,
    error_of_exact_readoff,
    exact_variances,
    random_weights,
    square_r2,
    written_variances,
)
from zoo.models import CompressedComputation
from zoo.models.toy.pair_bounds import least_balanced_loss


@pytest.mark.parametrize(
    ("weights", "neuron"),
    [("signs", "relu"), ("signs and biases", "absolute"), ("gaussian", "square"), ("gaussian", "bilinear")],
)
def test_written_readoffs_have_the_exact_variance(weights, neuron):
    found = np.mean([written_variances(weights, neuron, 3, 6, 400, 64, seed) for seed in range(60)], axis=0)
    assert found == pytest.approx(exact_variances(weights, neuron, 3), rel=0.12)


@pytest.mark.parametrize("d", [5, 12])
def test_the_r2_of_square_neurons_are_those_of_least_squares_on_drawn_inputs(d):
    m, p = 4, 0.5
    W, generator = random_weights("gaussian", d, m, 0), torch.Generator().manual_seed(1)
    on = torch.rand(200_000, m, generator=generator) < p
    x = (2 * torch.rand(200_000, m, generator=generator, dtype=torch.float64) - 1) * on
    h = (x @ W.T).square()
    targets = torch.stack([x[:, i] * x[:, j] for i in range(m) for j in range(i + 1, m)], 1)
    targets = torch.cat([targets, x.square()], 1)
    h, targets = h - h.mean(0), targets - targets.mean(0)
    rest = targets - h @ torch.linalg.lstsq(h, targets, driver="gelsd").solution
    r2 = 1 - rest.square().sum(0) / targets.square().sum(0)
    assert square_r2(W, p) == pytest.approx((r2[:6].sum().item(), r2[6:].sum().item()), abs=0.02)


def test_exact_readoffs_exist_for_enough_neurons_only():
    assert error_of_exact_readoff(random_weights("gaussian", 10, 4, 0), 0) < 1e-9
    assert np.isnan(error_of_exact_readoff(random_weights("gaussian", 9, 4, 0), 0))


def test_as_many_random_neurons_as_pairs_compute_all_ands_and_fewer_stay_above_the_bound():
    assert best_readoff_loss(5, 30, False, 0) == pytest.approx(0, abs=1e-12)
    for d, bias in ((4, False), (4, True), (7, False)):
        assert best_readoff_loss(5, d, bias, 0) > least_balanced_loss(5, d + bias)


def test_functions_look_computed_if_their_own_curves_are_relu_of_half_height():
    module = CompressedComputation(6, 4, 1)
    module.net.W_in.data = torch.eye(6)[:, :4].unsqueeze(0)
    module.net.W_out.data = torch.eye(6)[:4].unsqueeze(0) * torch.tensor([1.0, 0.6, 0.4, -1.0])[:, None]
    assert looks_computed(module).tolist() == [2]
