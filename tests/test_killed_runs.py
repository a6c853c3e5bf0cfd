"""A run that was killed at any moment and resumed leaves everything that an undisturbed one leaves."""

import lightning as L
import numpy as np
import pytest
import torch
from killed_runs import KillAfterSaving, KillAt, SignalAt, differing, forked, left_by
from lightning.pytorch.loggers import TensorBoardLogger
from processes import ROOT, last, training_args
from small_corpus import make_corpus
from tiny_transformers import save

from zoo.__main__ import main
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.callbacks import (
    AtomReport,
    Certificates,
    EmbeddingDrift,
    FeatureGeometry,
    GateErrors,
    LastCheckpoint,
    LogSpacedCheckpoints,
    ReconstructionError,
    RunProgress,
    SplicedLoss,
    tables_and_pictures,
)
from zoo.cli import ALWAYS
from zoo.datamodules import (
    ActivationsDataModule,
    EmbeddingRowsDataModule,
    LocalFiles,
    PlantedRows,
    SparseFeaturesDataModule,
    TextDataModule,
    TrainedBPE,
)
from zoo.models import (
    AdamLinear,
    AdamWCosine,
    DictionaryLearning,
    FrozenEmbeddingGPT2,
    GatedSAE,
    SparseAutoencoder,
    TopKSAE,
    ToySuperposition,
    UniversalGates,
)

STEPS = 12
ADAM = AdamLinear(learning_rate=0.01, warmup_steps=3)


def gpt2(folder, batch_size=4):
    data = TextDataModule(
        LocalFiles([str(folder / "corpus")]),
        TrainedBPE(300),
        context_length=16,
        batch_size=batch_size,
        val_fraction=0.15,
        test_fraction=0.15,
        cache_dir=str(folder / "cache"),
    )
    model = FrozenEmbeddingGPT2(300, 16, 16, 1, 2, dropout=0.1, frozen_rows="5-", optimizer=AdamWCosine(decay_steps=99))
    return model, data, [EmbeddingDrift(5)]


def rows(folder, **options):
    np.save(folder / "counts.npy", 1 + np.arange(150) ** 2 % 101)
    counts = str(folder / "counts.npy")
    return EmbeddingRowsDataModule(
        null_model=PlantedRows(20, 2, noise=0.1), n_rows=150, d_in=16, token_counts=counts, batch_size=32, **options
    )


def autoencoder(folder):
    model = SparseAutoencoder(GatedSAE(16, 32, l1_coefficient=1.0), ADAM, dead_after=100, sparsity_warmup_steps=3)
    return model, rows(folder, frequency_power=0.5), [ReconstructionError(), AtomReport(), EmbeddingDrift(5)]


def dictionary(folder):
    callbacks = [ReconstructionError(), AtomReport(), Certificates()]
    return DictionaryLearning(20, 0.1, 16, tolerance=1e-6, memory=0.8), rows(folder), callbacks


def features(folder):
    data = SparseFeaturesDataModule(6, BernoulliActive(1.0), "uniform", n_seeds=2, batch_size=32, n_validation=65)
    return ToySuperposition(6, 3, 2, importance=0.8, optimizer=ADAM), data, [FeatureGeometry(), ReconstructionError()]


def gates(folder):
    data = SparseFeaturesDataModule(12, FixedActive(2, 2), n_seeds=2, batch_size=32, n_validation=65)
    model = UniversalGates(12, 12, 10, 2, depth=3, n_groups=2, error_correction=True, gate="xor", optimizer=ADAM)
    return model, data, [GateErrors(), EmbeddingDrift(5)]


def activations(folder):
    source = folder / "llama"
    if not source.is_dir():
        texts = [path.read_text() for path in sorted((folder / "corpus").iterdir())]
        save("llama", source, TrainedBPE(300).tokenizer(texts), torch.bfloat16, bos=True)
    options = {"layer": 1, "site": ["resid_pre", "mlp_out"], "model_dtype": "stored", "sequence_length": 16}
    options |= {"batch_size": 24, "positions_per_context": 3, "val_fraction": 0.15, "test_fraction": 0.15}
    corpus, cache = LocalFiles([str(folder / "corpus")]), str(folder / "cache")
    data = ActivationsDataModule(str(source), corpus=corpus, cache_dir=cache, val_contexts=300, **options)
    model = SparseAutoencoder(TopKSAE(32, 64, k=4), ADAM, dead_after=100)
    return model, data, [ReconstructionError(), AtomReport(), SplicedLoss()]


