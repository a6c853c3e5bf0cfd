import csv
import math

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.callbacks import EmbeddingDrift, LastCheckpoint
from zoo.callbacks.tables_and_pictures import frequency_groups
from zoo.metrics import row_drift
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2

TINY = {"vocab_size": 300, "context_length": 16, "d_model": 16, "n_layers": 1, "n_heads": 2}


def read_table(tmp_path, name="W_E"):
    with (tmp_path / "run" / "embedding_drift" / f"{name}.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_row_drift_of_known_rows():
    start = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    now = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    drift = row_drift(now, start)
    assert drift["distance"].tolist() == pytest.approx([0, math.sqrt(2), 1, 0])
    assert drift["relative_distance"].tolist() == pytest.approx([0, math.sqrt(2), 0.5, 0])
    assert drift["cosine"][:3].tolist() == pytest.approx([1, 0, 1])


def test_frequency_groups_are_decades_of_the_count():
    groups = frequency_groups(torch.tensor([0, 1, 9, 10, 99, 100, 5000]), 7)
    assert {k: v.tolist() for k, v in groups.items()} == {
        "0": [0],
        "1-9": [1, 2],
        "10-99": [3, 4],
        "100-999": [5],
        "1000-9999": [6],
    }


@pytest.mark.parametrize("devices", [1, 2])
def test_the_table_holds_every_rows_true_drift(tiny_data, make_trainer, tmp_path, devices):
    m = FrozenEmbeddingGPT2(**TINY, frozen_rows="0-149", optimizer=AdamWCosine(learning_rate=0.01))
    start = m.net.W_E.detach().clone()
    make_trainer(devices=devices, callbacks=[EmbeddingDrift(2)]).fit(m, tiny_data)
    table, now = read_table(tmp_path), m.net.W_E.detach()
    assert [int(row["row"]) for row in table] == list(range(300))
    assert [row["token"] for row in table] == tiny_data.row_labels
    assert [int(row["count"]) for row in table] == tiny_data.row_counts.tolist()
    distance = torch.tensor([float(row["distance"]) for row in table])
    torch.testing.assert_close(distance, (now - start).norm(dim=1))
    assert (distance[:150] == 0).all()
    assert (distance[150:] > 0).any()


def test_decay_alone_is_exactly_the_drift_of_a_row_without_gradient(tiny_data, make_trainer, tmp_path):
    # An untied embedding row of a token that never occurs gets no gradient, so decay is all that moves it.
    optimizer = AdamWCosine(learning_rate=0.05, embedding_weight_decay=0.3, warmup_steps=3)
    m = FrozenEmbeddingGPT2(**TINY, tied=False, frozen_rows="none", optimizer=optimizer)
    callback = EmbeddingDrift(2)
    make_trainer(max_steps=8, accumulate_grad_batches=2, callbacks=[callback]).fit(m, tiny_data)
    unseen = [row for row in read_table(tmp_path) if int(row["count"]) == 0]
    assert unseen
    alone = 1 - callback.shrink["W_E"]
    assert 0.01 < alone < 0.2
    assert [float(row["relative_distance"]) for row in unseen] == pytest.approx([alone] * len(unseen), rel=1e-4)


def test_drift_since_the_last_checkpoint_starts_anew_with_each_step_that_is_saved(tiny_data, make_trainer, tmp_path):
    class Rows(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == 3:
                self.at_3 = pl_module.net.W_E.detach().clone()

    m = FrozenEmbeddingGPT2(**TINY, frozen_rows="none", optimizer=AdamWCosine(learning_rate=0.01))
    callbacks = [EmbeddingDrift(100), rows := Rows(), LastCheckpoint(3)]
    trainer = make_trainer(callbacks=callbacks, max_steps=6, enable_checkpointing=True)
    trainer.fit(m, tiny_data)
    moved = (m.net.W_E.detach() - rows.at_3).norm(dim=1)
    for again in ("a", "b"):  # of the same step
        since = torch.tensor([float(row["distance_since_checkpoint"]) for row in read_table(tmp_path)])
        torch.testing.assert_close(since, moved)
        trainer.save_checkpoint(tmp_path / f"{again}.ckpt")
    assert moved.max() > 0
    assert any(float(row["distance"]) > 1.2 * step for row, step in zip(read_table(tmp_path), moved, strict=True))


def test_a_resumed_run_measures_from_the_first_start(tiny_data, make_trainer, tmp_path):
    def fit(steps, ckpt=None):
        torch.manual_seed(0)
        m = FrozenEmbeddingGPT2(**TINY, frozen_rows="none", optimizer=AdamWCosine(decay_steps=8))
        trainer = make_trainer(callbacks=[EmbeddingDrift(2)], max_steps=steps)
        trainer.fit(m, tiny_data, ckpt_path=ckpt)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return read_table(tmp_path), trainer.callbacks[0].history

    whole = fit(8)
    fit(4)
    resumed = fit(8, tmp_path / "4.ckpt")
    assert [r["distance"] for r in resumed[0]] == [r["distance"] for r in whole[0]]
    assert resumed[1] == whole[1]


def test_tensorboard_gets_scalars_and_a_picture(tiny_data, make_trainer, tmp_path):
    m = FrozenEmbeddingGPT2(**TINY, frozen_rows="none")
    make_trainer(callbacks=[EmbeddingDrift(2)], logger=True).fit(m, tiny_data)
    [events] = (tmp_path / "run").rglob("events.*")
    tags = EventAccumulator(str(events)).Reload().Tags()
    assert "drift/W_E" in tags["images"]
    wanted = {"relative_median", "relative_max", "cosine_mean", "decay_alone"}
    assert {f"drift/W_E/{name}" for name in wanted} <= set(tags["scalars"])


def test_the_picture_and_the_table_of_rows_that_moved_most_show_the_drift(tiny_data, make_trainer, figures, texts):
    optimizer = AdamWCosine(learning_rate=0.01, embedding_weight_decay=0.1)
    m = FrozenEmbeddingGPT2(**TINY, frozen_rows="0-149", optimizer=optimizer)
    start = m.net.W_E.detach().clone()
    callback = EmbeddingDrift(2, top_rows=2)
    make_trainer(callbacks=[callback], logger=True).fit(m, tiny_data)
    (figure,) = figures
    left, right = figure.axes
    relative = row_drift(m.net.W_E.detach(), start)["relative_distance"]
    expected = torch.stack([tiny_data.row_counts + 1.0, relative], 1)
    torch.testing.assert_close(torch.tensor(left.collections[0].get_offsets().data).float(), expected)
    assert left.get_title() == "rows of W_E"
    (decay,) = left.lines
    assert decay.get_ydata() == pytest.approx([1 - callback.shrink["W_E"]] * 2)
    groups = frequency_groups(tiny_data.row_counts, 300)
    assert [line.get_label() for line in right.lines] == list(groups)
    for line, members in zip(right.lines, groups.values(), strict=True):
        assert line.get_xdata().tolist() == [0, 2, 4]
        assert line.get_ydata()[-1] == pytest.approx(relative[members].median().item())
    median, largest, moving = f"{relative.median():.3g}", f"{relative.max():.3g}", int((relative > 0).sum())
    assert callback.summary() == {
        "drift of W_E": f"median {median}, max {largest} of the row norm; {moving:,} rows moved"
    }
    first, second = relative.topk(2).indices.tolist()
    header, _, *moved = texts("drift/W_E/moved_most")
    assert header == ["row", "token", "distance / norm"]
    assert [line[0] for line in moved] == [str(first), str(second)]
    assert [line[2] for line in moved] == [f"{relative[i]:.3f}" for i in (first, second)]


class TwoMatrices(L.LightningModule):
    """Any module with `embedding_rows()`: here the columns of a toy's weight, and a matrix that stays."""

    def __init__(self):
        super().__init__()
        self.W, self.still = torch.nn.Parameter(torch.ones(2, 5)), torch.nn.Parameter(torch.ones(3, 2))

    def embedding_rows(self):
        return {"columns": self.W.T, "still": self.still}

    def training_step(self, batch, batch_idx):
        return (self.W[:, :2] ** 2).sum() + 0 * self.still.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(10, 1))

    def on_save_checkpoint(self, checkpoint):
        pass


def test_any_module_with_embedding_rows_is_followed(make_trainer, tmp_path):
    make_trainer(callbacks=[callback := EmbeddingDrift(2)], max_steps=3).fit(TwoMatrices())
    assert callback.summary()["drift of still"] == "exactly 0 in all 3 rows"
    # Each step multiplies the first two columns by 0.8.
    relative = [float(row["relative_distance"]) for row in read_table(tmp_path, "columns")]
    assert relative == pytest.approx([1 - 0.8**3, 1 - 0.8**3, 0, 0, 0], abs=1e-6)
    assert all(float(row["distance"]) == 0 for row in read_table(tmp_path, "still"))


class TwoOptimizers(TwoMatrices):
    """Each matrix has an optimizer of its own, with a decay of its own."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        first = torch.optim.AdamW([self.W], lr=0.05, weight_decay=0.1)
        return first, torch.optim.AdamW([self.still], lr=0.02, weight_decay=0.2)


def test_decay_alone_is_that_of_the_optimizer_that_has_the_matrix(make_trainer):
    callback = EmbeddingDrift(2)
    make_trainer(callbacks=[callback], max_steps=6).fit(TwoOptimizers())  # three of each
    assert callback.shrink == pytest.approx({"columns": (1 - 0.05 * 0.1) ** 3, "still": (1 - 0.02 * 0.2) ** 3})
