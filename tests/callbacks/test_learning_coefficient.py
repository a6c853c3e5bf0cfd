import csv
import math

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.callbacks import LearningCoefficient
from zoo.callbacks.sample_of_training import sample_of_training
from zoo.datamodules import SparseFeaturesDataModule
from zoo.local_learning import HMC, local_learning_coefficient
from zoo.local_learning.side_by_side import local_learning_coefficients
from zoo.models import AdamLinear, FrozenEmbeddingGPT2, SparseAutoencoder, TopKSAE, ToySuperposition, UniversalGates

FEW = {"chains": 2, "chain_steps": 4, "burn_in": 2}
D = 6  # parameters of the regression


class Regression(L.LightningModule):
    """Linear regression, which is regular: its local learning coefficient is D / 2."""

    def __init__(self, learning_rate=0.1):
        super().__init__()
        self.net, self.learning_rate = nn.Linear(D, 1, bias=False), learning_rate
        self.spare = nn.Dropout(0.5)

    def mean_loss(self, batch):
        return (self.net(batch["x"][:, :D]).squeeze(1) - batch["x"][:, D]).square().mean() / 2

    def training_step(self, batch, batch_idx):
        return self.mean_loss({"x": batch[0]})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.learning_rate)


def regression_data(n=500):
    x = torch.randn(n, D + 1, generator=torch.Generator().manual_seed(0))
    x[:, D] += x[:, :D].sum(1)
    return DataLoader(TensorDataset(x), batch_size=n)