FAMILIES = {f.__name__: f for f in (gpt2, autoencoder, dictionary, features, gates, activations)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, and what the runs of this file share."""
    folder = tmp_path_factory.mktemp("killed")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A function that trains in a process of its own, from `last.ckpt` if there is one; its exit code."""

    def run(name, family, kill=None, devices=1, validate=4, save=4, batch_size=None, **options):
        def train():
            tables_and_pictures.render = lambda figure: np.zeros((1, 1, 4), np.uint8)  # most of the time
            L.seed_everything(0, verbose=False)
            model, data, callbacks = FAMILIES[family](folder, **({"batch_size": batch_size} if batch_size else {}))
            given = (LastCheckpoint, RunProgress)
            callbacks += [LastCheckpoint(save), LogSpacedCheckpoints(), *(c() for c in ALWAYS if c not in given)]
            checkpoint = last(folder / name)
            trainer = L.Trainer(
                **{"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 3} | options,
                accelerator="cpu",
                devices=devices,
                strategy="ddp_fork" if devices > 1 else "auto",
                callbacks=callbacks + ([kill] if kill else []),
                val_check_interval=validate,
                check_val_every_n_epoch=None,
                log_every_n_steps=2,
                num_sanity_val_steps=2,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                default_root_dir=str(folder / name),
                logger=TensorBoardLogger(folder / name, name="", version="", purge_step=None),
            )
            trainer.fit(model, data, ckpt_path=str(checkpoint) if checkpoint.exists() else None)

        return forked(folder / f"{name}.txt", train)

    return run


@pytest.fixture(scope="module")
def undisturbed(folder, run):
    """What a run leaves that nobody kills; every such run is made once."""
    left = {}

    def make(family, **options):
        name = "-".join([family, *(f"{key}{value}" for key, value in options.items())])
        if name not in left:
            assert run(name, family, **options) == 0, (folder / f"{name}.txt").read_text()
            left[name] = left_by(folder / name, folder / f"{name}.txt")
        return left[name]

    return make


@pytest.fixture
def check(folder, run, undisturbed, request):
    """A function that kills a run, once or several times, resumes it, and compares all that it leaves."""

    def check(family, *kills, **options):
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)
        for kill in kills:
            code = run(name, family, kill, **options)
            killed_alone = isinstance(kill, KillAt) and options.get("devices", 1) == 1
            assert code == (-9 if killed_alone else 70), (folder / f"{name}.txt").read_text()
        assert run(name, family, **options) == 0, (folder / f"{name}.txt").read_text()
        found = differing(undisturbed(family, **options), left_by(folder / name, folder / f"{name}.txt"))
        assert not found, "\n".join(found)

    return check


MOMENTS = {
    "before the checkpoint of a validated step": KillAt("on_train_batch_end", 8),
    "after the checkpoint, before the validation": KillAfterSaving("on_train_batch_end", 8),
    "within a validation": KillAt("on_validation_batch_end", 8, 2),
    "after a validation": KillAfterSaving("on_validation_end", 8),
    "between two validations": KillAt("on_train_batch_start", 10),
    "before the last checkpoint": KillAt("on_train_batch_end", 12),
    "after the last checkpoint": KillAfterSaving("on_train_batch_end", 12),
    "within the last validation": KillAt("on_validation_batch_end", 12),
    "when training ends": KillAt("on_train_end", 12),
}
CORE = {
    ("gpt2", "after the checkpoint, before the validation"),
    ("gpt2", "within the last validation"),
    ("gpt2", "when training ends"),
    ("autoencoder", "between two validations"),
    ("autoencoder", "within the last validation"),
    ("dictionary", "after a validation"),
    ("features", "within a validation"),
    ("gates", "after the last checkpoint"),
    ("activations", "between two validations"),
}


@pytest.mark.parametrize(
    ("family", "moment"),
    [
        pytest.param(family, moment, marks=() if (family, moment) in CORE else pytest.mark.slow)
        for family in FAMILIES
        for moment in MOMENTS
    ],
)
def test_a_run_killed_at_any_moment_leaves_all_that_an_undisturbed_one_leaves(check, family, moment):
    check(family, MOMENTS[moment])


def test_a_run_killed_twice_leaves_all_that_an_undisturbed_one_leaves(check):
    check("gpt2", KillAt("on_validation_batch_end", 4), KillAfterSaving("on_train_batch_end", 8))


@pytest.mark.parametrize(
    "family", [f if f == "features" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_a_run_that_ends_long_after_its_last_validation_closes_with_what_that_had_measured(check, family):
    check(family, KillAt("on_train_batch_start", 11), validate=8, save=10)


@pytest.mark.parametrize("ends_by", ["max_steps", pytest.param("max_epochs", marks=pytest.mark.slow)])
def test_a_run_killed_at_the_end_of_an_epoch_leaves_all_that_an_undisturbed_one_leaves(check, folder, ends_by):
    _, data, _ = gpt2(folder, batch_size=100)
    data.prepare_data()
    data.setup()
    n = len(data.train_dataloader())
    assert 2 < n < 12
    end = {"max_steps": 3 * n} if ends_by == "max_steps" else {"max_epochs": 3, "max_steps": -1}
    kills = (KillAfterSaving("on_train_batch_end", n), KillAt("on_train_batch_start", 2 * n + 1))
    check("gpt2", *kills, validate=n, save=n, batch_size=100, **end)


@pytest.mark.parametrize(
    ("family", "rank"),
    [
        ("autoencoder", 0),
        pytest.param("autoencoder", 1, marks=pytest.mark.slow),
        pytest.param("activations", 1, marks=pytest.mark.slow),
    ],
)
def test_two_processes_of_which_one_is_killed_leave_all_that_undisturbed_ones_leave(check, family, rank):
    check(family, KillAt("on_validation_batch_end", 12, rank=rank), devices=2)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5, 9])
def test_a_run_that_adds_up_gradients_leaves_all_that_an_undisturbed_one_leaves(check, step):
    validate = 5 if step == 5 else 6  # every fifth batch is in the midst of a step
    check("gpt2", KillAt("on_validation_batch_end", step), accumulate_grad_batches=2, validate=validate, save=3)


@pytest.mark.parametrize(("devices", "step"), [(1, 8), (1, 12), (2, 12)])
def test_sigterm_within_a_validation_stops_within_it_and_the_resumed_run_makes_it_up(check, folder, devices, step):
    stop = SignalAt("on_validation_batch_end", step, 2, devices - 1)
    counted = {"devices": devices, "limit_val_batches": 1.0}
    check("gpt2", stop, validate=4, **counted)
    (log,) = [file.read_text() for file in folder.glob("test-sigterm*.txt") if f"-{devices}-{step}-" in file.name]
    assert f"stopped by SIGTERM after step {step}" in log


def test_a_second_ctrl_c_ends_a_run_at_once_with_code_130_and_says_how_to_resume(folder, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(folder / "cache"))
    monkeypatch.chdir(ROOT)
    run = folder / "with a space"
    twice = {"hook": "on_train_batch_start", "step": 75, "signums": "[2, 2]"}
    args = [*training_args(folder / "corpus", run), "--trainer.accelerator", "cpu"]
    args += ["--trainer.callbacks+=killed_runs.SignalAt", *(f"--trainer.callbacks.{k}={v}" for k, v in twice.items())]
    args = [str(word) for word in args]
    log = folder / "interrupted.txt"
    assert forked(log, lambda: main(args)) == 130, log.read_text()
    assert log.read_text().splitlines()[-1] == f"resume with: python -m zoo fit --ckpt_path '{last(run)}'"
