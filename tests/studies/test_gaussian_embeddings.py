"""Embeddings that are Gaussian, with flat and with steep spectra: nothing may be told of them but that they are."""

import numpy as np
import pytest
import torch
from doing_studies import do_tasks

from zoo import estimates
from zoo.null_models import planted
from zoo.shared_tasks import pursuit
from zoo.shared_tasks.dictionaries import pursued_error
from zoo.studies.description_length import TOLD, DescriptionLength

D, N_ATOMS, SEEDS = 32, 64, 3
POWERS = (0, 1, 2)  # eigenvalues i^-power


def gaussian(power, seed, n_rows=600):
    g = torch.Generator().manual_seed(1000 * power + seed)
    return torch.randn(n_rows, D, generator=g) * torch.arange(1.0, D + 1) ** (-power / 2)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the study says of the bits and of the error of rows, beside their null model's: "as Gaussian" or not."""
    monkeypatch.setattr(pursuit, "PENALTIES", (0.3, 0.14))
    monkeypatch.setattr(pursuit, "DICTIONARY_STEPS", 6)
    monkeypatch.setattr(pursuit, "compared_at", lambda d_model: 4)
    monkeypatch.setattr(pursuit, "rows_gauged", lambda d_model, max_rows: 0)
    monkeypatch.setattr("zoo.studies.description_length.MATRICES", ("embedding", "covariance-matched"))
    monkeypatch.setattr("zoo.studies.description_length.LEAST_ATOMS", N_ATOMS)  # one size of dictionary

    def tell(rows):
        file = tmp_path / f"{abs(hash(rows.numpy().tobytes()))}.npy"
        np.save(file, rows.numpy())
        study = DescriptionLength(str(file), n_atoms=N_ATOMS, seeds=SEEDS, keep_untrained=True)
        results = do_tasks(study, tmp_path)
        by_matrix = study._learned[N_ATOMS]
        errors = [[pursued_error(results[task]) for task in tasks] for tasks in by_matrix.values()]
        error = "as Gaussian" if 0 in estimates.difference(*errors) else "otherwise"
        bits = study.report(results).sections[0].numbers["told"]
        return "as Gaussian" if bits == TOLD["undecided"] else bits, error

    return tell


def test_a_superposition_takes_fewer_bits_and_leaves_less_than_gaussian_rows(told):
    rows, _, _ = planted(600, D, 48, 3, generator=torch.Generator().manual_seed(0))
    assert told(rows) == ("fewer bits than for Gaussian rows", "otherwise")


@pytest.mark.parametrize("power", POWERS)
def test_a_gaussian_embedding_is_told_to_be_as_gaussian_rows(power, told):
    assert told(gaussian(power, 0)) == ("as Gaussian", "as Gaussian")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_60_gaussian_embeddings_at_most_3_are_told_anything_else(told):
    found = [told(gaussian(power, seed)) for power in POWERS for seed in range(20)]
    for number, name in enumerate(("bits", "error")):
        others = [(i // 20, line[number]) for i, line in enumerate(found) if line[number] != "as Gaussian"]
        assert len(others) <= 3, (name, others)
