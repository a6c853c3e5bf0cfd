import csv

import lightning as L
import pytest
import torch
from matplotlib.text import Text

from zoo.active_inputs import BernoulliActive
from zoo.callbacks import FeatureGeometry
from zoo.callbacks.feature_picture import _shown
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, AdamWCosine, FrozenEmbeddingGPT2, ToySuperposition


def toy(d_hidden=2, n_seeds=3, n_features=4, learning_rate=0.0):
    torch.manual_seed(0)
    return ToySuperposition(n_features, d_hidden, n_seeds, optimizer=AdamLinear(learning_rate, 0))


def sampled(module):
    n_features, n_seeds = module.net.config["n_features"], module.n_seeds
    return SparseFeaturesDataModule(n_features, BernoulliActive(1.0), "uniform", None, n_seeds, 32, 64)


def trained(make_trainer, module, **kwargs):
    callback = FeatureGeometry()
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None} | kwargs
    trainer = make_trainer(callbacks=[callback], **options)
    trainer.fit(module, sampled(module))
    return callback, trainer


def table(tmp_path):
    with (tmp_path / "run" / "feature_geometry" / "features.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_norms_and_dimensionalities_of_every_feature_are_written(make_trainer, tmp_path):
    module = toy()
    W = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    with torch.no_grad():
        module.net.W_in[1] = W
    trained(make_trainer, module)
    rows = table(tmp_path)
    assert [(int(r["seed"]), int(r["feature"])) for r in rows] == [(s, i) for s in range(3) for i in range(4)]
    assert [float(r["norm"]) for r in rows[4:8]] == pytest.approx([2, 1, 1, 0])
    assert [float(r["dimensionality"]) for r in rows[4:8]] == pytest.approx([1, 0.5, 0.5, 0])


def test_the_summary_is_about_the_seed_of_least_loss(make_trainer):
    module = toy(2, 3, 4)
    W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.1]])  # the others overlap and have large weights
    with torch.no_grad():
        module.net.W_in[:] = 3.0
        module.net.W_in[2] = W
    callback, _ = trained(make_trainer, module)
    best = module.seed_losses.argmin().item()
    assert best == 2
    shares = (0.5 + 0.5 + 1 / 1.01) / 3
    assert callback.summary() == {
        "best seed": f"2, loss {module.seed_losses[2]:.5g}",
        "its features": f"3 of 4 with norm > 1/2 in d = 2, mean dimensionality {shares:.3f}",
    }


@pytest.mark.parametrize("d_hidden", [1, 2, 3])
@pytest.mark.parametrize("n_seeds", [1, 12])
def test_features_are_drawn_in_any_number_of_dimensions(make_trainer, tmp_path, figures, d_hidden, n_seeds):
    module = toy(d_hidden, n_seeds)
    trained(make_trainer, module)
    (figure,) = figures
    best, W = module.seed_losses.argmin().item(), module.features()
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert f"seed {best}, {'the ' * (d_hidden == 3)}best" in said
    assert f"loss {module.seed_losses[best]:.5g}" in said
    drawn = [line.get_xydata().flatten().tolist() for axes in figure.axes for line in axes.lines]
    for feature in range(4):
        if d_hidden == 3:
            assert figure.axes[0].images[0].get_array()[feature].tolist() == pytest.approx(
                (W[best] @ W[best, feature]).tolist()
            )
        else:
            assert [*W[best, feature].tolist(), *[0] * (d_hidden == 1)] in drawn
    (shares,) = [axes for axes in figure.axes if axes.get_xlabel() == "dimensionality"]
    assert sum(bar.get_height() for bar in shares.patches) == 4 * n_seeds
    assert (tmp_path / "run" / "feature_geometry" / "features.png").is_file()


