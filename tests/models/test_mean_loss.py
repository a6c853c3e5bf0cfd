"""The mean loss per data point of every module is its training loss, and `torch.func` batches its gradients."""

import every
import lightning as L
import pytest
import torch
from torch.func import functional_call, grad, vmap

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows, SkipBigramDataModule, SparseFeaturesDataModule
from zoo.models import (
    BatchTopKSAE,
    FrozenEmbeddingGPT2,
    GatedSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    ReLUSAE,
    SkipBigramAttention,
    SparseAutoencoder,
    TopKSAE,
    ToySuperposition,
    UniversalGates,
)

SIZES = {"n_seeds": 2, "batch_size": 8, "n_validation": 8}


def gpt2(data, **options):
    return FrozenEmbeddingGPT2(300, 16, 16, 1, 2, frozen_rows="none", **options), data


def autoencoder(net):
    return lambda _: (
        SparseAutoencoder(net(), sparsity_warmup_steps=0),
        EmbeddingRowsDataModule(null_model=PlantedRows(20, 2), n_rows=400, d_in=8, batch_size=32),
    )


def toy(cls, *args, active=None, values="one", **options):
    data = SparseFeaturesDataModule(6, active or BernoulliActive(2.0), values, **SIZES)
    return lambda _: (cls(6, *args, n_seeds=2, **options), data)


MODULES = {
    "gpt2": gpt2,
    "tied gpt2": lambda data: gpt2(data, tied=True),
    "untied gpt2": lambda data: gpt2(data, tied=False),
    "topk": autoencoder(lambda: TopKSAE(8, 24, k=3)),
    "relu": autoencoder(lambda: ReLUSAE(8, 24, l1_coefficient=2.0)),
    "superposition": toy(ToySuperposition, 2, values="uniform", importance=0.7),
    "exact superposition": toy(ToySuperposition, 2, values="uniform", loss="one_sparse", active=FixedActive(1)),
    "absolute value": toy(ToySuperposition, 4, values="signed", task="absolute"),
    "gates": toy(UniversalGates, d_mlp=5),
    "gates in groups": toy(UniversalGates, d_mlp=5, n_groups=2, gate="xor", p=3.0, case_weights="zero_one"),
    "attention": lambda _: (SkipBigramAttention(12, 8, 4, 2), SkipBigramDataModule(2, 6, 8, 6, **SIZES)),
}


@pytest.fixture
def in_training(make_trainer, tiny_data):
    """A function that returns a module of a family after two steps, its next batch and its loss on it in training."""

    def made(family):
        L.seed_everything(0, verbose=False)
        module, data = MODULES[family](tiny_data)
        make_trainer(max_steps=2).fit(module, data)
        loader = data.train_dataloader()
        loader.load_state_dict({"position": 2})
        batch = next(iter(loader))
        module.log = module.log_dict = lambda *args, **kwargs: None
        with torch.no_grad():
            return module.train(), batch, module.training_step(batch, 0)

    return made


@pytest.mark.parametrize("family", MODULES)
def test_the_mean_loss_is_that_of_a_training_step(in_training, family):
    module, batch, trained = in_training(family)
    with torch.no_grad():
        torch.testing.assert_close(module.eval().mean_loss(batch).sum(), trained, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", MODULES)
def test_its_gradients_are_those_of_training_also_for_many_parameters_at_once(in_training, family):
    module, batch, _ = in_training(family)
    module.zero_grad()
    module.training_step(batch, 0).backward()
    wanted = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.eval()

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self):
            return module.mean_loss(batch).sum()

    loss = Loss()
    stacked = {name: torch.stack([p.detach()] * 3) for name, p in loss.named_parameters()}
    found = vmap(grad(lambda params: functional_call(loss, params, ())))(stacked)
    for name, gradient in wanted.items():
        for one in found[f"module.{name}"]:
            torch.testing.assert_close(one, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", [BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE])
def test_a_loss_that_is_no_mean_over_examples_or_has_other_gradients_is_refused(net, refused):
    with refused(f"a {net.__name__} has no mean loss per example"):
        SparseAutoencoder(every.small(net)).mean_loss(torch.ones(4, 8))


def test_gates_in_depth_and_partly_frozen_embeddings_are_refused(refused):
    with refused("gates of several depths"):
        UniversalGates(6, d_mlp=5, depth=2).mean_loss({"f": torch.ones(4, 6)})
    with refused("keeps some rows of W_E frozen"):
        FrozenEmbeddingGPT2(20, 8, 8, 1, 2, frozen_rows="0-3").mean_loss({})
