"""Modules that are trained in Python with `lightning.Trainer` and loaders of tensors, without a datamodule."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zoo.models import AdamLinear, DictionaryLearning, SparseAutoencoder, TopKSAE
from zoo.null_models import planted

D, K = 16, 32
ROWS = planted(1200, D, 24, 2, generator=torch.Generator().manual_seed(0))[0] + 5  # with a mean far from 0
TRAIN, HELD_OUT = ROWS[:1000], ROWS[1000:]


class Batches:
    """An iterable that is no DataLoader."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


KINDS = {
    "tensors": lambda x: DataLoader(x, 100),
    "tuples of a TensorDataset": lambda x: DataLoader(TensorDataset(x), 100),
    "dicts": lambda x: Batches([{"x": part} for part in x.split(100)]),
    "float64": lambda x: DataLoader(x.double(), 100),
    "contexts": lambda x: DataLoader(x.view(-1, 5, D), 20),
}


def trainer(steps=40, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(accelerator="cpu", max_steps=steps, **quiet, enable_model_summary=False, **settings)


def autoencoder():
    torch.manual_seed(0)
    return SparseAutoencoder(TopKSAE(D, K, k=2), AdamLinear(learning_rate=0.01, warmup_steps=2))


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_starts_from_the_mean_and_spread_of_any_loaders_vectors(kind):
    module = autoencoder()
    fit = trainer(steps=1)
    fit.fit(module, KINDS[kind](TRAIN))
    fresh = autoencoder()
    fresh.initialise(TRAIN)
    assert module.net.scale == fresh.net.scale
    assert torch.allclose(module.net.scale, (TRAIN - TRAIN.mean(0)).square().mean().sqrt())
    assert (module.net.b_dec - TRAIN.mean(0)).abs().max() < 0.05  # one step from there


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_loader_trains_the_same_weights(kind):
    module, reference = autoencoder(), autoencoder()
    trainer().fit(module, KINDS[kind](TRAIN))
    trainer().fit(reference, KINDS["tensors"](TRAIN))
    torch.testing.assert_close(module.net.W_dec, reference.net.W_dec, atol=1e-5, rtol=1e-4)


def test_all_vectors_of_a_validation_loader_are_held_out():
    module = autoencoder()
    fit = trainer(200)
    fit.fit(module, DataLoader(TRAIN, 100, shuffle=True), DataLoader(HELD_OUT, 64))
    (measured,) = fit.validate(module, DataLoader(HELD_OUT, 64), verbose=False)
    with torch.no_grad():
        error = (HELD_OUT - module.net(HELD_OUT)).square().sum()
    assert measured["val/fvu"] == pytest.approx((error / (HELD_OUT - HELD_OUT.mean(0)).square().sum()).item(), rel=1e-4)
    assert measured["val/fvu"] < 0.3
    assert "val_train/fvu" not in measured


def test_reading_the_first_batches_does_not_change_the_order_of_training():
    seen = []

    class Remembered(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(batch)

    for fitted in (False, True):
        module = autoencoder()
        if fitted:
            module.initialise(TRAIN)
        L.seed_everything(3, verbose=False)
        trainer(5, callbacks=[Remembered()]).fit(module, DataLoader(TRAIN, 100, shuffle=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[:5], seen[5:], strict=True))


def test_a_dictionary_starts_from_the_mean_and_rows_of_a_loaders_vectors():
    torch.manual_seed(0)
    module = DictionaryLearning(K, d_in=D)
    fit = trainer(5)
    fit.fit(module, DataLoader(TRAIN, len(TRAIN)), DataLoader(HELD_OUT, 64))
    assert torch.allclose(module.net.b_dec, TRAIN.mean(0), atol=1e-4)
    assert fit.callback_metrics["val/fvu"] < 0.1


class WithoutSample(L.LightningDataModule):
    """The smallest datamodule there can be."""

    def train_dataloader(self):
        return DataLoader(TRAIN, 100)


def test_a_datamodule_without_a_sample_is_sampled_by_its_first_batches():
    module = autoencoder()
    trainer(1).fit(module, datamodule=WithoutSample())
    assert torch.allclose(module.net.scale, (TRAIN - TRAIN.mean(0)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (lambda: iter([TRAIN]), "a list_iterator, which can be read only once; give a DataLoader"),
        (lambda: [DataLoader(TRAIN, 100), DataLoader(TRAIN, 100)], "a list of loaders; give one DataLoader"),
        (lambda: Batches([{"y": TRAIN}]), "a batch is a dict with y; expected vectors"),
        (lambda: Batches([TRAIN.long()]), r"a batch is a tensor of torch.int64 \[1000, 16\]; expected vectors"),
        (lambda: Batches(["text"]), "a batch is a str; expected vectors"),
        (lambda: Batches([]), "the training data have no batch of vectors"),
        (lambda: DataLoader(TRAIN[:, :7], 100), "the data have 7 dimensions, but d_in of the model is 16"),
    ],
)
def test_loaders_without_vectors_are_refused_in_one_line(loader, words, refused):
    with refused(words):
        trainer(1).fit(autoencoder(), loader())
