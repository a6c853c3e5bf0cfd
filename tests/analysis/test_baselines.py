import pytest
import torch
import torch.nn.functional as F

from zoo import null_models
from zoo.analysis import baselines


@pytest.fixture
def rows():
    """600 correlated Gaussian rows in 12 dimensions with a mean of their own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(600, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 5


def test_principal_components_leave_the_smallest_eigenvalues(rows):
    eigenvalues = torch.linalg.eigvalsh(torch.cov(rows.double().T))
    for rank in (0, 3, 12):
        expected = (eigenvalues[: 12 - rank].sum() / eigenvalues.sum()).item()
        x_hat = baselines.principal_components(rows, rows, rank)
        assert baselines.fvu(rows, x_hat) == pytest.approx(expected, abs=1e-10)


def test_matching_pursuit_on_an_orthonormal_basis_keeps_the_largest_coordinates(rows):
    x = rows - rows.mean(0)
    pursued = baselines.matching_pursuit(x, torch.eye(12), 5)
    for n_on in (1, 5):
        kept = x.abs().topk(n_on, dim=1).indices
        expected = torch.zeros_like(x).scatter(1, kept, x.gather(1, kept))
        assert torch.allclose(pursued[n_on - 1], expected, atol=1e-6)


def test_matching_pursuit_finds_few_planted_atoms_exactly():
    rows, atoms, _ = null_models.planted(500, 64, 128, 3, generator=torch.Generator().manual_seed(1))
    pursued = baselines.matching_pursuit(rows, atoms, 3)
    exact = (rows - pursued[-1]).norm(dim=1) < 1e-4 * rows.norm(dim=1)
    assert exact.float().mean() > 0.95


def test_matching_pursuit_is_the_least_squares_fit_on_the_atoms_it_chose(rows):
    x = rows - rows.mean(0)
    atoms = baselines.random_directions(30, 12, torch.Generator().manual_seed(0))
    left = x - baselines.matching_pursuit(x, atoms, 4)[-1]
    # Least squares leaves nothing along the chosen atoms, so at least four cosines with atoms vanish in every row.
    assert (F.normalize(left) @ atoms.T).abs().sort(1).values[:, :4].max() < 1e-4


def test_all_of_the_space_is_reached_with_d_atoms(rows):
    x = rows - rows.mean(0)
    atoms = baselines.random_directions(40, 12, torch.Generator().manual_seed(0))
    assert baselines.fvu(x, baselines.matching_pursuit(x, atoms, 12)[-1]) < 1e-6


def test_tokens_as_atoms_are_unit_rows_about_the_mean_the_first_by_priority(rows):
    priority = torch.arange(600)
    atoms = baselines.token_dictionary(rows, 2, priority)
    expected = F.normalize((rows - rows.mean(0))[[599, 598]])
    assert torch.allclose(atoms, expected)


def test_as_many_atoms_as_rows_are_refused_as_no_finding(rows, refused):
    with refused("FVU 0 at L0 1"):
        baselines.token_dictionary(rows, 600)


@pytest.mark.parametrize("n_on", [0, 13])
def test_matching_pursuit_refuses_more_atoms_than_dimensions(rows, refused, n_on):
    with refused("at least 1 and at most 12"):
        baselines.matching_pursuit(rows, torch.eye(12), n_on)
