import csv
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader
from toy_reconstruction import Rows, SignedCoordinates

from zoo.callbacks import Certificates
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
from zoo.models import AdamWCosine, DictionaryLearning, FrozenEmbeddingGPT2
from zoo.models.sparse_coding import duality_gap

TOLERANCE = 1e-4


class Certifying(SignedCoordinates):
    """The gap of a vector is its first coordinate."""

    def __init__(self, d_in):
        super().__init__(d_in)
        self.net = SimpleNamespace(tolerance=TOLERANCE)

    def validation_step(self, batch, batch_idx):
        gap = batch["x"][:, 0].double()
        return super().validation_step(batch, batch_idx) | {"relative_gap": gap, "certified": gap <= TOLERANCE}


class InTwoPlaces(Rows):
    """Every row is found in two vectors, which two processes share."""

    def __init__(self, vectors, held_out):
        super().__init__(vectors[: len(held_out)], held_out=held_out)
        self.vectors = vectors

    def val_dataloader(self):
        mine = torch.arange(len(self.vectors))[self.trainer.global_rank :: self.trainer.world_size]
        n_batches = -(-len(self.vectors) // (self.batch_size * self.trainer.world_size))
        chunks = [mine[i * self.batch_size : (i + 1) * self.batch_size] for i in range(n_batches)]
        rows = [chunk % len(self.rows) for chunk in chunks]
        return DataLoader(
            [
                {"x": self.vectors[i], "row": row, "held_out": self.held_out[row]}
                for i, row in zip(chunks, rows, strict=True)
            ],
            batch_size=None,
        )


def with_gaps(gaps):
    return torch.cat([torch.tensor(gaps).unsqueeze(1), torch.ones(len(gaps), 3)], 1)


def fit(make_trainer, model, data, **kwargs):
    kwargs = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2} | kwargs
    trainer = make_trainer(callbacks=[callback := Certificates()], **kwargs)
    trainer.fit(model, data)
    return callback


