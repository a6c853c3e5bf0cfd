import csv
import math

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader
from toy_reconstruction import Rows, SignedCoordinates

from zoo.callbacks import ReconstructionError
from zoo.callbacks.reconstruction_error import SUMS, row_errors
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2

COUNTS = torch.tensor([0, 3, 7, 12, 55, 80, 300, 412, 999, 5000, 8, 2])


def read_table(tmp_path):
    with (tmp_path / "run" / "reconstruction_error" / "rows.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def column(table, name):
    return [float(row[name]) for row in table]


@pytest.fixture
def rows():
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(0))


def validated(make_trainer, **kwargs):
    return make_trainer(**{"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2} | kwargs)


def test_an_exact_row_has_error_0_and_one_that_is_lost_1(make_trainer, tmp_path):
    # Of six coordinates three are kept: the first six rows live there, the others in the rest.
    rows = torch.cat([torch.eye(6)[[0, 1, 2]] * 5, -torch.eye(6)[[0, 1, 2]], torch.eye(6)[[3, 4, 5]]])
    held_out = torch.tensor([False] * 4 + [True] * 5)
    data = Rows(rows, COUNTS[:9], held_out)
    callback = ReconstructionError()
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(6, kept=3), data)
    table = read_table(tmp_path)
    assert [row["token"] for row in table] == data.row_labels
    assert [int(row["count"]) for row in table] == COUNTS[:9].tolist()
    assert [bool(int(row["held_out"])) for row in table] == held_out.tolist()
    assert column(table, "n") == [1] * 9
    assert column(table, "relative_error") == [0] * 6 + [1] * 3
    assert column(table, "squared_error") == [0] * 6 + [1] * 3
    assert column(table, "norm") == [5] * 3 + [1] * 6
    assert column(table, "cosine") == pytest.approx([1] * 6 + [0] * 3)
    assert column(table, "l0") == [1] * 6 + [0] * 3
    assert callback.summary()["squared error / |x|²"] == "0.6 on held-out rows, 0 on trained rows"


def test_the_worst_row_is_told_with_its_relative_error_and_how_often_its_token_occurs(make_trainer):
    rows = torch.eye(5) * torch.tensor([1.0, 2, 3, 4, 5])[:, None]
    rows[4, 0] = 5  # half of it is left
    callback = ReconstructionError()
    data = Rows(rows, torch.tensor([7, 0, 120, 3456, 4]))
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(5, kept=3), data)
    assert callback.summary()["worst row"] == "1, 'token 3' (row 3, 3,456 occurrences)"
    assert callback.summary()["squared error / |x|²"] == f"{41 / 80:.4g} on trained rows"


def test_the_error_of_a_row_seen_in_several_vectors_is_the_ratio_of_the_sums():
    sums = torch.tensor([[2.0, 3.0, 12.0, 1.0, 6.0, 0.0], [0.0] * 6, [1, 0, 0, 0, 0, 1], [1, 2, 0, 0, 1, 1]])
    rows = row_errors(sums.double())
    assert rows["relative_error"][[0, 2, 3]].tolist() == [0.25, 0, math.inf]
    assert rows["relative_error"][1].isnan()
    assert rows["squared_error"][0] == 1.5
    assert rows["norm"][0] == pytest.approx(6**0.5)
    assert rows["held_out"].tolist() == [False, False, True, True]
    assert len(SUMS) == sums.shape[1]


def test_scaling_all_codes_leaves_the_square_of_what_is_missing_in_every_group(rows, make_trainer, tmp_path):
    # x_hat = 0.7 x, so that the relative error is 0.3² for every row and every way to pool them.
    held_out = torch.arange(12) % 3 == 0
    callback = ReconstructionError()
    trainer = validated(make_trainer, callbacks=[callback], logger=True)
    trainer.fit(SignedCoordinates(6, scale=0.7), Rows(rows, COUNTS, held_out))
    assert column(read_table(tmp_path), "relative_error") == pytest.approx([0.09] * 12)
    assert [point[0] for point in callback.history] == [2, 4]
    assert callback.history[-1][1:] == pytest.approx([0.09] * 6)  # held out, then five decades
    [events] = (tmp_path / "run").rglob("events.*")
    log = EventAccumulator(str(events)).Reload()
    groups = {"0", "1-9", "10-99", "100-999", "1000-9999"}
    for name in {"all", "held_out", "trained", "median", "worst", *(f"by_count/{group}" for group in groups)}:
        events = log.Scalars(f"error/{name}")
        assert [e.step for e in events] == [1, 3]
        assert [e.value for e in events] == pytest.approx([0.09, 0.09])
    assert "error/rows" in log.Tags()["images"]


