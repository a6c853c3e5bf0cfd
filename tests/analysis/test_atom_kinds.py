import pytest
import torch
import torch.nn.functional as F

from zoo.analysis.atom_kinds import atom_kinds
from zoo.analysis.neighbour_agreement import atom_labels, strongest_rows
from zoo.analysis.token_families import kinds
from zoo.models.sparse_coding import lasso

D = 14
NUMBERS, WORDS = (f"{n}" for n in range(10**6)), (f" word{chr(97 + n % 26)}" for n in range(10**6))


def atoms():
    """Six atoms along an axis and its opposite, and six along another, each with a little of an axis of its own."""
    axis = torch.eye(D)[[0] * 6 + [1] * 6] * torch.tensor([1.0, -1.0] * 6)[:, None]
    return F.normalize(axis + 0.3 * torch.eye(D)[2:])


def rows():
    """Multiples of every atom, and the tokens that use them: words for the first six, numbers for the others."""
    W = torch.cat([size * atoms() for size in (-1.4, -1.0, 1.1, 1.5)])
    return W, [next(WORDS if i % 12 < 6 else NUMBERS) for i in range(48)]


def test_an_atom_and_its_opposite_are_near_each_other():
    W, tokens = rows()
    found = atom_kinds(W, torch.zeros(48).bool(), atoms(), 0.01, tokens, with_map=False)
    assert found["share"] == found["kappa"] == 1
    assert found["purity"] == 1
    assert "map" not in found


def test_codes_are_of_rows_about_the_mean_of_those_that_atoms_were_learned_from(monkeypatch):
    monkeypatch.setattr("zoo.analysis.atom_kinds.map_of", len)  # UMAP takes long to import
    (W, tokens), held_out = rows(), torch.arange(48) % 4 == 0
    W = W + 5
    W[held_out] += 20 * torch.eye(D)[1]
    found = atom_kinds(W, held_out, atoms(), 0.1, tokens, with_map=True)
    x = W - W[~held_out].mean(0)
    codes = lasso(x, atoms(), 0.1 * x[~held_out].square().sum(1).mean().sqrt().item()).codes
    names, purity = atom_labels(codes, kinds(tokens))
    assert found["purity"] == pytest.approx(float(torch.tensor(purity).nanmean()))
    assert found["labels"] == [name for name in names if name != "unused"]
    most = [rows for rows in strongest_rows(codes, 5) if len(rows)]
    assert found["tokens"] == ["  ".join(tokens[i] for i in rows) for rows in most]
    assert found["map"] == len(found["labels"])
