"""Covariance-matched null model of activations: its moments, its tails, and on what a vector depends."""

from itertools import islice

import lightning as L
import numpy as np
import pytest
import torch

import zoo
from zoo.callbacks import AtomReport, ReconstructionError, SplicedLoss
from zoo.datamodules import ActivationsDataModule, LocalFiles
from zoo.datamodules.null_activations import GaussianVectors, NullLoader, moments_of
from zoo.models import GPT2, SparseAutoencoder, TopKSAE

CPU = torch.device("cpu")


@pytest.fixture
def make(tiny_data, tiny_corpus, tmp_path):
    """Builds the null model of the stream of a GPT-2 with random weights, D = 8: batches of 40 vectors."""
    torch.manual_seed(0)
    net = GPT2(vocab_size=302, context_length=20, d_model=8, n_layers=3, n_heads=2).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(std=0.5)
    net.W_E[97] *= 8  # a letter whose vectors are far from the others: heavy tails
    model = str(zoo.save(net, tmp_path / "model", tokenizer_json=tiny_data.tokenizer.to_str()))

    def make(prepared=True, **options):
        defaults = {"model": model, "layer": 2, "corpus": LocalFiles([str(tiny_corpus)]), "sequence_length": 18}
        defaults |= {"batch_size": 40, "positions_per_context": 5, "skip_positions": 2, "val_contexts": 7}
        defaults |= {"val_fraction": 0.15, "test_fraction": 0.15, "cache_dir": str(tmp_path / "cache")}
        data = ActivationsDataModule(**{**defaults, "null_model": "covariance-matched"} | options)
        if prepared:
            data.prepare_data()
            data.setup()
        return data

    return make


class Rank:
    """What a datamodule asks of a trainer."""

    def __init__(self, rank, world_size):
        self.global_rank, self.world_size = rank, world_size


def loader(data, rank=0, world_size=1):
    data.trainer = Rank(rank, world_size)
    return data.train_dataloader()


def training_activations(data):
    """Activations at all positions of the training split but the first two of every context, (n, 8)."""
    tokens, net = data.text.cache.tokens("train").astype(np.int64), data.model
    starts = range(0, len(tokens) - 1, 18)
    windows = [torch.from_numpy(tokens[s : min(s + 18, len(tokens) - 1)])[None] for s in starts]
    return torch.cat([net.residual_stream(ids)[2][0, 2:] for ids in windows])


def drawn(data, n=400_000):
    data = loader(data)
    big = NullLoader(data.vectors, 1, n, 0, 0, 1)
    return big.batch(0)["x"].double()


def kurtosis(x):
    return ((x - x.mean(0)).pow(4).mean(0) / x.var(0, correction=0).square()).numpy()


def test_mean_and_covariance_are_those_of_the_training_activations(make):
    data = make()
    x = training_activations(data).double().numpy()
    vectors = loader(data).vectors
    covariance = np.cov(x.T, bias=True)
    np.testing.assert_allclose(vectors.mean.numpy(), x.mean(0), atol=1e-5 * np.trace(covariance) ** 0.5)
    made = (vectors.factor.T @ vectors.factor).double().numpy()
    assert np.linalg.norm(made - covariance) < 1e-5 * np.linalg.norm(covariance)


def test_many_draws_have_these_moments_within_the_sampling_error(make):
    data = make()
    x, n = training_activations(data).double(), 400_000
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T, correction=0)))
    white = (drawn(data, n) - x.mean(0)) @ whiten.T
    assert white.mean(0).abs().max() < 5 / n**0.5
    assert (torch.cov(white.T, correction=0) - torch.eye(8)).abs().max() < 5 * (2 / n) ** 0.5


def test_the_vectors_are_gaussian_where_the_activations_are_not(make):
    data = make()
    x = training_activations(data).double()
    axes = torch.linalg.eigh(torch.cov(x.T))[1]
    assert abs(kurtosis(x @ axes) - 3).max() > 0.5
    np.testing.assert_allclose(kurtosis(drawn(data) @ axes), 3, atol=5 * (24 / 400_000) ** 0.5)


def test_moments_are_those_of_the_first_vectors_whatever_the_batches():
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    for sizes in (1000, 64, 7):
        mean, covariance = moments_of([{"x": part} for part in x.split(sizes)], 900)
        first = x[:900].double().numpy()
        np.testing.assert_allclose(mean.numpy(), first.mean(0), rtol=1e-13)
        np.testing.assert_allclose(covariance.numpy(), np.cov(first.T, bias=True), rtol=1e-10, atol=1e-10)


