import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import orthogonal_mp

import zoo
from zoo.models.sparse_coding import least_squares_on_support, orthogonal_matching_pursuit


def problem(n=24, k=48, d=16, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X, D = (torch.randn(rows, d, generator=generator, dtype=torch.float64) for rows in (n, k))
    return X.to(dtype), D.to(dtype)


def errors(X, D, codes):
    return (X.double() - codes.to_dense().double() @ D.double()).norm(dim=1)


def scikit_learn(X, D, l0):
    """Codes (N, K) in atoms made unit, as it wants them, and then in those given."""
    norms = D.double().norm(dim=1)
    atoms = (D.double() / norms[:, None]).numpy().T
    codes = orthogonal_mp(atoms, X.double().numpy().T, n_nonzero_coefs=l0, precompute=False)
    return torch.from_numpy(codes.reshape(len(D), len(X)).T) / norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("l0", [1, 5, 16])
def test_the_codes_are_scikit_learns_for_atoms_of_any_norm(l0, dtype):
    X, D = problem(dtype=dtype)
    D *= torch.logspace(-2, 2, len(D)).unsqueeze(1)
    codes = orthogonal_matching_pursuit(X, D, l0)
    assert codes.dtype == dtype
    assert (codes.crow_indices().diff() == l0).all()
    expected = scikit_learn(X, D, l0)
    scale = expected.abs().amax(0).clamp(min=1e-3)  # of an atom's codes, which differ as the norms do
    torch.testing.assert_close(codes.to_dense() / scale, expected / scale, rtol=0, atol=1e-4, check_dtype=False)


def test_on_rows_of_an_embedding_the_errors_are_scikit_learns():
    E = F.normalize(zoo.embedding("gpt2-stdlib.learned"))
    X, D = E[3000:3016], E[:1000:4]
    for l0 in (1, 8, 32):
        np.testing.assert_allclose(
            errors(X, D, orthogonal_matching_pursuit(X, D, l0)), errors(X, D, scikit_learn(X, D, l0)), rtol=1e-4
        )


def test_the_first_atom_is_the_one_most_parallel_to_the_row():
    X, D = problem()
    codes = orthogonal_matching_pursuit(X, D, 1)
    cosines = F.normalize(X) @ F.normalize(D).T
    assert torch.equal(codes.col_indices(), cosines.abs().argmax(1))
    expected = (X * D[codes.col_indices()]).sum(1) / D[codes.col_indices()].square().sum(1)
    torch.testing.assert_close(codes.values(), expected)


def test_codes_are_least_squares_on_their_atoms_and_each_atom_lowers_the_error():
    X, D = problem()
    before = X.norm(dim=1)
    for l0 in range(1, 17):
        codes = orthogonal_matching_pursuit(X, D, l0)
        refitted = least_squares_on_support(X, D, codes)
        torch.testing.assert_close(codes.values(), refitted.values(), rtol=1e-6, atol=1e-8)
        after = errors(X, D, codes)
        assert (after < before).all()
        before = after
    assert (before < 1e-9 * X.norm(dim=1)).all()  # 16 atoms, 16 dimensions


def test_planted_codes_of_few_atoms_are_recovered():
    D = F.normalize(problem(k=100, d=64)[1])
    codes = torch.zeros(24, 100, dtype=torch.float64)
    codes[torch.arange(24).repeat(3, 1), torch.arange(72).view(3, 24)] = torch.tensor([[3.0], [-2], [1]]).double()
    found = orthogonal_matching_pursuit(codes @ D, D, 3)
    torch.testing.assert_close(found.to_dense(), codes, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_equal_to_an_atom_uses_that_atom_alone(dtype):
    X, D = problem(dtype=dtype)
    X = torch.cat((D[:5], -3 * D[5:8]))
    codes = orthogonal_matching_pursuit(X, D, 6)
    expected = torch.eye(len(D), dtype=dtype)[:8] * torch.tensor([1.0] * 5 + [-3] * 3).unsqueeze(1)
    torch.testing.assert_close(codes.to_dense(), expected.to(dtype), rtol=1e-6, atol=0)
    assert (codes.crow_indices().diff() == 1).all()


def test_copies_and_opposites_of_atoms_add_nothing():
    X, D = problem(k=10)
    copies = torch.cat((D, 2 * D, -D))
    for l0 in (1, 4, 10):
        alone, among = (orthogonal_matching_pursuit(X, atoms, l0) for atoms in (D, copies))
        torch.testing.assert_close(errors(X, copies, among), errors(X, D, alone), rtol=1e-9, atol=1e-12)
        first, second, opposite = among.to_dense().view(-1, 3, 10).unbind(1)
        assert ((first != 0).int() + (second != 0) + (opposite != 0)).max() == 1
    most = orthogonal_matching_pursuit(X, copies, 16)  # more than there are different ones
    assert (most.crow_indices().diff() == 10).all()
    torch.testing.assert_close(errors(X, copies, most), errors(X, D, orthogonal_matching_pursuit(X, D, 10)))


def test_atoms_that_differ_little_are_fitted_as_well_as_numpy_does():
    X, D = problem()
    D = D[:1] + 1e-5 * D
    codes = orthogonal_matching_pursuit(X, D, 10).to_dense()
    for x, row in zip(X.numpy(), codes, strict=True):
        atoms = D[row != 0].numpy()
        left = x - np.linalg.lstsq(atoms.T, x, rcond=None)[0] @ atoms
        assert len(atoms) == 10
        assert np.linalg.norm(x - row[row != 0].numpy() @ atoms) <= np.linalg.norm(left) + 1e-8 * np.linalg.norm(x)


def test_zero_rows_zero_atoms_and_no_rows():
    X, D = problem()
    X[::2], D[::3] = 0, 0
    codes = orthogonal_matching_pursuit(X, D, 8)
    assert codes.crow_indices().diff().tolist() == [0, 8] * 12
    assert not codes.to_dense()[:, ::3].any()
    torch.testing.assert_close(
        errors(X, D, codes), errors(X, D[D.any(1)], orthogonal_matching_pursuit(X, D[D.any(1)], 8))
    )
    assert not orthogonal_matching_pursuit(X, 0 * D, 8).values().numel()
    assert orthogonal_matching_pursuit(X[:0], D, 8).shape == (0, 48)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_codes_scale_with_the_rows_and_against_the_atoms(scale):
    X, D = problem()
    codes = orthogonal_matching_pursuit(X, D, 5).to_dense()
    torch.testing.assert_close(orthogonal_matching_pursuit(scale * X, D, 5).to_dense() / scale, codes)
    torch.testing.assert_close(orthogonal_matching_pursuit(X, scale * D, 5).to_dense() * scale, codes)


def test_more_rows_than_one_batch_holds_keep_their_places():
    X, D = problem(2500, 8, 4)
    codes = orthogonal_matching_pursuit(X, D, 2).to_dense()
    some = torch.tensor([0, 1023, 1024, 2499])
    torch.testing.assert_close(codes[some], orthogonal_matching_pursuit(X[some], D, 2).to_dense())


@pytest.mark.parametrize("k", [1, 5])
def test_fewer_atoms_than_dimensions(k):
    X, D = problem(k=k)
    codes = orthogonal_matching_pursuit(X, D, k).to_dense()
    torch.testing.assert_close(codes, X @ torch.linalg.pinv(D))


def test_bad_arguments_are_refused(refused):
    X, D = problem()
    for match, bad in {
        "rows of X have 15 dimensions, and those of D have 16": (X[:, 1:], D, 2),
        "X is torch.float16": (X.half(), D, 2),
        "they must be the same": (X, D.float(), 2),
        "row 0 of X has entries that are NaN": (X * math.nan, D, 2),
        "row 0 of D has entries that are NaN": (X, D * math.inf, 2),
        "l0 is 0; it must be at least 1 and at most 16": (X, D, 0),
        "l0 is 17; it must be at least 1 and at most 16": (X, D, 17),
        "l0 is 4; it must be at least 1 and at most 3": (X, D[:3], 4),
    }.items():
        with refused(match):
            orthogonal_matching_pursuit(*bad)
