"""Nothing mixes devices, and a step that logs nothing does not wait for one."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from pretended_device import CPU, DEVICE, PretendedDevice
from small_corpus import make_corpus
from small_gpt2 import network
from supported.precisions import FAMILIES
from torch.nn.utils import clip_grad

import zoo
from zoo.active_inputs import FixedActive
from zoo.callbacks import (
    AtomReport,
    Certificates,
    EmbeddingDrift,
    ExactResume,
    FeatureGeometry,
    FiniteLoss,
    GateErrors,
    GracefulStop,
    ReconstructionError,
    SplicedLoss,
    Throughput,
    tables_and_pictures,
)
from zoo.datamodules import ActivationsDataModule, LocalFiles, SparseFeaturesDataModule, TrainedBPE
from zoo.models import SparseAutoencoder, TopKSAE, UniversalGates
from zoo.models.sae import dispatch

NONE_DEAD, SOME_DEAD = ", no latent can be dead", ", some latents are dead"
IN_DEPTH, ACTIVATIONS = "gates in depth", "TopKSAE of activations"
WAITS = {  # family -> largest number of waits of a step that logs nothing
    **dict.fromkeys(("FrozenEmbeddingGPT2", "ToySuperposition", "SkipBigramAttention"), 0),
    **{f"{variant}SAE{NONE_DEAD}": 0 for variant in ("TopK", "ReLU", "JumpReLU", "Gated")},
    f"TopKSAE{SOME_DEAD}": 1,  # which are dead
    f"BatchTopKSAE{NONE_DEAD}": 3,  # which entries exceed a bound, how many are on, and which
    f"MatryoshkaSAE{NONE_DEAD}": 3,
    "UniversalGates": 2,  # which inputs are on, and which gates have one of them
    IN_DEPTH: 6,
}
CALLBACKS = {  # those that do not measure every module
    "ToySuperposition": (FeatureGeometry, ReconstructionError),
    "UniversalGates": (GateErrors, ReconstructionError),
    "TopKSAE": (AtomReport, ReconstructionError),
    "DictionaryLearning": (Certificates, AtomReport, ReconstructionError),
    ACTIVATIONS: (SplicedLoss, AtomReport, ReconstructionError),
}


class NotThere(CPUAccelerator):
    """The accelerator of a pretended device."""

    def setup_device(self, device):
        assert device == DEVICE


def in_depth(*_):
    """Gates of 3 depths on 4 groups of inputs, as in cli_configs/toy/u_and_composed.yaml."""
    data = SparseFeaturesDataModule(16, FixedActive(2, n_groups=4), batch_size=8, n_validation=8)
    return UniversalGates(16, 16, 8, depth=3, n_groups=4, error_correction=True), data


def of_activations(folder, corpus):
    """An autoencoder of the residual stream of a GPT-2."""
    source = str(zoo.save(network(vocab_size=300, context_length=16), folder / "model"))
    text = {"corpus": LocalFiles([str(corpus)]), "tokenizer": TrainedBPE(300), "cache_dir": str(folder / "cache")}
    sizes = {"sequence_length": 16, "batch_size": 64, "positions_per_context": 8, "val_contexts": 4}
    data = ActivationsDataModule(source, 1, **text, **sizes, val_fraction=0.15, test_fraction=0.15)
    return SparseAutoencoder(TopKSAE(16, 40, 3)), data


TOGETHER = {IN_DEPTH: in_depth, ACTIVATIONS: of_activations}  # families whose module and data are made together


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    return folder, make_corpus(folder)


@pytest.fixture
def made(prepared):
    """A function that makes a family's module and data."""

    def make(family):
        if family in TOGETHER:
            return TOGETHER[family](*prepared)
        make_module, make_data = FAMILIES[family.split(",")[0]]
        module, data = make_module(), make_data(*prepared)
        if family.endswith(NONE_DEAD):
            module.dead_after = 10**6
        if family.endswith(SOME_DEAD):
            module.dead_after = 1
            module.net.b_enc.data[:5] = -100.0
        return module, data

    return make


@pytest.fixture(autouse=True)
def _gradients_on_the_device(monkeypatch):
    """Clipping asks torch's C++ code where the gradients are."""
    group = clip_grad._group_tensors_by_device_and_dtype

    def grouped(*args):
        return {(DEVICE, dtype): tensors for (_, dtype), tensors in group(*args).items()}

    monkeypatch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", grouped)


@pytest.fixture(autouse=True)
def _memory_of_the_device(monkeypatch):
    """Solvers ask how much is free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**20))


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch):
    """Triton's kernels would find that the tensors are not there."""
    monkeypatch.setattr(dispatch, "by_kernels", lambda device: False)


