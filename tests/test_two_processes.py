"""Two processes reach the result of one at equal global batch, in every family of models."""

import csv

import every
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.distributed import all_gather_object

from zoo import models
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.callbacks import EmbeddingDrift
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows, SkipBigramDataModule, SparseFeaturesDataModule
from zoo.models import (
    AdamLinear,
    AdamWCosine,
    DictionaryLearning,
    FrozenEmbeddingGPT2,
    SkipBigramAttention,
    SparseAutoencoder,
    ToySuperposition,
    UniversalGates,
)

STEPS = 30
V, D, K = 300, 16, 32  # tokens, dimensions, atoms
KEY_BIAS = slice(D, 2 * D)  # of c_attn.bias; softmax does not see it, so that rounding is all of its gradient
SAME = {"atol": 1e-6, "rtol": 1e-5}  # what was seen is below 4e-7, or below 1e-6 of the larger
FAST = AdamLinear(learning_rate=0.01, warmup_steps=3)
EMBEDDINGS = {
    "Gaussian": {"std": 0.1},
    "LowCoherence": {"max_cosine": 0.9},
    "Copied": {"source": "source.npy"},
    "NormMatched": {"source": "source.npy"},
    "CovarianceMatched": {"source": "source.npy"},
    "Permuted": {"source": "source.npy"},
}
FROZEN = {"all": list(range(V)), "none": [], "0,257-": [0, *range(257, V)]}
LEVELS = {"k": 2, "l1_coefficient": 1.0, "l0_coefficient": 1.0}
VARIANTS = {variant: every.sparse(variant, LEVELS) for variant in every.SAE_VARIANTS}
TOYS = {
    "superposition": {},
    "superposition of one": {"loss": "one_sparse"},
    "absolute value": {"task": "absolute"},
    "gates": {},
    "readoff of gates": {"trained_first_layer": False},
    "composed gates": {"depth": 3, "n_groups": 2, "error_correction": True, "gate": "xor"},
    "attention": {},
}


class SameOnEveryRank(L.Callback):
    """Demands after training, before a validation sends buffers around, that all ranks have the same state."""

    def on_validation_start(self, trainer, pl_module):
        everyones = [None] * trainer.world_size
        all_gather_object(everyones, dict(pl_module.state_dict()))
        for state in everyones:
            assert [name for name, value in state.items() if not torch.equal(value, everyones[0][name])] == []


@pytest.fixture
def trained(make_trainer, tmp_path, monkeypatch):
    """A function that trains, and tells the state at the end and everything that was logged, by name and step."""
    monkeypatch.setattr(EmbeddingDrift, "_draw", lambda *args: None)  # a third of the time

    def train(m, d, devices, accumulated=1, callbacks=(), **options):
        folder = tmp_path / f"{devices} processes, {accumulated} parts"
        trainer = make_trainer(
            devices=devices,
            max_steps=STEPS,
            accumulate_grad_batches=accumulated,
            val_check_interval=STEPS * accumulated,
            check_val_every_n_epoch=None,
            limit_val_batches=1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=7,
            logger=CSVLogger(folder, name="", version=""),
            default_root_dir=str(folder),
            callbacks=[*callbacks, *[SameOnEveryRank()] * (devices - 1)],
            **options,
        )
        trainer.fit(m, d)
        with (folder / "metrics.csv").open(newline="") as f:
            rows = list(csv.DictReader(f))
        logged = {(name, row["step"]): float(x) for row in rows for name, x in row.items() if x}
        logged |= {(name, "last"): value.item() for name, value in trainer.callback_metrics.items()}
        return {name: value.clone() for name, value in m.state_dict().items()}, logged

    return train


@pytest.fixture
def rows(tmp_path):
    """A function that makes 451 rows, whose tokens occur more or less often."""

    def make(n_rows=451, batch_size=None, **options):
        np.save(tmp_path / "counts.npy", 1 + np.arange(n_rows) ** 2 % 101)
        shape = {"null_model": PlantedRows(20, 2, noise=0.1), "n_rows": n_rows, "d_in": D}
        counts = str(tmp_path / "counts.npy")
        return EmbeddingRowsDataModule(**shape, token_counts=counts, batch_size=batch_size, **options)

    return make


