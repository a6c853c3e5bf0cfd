import numpy as np
import pytest
import torch

from zoo.analysis import structure
from zoo.analysis.neighbour_agreement import atom_labels, beyond_null, neighbour_agreement, strongest_rows
from zoo.models.sparse_coding.rows import csr_of


def test_labels_that_follow_the_rows_agree_and_labels_dealt_out_do_not():
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(200) % 4
    rows = 4 * torch.randn(4, 16, generator=g)[kind] + torch.randn(200, 16, generator=g)
    labels = ["abcd"[k] for k in kind]
    found = neighbour_agreement(rows, labels, n_draws=99)
    assert found.kappa > 0.9
    assert found.p_value == 0.01
    assert found.chance == pytest.approx(49 / 199, abs=0.01)  # of a row's 199 others, 49 are of its kind


def test_signs_do_not_count_where_codes_have_both():
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(240) % 40  # six of a kind, three of either sign
    rows = 4 * torch.randn(40, 64, generator=g)[kind] + torch.randn(240, 64, generator=g)
    rows[:120] *= -1
    labels = [str(k) for k in kind.tolist()]
    assert neighbour_agreement(rows, labels, n_draws=9).kappa < 0.6
    assert neighbour_agreement(rows, labels, signed=False, n_draws=9).kappa > 0.9


def test_p_values_of_gaussian_rows_are_uniform():
    p = []
    for seed in range(150):
        rows = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
        p.append(neighbour_agreement(rows, ["ab"[i % 2] for i in range(60)], n_draws=39, seed=seed).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert 0.43 < np.mean(p) < 0.6


def test_an_atom_is_labelled_by_the_rows_that_use_it_most():
    codes = torch.zeros(6, 3)
    codes[:4, 0] = torch.tensor([3.0, -2.0, 1.0, 0.1])
    codes[5, 1] = -1.0
    names, purity = atom_labels(csr_of(codes), ["x", "x", "y", "y", "y", "z"], top=3)
    assert names == ["x", "z", "unused"]
    assert purity[:2].tolist() == pytest.approx([2 / 3, 1])
    assert np.isnan(purity[2])
    assert [rows.tolist() for rows in strongest_rows(csr_of(codes), 3)] == [[0, 1, 2], [5], []]


def test_the_rows_of_an_atom_have_its_largest_codes():
    codes = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    codes[codes.abs() < 1] = 0
    for k, rows in enumerate(strongest_rows(csr_of(codes), 4)):
        assert codes[rows, k].abs().tolist() == codes[:, k].abs().topk(4).values.tolist()


def test_beyond_null_is_a_prediction_by_students_t():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 4))
    p = [beyond_null(row[0], row[1:]) for row in draws]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.012)
    assert beyond_null(10.0, [0.0, 0.1, -0.1]) < 1e-3
    assert np.isnan(beyond_null(1.0, [0.5]))


def test_the_neighbours_of_some_rows_are_among_all_rows_and_agree_about_as_often(monkeypatch):
    rows = torch.randn(600, 12, generator=torch.Generator().manual_seed(0))
    labels = ["near" if value > 0 else "far" for value in rows[:, 0].tolist()]
    every = structure.neighbours_of(rows)
    monkeypatch.setattr(structure, "SEARCHED", 200)
    some, near = structure.neighbours_of(rows)
    assert len(set(some.tolist())) == 200
    torch.testing.assert_close(near, every[1][some])
    whole, part = (neighbour_agreement(rows, labels, n_draws=99, neighbours=n) for n in (every, (some, near)))
    assert abs(part.share - whole.share) < 3 * (whole.share * (1 - whole.share) / 200) ** 0.5
    assert part.p_value == 0.01
    assert abs(part.chance - 0.5) < 0.02
