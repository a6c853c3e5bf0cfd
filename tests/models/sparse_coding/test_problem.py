"""What the functions of sparse coding take: tensors, NumPy arrays and lists of numbers."""

import numpy as np
import pytest
import torch

from zoo.models.sparse_coding import (
    basis_pursuit,
    duality_gap,
    lasso,
    least_squares_on_support,
    orthogonal_matching_pursuit,
)

X, D = (torch.randn(n, 6, generator=torch.Generator().manual_seed(n)) for n in (8, 12))
CODES = lasso(X, D, 0.5).codes
CALLS = {  # a function of rows, atoms and codes -> a matrix
    "lasso": lambda x, d, a: lasso(x, d, 0.5).codes.to_dense(),
    "lasso with a start": lambda x, d, a: lasso(x, d, 0.5, start=a).codes.to_dense(),
    "basis_pursuit": lambda x, d, a: basis_pursuit(x, d).codes.to_dense(),
    "orthogonal_matching_pursuit": lambda x, d, a: orthogonal_matching_pursuit(x, d, 3).to_dense(),
    "least_squares_on_support": lambda x, d, a: least_squares_on_support(x, d, CODES).to_dense(),
    "duality_gap": lambda x, d, a: torch.stack(duality_gap(x, d, a, 0.5)),
}
KINDS = {  # the same numbers as something else
    "array": lambda t: t.numpy(),
    "array of the other byte order": lambda t: t.numpy().astype(">f4"),
    "reversed view of an array": lambda t: t.flip(0).numpy()[::-1],
    "array in Fortran's order": lambda t: np.asfortranarray(t.numpy()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_numpy_array_is_as_good_as_a_tensor(call, kind):
    dense = CODES.to_dense()
    given = CALLS[call](*(KINDS[kind](t) for t in (X, D, dense)))
    torch.testing.assert_close(given, CALLS[call](X, D, dense), atol=1e-6, rtol=1e-6)


def test_an_array_that_cannot_be_written_to_stays_as_it_is():
    x = X.numpy().copy()
    x.setflags(write=False)
    assert torch.equal(lasso(x, D, 0.5).codes.to_dense(), CODES.to_dense())


def test_penalties_may_be_an_array_or_a_list():
    expected = lasso(X, D, torch.linspace(0.1, 1, 8)).codes.to_dense()
    for penalty in (np.linspace(0.1, 1, 8, dtype=np.float32), np.linspace(0.1, 1, 8, dtype=np.float32).tolist()):
        torch.testing.assert_close(lasso(X, D, penalty).codes.to_dense(), expected)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.numpy().tolist()[0], r"X is torch\.float64 \[6\]; expected a float32 or float64 matrix"),
        ([[1, 2, 3, 4, 5, 6]] * 8, r"X is torch\.int64 \[8, 6\]; expected a float32 or float64 matrix"),
        (X.double().numpy(), r"X is torch\.float64 on cpu, and D is torch\.float32 on cpu; they must be the same"),
        ([[1.0], [1.0, 2.0]], "X is a list; expected a tensor, or a NumPy array of float32 or float64"),
        (X.numpy().astype(np.longdouble), "X is a ndarray of .*; expected a tensor"),
        ("rows.npy", "X is a str; expected a tensor"),
        (None, "X is a NoneType; expected a tensor"),
    ],
)
def test_what_is_no_float_matrix_is_refused_in_one_line(refused, call, x, message):
    with refused(message):
        CALLS[call](x, D, CODES)


def test_penalties_that_are_no_numbers_are_refused(refused):
    with refused("penalty is a str; expected a tensor"):
        lasso(X, D, "high")
