import csv
import math

import every
import lightning as L
import numpy as np
import pytest
import torch

import zoo
from zoo import models
from zoo.callbacks import EmbeddingDrift, ExactResume, LastCheckpoint
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
from zoo.metrics import mean_max_cosine
from zoo.models import AdamLinear, SparseAutoencoder
from zoo.null_models import planted

D, K = 16, 40
VARIANTS = every.SAE_VARIANTS
OPTIONS = {v: every.sparse(v, {"k": 2, "l1_coefficient": 1.0, "l0_coefficient": 1.0}) for v in VARIANTS}
FAST = AdamLinear(learning_rate=0.01, warmup_steps=2)


class Stop(L.Callback):
    """Ends a run after a step, as a signal would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step >= self.step


class Recorded(L.Callback):
    """What a function says after every step."""

    def __init__(self, function):
        self.function, self.values = function, []

    def on_train_batch_end(self, *args):
        self.values.append(self.function())


def data(tmp_path, factor=1.0, batch_size=64, val_fraction=0.1):
    """600 rows with planted atoms, from a file."""
    rows = planted(600, D, 24, 2, noise=0.1, generator=torch.Generator().manual_seed(1))[0]
    file = tmp_path / f"rows-{factor}.npy"
    np.save(file, (factor * (rows + 0.5)).numpy())
    return EmbeddingRowsDataModule(str(file), batch_size=batch_size, val_fraction=val_fraction)


def module(variant, seed=0, optimizer=FAST, dead_after=128, sparsity_warmup_steps=3, init_from=None, **options):
    """A module whose auxiliary loss and sparsity warm-up are at work within the first few steps."""
    torch.manual_seed(seed)
    net = getattr(models, variant)(**{"d_in": D, "d_sae": K} | OPTIONS[variant] | options)
    return SparseAutoencoder(net, optimizer, dead_after, sparsity_warmup_steps, init_from)


def push_off(m, latent, d):
    """Put a latent five times the data's spread below 0."""
    with torch.no_grad():
        (m.net.b_gate if hasattr(m.net, "b_gate") else m.net.b_enc)[latent] = -5 * d.W_E.std()


def trained(tmp_path, make_trainer, variant, max_steps=6, **options):
    """A module after a few steps."""
    m = module(variant, **options)
    make_trainer(max_steps=max_steps).fit(m, data(tmp_path))
    return m


def equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("factor", [128.0, 1 / 128])  # powers of two, which round nothing
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_on_scaled_data_gives_the_scaled_reconstruction(tmp_path, make_trainer, variant, factor):
    results = []
    for f in (1.0, factor):
        m, d = module(variant), data(tmp_path, f)
        push_off(m, 3, d)
        make_trainer(max_steps=12).fit(m, d)
        assert m.examples_since_fired[3] > m.dead_after
        results.append((m.net.W_dec.detach(), *(y / f for y in m.eval().reconstruct(d.W_E))))
    for one, other in zip(*results, strict=True):
        assert torch.equal(other, one)


@pytest.fixture(scope="module")
def planted_rows():
    """By share of noise: 20,000 rows of 64 dimensions, each the sum of 2 of 96 atoms."""
    return {
        noise: EmbeddingRowsDataModule(null_model=PlantedRows(96, 2, noise), n_rows=20_000, d_in=64, batch_size=512)
        for noise in (0.0, 0.1)
    }


@pytest.mark.parametrize(
    ("variant", "noise", "least_cosine", "most_fvu"),
    [
        # What is left of the FVU without noise is nearly all due to linear encoders, which see the other atom, too.
        ("TopKSAE", 0.0, 0.999, 0.012),
        ("TopKSAE", 0.1, 0.997, 0.115),
        ("BatchTopKSAE", 0.0, 0.999, 0.014),
        ("BatchTopKSAE", 0.1, 0.996, 0.12),
        ("MatryoshkaSAE", 0.0, 0.97, 0.03),  # prefixes that must do without the others take mixtures of atoms
        ("ReLUSAE", 0.0, 0.99, 0.06),  # which shrinks codes
        ("JumpReLUSAE", 0.0, 0.95, 0.02),
        ("GatedSAE", 0.0, 0.97, 0.02),
    ],
)
def test_planted_atoms_come_back(planted_rows, make_trainer, variant, noise, least_cosine, most_fvu):
    d = planted_rows[noise]
    penalty = {"ReLUSAE": {"l1_coefficient": 2.0}, "GatedSAE": {"l1_coefficient": 5.0}}.get(variant, {})
    m = module(variant, 1, AdamLinear(0.01), 10_000, 100, d_in=64, d_sae=192, **penalty)
    assert mean_max_cosine(m.net.W_dec, d.true_atoms) < 0.5
    trainer = make_trainer(max_steps=400, limit_val_batches=1.0, val_check_interval=400, check_val_every_n_epoch=None)
    trainer.fit(m, d)
    assert mean_max_cosine(m.net.W_dec, d.true_atoms) > least_cosine
    assert noise < trainer.callback_metrics["val/fvu"] < most_fvu
    l0 = trainer.callback_metrics["val/l0"].item()
    assert l0 == pytest.approx(2, rel=0.02) if hasattr(m.net, "k") else 1.5 < l0 < 4


