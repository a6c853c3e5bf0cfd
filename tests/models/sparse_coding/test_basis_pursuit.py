import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from zoo.models.sparse_coding import basis_pursuit, interior_point, lasso
from zoo.models.sparse_coding.basis_pursuit import _Pursuit

PRECISION = {torch.float32: 1e-5, torch.float64: 1e-9}  # share of |x| that codes of that precision may miss


@pytest.fixture(params=["interior points", "falling penalties"], autouse=True)
def method(request, monkeypatch):
    """Every test is run with both ways of solving; falling penalties are otherwise used for the few rows left over."""
    if request.param == "falling penalties":
        monkeypatch.setattr(_Pursuit, "by_interior_points", lambda pursuit: (~pursuit.zero).nonzero().squeeze(1))


def matrix(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(n, D, l0, positive=False, seed=1):
    """Codes (n, K) with `l0` atoms each, of size 1/2 to 3/2."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(n, len(D), dtype=torch.float64)
    for row in codes:
        chosen = torch.randperm(len(D), generator=generator)[:l0]
        row[chosen] = torch.rand(l0, generator=generator, dtype=torch.float64) + 0.5
        if not positive:
            row[chosen[::2]] *= -1
    return codes


def linear_program(X, D, positive):
    """Smallest |a|₁ with aD = x for every row, infinite where there is none."""
    D = D.double().numpy()
    atoms = D if positive else np.concatenate((D, -D))
    solved = [linprog(np.ones(len(atoms)), A_eq=atoms.T, b_eq=x) for x in X.double().numpy()]
    assert {s.status for s in solved} <= {0, 2}  # solved, or infeasible
    return np.array([s.fun if s.status == 0 else math.inf for s in solved])


def miss(X, D, codes):
    """|x - aD| / |x| of every row."""
    return ((X.double() - codes.to_dense().double() @ D.double()).norm(dim=1) / X.double().norm(dim=1)).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("k", "d"), [(60, 12), (24, 12), (30, 1)])
def test_codes_reproduce_the_rows_and_are_as_small_as_the_linear_programs(k, d, positive, dtype):
    X, D = matrix(8, d).to(dtype), matrix(k, d, 1).to(dtype)
    solution = basis_pursuit(X, D, positive=positive)
    expected = linear_program(X, D, positive)
    feasible = np.isfinite(expected)
    assert feasible.any()
    np.testing.assert_array_equal(solution.objective.isfinite(), feasible)
    np.testing.assert_array_equal(solution.certified, feasible)
    np.testing.assert_allclose(solution.objective[feasible], expected[feasible], rtol=1e-4)
    np.testing.assert_allclose(solution.codes.to_dense().abs().sum(1)[feasible], expected[feasible], rtol=1e-4)
    assert (miss(X, D, solution.codes)[feasible] < PRECISION[dtype]).all()
    assert not solution.codes.to_dense()[~feasible].any()
    assert solution.codes.dtype == dtype
    if positive:
        assert (solution.codes.values() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
def test_sparse_codes_are_recovered(positive, dtype):
    D = F.normalize(matrix(80, 40))
    codes = planted(12, D, 3, positive)
    solution = basis_pursuit((codes @ D).to(dtype), D.to(dtype), positive=positive)
    assert solution.certified.all()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(solution.codes.to_dense().double(), codes, rtol=0, atol=tolerance)
    torch.testing.assert_close(solution.objective, codes.abs().sum(1), rtol=tolerance, atol=0)
    assert not positive or (solution.codes.values() > 0).all()


@pytest.mark.parametrize("positive", [False, True])
def test_the_gauge_norm_is_at_most_that_of_any_codes_that_reproduce_the_row(positive):
    D = matrix(80, 20)
    for l0 in (2, 10, 40):
        codes = planted(12, D, l0, positive, seed=l0)
        solution = basis_pursuit(codes @ D, D, positive=positive)
        assert solution.certified.all()
        assert (solution.objective <= codes.abs().sum(1) * (1 + 1e-4)).all()
    assert (solution.objective < 0.9 * codes.abs().sum(1)).all()  # 40 atoms are not the fewest


def test_the_gauge_norm_is_a_norm():
    D, X = matrix(50, 12), matrix(8, 12, 1)
    gauge = basis_pursuit(X, D, 1e-6).objective
    for scale in (-1, 1e-6, 1e6):
        scaled = basis_pursuit(scale * X, D, 1e-6)
        assert scaled.certified.all()
        torch.testing.assert_close(scaled.objective, abs(scale) * gauge, rtol=2e-6, atol=0)
        torch.testing.assert_close(basis_pursuit(X, scale * D, 1e-6).objective, gauge / abs(scale), rtol=2e-6, atol=0)
    assert (basis_pursuit(X + X.flip(0), D, 1e-6).objective <= (gauge + gauge.flip(0)) * (1 + 2e-6)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_outside_of_the_span_are_infinitely_far(dtype):
    D = matrix(6, 20)
    X = torch.cat((matrix(3, 6, 1) @ D, matrix(3, 20, 2)))
    solution = basis_pursuit(X.to(dtype), D.to(dtype))
    assert solution.certified.tolist() == [True] * 3 + [False] * 3
    assert solution.objective.isinf().tolist() == solution.gap.isinf().tolist() == [False] * 3 + [True] * 3
    torch.testing.assert_close(solution.codes.to_dense()[:3].double() @ D, X[:3], rtol=1e-5, atol=1e-5)


def test_rows_outside_of_the_cone_have_no_positive_codes():
    D = matrix(40, 12).abs()
    X = torch.cat((planted(2, D, 3, positive=True) @ D, -D[:2], torch.eye(12, dtype=torch.float64)[:1]))
    solution = basis_pursuit(X, D, positive=True)
    assert solution.objective.isinf().tolist() == [False, False, True, True, True]
    assert solution.certified.tolist() == [True, True, False, False, False]
    assert basis_pursuit(X, D).certified.all()


@pytest.mark.parametrize("positive", [False, True])
def test_atoms_that_are_there_many_times_share_one_code(positive):
    D = matrix(33, 20)
    copies = torch.cat((D, D, D.flip(0), -D))
    X = matrix(10, 20, 1)
    expected = linear_program(X, copies, positive)
    solution = basis_pursuit(X, copies, positive=positive)
    assert solution.certified.all()
    np.testing.assert_allclose(solution.objective, expected, rtol=1e-4)


@pytest.mark.parametrize("positive", [False, True])
def test_atoms_of_signs_whose_combinations_tie_are_certified(positive):
    D = matrix(100, 20, 5).sign()
    X = planted(10, D, 8, positive, seed=6) @ D
    solution = basis_pursuit(X, D, positive=positive)
    assert solution.certified.all()
    assert not positive or (solution.codes.values() > 0).all()
    np.testing.assert_allclose(solution.objective, linear_program(X, D, positive), rtol=1e-4)


def test_codes_of_rows_that_leave_the_span_by_rounding_are_the_smallest_of_what_they_reproduce():
    D = (matrix(40, 4) @ matrix(4, 16, 1)).float()
    X = (planted(8, D, 3) @ D.double()).float()
    solution = basis_pursuit(X, D)
    assert solution.certified.all()
    assert (miss(X, D, solution.codes) < 1e-5).all()
    reproduced = solution.codes.to_dense().double() @ D.double()
    np.testing.assert_allclose(solution.objective, basis_pursuit(reproduced, D.double()).objective, rtol=2e-4)


def test_a_row_equal_to_an_atom_of_norm_1_is_that_atom_and_no_row_is_smaller_than_its_norm():
    D = F.normalize(matrix(60, 12))
    solution = basis_pursuit(D, D)
    torch.testing.assert_close(solution.codes.to_dense(), torch.eye(60, dtype=torch.float64), rtol=0, atol=1e-9)
    X = matrix(8, 12, 1)
    assert (basis_pursuit(X, D).objective > X.norm(dim=1)).all()


def test_orthonormal_atoms_leave_no_choice():
    Q, X = torch.linalg.qr(matrix(12, 12)).Q, matrix(8, 12, 1)
    solution = basis_pursuit(X, Q)
    assert solution.certified.all()
    torch.testing.assert_close(solution.codes.to_dense(), X @ Q.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("positive", [False, True])
def test_zero_rows_zero_atoms_and_no_rows(positive):
    X, D = matrix(6, 12), matrix(60, 12, 1)
    X[::2], D[::3] = 0, 0
    solution = basis_pursuit(X, D, positive=positive)
    assert solution.certified.all()
    assert solution.objective[::2].tolist() == solution.gap[::2].tolist() == [0, 0, 0]
    assert not solution.codes.to_dense()[::2].any()
    assert not solution.codes.to_dense()[:, ::3].any()
    assert (miss(X, D, solution.codes)[1::2] < 1e-9).all()
    no_rows = basis_pursuit(X[:0], D, positive=positive)
    assert no_rows.codes.shape == (0, 60)
    nothing = basis_pursuit(X, 0 * D, positive=positive)
    assert nothing.objective.isinf().tolist() == [False, True] * 3


@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_the_gap_bounds_the_distance_and_is_within_the_tolerance(tolerance):
    X, D = matrix(8, 12), matrix(60, 12, 1)
    solution = basis_pursuit(X, D, tolerance)
    optimum = linear_program(X, D, False)
    assert (solution.gap <= tolerance * solution.objective).all()
    assert (solution.objective.numpy() - optimum <= solution.gap.numpy() + 1e-10 * optimum).all()


def test_the_lasso_tends_to_it_as_the_penalty_falls():
    X, D = matrix(8, 12), matrix(60, 12, 1)
    gauge = basis_pursuit(X, D, 1e-8).objective
    off = [(gauge - lasso(X, D, lam, 1e-9).codes.to_dense().abs().sum(1)) / gauge for lam in (1e-1, 1e-3, 1e-5)]
    assert (off[0] > off[1]).all()
    assert (off[1] > off[2]).all()
    assert off[2].abs().max() < 1e-4


def test_bad_arguments_are_refused(refused):
    X, D = matrix(4, 12), matrix(60, 12, 1)
    for match, bad in {
        "rows of X have 11 dimensions, and those of D have 12": (X[:, 1:], D),
        "D is torch.int64": (X, D.long()),
        "they must be the same": (X.float(), D),
        "row 0 of X has entries that are NaN": (X * math.nan, D),
        "row 0 of D has entries that are NaN": (X, D / 0),
        "tolerance is 0;": (X, D, 0),
        "tolerance is 2;": (X, D, 2),
    }.items():
        with refused(match):
            basis_pursuit(*bad)


def test_the_interior_point_method_needs_few_steps_and_its_dual_points_are_feasible(monkeypatch):
    X, D = matrix(8, 24), F.normalize(matrix(100, 24, 1))
    steps = []
    one = interior_point._step
    monkeypatch.setattr(interior_point, "_step", lambda *args: steps.append(len(args[0])) or one(*args))
    codes, v = interior_point.solve(X, D, 1e-8, False)
    assert len(steps) <= 20
    assert (v @ D.T).abs().max() <= 1
    assert (miss(X, D, codes.to_sparse_csr()) < 1e-6).all()
    torch.testing.assert_close(torch.linalg.vecdot(v, X), codes.abs().sum(1), rtol=1e-6, atol=0)
