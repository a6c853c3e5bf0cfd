import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Lasso

import zoo
from zoo.models.sparse_coding import certify, coordinate_descent, duality_gap, lasso, sparsa
from zoo.models.sparse_coding.rows import csr_of

SINGLE, DOUBLE = torch.float32, torch.float64


def random_problem(n=16, k=48, d=16, dtype=DOUBLE, seed=0):
    """Rows (n, d) and atoms (k, d) of norm about √d."""
    generator = torch.Generator().manual_seed(seed)
    X, D = (torch.randn(rows, d, generator=generator, dtype=DOUBLE) for rows in (n, k))
    return X.to(dtype), D.to(dtype)


def embedding_problem(dtype):
    """Rows and atoms that are rows of a trained embedding, centred and of norm 1."""
    E = zoo.embedding("gpt2-stdlib.learned").to(dtype)
    E = F.normalize(E - E.mean(0))
    return E[3000:3010], E[:1000:4]


def share_of_zeroing(share, X, D, positive=False):
    """Penalties (N,) that are such a share of those at which codes become 0."""
    c = X.double() @ D.double().T
    return share * (c if positive else c.abs()).amax(1)


def objectives(X, D, codes, penalty):
    X, D, codes = (np.asarray(t, dtype=np.float64) for t in (X, D, codes.to_dense()))
    return np.square(X - codes @ D).sum(1) / 2 + np.asarray(penalty) * np.abs(codes).sum(1)


def scikit_learn(X, D, penalty, positive):
    """Codes (N, K) in float64."""
    codes = []
    for x, lam in zip(X.double().numpy(), np.broadcast_to(penalty, len(X)), strict=True):
        model = Lasso(lam / len(x), fit_intercept=False, positive=positive, tol=1e-12, max_iter=100_000)
        codes.append(model.fit(D.double().numpy().T, x).coef_)
    return torch.tensor(np.array(codes))


def all_certified(solution):
    return solution.certified.all().item()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("share", [0.6, 0.2, 0.06])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("problem", ["random", "embedding"])
def test_the_objective_is_scikit_learns_within_the_gap(problem, dtype, positive, share):
    X, D = embedding_problem(dtype) if problem == "embedding" else random_problem(dtype=dtype)
    lam = share_of_zeroing(share, X, D, positive)
    solution = lasso(X, D, lam, positive=positive)
    assert all_certified(solution)
    ours = objectives(X, D, solution.codes, lam)
    theirs = objectives(X, D, scikit_learn(X, D, lam, positive), lam)
    np.testing.assert_allclose(solution.objective, ours, rtol=1e-12)
    assert (ours - theirs <= solution.gap.numpy() + 1e-9 * theirs).all()
    assert (theirs - ours <= 1e-7 * theirs).all()


