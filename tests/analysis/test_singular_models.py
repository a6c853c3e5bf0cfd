import itertools
import math

import numpy as np
import pytest
import torch

from zoo.analysis.singular_models import (
    LearningCoefficient,
    cross_exponent,
    cross_volume,
    deep_linear,
    expected_monomial,
    line_volume,
    monomial_learning_coefficient,
    reduced_rank,
    reduced_rank_generic,
    squares_exponent,
    squares_volume,
)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        ((1, 1), (0.3542, 0.3903, 0.4123, 0.4375)),
        ((1, 2), (0.2057, 0.2249, 0.2358, 0.2455)),
        ((2, 2), (0.1471, 0.1652, 0.1785, 0.1960)),
    ],
)
def test_expected_monomials_are_those_of_another_quadrature(k, expected):
    found = [expected_monomial(k, n_beta) for n_beta in (1e2, 1e3, 1e4, 1e6)]
    assert found == pytest.approx(expected, abs=5e-5)


def test_the_expectation_of_a_square_is_that_of_a_gaussian():
    # w² under exp(-(nβ + 1/2) w²) has the mean 1 / (2 nβ + 1). A factor w^0 changes nothing.
    for n_beta in (0.01, 1.0, 1e4):
        assert expected_monomial([1], n_beta) == pytest.approx(n_beta / (2 * n_beta + 1), rel=1e-9)
        assert expected_monomial([1, 0], n_beta) == pytest.approx(n_beta / (2 * n_beta + 1), rel=1e-9)


def test_the_expectation_of_three_factors_is_their_sum_on_a_grid():
    log_w = np.arange(-20, 2, 0.1)
    prior = log_w - np.exp(2 * log_w) / 2
    log_K = 2 * (log_w[:, None, None] + log_w[:, None] + 2 * log_w)
    n_beta_K = 50 * np.exp(log_K)
    weight = np.exp(prior[:, None, None] + prior[:, None] + prior - n_beta_K)
    assert expected_monomial([1, 1, 2], 50) == pytest.approx((weight * n_beta_K).sum() / weight.sum(), rel=1e-4)


def test_expected_monomials_go_to_the_learning_coefficient():
    assert monomial_learning_coefficient([1, 2, 2]) == LearningCoefficient(0.25, 2)
    assert expected_monomial([1, 3], 1e30) == pytest.approx(monomial_learning_coefficient([1, 3]).value, abs=1e-4)
    # With multiplicity 2 the distance from the limit is 1 / ln nβ.
    missing = [0.5 - expected_monomial([1, 1], 10.0**power) for power in (10, 20)]
    assert missing[0] / missing[1] == pytest.approx(2, abs=0.1)


def test_the_learning_coefficients_of_reduced_rank_regression():
    assert [reduced_rank(5, 3, 5, r).value for r in range(4)] == [6.5, 8, 9.5, 10.5]
    assert [reduced_rank(5, 4, 5, r).value for r in range(5)] == [8, 9.5, 10.5, 11.5, 12]
    assert [reduced_rank(5, 3, 5, r).multiplicity for r in range(4)] == [2, 1, 2, 1]


def test_the_learning_coefficient_is_half_the_number_of_entries_where_the_model_is_regular():
    assert reduced_rank(2, 9, 3, 1) == LearningCoefficient(3.0, 1)  # case 4: every matrix, many times over
    # Full rank: the set of such matrices has the dimension rank * (n_in + n_out - rank).
    for n_in, width, n_out in itertools.product((1, 2, 5), repeat=3):
        rank = min(n_in, width, n_out)
        if width == rank:
            assert reduced_rank(n_in, width, n_out, rank).value == rank * (n_in + n_out - rank) / 2


def test_a_deep_linear_network_with_two_matrices_is_reduced_rank_regression():
    for sizes in itertools.product(range(1, 7), repeat=3):
        for rank in range(min(sizes) + 1):
            assert deep_linear(sizes, rank) == reduced_rank(*sizes, rank)


def test_the_order_of_hidden_layers_and_the_direction_do_not_matter():
    for widths in itertools.product((1, 2, 4), repeat=4):
        for rank in range(min(widths) + 1):
            n_in, *hidden, n_out = widths
            assert deep_linear(widths, rank) == deep_linear([n_out, *hidden[::-1], n_in], rank)
            assert deep_linear(widths, rank) == deep_linear([n_in, *hidden[::-1], n_out], rank)
            # A hidden layer that is very wide restricts nothing and makes nothing more singular.
            assert deep_linear([n_in, 99, *hidden, n_out], rank) == deep_linear(widths, rank)


