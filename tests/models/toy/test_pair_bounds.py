from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from zoo.errors import ZooError
from zoo.models.toy.pair_bounds import least_balanced_loss, least_squared_loss, pair_eigenvalues


def targets(m, s):
    """The ANDs of all pairs for all inputs with s on, (inputs, pairs)."""
    return np.array(
        [[i in on and j in on for i, j in combinations(range(m), 2)] for on in combinations(range(m), s)], float
    )


@pytest.mark.parametrize(("m", "s"), [(4, 2), (7, 3), (8, 4), (5, 5), (6, 2), (3, 2)])
def test_eigenvalues_are_those_of_the_second_moments_of_all_targets(m, s):
    T = targets(m, s)
    found = np.linalg.eigvalsh(T.T @ T / len(T))
    told = sorted(value for value, times in pair_eigenvalues(m, s) for _ in range(times))
    np.testing.assert_allclose(found, told, atol=1e-12)


@pytest.mark.parametrize(("d", "loss"), [(12, 0.0647), (20, 0.0342), (40, 0.0099)])
def test_known_bounds_of_twelve_inputs(d, loss):
    M = comb(12, 2)
    kappa = (M - d) / (d * (M - 1))
    assert least_balanced_loss(12, d) == pytest.approx(kappa / (1 + kappa), rel=1e-12)
    assert round(least_balanced_loss(12, d), 4) == loss


def balanced(Y, T):
    on = T > 0
    return np.mean(
        [((1 - Y[:, p][on[:, p]]) ** 2).mean() + (Y[:, p][~on[:, p]] ** 2).mean() for p in range(T.shape[1])]
    )


@pytest.mark.parametrize(("m", "s", "d"), [(7, 3, 6), (9, 4, 10)])
def test_no_outputs_of_that_rank_are_below_the_bound_and_the_projection_of_the_targets_is_near_it(m, s, d):
    T, rng = targets(m, s), np.random.default_rng(0)
    bound = least_balanced_loss(m, d, s)
    for _ in range(50):
        H = rng.normal(size=(len(T), d))
        assert balanced(H @ np.linalg.lstsq(H, T, rcond=None)[0], T) > bound
    U, values, V = np.linalg.svd(T, full_matrices=False)
    Y = (U[:, :d] * values[:d]) @ V[:d]
    best = min(balanced(scale * Y, T) for scale in np.linspace(0.2, 8, 400))
    assert bound < best < 1.35 * bound + 0.02


@pytest.mark.parametrize(("m", "d"), [(6, 4), (6, 10), (7, 8)])
def test_projections_with_equal_diagonals_reach_the_bound_for_two_inputs(m, d):
    T, M = targets(m, 2), comb(m, 2)
    angles = 2 * np.pi * np.outer(np.arange(M), np.arange(1, d // 2 + 1)) / M
    Q = np.concatenate([np.cos(angles), np.sin(angles)], 1) * (2 / M) ** 0.5  # orthonormal columns, rows of one length
    kappa = (M - d) / (d * (M - 1))
    assert balanced(T @ (Q @ Q.T * (M / d) / (1 + kappa)), T) == pytest.approx(least_balanced_loss(m, d), rel=1e-9)


@pytest.mark.parametrize("s", [2, 3])
def test_signed_products_have_uncorrelated_targets(s):
    m = 6
    signs = np.array(np.meshgrid(*[[-1, 1]] * s)).reshape(s, -1).T
    rows = []
    for on in combinations(range(m), s):
        for sign in signs:
            x = np.zeros(m)
            x[list(on)] = sign
            rows.append([x[i] * x[j] for i, j in combinations(range(m), 2)])
    T = np.array(rows)
    pi = s * (s - 1) / (m * (m - 1))
    np.testing.assert_allclose(T.T @ T / len(T), pi * np.eye(15), atol=1e-12)
    M, d = 15, 6
    kappa = pi * (M / d - 1) / (1 - pi)
    assert least_balanced_loss(m, d, s, signed=True) == pytest.approx(kappa / (1 + kappa))


@pytest.mark.parametrize("d", [1, 4, 15, 20])
def test_plain_squared_error_is_at_least_one_minus_d_over_the_number_of_pairs(d):
    T = targets(6, 2)
    values = np.linalg.svd(T, compute_uv=False)
    share = (values[d:] ** 2).sum() / (values**2).sum()
    assert least_squared_loss(6, d) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("s", "d"), [(2, 4), (3, 4), (4, 9), (3, 30)])
def test_the_plain_squared_error_of_more_active_inputs_is_that_of_the_best_subspace(s, d):
    T = targets(7, s)
    values = np.linalg.svd(T, compute_uv=False)
    share = (values[d:] ** 2).sum() / (values**2).sum()
    assert least_squared_loss(7, d, s) == pytest.approx(share, abs=1e-12)
    assert least_squared_loss(7, d, s, signed=True) == pytest.approx(max(0, 1 - d / 21))


def test_enough_neurons_have_no_bound():
    assert least_balanced_loss(6, 15) == least_balanced_loss(6, 99, 3) == 0


def test_sizes_out_of_range_are_refused():
    for call, said in (
        (lambda: least_balanced_loss(6, 0), "at least one neuron"),
        (lambda: least_balanced_loss(6, 4, 7), "need 2 <= s <= m"),
        (lambda: least_balanced_loss(6, 4, 5), "use a smaller s"),
        (lambda: least_squared_loss(1, 4), "need 2 <= s <= m"),
    ):
        with pytest.raises(ZooError, match=said):
            call()
    assert torch.tensor(least_balanced_loss(4, 2, 2)).isfinite()