@pytest.mark.parametrize("positive", [False, True])
def test_the_codes_are_scikit_learns(positive):
    X, D = random_problem()
    lam = share_of_zeroing(0.2, X, D, positive)
    codes = lasso(X, D, lam, 1e-10, positive).codes.to_dense()
    torch.testing.assert_close(codes, scikit_learn(X, D, lam, positive), rtol=0, atol=1e-5)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_atoms_in_use_correlate_with_the_residual_by_the_penalty_and_no_atom_more(positive, share):
    X, D = random_problem(k=100)
    lam = share_of_zeroing(share, X, D, positive).unsqueeze(1)
    codes = lasso(X, D, lam.squeeze(1), 1e-12, positive).codes.to_dense()
    c = (X - codes @ D) @ D.T / lam
    assert ((c if positive else c.abs()) <= 1 + 1e-5).all()
    used = codes != 0
    assert used.any(1).all()
    torch.testing.assert_close(c[used], codes[used].sign(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_orthonormal_atoms_give_shrunk_correlations(dtype):
    X, _ = random_problem(dtype=dtype)
    Q = torch.linalg.qr(random_problem(d=16, k=16, dtype=dtype, seed=1)[1]).Q
    c = X @ Q.T
    codes = lasso(X, Q, 0.7, 1e-6).codes.to_dense()
    torch.testing.assert_close(codes, c.sign() * (c.abs() - 0.7).clamp(min=0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("positive", [False, True])
def test_one_atom_has_a_closed_form(positive):
    X, D = random_problem(k=1)
    c, square = X @ D.T, D.square().sum()
    expected = (c - 2).clamp(min=0) / square if positive else (c - c.clamp(-2, 2)) / square
    solution = lasso(X, D, 2.0, 1e-8, positive)
    assert all_certified(solution)
    torch.testing.assert_close(solution.codes.to_dense(), expected, rtol=0, atol=1e-6)


def test_in_one_dimension_the_longest_atom_does_everything():
    X, D = random_problem(k=20, d=1)
    longest = D.abs().argmax()
    codes = lasso(X, D, 0.1, 1e-10).codes.to_dense()
    assert (codes.any(0).nonzero() == longest).all()
    shrunk = X.sign() * (X.abs() - 0.1 / D[longest].abs()).clamp(min=0) / D[longest]
    torch.testing.assert_close(codes[:, [longest]], shrunk, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [6, 16, 300])
def test_fewer_and_more_atoms_than_dimensions_are_certified(k):
    X, D = random_problem(k=k)
    assert all_certified(lasso(X, D, share_of_zeroing(0.1, X, D), 1e-8))


def test_every_row_has_a_penalty_of_its_own():
    X, D = random_problem(3)
    lam = torch.tensor([0.5, 4.0, 9.0])
    together = lasso(X, D, lam, 1e-8)
    for i in range(3):
        alone = lasso(X[[i]], D, lam[i].item(), 1e-8)
        assert together.objective[i].item() == pytest.approx(alone.objective.item(), rel=1e-7)
    ordered = lasso(X[[0, 0, 0]], D, lam).codes.to_dense().abs().sum(1)
    assert ordered[0] > ordered[1] > ordered[2]


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_spectral_steps_and_coordinate_descent_reach_the_same_objective(share, length, positive):
    X, D = random_problem()
    D = D * length
    lam = share_of_zeroing(share, X, D, positive)
    objective = []
    for solve, extra in ((sparsa.solve, ()), (coordinate_descent.solve, (D @ D.T,))):
        codes = torch.zeros(len(X), len(D), dtype=DOUBLE)
        solve(X, D, *extra, lam, codes, 1e-6, positive, 1000)
        assert certify(X, *duality_gap(X, D, codes, lam, positive), 1e-6).all()
        objective.append(objectives(X, D, codes, lam))
    np.testing.assert_allclose(*objective, rtol=1e-6)


def test_spectral_steps_remove_a_bad_start_and_rows_leave_when_they_are_done():
    X, D = random_problem(dtype=SINGLE)
    D[::5] = 0
    X[0] = 0
    lam = share_of_zeroing(0.3, X, D).float() + 0.1
    best = lasso(X, D, lam)
    codes = 100 * random_problem(len(X), d=len(D), dtype=SINGLE)[0]
    codes[:2] = best.codes.to_dense()[:2]
    sparsa.solve(X, D, lam, codes, 1e-4, False, 1000)
    assert torch.equal(codes[:2], best.codes.to_dense()[:2])
    np.testing.assert_allclose(objectives(X, D, codes, lam), best.objective, rtol=1e-4, atol=1e-12)
    sparsa.solve(X[:0], D, lam[:0], codes[:0], 1e-4, False, 1000)


def test_spectral_steps_that_run_out_leave_what_they_reached():
    X, D = random_problem(k=100)
    codes, objective = torch.zeros(len(X), len(D), dtype=DOUBLE), []
    for rounds in (1, 1000):
        sparsa.solve(X, D, torch.full((len(X),), 0.1).double(), codes, 1e-6, False, rounds)
        objective.append(torch.from_numpy(objectives(X, D, codes, 0.1)))
    assert (objective[0] < X.square().sum(1) / 4).all()
    assert (objective[1] < 0.999 * objective[0]).all()


@pytest.mark.parametrize("form", [torch.Tensor.clone, torch.Tensor.to_sparse, csr_of])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e8])
def test_the_start_does_not_move_the_optimum(size, positive, form):
    X, D = random_problem()
    D[::4] = 0
    lam = share_of_zeroing(0.2, X, D, positive)
    start = form(size * random_problem(len(X), d=len(D), seed=3)[0] * (torch.arange(len(D)) % 3 == 0))
    solution = lasso(X, D, lam, 1e-6, positive, start)
    assert all_certified(solution)
    assert not solution.codes.to_dense()[:, ::4].any()
    if positive:
        assert (solution.codes.values() > 0).all()
    np.testing.assert_allclose(solution.objective, lasso(X, D, lam, 1e-6, positive).objective, rtol=2e-6)


def test_positive_codes_from_an_optimum_with_negative_ones_are_positive():
    X, D = random_problem()
    signed = lasso(X, D, 2.0, 1e-8)
    assert (signed.codes.values() < 0).any()
    solution = lasso(X, D, 2.0, positive=True, start=signed.codes)
    assert all_certified(solution)
    assert (solution.codes.values() > 0).all()
    assert (solution.objective > signed.objective).any()


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_an_optimum_as_start_stays_as_it_is(dtype):
    X, D = random_problem(dtype=dtype)
    best = lasso(X, D, 2.0, 1e-6)
    again = lasso(X, D, 2.0, 1e-4, start=best.codes)
    assert torch.equal(again.codes.to_dense(), best.codes.to_dense())
    kept = best.codes.to_dense().clone()
    lasso(X, D, 0.5, start=kept)
    assert torch.equal(kept, best.codes.to_dense())


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-12, 1e-30])
def test_forty_copies_of_every_atom_reach_the_objective_of_one(tolerance):
    X, D = random_problem(40, 6, 10)
    for share in (0.9, 0.1):
        lam = share_of_zeroing(share, X, D)
        copies = lasso(X, D.repeat(40, 1), lam, tolerance)
        np.testing.assert_allclose(copies.objective, lasso(X, D, lam, 1e-10).objective, rtol=max(tolerance, 1e-9))


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_opposite_atoms_are_not_used_together_and_change_nothing_but_let_codes_be_positive(dtype):
    X, D = random_problem(dtype=dtype)
    both = lasso(X, torch.cat((D, -D)), 1.0)
    assert all_certified(both)
    np.testing.assert_allclose(both.objective, lasso(X, D, 1.0).objective, rtol=2e-4)
    first, opposite = both.codes.to_dense().chunk(2, 1)
    together = torch.minimum(first.abs(), opposite.abs()) * (first * opposite > 0)  # which cancel
    assert together.max() <= 1e-6
    positive = lasso(X, torch.cat((D, -D)), 1.0, positive=True)
    np.testing.assert_allclose(positive.objective, both.objective, rtol=2e-4)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_nearly_equal_atoms_are_certified(distance):
    X, D = random_problem(k=8)
    near = D.repeat(10, 1) + distance * random_problem(k=80, seed=5)[1]
    assert all_certified(lasso(X, near, share_of_zeroing(0.1, X, near), 1e-6))


