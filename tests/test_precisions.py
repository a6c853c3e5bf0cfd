"""Numbers are right in every precision of the Trainer, or the precision is refused."""

import copy
import csv
import inspect
import math
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from supported.precisions import FAMILIES, PRECISIONS, refusal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zoo
from zoo import metrics, models, precision
from zoo.__main__ import main
from zoo.callbacks import (
    AtomReport,
    Certificates,
    EmbeddingDrift,
    FiniteLoss,
    LogSpacedCheckpoints,
    ReconstructionError,
)
from zoo.metrics import row_drift
from zoo.models import SAE, AdamLinear, BatchTopKSAE, FrozenEmbeddingGPT2, JumpReLUSAE, SparseAutoencoder
from zoo.models.zoo_module import ZooModule
from zoo.source import Source

ROUNDING = {"32-true": 1e-5, "64-true": 1e-6, "bf16-mixed": 0.02, "16-mixed": 0.02, "bf16-true": 0.03, "16-true": 0.01}
CALLBACKS = (EmbeddingDrift, FiniteLoss)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a corpus of 60 documents."""
    from small_corpus import make_corpus

    folder = tmp_path_factory.mktemp("precisions")
    return folder, make_corpus(folder)


def trained(family, precision, prepared, make_trainer, steps=10, callbacks=CALLBACKS):
    """A module of a family trained in a precision, its data and what its last validation measured."""
    L.seed_everything(0, verbose=False)
    make_module, make_data = FAMILIES[family]
    module, data = make_module(), make_data(*prepared)
    trainer = make_trainer(
        max_steps=steps,
        precision=precision,
        limit_val_batches=1.0,
        check_val_every_n_epoch=None,
        val_check_interval=steps,
        callbacks=[made() for made in callbacks],
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Lightning says that it takes bf16-mixed for 16-mixed on a CPU
        trainer.fit(module, data)
    return module, data, {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def in_float32(prepared):
    """A function that gives a copy of a family's module trained in float32, its data and measurements; trained once."""
    runs = {}

    def get(family, make_trainer):
        if family not in runs:
            runs[family] = trained(family, "32-true", prepared, make_trainer)
        return copy.deepcopy(runs[family][0]), *runs[family][1:]

    return get


def measured_in_float64(module, data):
    """Loss of a GPT-2, or fraction of variance unexplained of anything else, by formula in float64."""
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        if isinstance(module, FrozenEmbeddingGPT2):
            total, n = 0.0, 0
            for batch in data.val_dataloader():
                logits, targets = module.net(batch["input_ids"]).flatten(0, 1), batch["targets"].flatten()
                total += F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
                n += int((targets != -100).sum())
            return "val/loss", total / n
        found = []
        for batch in data.val_dataloader():
            batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
            out = module.validation_step(batch, 0)
            kept = batch["held_out"] if len(batch["held_out"]) == len(out["x"]) else slice(None)
            found.append((out["x"][kept], out["x_hat"][kept]))
    x, x_hat = (torch.cat(parts) for parts in zip(*found, strict=True))
    return "val/fvu", ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


def test_every_module_and_every_autoencoder_is_tried():
    classes = {name: getattr(models, name) for name in models.__all__}
    classes = {name: cls for name, cls in classes.items() if isinstance(cls, type) and not inspect.isabstract(cls)}
    trained = {name for name, cls in classes.items() if issubclass(cls, (ZooModule, SAE))}
    trained -= {"SparseAutoencoder", "ZooModule", "ReconstructionModule", "ToyModule"}  # which others stand for
    assert trained == set(FAMILIES)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_validation_measures_what_the_trained_weights_measure_in_float64(
    family, precision, prepared, in_float32, make_trainer, refused
):
    if match := refusal(family, precision, "fit"):
        with refused(match):
            trained(family, precision, prepared, make_trainer)
        return
    if precision == "32-true":
        module, data, metrics = in_float32(family, make_trainer)
    else:
        module, data, metrics = trained(family, precision, prepared, make_trainer)
    name, value = measured_in_float64(module, data)
    assert metrics[name] == pytest.approx(value, rel=ROUNDING[precision])


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_trained_in_float32_measure_the_same_when_validated_in_half_precision(
    family, precision, in_float32, make_trainer, refused
):
    module, data, metrics = in_float32(family, make_trainer)
    trainer = make_trainer(precision=precision, limit_val_batches=1.0, callbacks=[FiniteLoss()])
    if match := refusal(family, precision, "validate"):
        with refused(match):
            trainer.validate(module, data, verbose=False)
        return
    name = "val/loss" if "val/loss" in metrics else "val/fvu"
    (found,) = trainer.validate(module, data, verbose=False)
    assert found[name] == pytest.approx(metrics[name], rel=0.02)


@pytest.mark.parametrize("family", ["TopKSAE", "FrozenEmbeddingGPT2"])
def test_training_in_bfloat16_weights_goes_on_about_as_in_float32(family, prepared, make_trainer):
    ends = [trained(family, p, prepared, make_trainer, steps=40)[2] for p in ("32-true", "bf16-true")]
    name = "val/loss" if "val/loss" in ends[0] else "val/fvu"
    assert ends[1][name] == pytest.approx(ends[0][name], rel=0.1)


