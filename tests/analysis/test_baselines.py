import pytest
import torch
import torch.nn.functional as F

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
        error = baselines.by_components(rows, *baselines.principal_components(rows), rank)
        assert error == pytest.approx(expected, abs=1e-10)


def test_tokens_as_atoms_are_unit_rows_about_the_mean_the_first_by_priority(rows):
    priority = torch.arange(600)
    atoms = baselines.token_dictionary(rows, 2, priority)
    expected = F.normalize((rows - rows.mean(0))[[599, 598]])
    assert torch.allclose(atoms, expected)


def test_as_many_atoms_as_rows_are_refused_as_no_finding(rows, refused):
    with refused("FVU 0 at L0 1"):
        baselines.token_dictionary(rows, 600)