def test_deep_linear_networks_that_are_monomials():
    assert deep_linear([3, 2], 1) == LearningCoefficient(3.0, 1)  # one matrix: all its entries
    for depth in range(1, 6):  # K = (w1 ... wL)²
        assert deep_linear([1] * (depth + 1), 0) == LearningCoefficient(0.5, depth)
    # K = |a|² c² |b|²: in polar coordinates |a|^(d - 1) d|a|, so that a counts d/2, and c counts 1/2.
    for n_in, n_out in itertools.product((1, 2, 3), repeat=2):
        parts = [n_in / 2, 0.5, n_out / 2]
        assert deep_linear([n_in, 1, 1, n_out], 0) == LearningCoefficient(min(parts), parts.count(min(parts)))
        parts = [n_in / 2, n_out / 2]
        assert deep_linear([n_in, 1, n_out], 0) == LearningCoefficient(min(parts), parts.count(min(parts)))


@pytest.mark.parametrize(("sizes", "rank"), [((5, 3, 5), 0), ((5, 3, 5), 1), ((5, 3, 4), 2), ((4, 4, 6), 3)])
def test_the_generic_value_is_half_the_rank_of_the_jacobian(sizes, rank):
    n_in, width, n_out = sizes
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((width, n_in), (n_out, width)))
    B[:, rank:] = 0
    parts = torch.func.jacrev(lambda A, B: B @ A, argnums=(0, 1))(A, B)
    jacobian = torch.cat([part.reshape(n_out * n_in, -1) for part in parts], 1)
    assert 2 * reduced_rank_generic(*sizes, rank) == torch.linalg.matrix_rank(jacobian)
    assert reduced_rank_generic(*sizes, rank) >= reduced_rank(*sizes, rank).value


def test_the_generic_values_of_five_inputs_and_outputs():
    assert [reduced_rank_generic(5, 3, 5, r) for r in range(2)] == [7.5, 8.5]


def test_volumes_of_the_cross_and_the_line_are_those_of_a_grid():
    w = (np.arange(2000) + 0.5) / 2000
    K = (w[:, None] * w) ** 2
    for t in (0.5, 0.01, 1e-4):
        assert cross_volume(t) == pytest.approx((t >= K).mean(), rel=2e-3)
        assert line_volume(t) == pytest.approx((w**2 <= t).mean(), abs=1 / 2000)
    assert cross_volume(2.0) == line_volume(2.0) == 1
    assert cross_exponent(1e-6) == pytest.approx(0.437, abs=5e-4)
    assert cross_exponent(1e-300) == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize("volume", [(cross_volume, cross_exponent), (lambda t: squares_volume(0.25, 100, t),) * 2])
def test_exponents_are_slopes_of_volumes(volume):
    V = volume[0]
    for t in (1e-2, 1e-4, 1e-6):
        slope = math.log(V(t * 1.001) / V(t / 1.001)) / math.log(1.001**2)
        exponent = cross_exponent(t) if V is cross_volume else squares_exponent(0.25, 100, t)
        assert exponent == pytest.approx(slope, rel=1e-6)


def test_the_neighbourhood_of_a_square_is_that_of_a_grid():
    x = np.linspace(-1, 1, 2001)
    beyond = np.maximum(abs(x) - 0.25, 0)  # a square of side 1/2
    distance = beyond[:, None] ** 2 + beyond**2
    assert squares_volume(0.25, 1, 0.04) == pytest.approx(4 * (distance <= 0.04).mean(), rel=2e-3)
    # Four quarters have the area of one square, and twice its perimeter.
    assert squares_volume(0.25, 4, 1e-12) == pytest.approx(0.25 + 4 * 1e-6, abs=1e-10)


def test_wrong_arguments_are_refused(refused):
    with refused("rank is 4; it must be between 0 and the smallest width, 3"):
        reduced_rank(5, 3, 5, 4)
    with refused("rank is -1"):
        deep_linear([2, 2], -1)
    with refused(r"widths is \[3\]; at least"):
        deep_linear([3], 0)
    with refused("each must be at least 1"):
        deep_linear([3, 0, 3], 0)
    with refused("width is 6; it must be at most n_in, 5"):
        reduced_rank_generic(5, 6, 7, 0)
    with refused("k has -1"):
        monomial_learning_coefficient([1, -1])
    with refused("at least one exponent must be positive"):
        expected_monomial([0, 0], 1.0)
    with refused("n_beta is 0"):
        expected_monomial([1], 0.0)
    for volume in (cross_volume, cross_exponent, line_volume):
        with refused("t is 0.0; it must be a positive number"):
            volume(0.0)
    with refused("there are 0 squares"):
        squares_exponent(1.0, 0, 0.1)