class ManyBatches:
    """The same few validation batches over and over, 2,000 in all."""

    batches = "tokens"

    def __init__(self, data):
        self.some = list(data.val_dataloader())

    def __len__(self):
        return 2000

    def __iter__(self):
        return (self.some[i % len(self.some)] for i in range(2000))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_the_mean_of_2000_batches_is_that_of_their_losses(precision, tiny_data, make_trainer):
    L.seed_everything(0, verbose=False)
    module, batches = FrozenEmbeddingGPT2(300, 16, 8, 1, 1, frozen_rows="none"), ManyBatches(tiny_data)
    module.net.lm_head.weight.data.mul_(40)  # losses that differ from one batch to the next
    trainer = make_trainer(precision=precision, limit_val_batches=1.0)
    (found,) = trainer.validate(module, batches, verbose=False)
    total, n = 0.0, 0
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for first, batch in enumerate(batches.some):
            targets = batch["targets"].flatten()
            logits = module.net(batch["input_ids"]).flatten(0, 1)
            losses = F.cross_entropy(logits.double(), targets, ignore_index=-100, reduction="none")
            times = len(range(first, 2000, len(batches.some)))
            total, n = total + times * losses.sum().item(), n + times * int((targets != -100).sum())
    assert n > 2**16  # at which sums in float16 are infinite
    assert found["val/loss"] == pytest.approx(total / n, rel=1e-3)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_cast_leaves_every_sum_and_every_running_mean_precise(half):
    module = SparseAutoencoder(BatchTopKSAE(4, 8, k=2)).to(half)
    assert module.net.W_dec.dtype == half
    assert (module.net.scale.dtype, module.net.threshold.dtype) == (torch.float32, torch.float32)
    assert module.examples_since_fired.dtype == torch.int64
    assert {getattr(module.held_out, name).dtype for name in module.held_out.names} == {torch.float64}
    assert module.double().net.threshold.dtype == torch.float64


def test_a_buffer_that_was_cast_to_half_precision_keeps_every_digit():
    sae = BatchTopKSAE(4, 8, k=2)
    sae.scale.fill_(1.001)
    assert sae.bfloat16().scale == torch.tensor(1.001)