def test_the_features_of_the_best_seed_are_in_tensorboard(make_trainer, texts):
    module = toy()
    with torch.no_grad():
        module.net.W_in[:] = 3.0
        module.net.W_in[1] = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    trained(make_trainer, module, logger=True)
    assert texts("features/best_seed") == [
        ["feature", "norm", "dimensionality"],
        ["---"] * 3,
        ["0", "1.0000", "0.5000"],
        ["1", "1.0000", "0.5000"],
        ["2", "0.5000", "1.0000"],
        ["3", "0.0000", "0.0000"],
    ]


def test_a_checkpoint_brings_the_table_and_the_end_does_not_write_it_twice(make_trainer, tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            tables.append(table(tmp_path))

    tables, module = [], toy(learning_rate=0.1)
    callback = FeatureGeometry()
    times = []
    write = callback._write
    callback._write = lambda *args: (times.append(args[0].global_step), write(*args))
    make_trainer(callbacks=[callback, Save()], max_steps=3).fit(module, sampled(module))
    assert times == [1, 2, 3]
    assert tables[0] != tables[-1] == table(tmp_path)


def test_before_a_validation_the_loss_is_unknown_and_the_table_is_written(make_trainer, tmp_path):
    callback, _ = trained(make_trainer, toy(), limit_val_batches=0)
    assert callback.summary()["best seed"] == "unknown without a validation"
    assert len(table(tmp_path)) == 12


def test_two_processes_write_what_one_writes(make_trainer, tmp_path):
    trained(make_trainer, toy(learning_rate=0.05))
    one = table(tmp_path)
    trained(make_trainer, toy(learning_rate=0.05), devices=2)
    two = table(tmp_path)
    for name in ("norm", "dimensionality"):
        assert [float(r[name]) for r in two] == pytest.approx([float(r[name]) for r in one], rel=1e-4)


def test_of_many_seeds_the_best_the_median_and_the_worst_are_shown():
    order = torch.arange(100, 0, -1)
    shown = _shown(order)
    assert [seed for _, seed in shown] == [100, 99, 98, 51, 50, 3, 2, 1]
    assert dict(shown)["best"] == 100
    assert dict(shown)["median"] == 50
    assert dict(shown)["worst"] == 1
    assert [seed for _, seed in _shown(order[:3])] == [100, 99, 98]


def test_a_module_without_features_is_refused_in_one_line(make_trainer, tiny_data, refused):
    model = FrozenEmbeddingGPT2(300, 16, d_model=16, n_layers=1, n_heads=2, optimizer=AdamWCosine())
    with refused("needs a model with seed_losses, features; FrozenEmbeddingGPT2 has no seed_losses, features"):
        make_trainer(callbacks=[FeatureGeometry()]).fit(model, tiny_data)


def test_a_checkpoint_before_the_last_validation_does_not_keep_its_older_losses(make_trainer):
    class Saving(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.save_checkpoint(f"{trainer.default_root_dir}/{trainer.global_step}.ckpt")

    module, callback = toy(learning_rate=0.1), FeatureGeometry()
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    make_trainer(callbacks=[callback, Saving()], **options).fit(module, sampled(module))
    assert f"loss {module.seed_losses.min():.5g}" in callback.summary()["best seed"]


def test_a_resumed_run_goes_on_with_the_losses_of_the_last_validation(make_trainer, tmp_path):
    before, after, callback = toy(learning_rate=0.1), toy(), FeatureGeometry()
    _, trainer = trained(make_trainer, before, max_steps=2)
    trainer.save_checkpoint(tmp_path / "2.ckpt")
    resumed = make_trainer(callbacks=[callback], max_steps=3)  # without a validation
    resumed.fit(after, sampled(after), ckpt_path=tmp_path / "2.ckpt")
    assert resumed.global_step == 3
    assert not before.seed_losses.isnan().any()
    assert torch.equal(after.seed_losses, before.seed_losses)
    best = before.seed_losses.argmin().item()
    assert callback.summary()["best seed"] == f"{best}, loss {before.seed_losses[best]:.5g}"
