import torch
import torch.nn.functional as F

from zoo.models.sparse_coding import least_squares_on_support, matching_pursuit, orthogonal_matching_pursuit
from zoo.models.sparse_coding.gram_solvers import pursued_atoms, refit
from zoo.models.sparse_coding.rows import csr_of

N, D, K = 300, 24, 96


def problem(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=g), F.normalize(torch.randn(K, D, generator=g))


def test_the_atoms_are_those_of_pursuit_without_a_gram_matrix():
    X, atoms = problem()
    chosen, left_out = pursued_atoms(X.double(), atoms.double(), 8, 1e-7)
    assert not len(left_out)
    expected = matching_pursuit._by_projections(X, atoms, F.normalize(atoms.double()), 8)
    torch.testing.assert_close(chosen.sort(1).values, expected.col_indices().view(N, 8))
    torch.testing.assert_close(orthogonal_matching_pursuit(X, atoms, 8).to_dense(), expected.to_dense())


def test_rows_whose_atoms_nearly_coincide_are_left_out_and_solved_otherwise():
    X, atoms = problem()
    atoms = F.normalize(atoms[:12].double())
    twins = torch.cat(
        (atoms, F.normalize(atoms + 1e-5 * torch.randn(12, D, generator=torch.Generator().manual_seed(3))))
    )
    X = torch.cat((X[:200].double(), 2 * twins))
    _, left_out = pursued_atoms(X, twins, 16, 1e-7)  # only 12 atoms differ much
    assert left_out.tolist() == list(range(200))  # the others are reproduced by one atom
    codes = orthogonal_matching_pursuit(X, twins, 16)
    expected = matching_pursuit._by_projections(X, twins, twins, 16)
    torch.testing.assert_close(codes.to_dense() @ twins, expected.to_dense() @ twins, rtol=0, atol=1e-6)


def test_a_row_that_few_atoms_reproduce_gets_no_more():
    _, atoms = problem()
    chosen, _ = pursued_atoms(3 * atoms[:5].double(), F.normalize(atoms.double()), 4, 1e-7)
    assert chosen.tolist() == [[i, -1, -1, -1] for i in range(5)]


def test_refitted_codes_are_numpys_least_squares_and_ill_conditioned_rows_are_left():
    X, atoms = problem()
    atoms[1] = atoms[0] + 1e-5 * atoms[2]
    dense = (torch.rand(N, K, generator=torch.Generator().manual_seed(2)) < 0.1).float()
    dense[:, :2] = 0
    dense[7, :2] = 1
    codes = csr_of(dense)
    values = torch.zeros(len(codes.values()), dtype=torch.float64)
    poor = refit(X, atoms, codes.crow_indices(), codes.col_indices(), values)
    assert poor.tolist() == [7]
    for i in (0, 5, 299):
        on = dense[i] != 0
        expected = torch.linalg.pinv(atoms[on].double().T) @ X[i].double()
        start, stop = codes.crow_indices()[i : i + 2]
        torch.testing.assert_close(values[start:stop], expected, rtol=1e-8, atol=1e-10)


def test_many_and_few_rows_have_the_same_codes():
    X, atoms = problem()
    codes = csr_of(torch.where(torch.rand(N, K) < 0.1, 1.0, 0.0))
    every = least_squares_on_support(X, atoms, codes).to_dense()
    some = least_squares_on_support(X[:20], atoms, csr_of(codes.to_dense()[:20])).to_dense()  # without a Gram matrix
    torch.testing.assert_close(every[:20], some, rtol=1e-5, atol=1e-6)
