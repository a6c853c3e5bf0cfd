import math

import pytest
import torch

from zoo.analysis.singular_models import cross_exponent, cross_volume, deep_linear
from zoo.analysis.volumes import volumes_by_sampling, volumes_by_splitting


def on_the_unit_square(w):
    """(w1 w2)² of parameters that are mapped from the Gaussian to the unit square."""
    return torch.special.ndtr(w).prod(1).square()


def quadratic(w):
    return w.square().sum(1)


def mean_slope(volume, t, ratio):
    return math.log(volume(t * ratio**0.5) / volume(t / ratio**0.5)) / math.log(ratio)


def chi_square(d, t):
    return float(torch.special.gammainc(torch.tensor(d / 2, dtype=torch.float64), torch.tensor(t / 2)))


def test_plain_sampling_finds_the_volume_and_exponent_of_the_cross():
    found = volumes_by_sampling(on_the_unit_square, 2, [0.1, 1e-2, 1e-3, 1e-4], 400_000)
    for one in found:
        assert -math.log2(cross_volume(one.threshold)) in one.bits
        assert mean_slope(cross_volume, one.threshold, 4.0) in one.exponent
        assert one.bits.high - one.bits.low < 0.05
        assert one.exponent.high - one.exponent.low < 0.05


def test_intervals_of_plain_sampling_contain_the_truth_in_95_of_100_runs():
    inside = [
        -math.log2(chi_square(3, 0.1)) in one.bits and mean_slope(lambda t: chi_square(3, t), 0.1, 4.0) in one.exponent
        for seed in range(100)
        for one in volumes_by_sampling(quadratic, 3, [0.1], 10_000, seed=seed)
    ]
    assert 80 <= sum(inside) <= 99  # both intervals: about 91; four standard deviations of this count are 11


def test_splitting_finds_the_slope_of_the_cross_at_a_millionth_and_not_its_limit():
    [found], _ = volumes_by_splitting(on_the_unit_square, 2, [1e-6], particles=1000, repeats=12)
    assert found.bits.mean == pytest.approx(-math.log2(cross_volume(1e-6)), abs=0.15)
    assert found.exponent.mean == pytest.approx(cross_exponent(1e-6), abs=0.03)
    assert 0.5 not in found.exponent
    assert found.exponent.high - found.exponent.low < 0.06


def test_splitting_finds_the_exponent_of_a_quadratic():
    # V(t) is that of chi square, and its exponent goes to d/2. At 1e-6 there are 27 levels with a variance of about
    # 3 / particles each, so that the mean of 8 repeats has a standard deviation of 0.26 bits.
    found, w = volumes_by_splitting(quadratic, 5, [1e-2, 1e-6], particles=300, repeats=8, moves=40)
    for one in found:
        assert one.bits.mean == pytest.approx(-math.log2(chi_square(5, one.threshold)), abs=0.8)
        assert one.exponent.mean == pytest.approx(2.5, abs=0.15)
    assert w.shape == (8, 300, 5)
    K = quadratic(w.flatten(0, 1))
    assert (K <= 1e-6 / 2).all()
    # In a ball of radius R, the mean of |w|² is R² d / (d + 2).
    assert K.mean().item() == pytest.approx(1e-6 / 2 * 5 / 7, rel=0.04)


def test_splitting_agrees_with_aoyagis_formula_for_a_network_of_three_matrices():
    # K = |W3 W2 W1|² with 2 x 2 matrices: λ = 3/2 and m = 3, so that the slope is about λ - 2 / ln(1/t).
    def potential(w):
        W1, W2, W3 = w.view(-1, 3, 2, 2).unbind(1)
        return (W3 @ W2 @ W1).square().sum((1, 2))

    known = deep_linear([2, 2, 2, 2], 0)
    assert (known.value, known.multiplicity) == (1.5, 3)
    [found], _ = volumes_by_splitting(potential, 12, [1e-8], particles=300, repeats=6, moves=40)
    expected = known.value - (known.multiplicity - 1) / math.log(1e8)  # 1.39; the next term is of order 1 / ln² t
    assert found.exponent.mean == pytest.approx(expected, abs=0.12)
    assert found.exponent.high - found.exponent.low < 0.24


def test_open_sets_have_the_exponent_0_and_their_own_bits():
    # The share of wrong answers of sign(w1 x1 + w2 x2) on (1, 0), (0, 1), (1, 1), whose labels are (+, -, +): an eighth
    # of the circle has none.
    x = torch.tensor([[1, 0], [0, 1], [1, 1]]).double()
    label = torch.tensor([True, False, True])

    def wrong(w):
        return ((w @ x.T > 0) != label).double().mean(1)

    [found] = volumes_by_sampling(wrong, 2, [0.1], 100_000)
    assert 3.0 in found.bits
    assert found.exponent.mean == 0


def test_both_estimates_agree_where_both_reach():
    def potential(w):
        return (torch.tanh(w[:, :3]) * w[:, 3:]).sum(1).sub(1).square()

    plain = volumes_by_sampling(potential, 6, [1e-3], 400_000)[0]
    split = volumes_by_splitting(potential, 6, [1e-3], particles=500, repeats=6)[0][0]
    assert plain.bits.mean == pytest.approx(split.bits.mean, abs=0.1)
    assert plain.exponent.mean == pytest.approx(split.exponent.mean, abs=0.06)


def test_no_hit_leaves_the_upper_end_open():
    [found] = volumes_by_sampling(lambda w: 1 + w[:, 0] ** 2, 1, [0.5], 1000)
    assert (found.bits.mean, found.bits.high) == (math.inf, math.inf)
    assert 7 < found.bits.low < 9  # Wilson's upper end for 0 of 1,000 is 0.0038
    assert math.isnan(found.exponent.mean)


def test_wrong_arguments_are_refused(refused):
    with refused(r"thresholds are \[0.1, 0.0\]; at least one is needed, and all must be positive"):
        volumes_by_sampling(quadratic, 2, [0.1, 0.0])
    with refused("ratio is 1"):
        volumes_by_splitting(quadratic, 2, [0.1], ratio=1)
    with refused("dim is 0; it must be at least 1"):
        volumes_by_sampling(quadratic, 0, [0.1])
    with refused("there are 5 particles and 8 repeats; at least 20 and 2"):
        volumes_by_splitting(quadratic, 2, [0.1], particles=5)
    with refused(r"returns shape \(100, 2\) for parameters \(100, 2\); \(N,\) is needed"):
        volumes_by_sampling(torch.square, 2, [0.1], 100)
    with refused("the potential is NaN"):
        volumes_by_sampling(lambda w: w[:, 0].log(), 2, [0.1], 100)
    with refused("K does not get below 1, so that there is no volume below 0.1"):
        volumes_by_splitting(lambda w: torch.ones(len(w)), 2, [0.1], ratio=1.0001)