def test_atoms_that_share_a_large_mean_are_certified():
    X, D = random_problem(24, 60, dtype=SINGLE)
    D = D / 10 + random_problem(dtype=SINGLE, seed=2)[0][:1]
    lam = share_of_zeroing(0.05, X, D)
    codes = torch.zeros(len(X), len(D))
    coordinate_descent.solve(X, D, D @ D.T, lam, codes, 5e-5, False, 1000)
    assert not certify(X, *duality_gap(X, D, codes, lam), 1e-4).all()  # so double precision has to finish
    assert all_certified(lasso(X, D, lam, 1e-4))


def test_zero_rows_and_zero_atoms_have_no_codes():
    X, D = random_problem()
    X[::2], D[::3] = 0, 0
    for positive in (False, True):
        solution = lasso(X, D, 1.0, positive=positive)
        assert all_certified(solution)
        assert not solution.codes.to_dense()[::2].any()
        assert not solution.codes.to_dense()[:, ::3].any()
        assert not solution.objective[::2].any()
        assert not solution.gap[::2].any()
    nothing = lasso(X, torch.zeros_like(D), 1.0)
    assert all_certified(nothing)
    assert not nothing.codes.values().numel()


def test_no_rows_have_no_codes():
    X, D = random_problem(0)
    for penalty in (1.0, 0.0, torch.ones(0)):
        solution = lasso(X, D, penalty, start=torch.zeros(0, len(D)))
        assert solution.codes.shape == (0, len(D))
        assert len(solution.objective) == len(solution.gap) == len(solution.certified) == 0


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize(("k", "rank"), [(6, 6), (48, 16), (48, 5)])
def test_penalty_0_is_least_squares_of_least_norm(dtype, k, rank):
    X, D = random_problem(k=k)
    D = (D[:, :rank] @ random_problem(k=rank, seed=1)[1]).to(dtype) if rank < min(k, 16) else D.to(dtype)
    X = X.to(dtype)
    solution = lasso(X, D, 0.0)
    x, atoms = X.double().numpy(), D.double().numpy()
    expected = x @ np.linalg.pinv(atoms, rcond=1e-5)
    if rank == 16:  # in single precision atoms of a lower rank span all dimensions, if barely
        torch.testing.assert_close(solution.codes.to_dense().double().numpy(), expected, rtol=1e-5, atol=1e-6)
    if rank < 16 and dtype == DOUBLE:
        torch.testing.assert_close(solution.codes.to_dense().numpy(), expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(solution.objective, np.square(x - expected @ atoms).sum(1) / 2, rtol=1e-9)
        assert (solution.objective > 0.1).all()
    if rank in (6, 16) or dtype == DOUBLE:
        assert all_certified(solution)


def test_penalty_0_for_some_rows_leaves_the_others_alone():
    X, D = random_problem(6, 12)
    lam = torch.tensor([0.0, 1, 0, 2, 3, 0])
    mixed = lasso(X, D, lam, 1e-8)
    assert all_certified(mixed)
    torch.testing.assert_close(mixed.objective[lam == 0], lasso(X, D, 0.0).objective[lam == 0])
    assert (mixed.objective[lam == 0] > 0.1).all()  # 12 atoms, 16 dimensions
    others = lasso(X[lam > 0], D, lam[lam > 0], 1e-8)
    torch.testing.assert_close(mixed.objective[lam > 0], others.objective, rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("share", [1.0, 1.5, 1e6])
@pytest.mark.parametrize("positive", [False, True])
def test_codes_are_0_from_the_largest_correlation_on(positive, share, dtype):
    X, D = random_problem(dtype=dtype)
    solution = lasso(X, D, share_of_zeroing(share, X, D, positive), positive=positive)
    assert all_certified(solution)
    assert not solution.codes.values().numel()
    torch.testing.assert_close(solution.objective, X.double().square().sum(1) / 2)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_just_below_the_largest_correlation_one_atom_is_used(dtype):
    X, D = random_problem(dtype=dtype)
    codes = lasso(X, D, share_of_zeroing(0.99, X, D), 1e-6).codes.to_dense()
    assert torch.equal(codes != 0, F.one_hot((X @ D.T).abs().argmax(1), len(D)).bool())


def test_rows_that_no_atom_points_to_have_no_positive_codes_at_any_penalty():
    D = random_problem()[1]
    X = -D[:5].abs()
    solution = lasso(X, D.abs(), 1e-9, positive=True)
    assert all_certified(solution)
    assert not solution.codes.values().numel()


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("positive", [False, True])
def test_a_row_equal_to_an_atom_of_norm_1_uses_it_alone_shrunk_by_the_penalty(positive, dtype):
    D = F.normalize(random_problem(dtype=dtype)[1])
    codes = lasso(D, D, 0.3, 1e-6, positive).codes.to_dense()
    torch.testing.assert_close(codes, 0.7 * torch.eye(len(D), dtype=dtype), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_codes_scale_with_rows_and_penalty_and_against_the_atoms(scale, dtype):
    X, D = random_problem(dtype=dtype)
    plain = lasso(X, D, 2.0, 1e-6)
    scaled = lasso(scale * X, D, 2 * scale, 1e-6)
    assert all_certified(scaled)
    torch.testing.assert_close(scaled.objective, scale**2 * plain.objective, rtol=2e-6, atol=0)
    torch.testing.assert_close(scaled.codes.to_dense(), scale * plain.codes.to_dense(), rtol=0, atol=1e-3 * scale)
    longer = lasso(X, scale * D, 2 * scale, 1e-6)
    assert all_certified(longer)
    torch.testing.assert_close(longer.objective, plain.objective, rtol=2e-6, atol=0)
    torch.testing.assert_close(longer.codes.to_dense(), plain.codes.to_dense() / scale, rtol=0, atol=1e-3 / scale)


def test_atoms_whose_squares_single_precision_cannot_hold_are_certified():
    X, D = random_problem(dtype=SINGLE)
    solution = lasso(X, 1e25 * D, 2e25)
    assert all_certified(solution)
    np.testing.assert_allclose(solution.objective, lasso(X, D, 2.0).objective, rtol=2e-4)


def test_atoms_of_very_different_norms_are_certified():
    X, D = random_problem()
    D *= torch.logspace(-3, 3, len(D)).unsqueeze(1)
    assert all_certified(lasso(X, D, share_of_zeroing(0.01, X, D), 1e-6))


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_memory_layout_does_not_matter(dtype):
    X, D = random_problem(dtype=dtype)
    start = random_problem(len(X), d=len(D), dtype=dtype, seed=4)[0]
    views = [t.T.contiguous().T for t in (X, D, start)]
    assert not any(v.is_contiguous() for v in views)
    wide = torch.stack((X, X), 2).flatten(1)[:, ::2]
    expected = lasso(X, D, 2.0, 1e-6).objective
    torch.testing.assert_close(lasso(*views[:2], 2.0, 1e-6, start=views[2]).objective, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(lasso(wide, D, 2.0, 1e-6).objective, expected, rtol=2e-6, atol=0)


def test_a_tolerance_of_1e_8_is_met_in_double_precision():
    X, D = random_problem(k=200)
    solution = lasso(X, D, share_of_zeroing(0.05, X, D), 1e-8)
    assert (solution.gap <= 1e-8 * solution.objective).all()


def test_every_row_has_its_place_where_there_are_more_than_one_batch_holds():
    X, D = random_problem(5000, 8, 4)
    lam = torch.linspace(0.5, 3, 5000)
    every = lasso(X, D, lam, 1e-8)
    some = torch.tensor([0, 4095, 4096, 4999])
    part = lasso(X[some], D, lam[some], 1e-8)
    torch.testing.assert_close(every.codes.to_dense()[some], part.codes.to_dense(), rtol=0, atol=1e-6)
    assert every.certified.shape == (5000,)
    assert all_certified(every)
    again = lasso(X, D, lam, 1e-6, start=every.codes)
    assert torch.equal(again.codes.to_dense(), every.codes.to_dense())


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_the_number_of_threads_changes_no_bit(dtype, threads):
    X, D = random_problem(200, 64, 24, dtype=dtype)
    solutions = []
    for n in (1, 2):
        threads(n)
        solutions.append(lasso(X, D, share_of_zeroing(0.1, X, D)))
    for name in ("crow_indices", "col_indices", "values"):
        assert torch.equal(*(getattr(s.codes, name)() for s in solutions))
    assert torch.equal(*(s.gap for s in solutions))


def test_a_row_is_solved_alike_in_any_company():
    X, D = random_problem(100)
    every = lasso(X, D, 2.0, 1e-6)
    codes = every.codes.to_dense()
    backwards = lasso(X.flip(0), D, 2.0, 1e-6)
    torch.testing.assert_close(backwards.codes.to_dense().flip(0), codes, rtol=0, atol=1e-3)
    for i in (0, 57):
        alone = lasso(X[[i]], D, 2.0, 1e-6)
        assert alone.objective.item() == pytest.approx(every.objective[i].item(), rel=1e-6)
    same = lasso(X[:1].repeat(100, 1), D, 2.0, 1e-6)
    torch.testing.assert_close(same.codes.to_dense(), codes[:1].repeat(100, 1), rtol=0, atol=1e-3)


def test_gradients_are_neither_needed_nor_kept():
    X, D = random_problem()
    solution = lasso(X, torch.nn.Parameter(D), 2.0, start=torch.nn.Parameter(torch.zeros(len(X), len(D))))
    assert all_certified(solution)
    assert not solution.codes.requires_grad
    assert not solution.objective.requires_grad


def test_bad_arguments_are_refused(refused):
    X, D = random_problem()
    nan, inf = X.clone(), D.clone()
    nan[3, 2], inf[5, 0] = math.nan, math.inf
    n, k = len(X), len(D)
    for match, bad in {
        "rows of X have 15 dimensions, and those of D have 16": (X[:, 1:], D, 1.0),
        "X is torch.int64 .*expected a float": (X.long(), D, 1.0),
        "D is torch.float16 .*expected a float": (X, D.half(), 1.0),
        r"X is .*\[16\]; expected a float32 or float64 matrix": (X[0], D, 1.0),
        "they must be the same": (X.float(), D, 1.0),
        "row 3 of X has entries that are NaN or infinite": (nan, D, 1.0),
        "row 5 of D has entries that are NaN or infinite": (X, inf, 1.0),
        "at least one atom": (X, D[:0], 1.0),
        "a penalty is -1": (X, D, -1.0),
        "a penalty is nan": (X, D, math.nan),
        "a penalty is inf": (X, D, torch.tensor([1.0, math.inf] * (n // 2))),
        f"penalty is .*expected a number, or {n} of them": (X, D, torch.ones(n + 1)),
        r"penalty is \[16, 1\]; expected": (X, D, torch.ones(n, 1)),
        "tolerance is 0;": (X, D, 1.0, 0),
        "tolerance is 1.0;": (X, D, 1.0, 1.0),
        "tolerance is nan;": (X, D, 1.0, math.nan),
        "non-negative least squares": (X, D, 0.0, 1e-4, True),
        r"start has shape \[16, 47\]; expected \[16, 48\]": (X, D, 1.0, 1e-4, False, torch.zeros(n, k - 1)),
        "start has entries that are NaN": (X, D, 1.0, 1e-4, False, torch.full((n, k), math.nan)),
        "max_rounds is 0": (X, D, 1.0, 1e-4, False, None, 0),
    }.items():
        with refused(match):
            lasso(*bad)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.1, 1e-2])
def test_spectral_steps_and_what_finishes_their_rows_certify_every_row(share, positive, dtype, monkeypatch):
    X, D = random_problem(dtype=dtype)
    lam = share_of_zeroing(share, X, D, positive)
    expected = lasso(X, D, lam, positive=positive)
    finished = []
    solve = coordinate_descent.solve
    monkeypatch.setattr(coordinate_descent, "solve", lambda x, *args: finished.append(len(x)) or solve(x, *args))
    monkeypatch.setattr(sys.modules["zoo.models.sparse_coding.lasso"], "_spectral", lambda device: True)
    solution = lasso(X, D, lam, positive=positive)
    assert solution.certified.all()
    np.testing.assert_allclose(solution.objective, expected.objective, rtol=1e-4)
    assert not finished or share < 0.5  # at small penalties proximal steps are too short