def table(tmp_path, run="run"):
    with (tmp_path / run / "learning_coefficient" / "steps.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def toys(n_seeds=2, **options):
    torch.manual_seed(0)
    module = ToySuperposition(6, 2, n_seeds, loss="one_sparse", optimizer=AdamLinear(0.01, 0, 0.5), **options)
    return module, SparseFeaturesDataModule(6, FixedActive(1), "uniform", n_seeds=n_seeds, batch_size=8)


def gpt2(data):
    torch.manual_seed(0)
    return FrozenEmbeddingGPT2(300, 16, 16, 1, 2, dropout=0.1, tied=False, frozen_rows="none"), data


def gates(_):
    torch.manual_seed(0)
    return UniversalGates(6, 6, 5, 2), SparseFeaturesDataModule(6, BernoulliActive(2.0), n_seeds=2, batch_size=8)


def autoencoder(_):
    torch.manual_seed(0)
    rows = torch.randn(64, 8)
    return SparseAutoencoder(TopKSAE(8, 24, k=3)), DataLoader(rows, batch_size=16, shuffle=True)


FAMILIES = {"gpt2": gpt2, "gates": gates, "sae": autoencoder, "toys": lambda _: toys()}


def test_a_trained_regression_has_half_its_number_of_parameters(make_trainer, tmp_path):
    callback = LearningCoefficient(500, steps=[0, 100], sampler="hmc", chain_steps=100, burn_in=60, localization=0.0)
    torch.manual_seed(0)
    make_trainer(max_steps=100, callbacks=[callback]).fit(Regression(0.5), regression_data())
    untrained, trained = table(tmp_path)
    half = (float(trained["high"]) - float(trained["low"])) / 2
    assert abs(float(trained["llc"]) - D / 2) < 2 * half  # twice the 95 % interval: about 5 standard errors
    assert float(trained["high"]) - float(trained["low"]) < 0.8
    assert (trained["n"], float(trained["n_beta"])) == ("500", pytest.approx(500 / math.log(500)))
    assert untrained["llc"] == untrained["low"] == ""
    assert "not at a minimum" in untrained["problems"]


def test_nothing_is_logged_for_a_refused_step_and_why_is_said_once(make_trainer, tmp_path, caplog):
    callback = LearningCoefficient(500, every_n_steps=1, sampler="hmc", chain_steps=20, burn_in=20)
    logger = L.pytorch.loggers.CSVLogger(tmp_path, name="", version="")
    with caplog.at_level("INFO"):
        trainer = make_trainer(max_steps=3, callbacks=[callback], logger=logger)
        trainer.fit(Regression(1e-4), regression_data())
    assert [bool(entry["networks"][0]["problems"]) for entry in callback.history] == [True] * 4
    logger.save()
    assert not (tmp_path / "metrics.csv").exists()
    assert sum("is refused" in record.getMessage() for record in caplog.records) == 1
    assert "refused" in callback.summary()["local learning coefficient"]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_ends_in_the_same_bits_with_and_without_it(make_trainer, tiny_data, family):
    states = []
    for callbacks in ([], [LearningCoefficient(8, every_n_steps=1, **FEW)]):
        module, data = FAMILIES[family](tiny_data)
        L.seed_everything(0, verbose=False)
        make_trainer(max_steps=3, callbacks=callbacks).fit(module, data)
        states.append(module.state_dict())
        assert module.training
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [entry["step"] for entry in callbacks[0].history] == [0, 1, 2, 3]


def test_only_the_named_parameters_move(make_trainer, tiny_data, monkeypatch):
    from zoo.callbacks import learning_coefficient as file

    moved = []

    def spy(module, loss, data, **options):
        moved.append(options["parameters"])
        found = local_learning_coefficient(module, loss, data, **options)
        moved.append(found.n_parameters)
        return found

    monkeypatch.setattr(file, "local_learning_coefficient", spy)
    module, data = gpt2(tiny_data)
    callback = LearningCoefficient(8, steps=[0], parameters=["W_E"], **FEW)
    make_trainer(max_steps=1, callbacks=[callback]).fit(module, data)
    assert moved == [["net.transformer.wte.weight"], 300 * 16]


def test_sequences_and_tokens_differ_only_by_the_logarithm_in_n_beta(make_trainer, tiny_data):
    found = {}
    for count in ("tokens", "sequences"):
        module, data = gpt2(tiny_data)
        callback = LearningCoefficient(8, count, steps=[0], **FEW)
        make_trainer(max_steps=1, callbacks=[callback]).fit(module, data)
        (found[count],) = callback.history
    assert (found["tokens"]["n"], found["sequences"]["n"]) == (8 * 16, 8)
    losses = [one["networks"][0]["loss"] for one in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # both per token


def test_the_sample_holds_the_first_vectors_of_training(make_trainer):
    module, data = gates(None)

    class Keep(L.Callback):
        def on_fit_start(self, trainer, pl_module):
            self.sample = sample_of_training(trainer, pl_module, 12)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batches = [*getattr(self, "batches", []), batch["f"]]

    keep = Keep()
    make_trainer(max_steps=2, callbacks=[keep]).fit(module, data)
    by_seed = torch.cat([f.view(2, 8, 6) for f in keep.batches], 1)[:, :12]
    assert torch.equal(keep.sample["f"], by_seed.transpose(0, 1))


@pytest.mark.slow
def test_networks_side_by_side_have_the_estimates_that_they_have_alone(make_trainer):
    module, data = toys(3)
    make_trainer(max_steps=1500).fit(module, data)
    module.eval()
    options = {"n": 100_000, "sampler": HMC(steps=80, burn_in=60), "parameters": ["net.*"]}
    rows = torch.zeros(1, 3, 6)

    def losses(module, batch):
        return module.mean_loss({"x": batch.transpose(0, 1).flatten(0, 1)})

    together = local_learning_coefficients(module, losses, rows, **options)
    for seed, one in enumerate(together):
        alone = toys(1)[0].eval()
        for p, q in zip(alone.net.parameters(), module.net.parameters(), strict=True):
            p.data.copy_(q[seed : seed + 1])
        found = local_learning_coefficient(alone, lambda m, b: losses(m, b)[0], rows[:, :1], **options)
        assert one.center_loss == pytest.approx(found.center_loss, rel=1e-6)
        assert one.n_parameters == found.n_parameters == 18
        error = math.hypot(np.std(one.chains, ddof=1), np.std(found.chains, ddof=1)) / 8**0.5
        assert abs(one.unchecked.mean - found.unchecked.mean) < 4 * error


def test_one_network_side_by_side_has_the_chains_of_the_plain_estimate():
    module = toys(1)[0].eval().double()  # rounding would part the chains
    options = {"n": 1000, "sampler": HMC(steps=5, burn_in=5), "parameters": ["net.*"], "chains": 3}
    rows = torch.zeros(1, 1, 6, dtype=torch.float64)
    (one,) = local_learning_coefficients(module, lambda m, b: m.mean_loss({"x": b[:, 0]}), rows, **options)
    plain = local_learning_coefficient(module, lambda m, b: m.mean_loss({"x": b[:, 0]})[0], rows, **options)
    np.testing.assert_allclose(one.traces, plain.traces, rtol=1e-8)


def test_two_processes_find_the_curve_of_one(make_trainer, tmp_path):
    tables = []
    for devices in (1, 2):
        module, data = gates(None)
        run = f"{devices} processes"
        callback = LearningCoefficient(12, every_n_steps=2, **FEW)
        trainer = make_trainer(devices=devices, callbacks=[callback], default_root_dir=str(tmp_path / run))
        trainer.fit(module, data)
        tables.append(table(tmp_path, run))
    assert len(tables[0]) == 3 * 2
    for one, two in zip(*tables, strict=True):
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)
        assert (two["step"], two["n"]) == (one["step"], one["n"])
    assert tables[0][0] == tables[1][0]  # before training, when the weights are the same bits


WRONG = {
    "examples is 1; it must be at least 2": {"examples": 1},
    "every_n_steps is 0": {"every_n_steps": 0},
    "steps is -1; it must be at least 0": {"steps": [5, -1]},
    "chains is 1": {"chains": 1},
    "batch_size is 9, more than the 8 examples": {"examples": 8, "batch_size": 9},
    "localization is -1": {"localization": -1.0},
    "n_beta 0": {"n_beta": 0.0},
    "step_size is 0": {"step_size": 0.0},
}


@pytest.mark.parametrize("told", WRONG)
def test_a_wrong_setting_is_refused(refused, told):
    with refused(told):
        LearningCoefficient(**WRONG[told])


def test_what_does_not_fit_the_module_or_the_data_is_refused_before_training(make_trainer, tiny_data, refused):
    def fit(module, data, **options):
        make_trainer(callbacks=[LearningCoefficient(**{"examples": 8} | options)]).fit(module, data)

    with refused("LearningCoefficient needs a model with mean_loss; Plain has no mean_loss"):
        fit(type("Plain", (Regression,), {"mean_loss": property(lambda self: self.absent)})(), regression_data())
    with refused("parameters has 'W_Q', which matches no trained parameter: net.transformer"):
        fit(*gpt2(tiny_data), parameters=["W_Q"])
    with refused("batch_size is 600, but the training data have 500 examples"):
        fit(Regression(), regression_data(), examples=1000, batch_size=600)
    with refused("gates of several depths do not descend on one loss"):
        fit(UniversalGates(6, 6, 5, 2, depth=2), gates(None)[1])


@pytest.mark.slow
def test_a_resumed_run_has_the_curve_of_one_that_was_never_interrupted(tmp_path):
    import subprocess
    import sys

    args = ["--config", "toy/pentagon", "--data.n_seeds", "2", "--data.batch_size", "8", "--data.n_validation", "8"]
    args += ["--model.optimizer.decay_fraction", "0", "--trainer.val_check_interval", "2", "--trainer.logger", "false"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    few = "{examples: 8, every_n_steps: 2, chains: 2, chain_steps: 4, burn_in: 2}"
    args += ["--trainer.callbacks", f"[{{class_path: LearningCoefficient, init_args: {few}}}]"]

    def fit(*words):
        done = subprocess.run([sys.executable, "-m", "zoo", "fit", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    fit(*args, "--run_dir", tmp_path / "whole", "--trainer.max_steps", 6)
    fit(*args, "--run_dir", tmp_path / "parts", "--trainer.max_steps", 3)
    fit("--ckpt_path", tmp_path / "parts" / "checkpoints" / "last.ckpt", "--trainer.max_steps", 6)
    assert len(table(tmp_path, "whole")) == 4 * 2
    assert table(tmp_path, "parts") == table(tmp_path, "whole")