def test_the_picture_and_the_table_of_the_worst_show_what_the_last_validation_found(make_trainer, figures, texts):
    # Coordinates 3 and 4 are lost, so that rows are worse the more of them they have.
    rows = torch.eye(5) + torch.tensor([[0, 0, 0, 0, 0.5]] * 3 + [[0] * 5] * 2)
    data = Rows(rows, torch.tensor([7, 0, 120, 3, 4]), torch.tensor([False, True, False, False, True]))
    callback = ReconstructionError(top_rows=3)
    validated(make_trainer, callbacks=[callback], logger=True).fit(SignedCoordinates(5, kept=3), data)
    (figure,) = figures
    left, right = figure.axes
    shown = dict(zip(("trained", "held out"), left.collections, strict=True))
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(shown)
    error = 0.25 / 1.25
    assert shown["trained"].get_offsets().tolist() == [pytest.approx(p) for p in ([8, error], [121, error], [4, 1])]
    assert shown["held out"].get_offsets().tolist() == [pytest.approx(p) for p in ([1, error], [5, 1])]
    curves = {line.get_label(): line.get_xydata().tolist() for line in right.lines}
    assert list(curves) == ["0", "1-9", "100-999", "all held-out rows"]
    assert curves["1-9"] == [pytest.approx([step, 2.25 / 3.25]) for step in (2, 4)]
    assert curves["all held-out rows"] == [pytest.approx([step, 1.25 / 2.25]) for step in (2, 4)]
    header, _, *worst = texts("error/rows/worst")
    assert header == ["row", "token", "count", "squared error / norm²"]
    assert sorted(worst[:2]) == [["3", "``'token 3'``", "3", "1.000"], ["4", "``'token 4'``", "4", "1.000"]]
    assert [line[3] for line in worst[2:]] == ["0.200"]


def test_two_processes_write_the_same_table_as_one(rows, make_trainer, tmp_path):
    def table(devices):
        # 12 rows in batches of 5: with two processes one rank's last batch is empty.
        data = Rows(rows[:11], COUNTS[:11], torch.arange(11) > 8, batch_size=5)
        trainer = validated(make_trainer, devices=devices, callbacks=[ReconstructionError()])
        trainer.fit(SignedCoordinates(6, scale=0.5, kept=4), data)
        return read_table(tmp_path)

    one, two = table(1), table(2)
    assert [[row[k] for k in ("token", "count", "held_out", "n")] for row in one] == [
        [row[k] for k in ("token", "count", "held_out", "n")] for row in two
    ]
    for name in ("squared_error", "relative_error", "cosine", "l0", "norm"):
        assert column(one, name) == pytest.approx(column(two, name), rel=1e-6)


def test_rows_that_were_not_visited_have_empty_cells(rows, make_trainer, tmp_path):
    callback = ReconstructionError(top_rows=8)
    validated(make_trainer, limit_val_batches=1, callbacks=[callback]).fit(SignedCoordinates(6), Rows(rows))
    table = read_table(tmp_path)
    assert [int(row["n"]) for row in table] == [1] * 5 + [0] * 7
    assert all(row[name] == "" for row in table[5:] for name in ("relative_error", "norm", "held_out", "l0"))
    assert [row["count"] for row in table] == [""] * 12


def test_a_nan_is_not_hidden(rows, make_trainer, tmp_path):
    rows[3, 0] = math.nan
    data = Rows(rows, held_out=torch.arange(12) == 3)
    callback = ReconstructionError()
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(6, scale=0.7), data)
    errors = column(read_table(tmp_path), "relative_error")
    assert [i for i, error in enumerate(errors) if math.isnan(error)] == [3]
    assert "row 3" in callback.summary()["worst row"]
    assert "nan" in callback.summary()["worst row"]


def test_a_resumed_run_continues_the_curves(rows, make_trainer, tmp_path):
    def fit(steps, ckpt=None):
        callback = ReconstructionError()
        trainer = validated(make_trainer, callbacks=[callback], max_steps=steps)
        trainer.fit(SignedCoordinates(6, 0.1, learning_rate=0.01), Rows(rows, COUNTS), ckpt_path=ckpt)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return callback.history

    whole, first, resumed = fit(8), fit(4), fit(8, tmp_path / "4.ckpt")
    assert [point[0] for point in whole] == [2, 4, 6, 8]
    assert whole[0][2] > whole[-1][2]
    torch.testing.assert_close(torch.tensor(first), torch.tensor(whole[:2]), equal_nan=True)
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(whole), equal_nan=True)


def test_the_sanity_check_is_no_point_and_a_checkpoint_without_a_validation_draws_nothing(rows, make_trainer, tmp_path):
    callback = ReconstructionError()
    trainer = validated(make_trainer, callbacks=[callback], num_sanity_val_steps=2, val_check_interval=4)
    trainer.fit(SignedCoordinates(6), Rows(rows))
    assert [point[0] for point in callback.history] == [4]
    picture = tmp_path / "run" / "reconstruction_error" / "rows.png"
    picture.unlink()
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    assert not picture.exists()


def test_a_language_model_is_refused_in_one_line(tiny_data, make_trainer, refused):
    model = FrozenEmbeddingGPT2(300, 16, d_model=16, n_layers=1, n_heads=2, optimizer=AdamWCosine())
    with refused("ReconstructionError needs a model with reconstruct; FrozenEmbeddingGPT2 has no reconstruct"):
        make_trainer(callbacks=[ReconstructionError()]).fit(model, tiny_data)


def test_data_without_rows_are_refused_in_one_line(make_trainer, refused):
    with refused("needs a datamodule with row_labels, row_counts; LightningDataModule has no row_labels, row_counts"):
        make_trainer(callbacks=[ReconstructionError()]).fit(SignedCoordinates(6), L.LightningDataModule())


def test_a_bare_dataloader_is_refused_in_one_line(rows, make_trainer, refused):
    with refused("there is none"):
        make_trainer(callbacks=[ReconstructionError()]).fit(SignedCoordinates(6), DataLoader(rows))


def test_the_effective_number_of_rows_comes_from_the_data(rows, make_trainer):
    class Weighted(Rows):
        effective_rows = 7.26

    callback = ReconstructionError()
    validated(make_trainer, callbacks=[callback]).fit(SignedCoordinates(6), Weighted(rows))
    assert callback.summary()["effective training rows"] == "7 of 12"
    assert isinstance(callback, L.Callback)
