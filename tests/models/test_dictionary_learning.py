import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch.distributed import all_gather, get_world_size

import zoo
from zoo.__main__ import main
from zoo.callbacks import EmbeddingDrift, ExactResume, LastCheckpoint
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
from zoo.models import Dictionary, DictionaryLearning, TopKSAE
from zoo.models.sparse_coding import duality_gap, least_squares_on_support

D, K = 16, 40
FULL, MINI = {"batch_size": None}, {"batch_size": 120}  # settings of the data
MODES = [pytest.param(FULL, 0.0, id="full"), pytest.param(MINI, 0.8, id="mini")]  # and the memory that goes with them


class Stop(L.Callback):
    """Ends a run after a step, as a signal would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step >= self.step


class Losses(L.Callback):
    """The loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *args):
        self.values.append(outputs["loss"].item())


class CertifiedRows(L.Callback):
    """Whether every code of every validation is certified, by its own word and by the duality gap."""

    def __init__(self):
        self.rows, self.certified = 0, True

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *args):
        net = pl_module.net
        x, penalty = batch["x"] - net.b_dec, net.penalty * net.scale.item()
        objective, gap = duality_gap(x, net.W_dec.detach(), outputs["codes"], penalty, net.positive)
        torch.testing.assert_close(outputs["relative_gap"], gap / objective)
        self.certified &= bool(outputs["certified"].all() and (gap <= net.tolerance * objective).all())
        self.rows += len(x)