def test_training_starts_from_the_mean_and_spread_of_the_rows(tmp_path, make_trainer):
    m, d = module("TopKSAE", optimizer=AdamLinear(learning_rate=0.0)), data(tmp_path, 5.0)
    make_trainer(max_steps=1).fit(m, d)
    rows = d.W_E[d.train_rows]
    torch.testing.assert_close(m.net.b_dec.detach(), rows.mean(0))
    assert m.net.scale.item() == pytest.approx((rows - rows.mean(0)).square().mean().sqrt().item())


def test_a_datamodule_of_ones_own_needs_only_a_width_and_a_sample(make_trainer):
    class Own(L.LightningDataModule):
        d_in = D
        rows = 5 + 3 * torch.randn(64, D, generator=torch.Generator().manual_seed(0))

        def sample(self):
            return self.rows

        def train_dataloader(self):
            return torch.utils.data.DataLoader([{"x": self.rows}], batch_size=None)

    made = module("TopKSAE")
    make_trainer(max_steps=1).fit(made, datamodule=Own())
    assert made.net.b_dec.mean().item() == pytest.approx(5, abs=0.5)


def test_biases_and_thresholds_move_in_proportion_to_the_scale(tmp_path, make_trainer):
    m = module("JumpReLUSAE", optimizer=AdamLinear(learning_rate=None, warmup_steps=0), threshold_rate=5.0)
    trainer = make_trainer(max_steps=1)
    trainer.fit(m, data(tmp_path, 10.0))
    rates = {id(p): group["initial_lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    atoms, scale = 2e-4 * (2**14 / K) ** 0.5, m.net.scale.item()
    expected = {"W_enc": 1, "W_dec": 1, "b_enc": scale, "b_dec": scale, "threshold": 5 * scale}
    found = {name: rates[id(p)] / atoms for name, p in m.net.named_parameters()}
    assert found == pytest.approx(expected)
    assert scale > 2


def test_a_latent_counts_the_examples_since_it_fired(tmp_path, make_trainer):
    m, d = module("TopKSAE", aux_coefficient=0.0), data(tmp_path)
    push_off(m, 3, d)
    make_trainer(max_steps=5).fit(m, d)
    assert m.examples_since_fired[3] == 5 * 64
    assert m.examples_since_fired.remainder(64).eq(0).all()
    assert (m.examples_since_fired == 0).float().mean() > 0.5


@pytest.mark.parametrize("aux_coefficient", [0.0, 1 / 32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_auxiliary_loss_alone_revives_a_latent_that_was_pushed_off(
    tmp_path, make_trainer, variant, aux_coefficient
):
    d, optimizer = data(tmp_path), AdamLinear(0.01, warmup_steps=0)
    m = module(variant, optimizer=optimizer, aux_coefficient=aux_coefficient, d_sae=12)  # for 24 atoms
    push_off(m, 3, d)
    since_fired = Recorded(lambda: m.examples_since_fired[3].item())
    make_trainer(max_steps=200, callbacks=[since_fired]).fit(m, d)
    assert since_fired.values[:3] == [64, 128, 192]  # dead from the second step on
    assert (0 in since_fired.values) == (aux_coefficient > 0)


def test_the_penalty_rises_over_the_warm_up_and_a_latent_is_dead_from_so_many_examples_on(tmp_path, make_trainer):
    m, d, given = module("ReLUSAE", sparsity_warmup_steps=3, dead_after=128), data(tmp_path), []
    push_off(m, 3, d)
    loss = m.net.loss

    def noted(x, dead, sparsity):
        given.append((dead is not None and 3 in dead, sparsity))
        return loss(x, None, sparsity)

    m.net.loss = noted
    make_trainer(max_steps=5).fit(m, d)
    assert [sparsity for _, sparsity in given] == [1 / 4, 2 / 4, 3 / 4, 1, 1]
    assert [dead for dead, _ in given] == [False, False, True, True, True]  # after 2 batches of 64


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, make_trainer, variant):
    whole, part, resumed = (module(variant, seed=seed) for seed in (0, 0, 1))
    schedule = {"max_steps": 9, "val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 1.0}
    trainer = make_trainer(**schedule, callbacks=[ExactResume(), EmbeddingDrift()])
    trainer.fit(whole, data(tmp_path))
    stopped = make_trainer(**schedule, callbacks=[ExactResume(), EmbeddingDrift(), Stop(5)])
    stopped.fit(part, data(tmp_path))
    stopped.save_checkpoint(tmp_path / "part.ckpt")
    assert stopped.global_step == 5
    again = make_trainer(**schedule, callbacks=[ExactResume(), EmbeddingDrift()])
    again.fit(resumed, data(tmp_path), ckpt_path=tmp_path / "part.ckpt")
    assert again.global_step == 9
    assert not torch.equal(part.net.W_dec, whole.net.W_dec)
    equal(resumed.state_dict(), whole.state_dict())
    for one, other in zip(again.optimizers[0].param_groups, trainer.optimizers[0].param_groups, strict=True):
        assert one["lr"] == other["lr"]
    assert again.callback_metrics.keys() == trainer.callback_metrics.keys()
    for name, value in trainer.callback_metrics.items():
        assert torch.equal(again.callback_metrics[name], value), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_reach_the_result_of_one_at_equal_global_batch(tmp_path, make_trainer, variant):
    results = []
    for devices in (1, 2):
        m, d = module(variant), data(tmp_path, batch_size=128)
        push_off(m, 3, d)
        trainer = make_trainer(devices=devices, max_steps=10, limit_val_batches=1.0)
        trainer.fit(m, d)
        results.append((m.state_dict(), trainer.validate(m, d, verbose=False)[0]))
        assert m.examples_since_fired[3] > m.dead_after
    (one, metrics_one), (two, metrics_two) = results
    assert torch.equal(two.pop("examples_since_fired"), one.pop("examples_since_fired"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    assert metrics_two == pytest.approx(metrics_one, rel=1e-3)
    assert metrics_one["val/fvu"] < 1


def test_validation_tells_held_out_rows_from_those_trained_on(tmp_path, make_trainer):
    m, d = trained(tmp_path, make_trainer, "TopKSAE", 60), data(tmp_path)
    metrics = make_trainer(limit_val_batches=1.0).validate(m, d, verbose=False)[0]
    for split, x in (("val", d.W_E[d.held_out]), ("val_train", d.W_E[~d.held_out])):
        x_hat, codes = m.reconstruct(x)
        fvu = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
        assert metrics[f"{split}/fvu"] == pytest.approx(fvu.item(), rel=1e-5)
        assert metrics[f"{split}/l0"] == pytest.approx((codes > 0).sum(1).float().mean().item(), rel=1e-5)
        assert metrics[f"{split}/dead_latents"] == pytest.approx((codes > 0).any(0).logical_not().float().mean().item())
    assert 0 < metrics["val_train/fvu"] < metrics["val/fvu"] < 1


def test_without_held_out_rows_there_are_metrics_of_training_rows_alone(tmp_path, make_trainer):
    m, d = module("TopKSAE"), data(tmp_path, val_fraction=0.0)
    make_trainer(max_steps=2).fit(m, d)
    metrics = make_trainer(limit_val_batches=1.0).validate(m, d, verbose=False)[0]
    assert "val_train/fvu" in metrics
    assert "val/fvu" not in metrics


def test_embedding_drift_follows_the_atoms(tmp_path, make_trainer):
    m = module("TopKSAE")
    start = m.net.W_dec.detach().clone()
    trainer = make_trainer(max_steps=6, callbacks=[EmbeddingDrift(every_n_steps=2)])
    trainer.fit(m, data(tmp_path))
    with (tmp_path / "run" / "embedding_drift" / "W_dec.csv").open(encoding="utf-8") as f:
        table = list(csv.DictReader(f))
    expected = (m.net.W_dec.detach() - start).norm(dim=1)
    torch.testing.assert_close(torch.tensor([float(row["distance"]) for row in table]), expected)
    assert expected.max() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_autoencoders_reconstruct_as_the_trained_one(tmp_path, make_trainer, variant):
    m, d = module(variant), data(tmp_path)
    make_trainer(enable_checkpointing=True, callbacks=[LastCheckpoint()]).fit(m, d)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    x_hat, codes = m.eval().reconstruct(d.W_E)
    for source in (last, tmp_path / "run", zoo.save(m.net, tmp_path / "saved")):
        net = zoo.load(source)
        assert type(net) is type(m.net)
        assert not net.training
        assert torch.equal(net.reconstruct(d.W_E)[0], x_hat)
        assert torch.equal(net.encode(d.W_E), codes)
    again = SparseAutoencoder.load_from_checkpoint(last)
    assert again.optimizer == FAST
    assert again.hparams["sae"]["init_args"] == m.net.config
    equal(again.state_dict(), m.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_goes_on_from_saved_weights(tmp_path, make_trainer, variant):
    source = zoo.save(trained(tmp_path, make_trainer, variant).net, tmp_path / "saved")
    m = module(variant, seed=1, optimizer=AdamLinear(learning_rate=0.0), init_from=str(source))
    assert all(p.requires_grad for p in m.net.parameters())
    make_trainer(max_steps=1).fit(m, data(tmp_path, factor=3.0))  # other data: the unit of the loss is theirs
    saved = zoo.load(source).state_dict()
    for name, parameter in m.net.named_parameters():
        torch.testing.assert_close(parameter.data, saved[name], msg=name)
    assert m.net.scale.item() == pytest.approx(3 * saved["scale"].item(), rel=1e-5)


def test_saved_weights_of_another_variant_or_size_are_refused(tmp_path, refused):
    source = str(zoo.save(models.TopKSAE(D, K, k=2), tmp_path / "saved"))
    with refused("is a TopKSAE, but this run trains a ReLUSAE"):
        module("ReLUSAE", init_from=source)
    with refused(r"is a TopKSAE in which W_dec has shape \[40, 16\]; in this run its shape is \[41, 16\]"):
        SparseAutoencoder(models.TopKSAE(D, 41, k=2), init_from=source)
    with refused(r"is a TopKSAE in which W_dec has shape \[40, 16\]; in this run its shape is \[40, 17\]"):
        SparseAutoencoder(models.TopKSAE(17, K, k=2), init_from=source)
    language_model = zoo.save(models.GPT2(30, 8, d_model=8, n_layers=1, n_heads=2), tmp_path / "gpt2")
    with refused("is a GPT2"):
        module("TopKSAE", init_from=str(language_model))


def test_weights_that_training_would_rescale_are_refused(tmp_path, refused):
    for variant in ("TopKSAE", "ReLUSAE"):
        net = module(variant).net
        net.W_dec.data[2] *= 3
        source = str(zoo.save(net, tmp_path / variant))
        if net.unit_norm_decoder:
            with refused("has atoms of norm 1 to 3; atoms of a TopKSAE must have norm 1"):
                module(variant, init_from=source)
        else:
            assert torch.equal(module(variant, init_from=source).net.W_dec, net.W_dec)


@pytest.mark.parametrize("task", ["fit", "validate"])
def test_data_of_another_dimension_are_refused(tmp_path, make_trainer, refused, task):
    m = SparseAutoencoder(models.TopKSAE(D + 1, K, k=2))
    with refused("the data have 16 dimensions, but d_in of the model is 17"):
        getattr(make_trainer(), task)(m, data(tmp_path))


def test_numbers_out_of_range_are_refused(refused):
    net = models.TopKSAE(D, K, k=2)
    with refused("dead_after is -1"):
        SparseAutoencoder(net, dead_after=-1)
    with refused("sparsity_warmup_steps is -1"):
        SparseAutoencoder(net, sparsity_warmup_steps=-1)


def test_a_network_with_nan_weights_validates_to_nan(tmp_path, make_trainer):
    m = module("TopKSAE")
    m.net.W_dec.data[:, 0] = math.nan
    metrics = make_trainer(limit_val_batches=1.0).validate(m, data(tmp_path), verbose=False)[0]
    assert math.isnan(metrics["val/fvu"])
    assert math.isnan(metrics["val_train/fvu"])


def test_a_module_from_a_checkpoint_goes_on_from_its_bias_and_scale(tmp_path, make_trainer):
    m = module("JumpReLUSAE")
    trainer = make_trainer()
    trainer.fit(m, data(tmp_path))
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    again = SparseAutoencoder.load_from_checkpoint(tmp_path / "m.ckpt")
    again.optimizer = AdamLinear(learning_rate=0.0)
    make_trainer(max_steps=1).fit(again, data(tmp_path, factor=3.0))
    for name in ("b_dec", "scale", "threshold"):
        assert torch.equal(getattr(again.net, name), getattr(m.net, name)), name