def test_vectors_stay_in_the_subspace_of_the_activations():
    basis = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)).double()
    x = GaussianVectors(torch.zeros(6).double(), basis.T @ basis, CPU).draw((0,), 100)
    outside = x - x @ torch.linalg.pinv(basis.float()) @ basis.float()
    assert outside.norm() < 1e-5 * x.norm()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_out_the_batch_of_one_rank(make, world_size):
    data = make()
    ranks = [loader(data, rank, world_size) for rank in range(world_size)]
    assert {len(r) for r in ranks} == {len(loader(data))} == {len(loader(make(null_model=None)))}
    for step in (0, 1, 40):
        parts = [r.batch(step)["x"] for r in ranks]
        assert {len(part) for part in parts} == {40 // world_size}
        torch.testing.assert_close(torch.cat(parts), loader(data).batch(step)["x"])
    for rank in range(world_size):
        data.trainer = Rank(rank, world_size)
        torch.testing.assert_close(data.sample(), loader(data).batch(0)["x"])


def test_a_batch_depends_on_seed_and_step_alone(make):
    used = loader(make())
    for step in (100, 0, 7, 1):
        assert torch.equal(used.batch(step)["x"], loader(make()).batch(step)["x"])
    assert not torch.equal(loader(make(seed=1)).batch(0)["x"], used.batch(0)["x"])
    everything = torch.cat([used.batch(step)["x"] for step in range(50)])
    assert len(everything.unique(dim=0)) == 50 * 40


@pytest.mark.parametrize("world_size", [1, 3])
def test_validation_and_test_are_draws_of_their_own_without_tokens(make, world_size):
    found = {}
    for seed in (0, 1):
        data = make(seed=seed)
        for split in ("val", "test"):
            parts = []
            for rank in range(world_size):
                data.trainer = Rank(rank, world_size)
                batches = list(getattr(data, f"{split}_dataloader")())
                assert [set(batch) for batch in batches] == [{"x"}]
                parts += [batch["x"] for batch in batches]
            found[split, seed] = torch.cat(parts)
            assert len(found[split, seed]) == 7 * (18 - 2)
    assert torch.equal(found["val", 0], found["val", 1])
    once = torch.cat([found["val", 0], found["test", 0], *(loader(make()).batch(step)["x"] for step in range(20))])
    assert len(once.unique(dim=0)) == len(once)
    assert not hasattr(data, "row_labels")


class Mean(L.LightningModule):
    """Learns the mean of its batches."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(8))

    def training_step(self, batch, batch_idx):
        return (batch["x"] - self.mean).square().sum(1).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_two_processes_train_as_one(make, make_trainer):
    means = []
    for devices in (1, 2):
        m = Mean()
        make_trainer(max_steps=8, devices=devices).fit(m, make(prepared=False))
        means.append(m.mean.detach().clone())
    torch.testing.assert_close(means[0], means[1])
    assert means[0].any()


def test_a_resumed_fit_ends_in_the_same_bits(make, make_trainer, tmp_path):
    whole, first, second = Mean(), Mean(), Mean()
    make_trainer(max_steps=11).fit(whole, make())
    trainer = make_trainer(max_steps=7)
    trainer.fit(first, make())
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    make_trainer(max_steps=11).fit(second, make(), ckpt_path=tmp_path / "seven.ckpt")
    assert torch.equal(second.mean, whole.mean)
    assert not torch.equal(first.mean, whole.mean)
    used, resumed = loader(make()), loader(make())
    list(islice(iter(used), 5))
    resumed.load_state_dict(used.state_dict())
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(islice(iter(used), 3), resumed, strict=False))


def test_the_fingerprint_differs_from_that_of_the_activations_and_of_other_layers(make):
    assert len({make(**o).corpus_fingerprint for o in ({}, {"null_model": None}, {"layer": 1})}) == 3


@pytest.mark.parametrize("callback", [SplicedLoss, ReconstructionError, AtomReport])
def test_callbacks_that_need_text_are_refused(make, make_trainer, refused, callback):
    trainer = make_trainer(callbacks=[callback()])
    name = callback.__name__
    with refused(f"{name} needs the text that vectors come from, .* covariance-matched .*; leave {name} out"):
        trainer.fit(SparseAutoencoder(TopKSAE(8, 16, k=2)), make())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null_model": "isotropic"}, "null_model is 'isotropic'; it must be covariance-matched, or null"),
        ({"activations_dir": "store"}, "activations_dir stores activations, and null_model replaces them"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, refused, options, message):
    with refused(message):
        make(prepared=False, **options)