class SameOnAllRanks(L.Callback):
    """Demands one dictionary on all ranks after every step, and that the first step replaced some atoms."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        mine = pl_module.net.W_dec.detach()
        everyones = [torch.empty_like(mine) for _ in range(get_world_size())]
        all_gather(everyones, mine)
        assert all(torch.equal(mine, other) for other in everyones)
        assert trainer.global_step > 1 or pl_module.dictionary_step.replaced >= 2


def data(n_rows=450, seed=0, **options):
    """Rows with planted atoms; 405 of 450 are trained on, which do not divide by 2."""
    rows = PlantedRows(24, 2, noise=0.1, seed=seed)
    return EmbeddingRowsDataModule(null_model=rows, n_rows=n_rows, d_in=D, **FULL | options)


def module(seed=0, n_atoms=K, penalty=0.1, **options):
    torch.manual_seed(seed)
    return DictionaryLearning(n_atoms, penalty, options.pop("d_in", D), **options)


def saved(tmp_path, seed=0, **options):
    """A saved dictionary to start from."""
    torch.manual_seed(seed)
    return str(zoo.save(Dictionary(**{"d_in": D, "n_atoms": K} | options), tmp_path / "start"))


def equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize(("options", "memory"), MODES)
def test_the_loss_falls(make_trainer, options, memory):
    losses = Losses()
    m, d = module(memory=memory), data(**options)
    make_trainer(max_steps=20, callbacks=[losses]).fit(m, d)
    assert losses.values[-1] < 0.85 * losses.values[0]
    if memory == 0:
        objective = m.net.solve(d.W_E[d.train_rows]).objective.mean() / m.net.scale.double() ** 2
        assert losses.values[-1] == pytest.approx(objective.item(), rel=0.01)


@pytest.mark.parametrize(
    ("n_atoms", "batch_size", "memory", "max_steps"), [(64, None, 0.0, 40), (72, None, 0.0, 40), (96, 256, 0.9, 80)]
)
def test_planted_atoms_come_back_and_explain_rows_never_seen(make_trainer, n_atoms, batch_size, memory, max_steps):
    d = EmbeddingRowsDataModule(null_model=PlantedRows(64, 3), n_rows=2223, d_in=32, batch_size=batch_size)
    m, certificates = module(n_atoms=n_atoms, d_in=32, memory=memory), CertifiedRows()
    trainer = make_trainer(max_steps=max_steps)
    trainer.fit(m, d)
    metrics = make_trainer(limit_val_batches=1.0, callbacks=[certificates]).validate(m, d, verbose=False)[0]
    best = (F.normalize(d.true_atoms) @ m.net.W_dec.detach().T).abs().amax(1)
    assert (best > 0.9).float().mean() >= 0.9
    assert best.mean() > 0.97
    assert 2.5 < metrics["val/l0"] < 8
    assert metrics["val/fvu_debiased"] < 0.02 < metrics["val/fvu"] < 0.1  # which is shrunk by the penalty
    assert metrics["val/fvu_debiased"] == pytest.approx(metrics["val_train/fvu_debiased"], abs=0.005)
    assert metrics["val/fvu"] == pytest.approx(metrics["val_train/fvu"], abs=0.01)
    assert (certificates.certified, certificates.rows) == (True, 2223)


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("positive", [False, True])
def test_every_code_of_a_validation_is_certified(make_trainer, precision, positive):
    certificates = CertifiedRows()
    trainer = make_trainer(max_steps=5, precision=precision, limit_val_batches=1.0, num_sanity_val_steps=0)
    m, d = module(positive=positive), data()
    trainer.fit(m, d)
    trainer.callbacks.append(certificates)
    trainer.validate(m, d, verbose=False)
    assert (certificates.certified, certificates.rows) == (True, 450)


def test_half_precision_around_it_changes_nothing(make_trainer):
    results = []
    for precision in ("32-true", "bf16-mixed"):
        m, d = module(), data()
        trainer = make_trainer(precision=precision, limit_val_batches=1.0)
        trainer.fit(m, d)
        results.append((m.state_dict(), trainer.validate(m, d, verbose=False)[0]))
    equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_precision_that_scales_gradients_is_refused(make_trainer, refused):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with refused("precision 16-mixed scales gradients, .*; use 32-true or bf16-mixed"):
        make_trainer(plugins=[plugin]).fit(module(), data())


def test_weighted_rows_are_repeated_rows(make_trainer, tmp_path):
    counts = np.arange(450) % 4  # 0 is a row that is not there
    np.save(tmp_path / "counts.npy", counts)
    d = data(token_counts=str(tmp_path / "counts.npy"), frequency_power=1.0, val_fraction=0.0)
    np.save(tmp_path / "repeated.npy", d.W_E.repeat_interleave(torch.from_numpy(counts), 0).numpy())
    repeated = EmbeddingRowsDataModule(str(tmp_path / "repeated.npy"), **FULL, val_fraction=0.0)
    start, results = saved(tmp_path), []
    for rows in (d, repeated):
        m = module(tolerance=1e-7, replace_below=0.0, init_from=start)
        trainer = make_trainer(max_steps=6, limit_val_batches=1.0)
        trainer.fit(m, rows)
        assert m.dictionary_step.replaced == 0
        results.append((m.net.state_dict(), trainer.validate(m, rows, verbose=False)[0]))
    (one, metrics), (other, expected) = results
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-4, rtol=1e-4, msg=name)
    for name in ("val_train/fvu", "val_train/l0"):
        assert metrics[f"{name}_weighted"] == pytest.approx(expected[name], rel=1e-3)
        assert metrics[name] != pytest.approx(expected[name], rel=1e-3)


def test_a_rows_code_does_not_depend_on_its_weight(make_trainer, tmp_path):
    np.save(tmp_path / "counts.npy", np.arange(450) ** 2)
    m, trainer = module(), make_trainer(limit_val_batches=1.0)
    trainer.fit(m, data())
    weighted = data(token_counts=str(tmp_path / "counts.npy"), frequency_power=1.0)
    one, other = (trainer.validate(m, d, verbose=False)[0] for d in (data(), weighted))
    for name in ("val/fvu", "val/l0", "val/fvu_debiased", "val_train/fvu"):
        assert one[name] == other[name]
    assert one["val/fvu_weighted"] != other["val/fvu_weighted"]


def test_metrics_of_a_validation_are_those_of_the_checkpoint(make_trainer, tmp_path):
    m, d = module(), data()
    make_trainer(max_steps=8, enable_checkpointing=True, callbacks=[LastCheckpoint()]).fit(m, d)
    metrics = make_trainer(limit_val_batches=1.0).validate(m, d, verbose=False)[0]
    net = zoo.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert type(net) is Dictionary
    for split, x in (("val", d.W_E[d.held_out]), ("val_train", d.W_E[~d.held_out])):
        x_hat, codes = net.reconstruct(x)
        variance = (x - x.mean(0)).square().sum()
        assert metrics[f"{split}/fvu"] == pytest.approx(((x - x_hat).square().sum() / variance).item(), rel=1e-4)
        assert metrics[f"{split}/l0"] == pytest.approx((codes != 0).sum(1).float().mean().item(), rel=1e-6)
        free = least_squares_on_support(x - net.b_dec, net.W_dec, codes.to_sparse_csr()).to_dense()
        error = (x - net.decode(free)).square().sum() / variance
        assert metrics[f"{split}/fvu_debiased"] == pytest.approx(error.item(), rel=1e-4)
        assert error < metrics[f"{split}/fvu"]


def test_a_module_from_a_checkpoint_is_the_one_that_was_saved(make_trainer, tmp_path):
    m = module(penalty=0.2, positive=True, replace_below=0.3)
    make_trainer(enable_checkpointing=True, callbacks=[LastCheckpoint()]).fit(m, data())
    again = DictionaryLearning.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    equal(again.state_dict(), m.state_dict())
    assert dict(again.hparams) == dict(m.hparams)
    assert again.net.config == m.net.config


def test_embedding_drift_follows_the_atoms(make_trainer, tmp_path):
    m, d = module(), data()
    assert m.embedding_rows()["W_dec"] is m.net.W_dec
    start = saved(tmp_path)
    m = module(init_from=start)
    make_trainer(max_steps=3, callbacks=[EmbeddingDrift(every_n_steps=1)]).fit(m, d)
    table = np.genfromtxt(tmp_path / "run" / "embedding_drift" / "W_dec.csv", delimiter=",", names=True)
    expected = (m.net.W_dec.detach() - zoo.load(start).W_dec).norm(dim=1)
    torch.testing.assert_close(torch.from_numpy(table["distance"]).float(), expected)


def test_training_starts_from_the_mean_and_spread_of_the_rows_and_from_rows(make_trainer, tmp_path):
    np.save(tmp_path / "counts.npy", np.arange(450) // 100)
    d = data(token_counts=str(tmp_path / "counts.npy"), frequency_power=1.0)
    m = module()
    m.trainer = make_trainer()
    m.trainer.datamodule = d
    m.setup("fit")
    x, weight = d.W_E[d.train_rows].double(), d.row_weights[d.train_rows].double()
    mean = weight @ x / weight.sum()
    torch.testing.assert_close(m.net.b_dec, mean.float())
    spread = (weight @ (x - mean).square().sum(1) / weight.sum()).sqrt()
    assert m.net.scale.item() == pytest.approx(spread.item())
    cosines = m.net.W_dec.detach() @ F.normalize(d.W_E[d.train_rows] - m.net.b_dec).T
    torch.testing.assert_close(cosines.amax(1), torch.ones(K))
    assert (weight[cosines.argmax(1)] > 0).all()


def test_training_goes_on_from_a_saved_dictionary(make_trainer, tmp_path):
    first = module()
    losses, going_on = Losses(), Losses()
    make_trainer(max_steps=10, callbacks=[losses]).fit(first, data())
    source = zoo.save(first.net, tmp_path / "first")
    m = module(seed=1, init_from=str(source))
    assert torch.equal(m.net.W_dec, first.net.W_dec)
    make_trainer(max_steps=3, callbacks=[going_on]).fit(m, data())
    torch.testing.assert_close(m.net.b_dec, first.net.b_dec)
    assert going_on.values[0] < 1.001 * losses.values[-1]
    shifted = module(init_from=str(source))
    make_trainer(max_steps=1).fit(shifted, data(seed=1))  # other rows: mean and the unit of the penalty are theirs
    assert not torch.allclose(shifted.net.b_dec, first.net.b_dec, atol=1e-3)


def test_a_dictionary_of_another_kind_or_size_is_refused(tmp_path, refused):
    source = saved(tmp_path)
    with refused(r"is a Dictionary in which W_dec has shape \[40, 16\]; in this run its shape is \[41, 16\]"):
        module(n_atoms=41, init_from=source)
    with refused(r"is a Dictionary in which \w+ has shape .*16\]; in this run its shape is .*17\]"):
        module(d_in=17, init_from=source)
    autoencoder = zoo.save(TopKSAE(D, K, k=2), tmp_path / "sae")
    with refused("is a TopKSAE, but this run trains a Dictionary"):
        module(init_from=str(autoencoder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 1.0}, "memory is 1.0; it must be at least 0 and below 1"),
        ({"memory": -0.1}, "memory is -0.1"),
        ({"replace_below": 1.0}, "replace_below is 1.0"),
        ({"penalty": 0.0}, "penalty is 0.0"),
        ({"n_atoms": 0}, "n_atoms is 0"),
        ({"d_in": 0}, "d_in is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(refused, options, message):
    with refused(message):
        module(**options)


@pytest.mark.parametrize("task", ["fit", "validate"])
def test_data_of_another_dimension_are_refused(make_trainer, refused, task):
    with refused("the data have 16 dimensions, but d_in of the model is 17"):
        getattr(make_trainer(), task)(module(d_in=17), data())


def test_as_many_atoms_as_rows_are_no_finding(make_trainer, caplog):
    make_trainer(max_steps=1).fit(module(n_atoms=410), data())
    assert "410 atoms for 405 training rows" in caplog.text


@pytest.mark.parametrize(("options", "memory"), MODES)
def test_a_resumed_run_ends_in_the_same_bits(make_trainer, tmp_path, options, memory):
    schedule = {"max_steps": 9, "val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 1.0}
    losses, going_on = Losses(), Losses()
    whole, trainer = module(memory=memory), make_trainer(**schedule, callbacks=[ExactResume(), losses])
    trainer.fit(whole, data(**options))
    part, stopped = module(memory=memory), make_trainer(**schedule, callbacks=[ExactResume(), Stop(5)])
    stopped.fit(part, data(**options))
    stopped.save_checkpoint(tmp_path / "part.ckpt")
    resumed, again = module(1, memory=memory), make_trainer(**schedule, callbacks=[ExactResume(), going_on])
    again.fit(resumed, data(**options), ckpt_path=tmp_path / "part.ckpt")
    assert (stopped.global_step, again.global_step) == (5, 9)
    assert ("codes" in torch.load(tmp_path / "part.ckpt")) == (memory == 0)  # of all rows, for the next step
    assert not torch.equal(part.net.W_dec, whole.net.W_dec)
    equal(resumed.state_dict(), whole.state_dict())
    equal(again.callback_metrics, trainer.callback_metrics)
    assert going_on.values == losses.values[5:]


@pytest.mark.parametrize(("options", "memory"), MODES)
def test_two_processes_reach_the_dictionary_of_one(make_trainer, tmp_path, options, memory):
    start = zoo.load(saved(tmp_path))
    start.W_dec[[3, 7]] = 0  # two atoms that nobody can use, and a step will replace
    source, results = zoo.save(start, tmp_path / "zeros"), []
    for devices in (1, 2):
        m, d = module(init_from=str(source), tolerance=1e-6, memory=memory), data(**options)
        callbacks = [SameOnAllRanks()] if devices == 2 else []
        schedule = {"max_steps": 5, "limit_val_batches": 1.0, "log_every_n_steps": 1}
        trainer = make_trainer(devices=devices, callbacks=callbacks, **schedule)
        trainer.fit(m, d)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        results.append((m.net.state_dict(), metrics | trainer.validate(m, d, verbose=False)[0]))
    (one, metrics_one), (two, metrics_two) = results
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5, msg=name)
    assert metrics_two == pytest.approx(metrics_one, rel=1e-3)
    assert {"train/loss", "train/fvu", "train/l0", "val/fvu"} <= metrics_one.keys()
    assert metrics_one["train/uncertified"] == metrics_one["train/replaced"] == 0
    assert not torch.allclose(one["W_dec"], start.W_dec, atol=0.1)


@pytest.mark.parametrize(("options", "memory"), MODES)
def test_a_run_of_two_processes_resumes_in_the_same_bits(make_trainer, tmp_path, options, memory):
    def fit(name, *callbacks, ckpt_path=None):
        m = module(seed=0 if ckpt_path is None else 1, memory=memory)
        saving = {"enable_checkpointing": True, "default_root_dir": str(tmp_path / name)}
        callbacks = [ExactResume(), LastCheckpoint(100), *callbacks]
        make_trainer(devices=2, max_steps=6, callbacks=callbacks, **saving).fit(m, data(**options), ckpt_path=ckpt_path)
        return m.state_dict(), tmp_path / name / "checkpoints" / "last.ckpt"

    whole, _ = fit("whole")
    part, checkpoint = fit("part", Stop(3))
    resumed, _ = fit("resumed", ckpt_path=checkpoint)
    assert torch.load(checkpoint)["global_step"] == 3
    assert not torch.equal(part["net.W_dec"], whole["net.W_dec"])
    equal(resumed, whole)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--trainer.gradient_clip_val=1", "gradient clipping is not supported"),
        ("--trainer.accumulate_grad_batches=2", "gradient accumulation is not supported"),
    ],
)
def test_what_only_gradients_have_is_refused_in_one_line(tmp_path, monkeypatch, capsys, argument, message):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "argv", ["zoo"])
    arguments = ["fit", "--config", "cli_configs/basis_pursuit/embedding.yaml", "--run_dir", str(tmp_path / "run")]
    assert main([*arguments, "--trainer.max_steps=1", argument]) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in error