def read_table(tmp_path):
    with (tmp_path / "run" / "certificates" / "rows.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_rows_that_are_not_certified_are_counted_and_named_worst_first(make_trainer, tmp_path):
    data = Rows(with_gaps([1e-5, 2e-3, 0.0, 5e-2, 9e-5, 1e-6]), held_out=torch.arange(6) > 3)
    callback = fit(make_trainer, Certifying(4), data, logger=True)
    said = "4 of 6 rows; not certified: 'token 3' (gap 5.0e-02), 'token 1' (gap 2.0e-03)"
    assert callback.summary() == {"certified": said}
    table = read_table(tmp_path)
    assert [row["certified"] for row in table] == ["1", "0", "1", "0", "1", "1"]
    assert [row["held_out"] for row in table] == ["0"] * 4 + ["1"] * 2
    assert [float(row["relative_gap"]) for row in table] == data.rows[:, 0].tolist()
    assert [row["token"] for row in table] == data.row_labels
    [events] = (tmp_path / "run").rglob("events.*")
    log = EventAccumulator(str(events)).Reload()
    curves = {name: log.Scalars(f"certificate/{name}") for name in ("uncertified", "largest_gap")}
    assert all([e.step for e in curve] == [1, 3] for curve in curves.values())
    assert [e.value for e in curves["uncertified"]] == [2, 2]
    assert [e.value for e in curves["largest_gap"]] == pytest.approx([5e-2] * 2)
    assert "certificates" in log.Tags()["images"]


def test_the_picture_and_the_table_show_the_gaps_of_the_last_validation(make_trainer, figures, texts):
    fit(make_trainer, Certifying(4), Rows(with_gaps([1e-5, 2e-3, 5e-2, 9e-5])), logger=True)
    (figure,) = figures
    (axes,) = figure.axes
    assert axes.get_title() == "2 of 4 rows certified after step 4"
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["2 certified", "2 not certified", "tolerance, 1e-04"]
    assert [sum(bar.get_height() for bar in bars) for bars in axes.containers] == [2, 2]
    assert texts("certificates/largest_gaps") == [
        ["row", "token", "gap / objective", "certified"],
        ["---"] * 4,
        ["2", "``'token 2'``", "5.0e-02", "no"],
        ["1", "``'token 1'``", "2.0e-03", "no"],
        ["3", "``'token 3'``", "9.0e-05", "yes"],
        ["0", "``'token 0'``", "1.0e-05", "yes"],
    ]


def test_where_all_rows_are_certified_the_largest_gap_is_told(make_trainer):
    callback = fit(make_trainer, Certifying(4), Rows(with_gaps([1e-5] * 1500 + [9.81e-5]), batch_size=500))
    assert callback.summary()["certified"] == "1,501 of 1,501 rows, largest gap 9.8e-05 of the objective"


def test_ten_rows_are_named_and_the_others_counted(make_trainer):
    said = fit(make_trainer, Certifying(4), Rows(with_gaps([0.1 + i / 100 for i in range(17)]))).summary()["certified"]
    assert said.startswith("0 of 17 rows; not certified: 'token 16' (gap 2.6e-01), 'token 15'")
    assert said.endswith("'token 7' (gap 1.7e-01) and 7 more")


def test_a_gap_that_is_no_number_is_not_hidden(make_trainer, tmp_path):
    callback = fit(make_trainer, Certifying(4), Rows(with_gaps([1e-5, math.nan, 0.2, math.inf])))
    assert "1 of 4 rows; not certified: 'token 1' (gap inf), 'token 3' (gap inf), 'token 2'" in str(callback.summary())
    assert [row["certified"] for row in read_table(tmp_path)] == ["1", "0", "0", "0"]


def test_rows_that_were_not_visited_are_neither_certified_nor_not(make_trainer, tmp_path):
    callback = fit(make_trainer, Certifying(4), Rows(with_gaps([1e-5] * 4 + [1.0] * 3)), limit_val_batches=1)
    assert callback.summary()["certified"] == "4 of 5 rows; not certified: 'token 4' (gap 1.0e+00)"
    cells = [[row[name] for name in ("held_out", "relative_gap", "certified")] for row in read_table(tmp_path)]
    assert cells[4:] == [["0", "1.0", "0"], [""] * 3, [""] * 3]


def test_the_table_holds_the_duality_gaps_of_a_dictionarys_codes(make_trainer, tmp_path):
    class Codes(L.Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.codes = torch.zeros_like(outputs["codes"]).index_copy_(0, batch["row"], outputs["codes"])

    data = EmbeddingRowsDataModule(None, n_rows=90, d_in=8, null_model=PlantedRows(16, 2, noise=0.1), batch_size=None)
    model = DictionaryLearning(16, d_in=8, penalty=0.2)
    kwargs = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    make_trainer(callbacks=[Certificates(), seen := Codes()], **kwargs).fit(model, data)
    centred, penalty = data.W_E - model.net.b_dec, 0.2 * model.net.scale.item()
    objective, gap = duality_gap(centred, model.net.W_dec, seen.codes, penalty)
    table = read_table(tmp_path)
    assert [float(row["relative_gap"]) for row in table] == pytest.approx((gap / objective).tolist(), abs=1e-12)
    assert {row["certified"] for row in table} == {"1"}
    assert [row["held_out"] == "1" for row in table] == data.held_out.tolist()


def test_two_processes_write_the_same_table_as_one_and_a_row_needs_all_its_vectors_certified(make_trainer, tmp_path):
    gaps = torch.full((22,), 1e-5)
    gaps[[2, 3 + 11, 7]] = torch.tensor([1e-2, 1e-3, 9e-5])
    vectors, held_out = with_gaps(gaps.tolist()), torch.arange(11) > 8

    def table(devices):
        fit(make_trainer, Certifying(4), InTwoPlaces(vectors, held_out), devices=devices)
        return read_table(tmp_path)

    one, two = table(1), table(2)
    assert one == two
    assert [i for i, row in enumerate(two) if row["certified"] == "0"] == [2, 3]
    largest = torch.maximum(gaps[:11], gaps[11:]).tolist()
    assert [float(row["relative_gap"]) for row in two] == largest


def test_nothing_is_written_without_a_new_validation_and_the_sanity_check_is_none(make_trainer, tmp_path):
    kwargs = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4, "num_sanity_val_steps": 2}
    trainer = make_trainer(callbacks=[callback := Certificates()], **kwargs)
    folder, before = tmp_path / "run" / "certificates", []

    class Early(L.Callback):
        def on_train_start(self, trainer, pl_module):
            before.append((callback.summary(), folder.exists()))

    trainer.callbacks.append(Early())
    trainer.fit(Certifying(4), Rows(with_gaps([1e-5] * 6)))
    assert before == [({}, False)]
    names = {"rows.csv", "certificates.png"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        (folder / name).unlink()
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    assert not list(folder.iterdir())


def test_a_model_that_does_not_certify_its_codes_is_refused_in_one_line(make_trainer, refused):
    with refused("Certificates needs a model whose validation_step returns `certified`, such as DictionaryLearning"):
        fit(make_trainer, SignedCoordinates(4), Rows(with_gaps([0.0] * 6)))


def test_a_language_model_is_refused_in_one_line(tiny_data, make_trainer, refused):
    model = FrozenEmbeddingGPT2(300, 16, d_model=16, n_layers=1, n_heads=2, optimizer=AdamWCosine())
    with refused("Certificates needs a model with reconstruct; FrozenEmbeddingGPT2 has no reconstruct"):
        fit(make_trainer, model, tiny_data)


def test_data_without_rows_are_refused_in_one_line(make_trainer, refused):
    with refused("Certificates needs a datamodule with row_labels, row_counts; LightningDataModule has no row_labels"):
        fit(make_trainer, Certifying(4), L.LightningDataModule())
