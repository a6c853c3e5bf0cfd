import math

import numpy as np
import pytest
import torch

from zoo.models.sparse_coding import certify, duality_gap, lasso
from zoo.models.sparse_coding.rows import csr_of


def problem(n=16, k=48, d=16, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X, D = (torch.randn(rows, d, generator=generator, dtype=torch.float64) for rows in (n, k))
    return X.to(dtype), D.to(dtype)


def sparse_codes(X, D, seed=7):
    return problem(len(X), d=len(D), seed=seed)[0] * (problem(len(X), d=len(D), seed=seed + 1)[0] > 1)


def by_hand(X, D, codes, penalty, positive=False):
    """Objective and gap (N,) by their definitions."""
    X, D, codes = (np.asarray(t, dtype=np.float64) for t in (X, D, codes.to_dense()))
    lam = np.broadcast_to(np.asarray(penalty, dtype=np.float64), len(X))
    r = X - codes @ D
    correlation = r @ D.T
    t = lam / np.maximum(lam, (correlation if positive else np.abs(correlation)).max(1))
    objective = np.square(r).sum(1) / 2 + lam * np.abs(codes).sum(1)
    return objective, objective - (t * (r * X).sum(1) - t**2 * np.square(r).sum(1) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
def test_objective_and_gap_are_those_of_the_definitions(positive, dtype):
    X, D = problem(dtype=dtype)
    codes, lam = sparse_codes(X, D).to(dtype), torch.linspace(0.1, 20, len(X))
    codes = codes.abs() if positive else codes
    for form in (codes, codes.to_sparse(), csr_of(codes)):
        objective, gap = duality_gap(X, D, form, lam, positive)
        assert objective.dtype == gap.dtype == torch.float64
        np.testing.assert_allclose((objective, gap), by_hand(X, D, codes, lam, positive), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-5])
def test_the_gap_of_certified_rows_is_within_the_tolerance(tolerance, positive, dtype):
    X, D = problem(64, dtype=dtype)
    for lam in (0.3, 3.0):
        solution = lasso(X, D, lam, tolerance, positive)
        assert solution.certified.all()
        objective, gap = by_hand(X, D, solution.codes, lam, positive)
        assert (gap <= tolerance * objective * (1 + 1e-6)).all()
        np.testing.assert_allclose(solution.objective, objective, rtol=1e-12)
        np.testing.assert_allclose(solution.gap, gap, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("positive", [False, True])
def test_the_gap_is_at_least_the_distance_to_the_optimum(positive):
    X, D = problem()
    lam = torch.linspace(0.3, 10, len(X))
    best = lasso(X, D, lam, 1e-10, positive)
    optimum, codes = best.objective, best.codes.to_dense()
    noise = sparse_codes(X, D).abs()
    for tried in (0 * codes, noise, codes / 2, codes + 1e-3 * noise, lasso(X, D, lam, 0.1, positive).codes):
        objective, gap = duality_gap(X, D, tried, lam, positive)
        assert (objective >= optimum * (1 - 1e-10)).all()
        assert (gap >= (objective - optimum) * (1 - 1e-9)).all()
    assert (duality_gap(X, D, codes, lam, positive)[1] <= 1e-9 * optimum).all()


def test_rows_given_up_are_reported_with_their_gap():
    X, D = problem(64, 200, 30)
    solution = lasso(X, D, 0.5, 1e-8, max_rounds=1)
    objective, gap = by_hand(X, D, solution.codes, 0.5)
    assert not solution.certified.any()
    assert (gap > 1e-8 * objective).all()
    np.testing.assert_allclose(solution.gap, gap, rtol=1e-9)
    optimum = lasso(X, D, 0.5, 1e-10).objective
    assert (solution.gap >= solution.objective - optimum).all()
    assert (solution.objective > optimum * (1 + 1e-6)).any()


def test_some_rows_can_be_certified_and_others_not():
    X, D = problem(64, 200, 30)
    lam = torch.full((64,), 0.5)
    lam[::2] = 1e3
    solution = lasso(X, D, lam, 1e-8, max_rounds=1)
    assert solution.certified[::2].all()
    assert not solution.certified[1::2].any()
    objective, gap = by_hand(X, D, solution.codes, lam)
    np.testing.assert_array_equal(solution.certified, gap <= 1e-8 * objective)


def test_rows_are_certified_up_to_the_tolerance_and_where_rounding_hides_the_gap():
    X = torch.tensor([[2.0, 0.0]]).repeat(6, 1)
    objective = torch.tensor([1.0, 1.0, 1e-15, math.inf, 1.0, math.nan], dtype=torch.float64)
    gap = torch.tensor([0.9e-4, 1.1e-4, 1e-12, math.inf, math.nan, math.nan], dtype=torch.float64)
    assert certify(X, objective, gap, 1e-4).tolist() == [True, False, True, False, False, False]


def test_negative_codes_that_must_be_positive_are_infinitely_far_off_and_not_certified():
    X, D = problem()
    signed = lasso(X, D, 2.0, 1e-8).codes
    wrong = (signed.to_dense() < 0).any(1)
    assert wrong.any()
    objective, gap = duality_gap(X, D, signed, 2.0, positive=True)
    assert objective[wrong].isinf().all()
    assert gap[wrong].isinf().all()
    assert not certify(X, objective, gap, 1e-4)[wrong].any()
    assert objective[~wrong].isfinite().all()


@pytest.mark.parametrize("k", [5, 16, 48])
def test_at_penalty_0_the_gap_is_the_distance_to_least_squares(k):
    X, D = problem(k=k)
    codes = sparse_codes(X, D)
    x, atoms = X.numpy(), D.numpy()
    least = np.square(x - x @ np.linalg.pinv(atoms) @ atoms).sum(1) / 2
    objective, gap = duality_gap(X, D, codes, 0.0)
    np.testing.assert_allclose(gap, objective.numpy() - least, rtol=1e-9)
    lam = torch.zeros(len(X))
    lam[1::2] = 3
    mixed = duality_gap(X, D, codes, lam)[1]
    torch.testing.assert_close(mixed[::2], gap[::2])
    torch.testing.assert_close(mixed[1::2], duality_gap(X, D, codes, 3.0)[1][1::2])


@pytest.mark.parametrize("scale", [1e-60, 1e-20, 1e20, 1e60])
def test_the_relative_gap_does_not_depend_on_the_scale(scale):
    X, D = problem()
    codes = lasso(X, D, 2.0).codes.to_dense()
    objective, gap = duality_gap(X, D, codes, 2.0)
    assert (gap > 1e-9 * objective).any()
    for rows, atoms in ((scale, 1.0), (scale, scale), (1.0, scale)):
        scaled = duality_gap(rows * X, atoms * D, rows / atoms * codes, 2 * rows * atoms)
        torch.testing.assert_close(scaled[0] / rows**2, objective, rtol=1e-12, atol=0)
        torch.testing.assert_close(scaled[1] / rows**2, gap, rtol=0, atol=1e-12)


def test_zero_rows_with_zero_codes_have_no_gap():
    D = problem()[1]
    objective, gap = duality_gap(torch.zeros(3, 16).double(), D, torch.zeros(3, len(D)), torch.tensor([0.0, 1e-9, 5]))
    assert not objective.any()
    assert not gap.any()


def test_more_rows_than_one_batch_holds_keep_their_places():
    X, D = problem(5000, 6, 4)
    codes, lam = sparse_codes(X, D), torch.linspace(0.1, 9, 5000)
    np.testing.assert_allclose(duality_gap(X, D, codes, lam), by_hand(X, D, codes, lam), rtol=1e-9, atol=1e-12)
    empty = duality_gap(X[:0], D, codes[:0], 1.0)
    assert [len(t) for t in empty] == [0, 0]


def test_memory_layout_and_gradients_do_not_matter():
    X, D = problem()
    codes = sparse_codes(X, D)
    expected = duality_gap(X, D, codes, 2.0)
    for view in (torch.nn.Parameter, lambda t: t.T.contiguous().T):
        torch.testing.assert_close(duality_gap(view(X), view(D), view(codes), 2.0), expected)


def test_codes_that_are_nan_are_not_certified():
    X, D = problem()
    codes = sparse_codes(X, D)
    codes[3, 5] = math.nan
    objective, gap = duality_gap(X, D, codes, 2.0)
    assert not certify(X, objective, gap, 0.999)[3]
    assert gap[torch.arange(len(X)) != 3].isfinite().all()


def test_bad_arguments_are_refused(refused):
    X, D = problem()
    codes = sparse_codes(X, D)
    for match, bad in {
        r"codes has shape \[16, 47\]; expected \[16, 48\]": (X, D, codes[:, 1:], 1.0),
        r"codes has shape \[15, 48\]; expected \[16, 48\]": (X, D, csr_of(codes[1:]), 1.0),
        "row 0 of X has entries that are NaN": (X * math.nan, D, codes, 1.0),
        "they must be the same": (X, D.float(), codes, 1.0),
        "rows of X have 16 dimensions, and those of D have 15": (X, D[:, 1:], codes, 1.0),
        "a penalty is -2": (X, D, codes, -2.0),
        "penalty is .*expected a number": (X, D, codes, torch.ones(3)),
    }.items():
        with refused(match):
            duality_gap(*bad)