def gpt2(embedding=None, **options):
    optimizer = AdamWCosine(learning_rate=1e-3, embedding_weight_decay=0.1, warmup_steps=3)
    return FrozenEmbeddingGPT2(V, 16, D, 1, 2, embedding=embedding, optimizer=optimizer, **options)


def autoencoder(variant, d, dead_after=100):
    """An autoencoder some of whose latents are soon told to revive."""
    L.seed_everything(0, verbose=False)
    net = getattr(models, variant)(D, K, **VARIANTS[variant])
    with torch.no_grad():
        (net.b_gate if variant == "GatedSAE" else net.b_enc)[:3] = -5 * d.W_E.std()
    return SparseAutoencoder(net, FAST, dead_after, sparsity_warmup_steps=3)


def toy(name):
    """A toy model of two seeds and its data, of whose last validation batch the second of two ranks gets nothing."""
    L.seed_everything(0, verbose=False)
    sizes = {"n_seeds": 2, "batch_size": 32, "n_validation": 65}
    if name == "attention":
        return SkipBigramAttention(12, 8, 6, 2, FAST), SkipBigramDataModule(2, 6, 8, 6, **sizes)
    if "gates" in name:
        d = SparseFeaturesDataModule(12, FixedActive(2, 2) if "composed" in name else BernoulliActive(2.0), **sizes)
        return UniversalGates(12, 12, 10, 2, **TOYS[name], optimizer=FAST), d
    active = FixedActive(1) if "one" in name else BernoulliActive(1.0)
    d = SparseFeaturesDataModule(6, active, "signed" if "absolute" in name else "uniform", **sizes)
    return ToySuperposition(6, 3, 2, importance=0.8, **TOYS[name], optimizer=FAST), d


def close(one, two):
    """Demand that two runs ended in the same state and logged the same, of GPT-2 all but the loss of rank 0's share."""
    states, logs = zip(one, two, strict=True)
    states = [{name: value.clone() for name, value in state.items()} for state in states]
    for state in states:
        if (bias := state.get("net.transformer.h.0.attn.c_attn.bias")) is not None:
            bias[KEY_BIAS] = 0
    torch.testing.assert_close(states[1], states[0], **SAME)
    if "net.transformer.wte.weight" in states[0]:
        logs = [{key: value for key, value in log.items() if key[0] != "train/loss"} for log in logs]
    torch.testing.assert_close(logs[1], logs[0], **SAME, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "frozen", "tied"),
    [(kind, frozen, (i + j) % 2 == 0) for i, kind in enumerate(EMBEDDINGS) for j, frozen in enumerate(FROZEN)],
)
def test_two_processes_train_the_gpt2_of_one(tiny_data, trained, tmp_path, monkeypatch, kind, frozen, tied):
    monkeypatch.chdir(tmp_path)
    spread = np.linspace(0.5, 2, V)[:, None]
    np.save("source.npy", np.random.default_rng(0).normal(0.02, 0.1 * spread, (V, D)).astype(np.float32))
    results = []
    for devices in (1, 2):
        L.seed_everything(0, verbose=False)
        m = gpt2(getattr(models, f"{kind}Embedding")(**EMBEDDINGS[kind]), tied=tied, frozen_rows=frozen)
        start = m.net.W_E.detach().clone()
        results.append(trained(m, tiny_data, devices, callbacks=[EmbeddingDrift(10)], gradient_clip_val=1.0))
        moved = (results[-1][0]["net.transformer.wte.weight"] != start).any(1)
        assert (~moved).nonzero().flatten().tolist() == FROZEN[frozen]
    close(*results)
    logged = results[0][1]
    assert {("val/loss", "29"), ("train/grad_norm", "27"), ("drift/W_E/relative_max", "29")} <= logged.keys()
    assert (("drift/W_U/relative_max", "29") in logged) == (not tied)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 64, "frequency_power": 0.5}, {"n_rows": 450}],
    ids=["drawn by weight", "an odd number at once"],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_the_autoencoder_of_one(trained, rows, variant, options):
    d = rows(**options)
    one, two = (trained(autoencoder(variant, d), d, devices) for devices in (1, 2))
    assert torch.equal(two[0]["examples_since_fired"], one[0]["examples_since_fired"])
    close(one, two)
    assert max(value for (name, _), value in one[1].items() if name == "train/aux") > 0
    assert {("val/dead_latents", "29"), ("val_train/fvu_weighted", "29"), ("train/l0", "27")} <= one[1].keys()


