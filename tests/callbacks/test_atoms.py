import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_reconstruction import Rows, SignedCoordinates

from zoo.callbacks import AtomReport
from zoo.callbacks.atoms import gaussian_atoms, largest_cosines, merge_top
from zoo.models import FrozenEmbeddingGPT2


def read_table(tmp_path):
    with (tmp_path / "run" / "atoms" / "atoms.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def top_tokens(table):
    return [json.loads(row["top_tokens"]) for row in table]


@pytest.fixture
def rows():
    return torch.randn(23, 6, generator=torch.Generator().manual_seed(0))


def validated(make_trainer, **kwargs):
    return make_trainer(**{"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2} | kwargs)


def test_of_rows_along_the_axes_every_latent_answers_to_its_own(make_trainer, tmp_path):
    # Rows 0 to 5 are 1 to 6 times an axis, row 6 is twice the first; codes are positive and negative parts.
    rows = torch.cat([torch.diag(torch.arange(1.0, 7)), torch.tensor([[2.0, 0, 0, 0, 0, 0]])])
    validated(make_trainer, callbacks=[AtomReport()]).fit(SignedCoordinates(6, scale=0.5), Rows(rows))
    table = read_table(tmp_path)
    assert top_tokens(table) == [
        [["token 6", 2.0], ["token 0", 1.0]],
        *([[f"token {i}", i + 1.0]] for i in range(1, 6)),
        *[[]] * 6,  # the negative parts never fire
    ]
    assert [float(row["firing_frequency"]) for row in table] == pytest.approx([2 / 7] + [1 / 7] * 5 + [0] * 6)
    assert [row["mean_code"] for row in table] == ["1.5", "2.0", "3.0", "4.0", "5.0", "6.0", *[""] * 6]
    assert [float(row["decoder_norm"]) for row in table] == [0.5] * 12
    assert [row["nearest_token"] for row in table[1:6]] == [f"token {i}" for i in range(1, 6)]
    assert [float(row["nearest_cosine"]) for row in table] == [1.0] * 6 + [0.0] * 6


def test_the_rows_kept_are_those_of_a_sort_over_everything(rows, make_trainer, tmp_path):
    data = Rows(rows, batch_size=4)
    validated(make_trainer, callbacks=[AtomReport(top_tokens=3)]).fit(SignedCoordinates(6), data)
    codes = torch.cat([rows, -rows], 1).relu()
    for latent, pairs in enumerate(top_tokens(read_table(tmp_path))):
        best = codes[:, latent].topk(3)
        assert [token for token, _ in pairs] == [f"token {i}" for i in best.indices]
        assert [code for _, code in pairs] == pytest.approx(best.values.tolist())


@pytest.mark.parametrize("batch_size", [5, 23])
def test_a_token_met_at_many_places_is_kept_once_with_its_largest_code(make_trainer, tmp_path, batch_size):
    class Places(Rows):
        def val_dataloader(self):
            batches = super().val_dataloader().dataset
            return torch.utils.data.DataLoader([b | {"row": b["row"] // 4} for b in batches], batch_size=None)

    data = Places(torch.arange(1.0, 24).unsqueeze(1), batch_size=batch_size)
    validated(make_trainer, callbacks=[AtomReport(top_tokens=3)]).fit(SignedCoordinates(1), data)
    assert top_tokens(read_table(tmp_path)) == [[["token 5", 23.0], ["token 4", 20.0], ["token 3", 16.0]], []]


def test_merging_keeps_every_row_once_and_breaks_ties_by_row():
    codes = torch.tensor([[5.0, 3.0, 4.0, 5.0, 4.5], [0.0, 0.0, 0.0, 0.0, 2.0]])
    rows = torch.tensor([[7, 2, 2, 1, 7], [-1, -1, -1, 4, 3]])
    best, whose = merge_top(codes, rows, 3)
    assert best.tolist() == [[5, 5, 4], [2, 0, 0]]
    assert whose[0].tolist() == [1, 7, 2]
    assert whose[1, 0] == 3


def test_two_processes_write_the_same_table_as_one(rows, make_trainer, tmp_path):
    def table(devices):
        trainer = validated(make_trainer, devices=devices, callbacks=[AtomReport(top_tokens=3)])
        trainer.fit(SignedCoordinates(6, scale=0.5, kept=4), Rows(rows[:21], batch_size=5))
        return read_table(tmp_path)

    one, two = table(1), table(2)
    assert top_tokens(one) == top_tokens(two)
    assert [row["nearest_token"] for row in one] == [row["nearest_token"] for row in two]
    for name in ("firing_frequency", "mean_code", "decoder_norm", "nearest_cosine"):
        assert [float(row[name]) for row in one] == pytest.approx([float(row[name]) for row in two], rel=1e-6)


def test_the_path_of_l0_and_fvu_continues_in_a_resumed_run(rows, make_trainer, tmp_path):
    def fit(steps, ckpt=None):
        callback = AtomReport()
        trainer = validated(make_trainer, callbacks=[callback], max_steps=steps)
        trainer.fit(SignedCoordinates(6, 0.1, learning_rate=0.01), Rows(rows, batch_size=23), ckpt_path=ckpt)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return callback.points

    whole = fit(8)
    fit(4)
    resumed = fit(8, tmp_path / "4.ckpt")
    assert resumed == whole
    assert [(step, l0) for step, l0, _ in whole] == [(2, 6), (4, 6), (6, 6), (8, 6)]
    assert 0.81 > whole[0][2] > whole[-1][2]


def test_the_picture_shows_the_validations_so_far_the_latents_and_their_cosines(rows, make_trainer, tmp_path, figures):
    # Of twelve latents six never fire. Those that do are along the axes, with scale 1/2, so that FVU is 1/4.
    callback = AtomReport()
    validated(make_trainer, callbacks=[callback], num_sanity_val_steps=2).fit(
        SignedCoordinates(6, 0.5), Rows(rows.abs())
    )
    (figure,) = figures
    path, frequencies, cosines = figure.axes[:3]
    assert path.collections[0].get_array().tolist() == [2, 4]
    assert path.lines[0].get_xydata() == pytest.approx(np.array([[6, 0.25]] * 2))
    assert sum(bar.get_height() for bar in frequencies.patches) == 6
    assert "6 of 12" in frequencies.texts[0].get_text()
    assert "23 vectors" in frequencies.texts[0].get_text()
    nearest = F.normalize(rows.abs(), dim=1).amax(0)
    null = largest_cosines(gaussian_atoms(rows.abs(), 12, 0), rows.abs())[0]
    assert cosines.containers[0][0].get_x() == pytest.approx(min(nearest.min(), null.min()).item() - 0.01)
    assert [text.get_text() for text in cosines.get_legend().get_texts()] == [
        "atoms",
        "random atoms, covariance of W_E",
    ]
    assert (tmp_path / "run" / "atoms" / "atoms.png").is_file()


def test_tensorboard_gets_the_picture_and_the_most_frequent_atoms(make_trainer, texts, figures):
    rows = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [0, 5, 0], [0, 0.5, 0], [0, 0, 4]])
    validated(make_trainer, callbacks=[AtomReport()], logger=True).fit(SignedCoordinates(3), Rows(rows))
    header, _, first, *others = texts("atoms/most_frequent")
    assert header == ["latent", "firing frequency", "nearest token", "cosine", "largest codes"]
    assert first == ["1", "0.5", "``'token 1'``", "1.00", "``'token 3'`` 5, ``'token 1'`` 2, ``'token 4'`` 0.5"]
    assert [line[:2] for line in others[:2]] == [["2", "0.333"], ["0", "0.167"]]
    assert sorted(line[:2] for line in others[2:]) == [["3", "0"], ["4", "0"], ["5", "0"]]
    assert len(figures) == 1


def test_without_rows_to_compare_with_there_is_a_table_all_the_same(rows, make_trainer, tmp_path):
    data = Rows(rows)
    data.W_E = None
    validated(make_trainer, callbacks=[AtomReport()]).fit(SignedCoordinates(6), data)
    table = read_table(tmp_path)
    assert {row["nearest_token"] + row["nearest_cosine"] for row in table} == {""}
    assert all(pairs for pairs in top_tokens(table))


def test_planted_atoms_that_were_found_have_cosine_1(rows, make_trainer):
    data = Rows(rows)
    data.true_atoms = 3 * torch.eye(6)[:4]
    callback = AtomReport()
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(6), data)
    text = callback.summary()["planted atoms"]
    assert text.startswith(
        "mean cosine of the 4 true atoms, each matched with one learned atom: 1.000; with random atoms"
    )
    assert 0.3 < float(text.split()[-1]) < 0.95


def test_the_random_directions_beside_planted_atoms_are_others(make_trainer):
    data = Rows(torch.randn(23, 200, generator=torch.Generator().manual_seed(5)))
    data.true_atoms = torch.randn(400, 200, generator=torch.Generator().manual_seed(0))  # as data with seed 0 would
    callback = AtomReport(seed=0)
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(200), data)
    *_, by_chance = callback.summary()["planted atoms"].split()
    assert float(by_chance) < 0.4


def test_largest_cosines_are_those_of_the_whole_product(monkeypatch):
    monkeypatch.setattr("zoo.callbacks.atoms.ROWS_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(1)
    atoms, rows = torch.randn(5, 4, generator=generator), torch.randn(30, 4, generator=generator)
    cosine, nearest = largest_cosines(atoms, rows)
    whole = F.cosine_similarity(atoms[:, None], rows[None], dim=2).max(1)
    torch.testing.assert_close(cosine, whole.values)
    assert nearest.tolist() == whole.indices.tolist()


def test_random_atoms_have_the_covariance_of_the_rows_and_mean_zero():
    generator = torch.Generator().manual_seed(2)
    W = torch.randn(20_000, 3, generator=generator) @ torch.tensor([[3.0, 0, 0], [1, 1, 0], [0, 0, 0.1]]) + 5
    atoms = gaussian_atoms(W, 16_000, seed=0)
    assert atoms.shape == (16_000, 3)
    assert atoms.mean(0).abs().max() < 0.1
    torch.testing.assert_close(atoms.T.cov(), W.T.cov(), rtol=0.05, atol=0.05)
    assert torch.equal(atoms, gaussian_atoms(W, 16_000, seed=0))
    assert not torch.equal(atoms, gaussian_atoms(W, 16_000, seed=1))


def test_a_language_model_is_refused_in_one_line(tiny_data, make_trainer, refused):
    model = FrozenEmbeddingGPT2(300, 16, d_model=16, n_layers=1, n_heads=2)
    with refused("AtomReport needs a model with embedding_rows, reconstruct; FrozenEmbeddingGPT2 has no reconstruct"):
        make_trainer(callbacks=[AtomReport()]).fit(model, tiny_data)


def test_a_model_without_a_decoder_is_refused_in_one_line(rows, make_trainer, refused):
    class Bare(SignedCoordinates):
        def embedding_rows(self):
            return {}

    with refused("AtomReport needs a model with W_dec among its embedding_rows"):
        make_trainer(callbacks=[AtomReport()]).fit(Bare(6), Rows(rows))
