import itertools
import math

import pytest
import torch

from zoo.analysis.boolean_classes import boolean_classes
from zoo.analysis.singular_models import reduced_rank_generic
from zoo.analysis.small_networks import (
    LinearNetwork,
    TanhNetwork,
    boolean_target,
    loss,
    minimum_near,
    quadratic_coefficient,
)


def draw(network, n, seed=0):
    return torch.randn(n, network.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_a_linear_network_is_its_expectation_over_inputs():
    network = LinearNetwork(3, 2, 4)
    w = draw(network, 1)
    target = network.target([2.0, 0.5])
    A, B = w[0, :6].view(2, 3), w[0, 6:].view(4, 2)
    x = torch.randn(400_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sampled = (x @ (B @ A - target.view(4, 3)).T).square().sum(1).mean() / 2
    assert loss(network, target, w).item() == pytest.approx(sampled.item(), rel=0.01)


def test_a_tanh_network_is_the_sum_of_its_units_on_all_inputs():
    network = TanhNetwork(2, 2)
    assert network.n_parameters == 9
    w = draw(network, 1)
    w11, w12, w21, w22, b1, b2, a1, a2, c = w[0].tolist()
    expected = [
        c + a1 * math.tanh(w11 * x1 + w12 * x2 + b1) + a2 * math.tanh(w21 * x1 + w22 * x2 + b2)
        for x1, x2 in itertools.product((-1, 1), repeat=2)
    ]
    assert network.outputs(w)[0].tolist() == pytest.approx(expected)
    assert loss(network, network.outputs(w)[0] + 1, w).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("network", "n_wanted"), [(LinearNetwork(3, 2, 3), 9), (TanhNetwork(3, 4), 8)])
def test_descent_reaches_a_function_that_the_network_can_compute(network, n_wanted):
    target = network.outputs(draw(network, 1, seed=5))[0]
    assert target.shape == (n_wanted,)
    w, K = minimum_near(network, target, draw(network, 4))
    assert K.min() < 1e-25
    assert torch.equal(K, loss(network, target, w))
    assert (loss(network, target, draw(network, 4)) > K).all()


def test_half_the_rank_of_the_jacobian_is_the_generic_learning_coefficient():
    network = LinearNetwork(5, 3, 5)
    for rank in range(4):
        w = draw(network, 1)
        w[0, 15:].view(5, 3)[:, rank:] = 0
        target = network.outputs(w)[0]
        assert quadratic_coefficient(network, target, w, math.inf, 1.0).item() == reduced_rank_generic(5, 3, 5, rank)
        assert quadratic_coefficient(network, target, w, 1e12, 1.0).item() == pytest.approx(
            reduced_rank_generic(5, 3, 5, rank), abs=1e-6
        )


def test_the_quadratic_coefficient_of_one_product_is_the_convention():
    # K = (b a)² / 2 at a = 2, b = 0 has the curvature a² = 4 in b and 0 in a.
    network = LinearNetwork(1, 1, 1)
    w = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    found = quadratic_coefficient(network, torch.zeros(1), w, 10.0, 3.0)
    assert found.item() == pytest.approx(0.5 * 40 / 43)


def test_there_are_14_classes_of_functions_of_3_inputs():
    # The numbers of classes of functions under these symmetries: 2, 4, 14, 222 (Slepian 1953).
    assert [len(boolean_classes(n)) for n in (1, 2, 3)] == [2, 4, 14]
    assert all(sum(map(len, boolean_classes(n))) == 2 ** (2**n) for n in (1, 2, 3))
    sizes = {functions[0]: len(functions) for functions in boolean_classes(2)}
    assert sizes == {0b0000: 2, 0b0001: 8, 0b0011: 4, 0b0110: 2}  # constants, ANDs, single inputs, XORs


def test_functions_of_a_class_are_drawn_equally_often():
    network = TanhNetwork(2, 2)
    signs = (network.outputs(draw(network, 200_000)) > 0).long() @ torch.tensor([1, 2, 4, 8])
    share = signs.bincount(minlength=16) / len(signs)
    # 0001 and 0010 are the same AND but for a negation of an input; 0001 and 1110 but for the output's.
    ands = share[[0b0001, 0b0010, 0b0100, 0b1000, 0b1110, 0b1101, 0b1011, 0b0111]]
    assert (ands / ands.mean() - 1).abs().max() < 0.03  # a standard deviation is 0.6 %
    assert share[0b0110] / share[0b1001] == pytest.approx(1, abs=0.1)


def test_boolean_targets_are_in_the_order_of_inputs():
    network = TanhNetwork(2, 1)
    first = boolean_target(0b1100, 2)  # 1 for the inputs 2 and 3, which are those whose first coordinate is 1
    assert first.tolist() == network.inputs(first)[:, 0].tolist()


def test_wrong_arguments_are_refused(refused):
    with refused("n_bits is 5; it must be between 1 and 4"):
        boolean_classes(5)
    with refused("there are 3 singular values; B A has rank 2 at most"):
        LinearNetwork(3, 2, 3).target([1, 1, 1])