def test_the_threshold_of_inference_reaches_its_limit_in_bfloat16():
    sae = BatchTopKSAE(4, 8, k=2, threshold_decay=0.999).bfloat16().train()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    sae.codes(x)
    limit = sae.threshold.clone()
    sae.threshold.mul_(2)
    for _ in range(10_000 // 2):
        sae.codes(x)
    assert sae.threshold.item() == pytest.approx(limit.item(), rel=0.01)


def test_penalties_in_half_precision_are_sums_in_float32():
    sae = JumpReLUSAE(4, 8, initial_threshold=0.0).bfloat16().train()
    x = torch.randn(1001, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    n_on = int((sae.encode(x) > 0).sum())
    assert sae.loss(x).terms["l0"].item() == pytest.approx(n_on / 1001 / 4, rel=1e-6)


def test_drift_of_rows_in_float64_is_not_rounded_to_float32():
    rows = torch.ones(2, 3, dtype=torch.float64)
    moved = rows + torch.tensor([[1e-10], [0.0]], dtype=torch.float64)
    assert row_drift(moved, rows)["distance"].tolist() == pytest.approx([1e-10 * math.sqrt(3), 0.0], rel=1e-5)


def test_a_checkpoint_of_bfloat16_weights_says_so_and_loads_exactly(prepared, make_trainer, tmp_path):
    module, _, _ = trained("TopKSAE", "bf16-true", prepared, make_trainer, callbacks=(LogSpacedCheckpoints,))
    folder = tmp_path / "run" / "steps" / "step-000010"
    assert Source.open(folder).zoo_part()["dtype"] == "bfloat16"
    assert torch.equal(zoo.load(folder).W_dec, module.net.W_dec.float())


@pytest.mark.parametrize("family", ["FrozenEmbeddingGPT2", "ReLUSAE", "ToySuperposition"])
def test_a_validation_that_is_not_finite_is_refused(family, prepared, make_trainer, refused):
    make_module, make_data = FAMILIES[family]
    module, data = make_module(), make_data(*prepared)
    next(module.net.parameters()).data[0, 0] = math.nan
    trainer = make_trainer(limit_val_batches=1.0, callbacks=[FiniteLoss()])
    for run in (trainer.validate, trainer.test):
        with refused("is nan, which is not finite; check whether the weights and the data are finite"):
            run(module, data, verbose=False)


def test_a_run_ends_at_a_validation_that_is_not_finite(tiny_data, make_trainer, refused):
    class Break(L.Callback):
        def on_validation_start(self, trainer, pl_module):
            if trainer.global_step == 2:
                pl_module.net.W_E.data[5] = math.inf

    trainer = make_trainer(
        limit_val_batches=1.0, check_val_every_n_epoch=None, val_check_interval=2, callbacks=[FiniteLoss(), Break()]
    )
    with refused("val/loss is nan at step 2, which is not finite; nothing was saved yet"):
        trainer.fit(FrozenEmbeddingGPT2(300, 16, 16, 1, 2), tiny_data)


def test_the_command_line_refuses_a_validation_in_float16_that_overflows(tiny_corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    data = [
        "--data.corpus",
        "LocalFiles",
        "--data.corpus.paths",
        f"[{tiny_corpus}]",
        "--data.val_fraction",
        "0.2",
        "--data.test_fraction",
        "0.2",
    ]
    data += ["--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300", "--data.context_length", "16"]
    model = ["--model.embedding", "GaussianEmbedding", "--model.embedding.std", "30000", "--model.n_layers", "1"]
    args = ["--config", "cli_configs/quickstart.yaml", *data, *model, "--trainer.precision", "16-true"]
    assert main(["validate", *args]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: val/loss is nan, which is not finite; trainer.precision 16-true has no numbers above 65,504; use "
        "bf16-mixed or 32-true"
    )


class NoFloat64(TorchDispatchMode):
    """Makes the meta device one without float64, as Apple's mps is; what is copied to the CPU becomes ones."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (
            function is torch.ops.aten._to_copy.default
            and args[0].is_meta
            and kwargs.get("device") == torch.device("cpu")
        ):
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        out = function(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        assert not any(t.is_meta and t.dtype == torch.float64 for t in made), f"{function} made float64"
        return out


@pytest.fixture
def no_float64(monkeypatch):
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("meta",))
    with NoFloat64():
        yield torch.device("meta")


@pytest.mark.parametrize(
    "name", ["ReconstructionMetrics", "FVU", "SeedMeans", "TokenLoss", "LossRecovered", "CaseErrors"]
)
def test_metrics_keep_their_sums_on_the_cpu_where_a_device_has_no_float64(name, no_float64):
    made = {"ReconstructionMetrics": (6,), "SeedMeans": (3,), "CaseErrors": (3,)}
    metric = getattr(metrics, name)(*made.get(name, ())).to(no_float64)
    x, logits = torch.zeros(5, 4, device=no_float64), torch.zeros(5, 7, device=no_float64)
    updates = {
        "ReconstructionMetrics": lambda: (
            x,
            x,
            torch.zeros(5, 6, device=no_float64),
            torch.zeros(5, device=no_float64),
        ),
        "FVU": lambda: (x, x),
        "SeedMeans": lambda: (torch.zeros(3, device=no_float64), 5),
        "TokenLoss": lambda: (torch.zeros((), device=no_float64), torch.zeros((), device=no_float64).long()),
        "LossRecovered": lambda: (logits, logits, logits, torch.zeros(5, dtype=torch.int64)),
        "CaseErrors": lambda: (torch.zeros(3, 5, 2, device=no_float64), torch.zeros(3, 5, 2, device=no_float64)),
    }
    metric.update(*updates[name]())
    states = [getattr(metric, state) for state in metric.names]
    assert {(state.device.type, state.dtype) for state in states} == {("cpu", torch.float64)}


def test_callbacks_keep_their_sums_on_the_cpu_where_a_device_has_no_float64(no_float64):
    trainer = SimpleNamespace(datamodule=SimpleNamespace(row_labels=["a", "b", "c"]))
    module = SimpleNamespace(device=no_float64)
    made = {name: torch.zeros(5, 4, device=no_float64) for name in ("x", "x_hat", "codes")}
    made |= {"relative_gap": torch.zeros(5, device=no_float64), "certified": torch.zeros(5, device=no_float64).bool()}
    batch = {"row": torch.zeros(5, device=no_float64).long(), "held_out": torch.zeros(5, device=no_float64).bool()}
    for callback, state in ((ReconstructionError(), "_sums"), (Certificates(), "_largest")):
        callback.on_validation_epoch_start(trainer, module)
        callback.on_validation_batch_end(trainer, module, made, batch, 0)
        assert getattr(callback, state)[1, 0] == (5.0 if state == "_sums" else 1.0)


def test_the_table_of_atoms_in_half_precision_is_that_of_float32(in_float32, make_trainer, tmp_path):
    module, data, _ = in_float32("TopKSAE", make_trainer)
    tables = []
    for kind in ("32-true", "bf16-true"):
        trainer = make_trainer(
            max_steps=4,
            precision=kind,
            limit_val_batches=1.0,
            callbacks=[AtomReport()],
            check_val_every_n_epoch=None,
            val_check_interval=2,
            num_sanity_val_steps=0,
        )
        module.optimizer = AdamLinear(0.0)
        trainer.fit(copy.deepcopy(module).float(), data)
        with (tmp_path / "run" / "atoms" / "atoms.csv").open() as file:
            tables.append(
                [[float(row[c]) for c in ("firing_frequency", "decoder_norm")] for row in csv.DictReader(file)]
            )
    torch.testing.assert_close(torch.tensor(tables[1]), torch.tensor(tables[0]), atol=0.02, rtol=0.01)