@pytest.mark.parametrize(
    ("options", "memory", "positive"),
    [
        pytest.param({"frequency_power": 0.5}, 0.0, False, id="all rows, weighted"),
        pytest.param({"batch_size": 120, "frequency_power": 0.5}, 0.8, True, id="drawn by weight"),
    ],
)
def test_two_processes_start_from_the_rows_of_one_and_learn_its_dictionary(trained, rows, options, memory, positive):
    results = []
    for devices in (1, 2):
        L.seed_everything(0, verbose=False)
        m = DictionaryLearning(20, 0.1, D, positive, tolerance=1e-6, memory=memory)
        results.append(trained(m, rows(**options), devices))
    close(*results)


@pytest.mark.parametrize("name", TOYS)
def test_two_processes_train_the_toy_of_one(trained, name):
    close(*(trained(*toy(name), devices) for devices in (1, 2)))


def test_batches_in_parts_train_the_gpt2_of_whole_batches(tiny_data, trained):
    results = []
    for devices, accumulated in ((1, 1), (1, 2), (2, 2)):
        L.seed_everything(0, verbose=False)
        tiny_data.batch_size = 8 // accumulated
        assert len(tiny_data.train_dataloader()) >= STEPS * accumulated  # one order of the windows
        m = gpt2(tied=False, frozen_rows="0,257-")
        results.append(trained(m, tiny_data, devices, accumulated, [EmbeddingDrift(10)]))
    close(*results[:2])
    close(*results[1:])


@pytest.mark.parametrize("accumulated", [1, 2])
def test_all_rows_twice_on_two_processes_train_the_autoencoder_of_all_rows_once(trained, rows, accumulated):
    d = rows(n_rows=444)
    one, two = (trained(autoencoder("TopKSAE", d, 10**6), d, *run) for run in ((1, 1), (2, accumulated)))
    for state, _ in (one, two):
        state.pop("examples_since_fired")
    close(one, two)


def test_two_processes_add_up_the_parts_of_a_batch_to_the_autoencoder_of_one(trained, rows):
    d = rows(batch_size=64)
    close(*(trained(autoencoder("BatchTopKSAE", d), d, devices, accumulated=2) for devices in (1, 2)))


@pytest.mark.parametrize("name", ["gates", "attention"])
def test_two_processes_add_up_the_parts_of_a_batch_to_the_toy_of_one(trained, name):
    close(*(trained(*toy(name), devices, accumulated=2) for devices in (1, 2)))


def made(family, tiny_data, rows):
    L.seed_everything(0, verbose=False)
    if family == "gpt2":
        assert tiny_data.val_dataloader().n_windows % tiny_data.batch_size == 3
        return gpt2(), tiny_data
    if family in TOYS:
        return toy(family)
    d = rows(batch_size=64)
    return DictionaryLearning(K, 0.1, D) if family == "dictionary" else autoencoder(family, d), d


@pytest.mark.parametrize("family", ["gpt2", "GatedSAE", "dictionary", "composed gates", "attention"])
def test_two_processes_judge_the_same_weights_as_one_where_the_last_batch_is_uneven(
    make_trainer, tiny_data, rows, family
):
    found = []
    for devices in (1, 2):
        trainer = make_trainer(devices=devices, limit_val_batches=1.0)
        found.append(trainer.validate(*made(family, tiny_data, rows), verbose=False)[0])
    torch.testing.assert_close(found[1], found[0], atol=1e-7, rtol=1e-6)