@pytest.fixture(autouse=True)
def _arrays_on_the_cpu(monkeypatch):
    """Calls of `from_numpy` are not seen; those of `as_tensor`, which does the same, are."""
    monkeypatch.setattr(torch, "from_numpy", torch.as_tensor)


class Watch(L.Callback):
    """Notes where the parameters are, and the waits of every step, from the end of a batch to the end of the next."""

    def __init__(self, pretended):
        self.pretended, self.by_step, self.devices = pretended, {}, set()

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.by_step[trainer.global_step] = list(self.pretended.waits)
        self.pretended.waits.clear()

    def on_train_end(self, trainer, pl_module):
        self.devices = {self.pretended.device_of(p) for p in pl_module.parameters()}


def fit(family, made, make_trainer, pretended, others=(), **kwargs):
    """Train on the pretended device, with other callbacks as well."""
    module, data = made(family)
    callbacks = [
        EmbeddingDrift(4),
        FiniteLoss(),
        Throughput(),
        GracefulStop(),
        ExactResume(),
        *(callback() for callback in others),
        watch := Watch(pretended),
    ]
    trainer = make_trainer(
        callbacks=callbacks,
        accelerator="auto",
        strategy=SingleDeviceStrategy("cpu", accelerator=NotThere()),
        gradient_clip_val=1.0 if module.automatic_optimization else None,
        num_sanity_val_steps=0,
        **kwargs,
    )
    trainer.strategy._root_device = DEVICE
    trainer.fit(module, data)
    return watch


@pytest.mark.parametrize("family", [*FAMILIES, *TOGETHER])
def test_a_fit_and_a_validation_mix_no_devices(family, made, make_trainer, monkeypatch):
    monkeypatch.setattr(tables_and_pictures, "render", lambda figure: np.zeros((1, 1, 4), np.uint8))  # most of the time
    every = {"limit_val_batches": 2, "val_check_interval": 2, "check_val_every_n_epoch": None, "log_every_n_steps": 2}
    with PretendedDevice() as pretended:
        others = CALLBACKS.get(family, ())
        assert fit(family, made, make_trainer, pretended, others, max_steps=4, **every).devices == {DEVICE}


@pytest.mark.parametrize(("family", "most"), WAITS.items())
def test_a_step_that_logs_nothing_does_not_wait_for_the_device(family, most, made, make_trainer):
    with PretendedDevice() as pretended:
        watch = fit(family, made, make_trainer, pretended, max_steps=8, log_every_n_steps=4)
    for step in (2, 3, 6, 7):
        assert len(watch.by_step[step]) <= most, "\n".join(watch.by_step[step])
    assert len(watch.by_step[4]) > most  # which logs, and measures drift


def test_mistakes_between_devices_are_seen():
    with PretendedDevice():
        x, here = torch.ones(3, 2).to(DEVICE), torch.from_numpy(np.array([0, 2]))
        assert (x.device, (x + 1).device, x.cpu().device) == (DEVICE, DEVICE, CPU)
        assert x[here].device == DEVICE  # indices may be on the CPU
        assert (x * torch.tensor(2.0)).device == DEVICE  # and numbers
        assert torch.zeros(2, device=x.device).device == DEVICE
        for mistake in (
            lambda: torch.ones(3)[here.to(DEVICE)],
            lambda: x + torch.ones(3, 2),
            lambda: torch.cat([x, torch.ones(1, 2)]),
            lambda: torch.nn.functional.linear(x, torch.ones(4, 2)),
            lambda: x.index_select(0, here),
        ):
            with pytest.raises(RuntimeError, match="different devices"):
                mistake()
        with pytest.raises(TypeError):
            x.numpy()


def test_waits_for_the_device_are_seen():
    with PretendedDevice() as pretended:
        x, here = torch.ones(3, 2).to(DEVICE), torch.ones(3)
        for quiet in (lambda: here.tolist(), lambda: x.sum(), lambda: x[torch.tensor([0])], lambda: here.sum().item()):
            quiet()
            assert pretended.waits == []
        for waiting in (
            lambda: x.sum().item(),
            lambda: bool(x.sum() > 0),
            lambda: float(x.sum()),
            lambda: x.tolist(),
            lambda: x.cpu(),
            lambda: x.to("cpu"),
            lambda: x.nonzero(),
            lambda: x[x > 0],
        ):
            pretended.waits.clear()
            waiting()
            assert len(pretended.waits) == 1
            assert "test_devices.py" in pretended.waits[0]
