import math

import numpy as np
import pytest
import torch

from zoo.models.sparse_coding import lasso, least_squares_on_support
from zoo.models.sparse_coding.rows import csr_of


def problem(n=24, k=48, d=16, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X, D = (torch.randn(rows, d, generator=generator, dtype=torch.float64) for rows in (n, k))
    return X.to(dtype), D.to(dtype)


def codes_of_every_size(X, D, dtype=None):
    """Codes (N, K) of 0 to 10 atoms."""
    codes = problem(len(X), d=len(D), seed=3)[0]
    ranks = problem(len(X), d=len(D), seed=4)[0].argsort(1).argsort(1)
    return csr_of((codes * (ranks < torch.arange(len(X)).unsqueeze(1) % 11)).to(dtype or X.dtype))


def errors(X, D, codes):
    return (X.double() - codes.to_dense().double() @ D.double()).square().sum(1)


def same_support(a, b):
    return torch.equal(a.crow_indices(), b.crow_indices()) and torch.equal(a.col_indices(), b.col_indices())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_row_is_numpys_least_squares_on_its_own_atoms(dtype):
    X, D = problem(dtype=dtype)
    codes = codes_of_every_size(X, D)
    fitted = least_squares_on_support(X, D, codes)
    assert same_support(fitted, codes)
    assert fitted.dtype == dtype
    for x, old, new in zip(X.double(), codes.to_dense(), fitted.to_dense().double(), strict=True):
        expected = np.linalg.lstsq(D[old != 0].double().numpy().T, x.numpy(), rcond=None)[0]
        np.testing.assert_allclose(new[old != 0], expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-10)


def test_rows_without_atoms_stay_without():
    X, D = problem()
    for codes in (csr_of(torch.zeros(24, 48).double()), codes_of_every_size(X, D)):
        fitted = least_squares_on_support(X, D, codes)
        assert fitted.crow_indices().diff().tolist() == codes.crow_indices().diff().tolist()
        assert same_support(fitted, codes)
    assert least_squares_on_support(X[:0], D, csr_of(torch.zeros(0, 48).double())).shape == (0, 48)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_the_lassos_error_falls_in_every_row(share, dtype):
    X, D = problem(dtype=dtype)
    codes = lasso(X, D, share * (X.double() @ D.double().T).abs().amax(1)).codes
    fitted = least_squares_on_support(X, D, codes)
    assert same_support(fitted, codes)
    assert (errors(X, D, fitted) < errors(X, D, codes)).all()


def test_what_is_left_is_orthogonal_to_the_atoms_in_use_at_any_scale():
    X, D = problem()
    D = D * torch.logspace(-4, 4, len(D)).unsqueeze(1)
    codes = codes_of_every_size(X, D)
    for scale in (1.0, 1e-9, 1e9):
        left = scale * X - least_squares_on_support(scale * X, D, codes).to_dense() @ D
        cosines = left @ D.T / (scale * X.norm(dim=1, keepdim=True) * D.norm(dim=1))
        assert cosines[codes.to_dense() != 0].abs().max() < 1e-10


def test_atoms_that_differ_little_are_fitted_as_numpy_does():
    X, D = problem()
    D = D[:1] + 1e-4 * D
    codes = codes_of_every_size(X, D)
    fitted = least_squares_on_support(X, D, codes).to_dense()
    for x, row in zip(X.numpy(), fitted, strict=True):
        expected = np.linalg.lstsq(D[row != 0].numpy().T, x, rcond=None)[0]
        np.testing.assert_allclose(row[row != 0], expected, rtol=0, atol=1e-4 * np.abs(expected).max(initial=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_atoms_give_finite_codes_that_fit_as_well_as_independent_ones(dtype):
    X, D = problem(k=5, dtype=dtype)
    copies = torch.cat((D, D, -2 * D, 0 * D[:1]))
    every = csr_of(torch.ones(24, 16, dtype=dtype))
    fitted = least_squares_on_support(X, copies, every)
    assert fitted.values().isfinite().all()
    alone = least_squares_on_support(X, D, csr_of(torch.ones(24, 5, dtype=dtype)))
    torch.testing.assert_close(errors(X, copies, fitted), errors(X, D, alone), rtol=1e-5, atol=0)
    first, second, third = fitted.to_dense()[:, :15].view(-1, 3, 5).unbind(1)
    torch.testing.assert_close(first + second - 2 * third, alone.to_dense(), rtol=1e-4, atol=1e-4)


def test_more_atoms_in_use_than_dimensions_fit_exactly():
    X, D = problem(k=200, d=8)
    fitted = least_squares_on_support(X, D, csr_of(torch.ones(24, 200).double()))
    assert fitted.values().isfinite().all()
    assert (errors(X, D, fitted) < 1e-16 * X.square().sum(1)).all()


def test_rows_of_any_size_keep_their_places_over_many_parts():
    X, D = problem(300, 600, 32)
    codes = codes_of_every_size(X, D).to_dense()
    codes[7] = 1  # 600 atoms: a part then holds 46 rows
    fitted = least_squares_on_support(X, D, csr_of(codes)).to_dense()
    some = torch.tensor([0, 3, 7, 150, 299])
    torch.testing.assert_close(fitted[some], least_squares_on_support(X[some], D, csr_of(codes[some])).to_dense())


def test_bad_arguments_are_refused(refused):
    X, D = problem()
    codes = codes_of_every_size(X, D)
    for match, bad in {
        "rows of X have 15 dimensions, and those of D have 16": (X[:, 1:], D, codes),
        "D is torch.int64": (X, D.long(), codes),
        "they must be the same": (X.float(), D, codes),
        "row 0 of X has entries that are NaN": (X * math.nan, D, codes),
        "codes are torch.strided .*expected .*compressed rows": (X, D, codes.to_dense()),
        r"codes are torch.sparse_csr \[23, 48\]; expected \[24, 48\]": (X, D, csr_of(codes.to_dense()[1:])),
        r"codes are torch.sparse_csr \[24, 47\]; expected \[24, 48\]": (X, D, csr_of(codes.to_dense()[:, 1:])),
    }.items():
        with refused(match):
            least_squares_on_support(*bad)
