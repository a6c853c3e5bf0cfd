"""Embeddings that are Gaussian, with flat and with steep spectra: nothing may be told of them but that they are."""

import json

import numpy as np
import pytest
import torch

from zoo.null_models import planted
from zoo.studies import basis_pursuit
from zoo.studies.embedding import coding_sections

D, N_ATOMS, SEEDS = 32, 64, 3
POWERS = (0, 1, 2)  # eigenvalues i^-power


def gaussian(power, seed, n_rows=600):
    g = torch.Generator().manual_seed(1000 * power + seed)
    return torch.randn(n_rows, D, generator=g) * torch.arange(1.0, D + 1) ** (-power / 2)


def told(rows, folder):
    """What the study says of the bits and of the error of rows, beside their null model's: "as Gaussian" or not."""
    (folder / "runs").mkdir(parents=True)
    np.save(folder / "W.npy", rows.numpy())
    shared = (N_ATOMS, (0.3, 0.14), 6, 0.0, 4, 0)
    lines = []
    for matrix in ("embedding", "covariance-matched"):
        for seed in range(SEEDS):
            task = basis_pursuit.Task(str(folder / "W.npy"), None, matrix, seed, seed, *shared)
            basis_pursuit.solve(task, folder)
            lines += json.loads(task.file(folder).read_text())
    done = {
        "A2": lines,
        "A7": [line | {"n_atoms": N_ATOMS} for line in lines],
        "steps": [None],
        "settings": {"seeds": SEEDS},
        "rows": {"n_rows": len(rows), "patterns": [str(folder / "W.npy")]},
    }
    gap = coding_sections.errors(done)["difference"]
    error = "as Gaussian" if gap["low"] <= 0 <= gap["high"] else "otherwise"
    bits = coding_sections.bits("", done, "").numbers["told"]
    return "as Gaussian" if bits == coding_sections.AS_A_GAUSSIAN else bits, error


def test_a_superposition_takes_fewer_bits_and_leaves_less_than_gaussian_rows(tmp_path):
    rows, _, _ = planted(600, D, 48, 3, generator=torch.Generator().manual_seed(0))
    assert told(rows, tmp_path) == ("fewer bits than theirs", "otherwise")


@pytest.mark.parametrize("power", POWERS)
def test_a_gaussian_embedding_is_told_to_be_as_gaussian_rows(power, tmp_path):
    assert told(gaussian(power, 0), tmp_path) == ("as Gaussian", "as Gaussian")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_60_gaussian_embeddings_at_most_3_are_told_anything_else(tmp_path):
    found = [told(gaussian(power, seed), tmp_path / f"{power}-{seed}") for power in POWERS for seed in range(20)]
    for number, name in enumerate(("bits", "error")):
        others = [(i // 20, line[number]) for i, line in enumerate(found) if line[number] != "as Gaussian"]
        assert len(others) <= 3, (name, others)
