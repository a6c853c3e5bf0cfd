import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from toy_reconstruction import Rows, SignedCoordinates

from zoo.callbacks import SplicedLoss
from zoo.callbacks.spliced_loss import _spliced
from zoo.interventions import hook_name
from zoo.models import GPT2

V, T, D = 50, 8, 12


class KeepMetrics(L.Callback):
    """Writes what was logged where the parent process finds it."""

    def __init__(self, folder):
        self.path = folder / "metrics.pt"

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save({name: value.cpu() for name, value in trainer.callback_metrics.items()}, self.path)


class Contexts(Rows):
    """Rows to train on, and a random language model whose activations they might be."""

    def __init__(self, layer=1, dropout=0.0):
        super().__init__(torch.randn(7, D, generator=torch.Generator().manual_seed(0)))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = GPT2(V, T, D, n_layers=2, n_heads=2, dropout=dropout)
            self.sites = [hook_name(layer, "resid_pre") if layer < 2 else hook_name(1, "resid_post")]
            for p in self.model.parameters():
                torch.nn.init.normal_(p, std=0.5)
            self.input_ids = torch.randint(V, (6, T))
            self.targets = torch.randint(V, (6, T))
            self.targets[4, 5:] = -100
            self.targets[5] = -100  # a context of padding

    def evaluation_contexts(self):
        mine = range(self.trainer.global_rank, 6, 2) if self.trainer.world_size > 1 else range(0, 6)
        for i in mine:
            counted = torch.arange(T)[None] >= 2
            yield {"input_ids": self.input_ids[i : i + 1], "targets": self.targets[i : i + 1], "counted": counted}


@pytest.fixture
def measure(make_trainer):
    """Returns all that a validation after one step logs."""

    def measure(module, data):
        trainer = make_trainer(max_steps=1, limit_val_batches=1, val_check_interval=1, callbacks=[SplicedLoss()])
        trainer.fit(module, data)
        return {name.removeprefix("val/"): value.item() for name, value in trainer.callback_metrics.items()}

    return measure


def test_splicing_the_identity_loses_nothing(measure):
    logged = measure(SignedCoordinates(D, scale=1.0), Contexts())
    assert logged["loss_recovered"] == pytest.approx(1, abs=1e-5)
    assert logged["ce_spliced"] == pytest.approx(logged["ce_clean"], abs=1e-5)
    assert [logged[name] for name in ("kl", "kl_random", "kl_covariance")] == pytest.approx([0] * 3, abs=1e-5)


def test_splicing_zero_recovers_nothing(measure):
    logged = measure(SignedCoordinates(D, scale=0.0), Contexts())
    assert logged["loss_recovered"] == pytest.approx(0, abs=1e-5)
    assert logged["ce_spliced"] == logged["ce_ablated"]
    assert logged["kl"] > 0.1


def test_the_clean_loss_is_the_models_own_at_the_positions_that_count(measure):
    data = Contexts()
    with torch.no_grad():
        logits = data.model(data.input_ids)[:, 2:].flatten(0, 1)
    own = F.cross_entropy(logits, data.targets[:, 2:].flatten(), ignore_index=-100).item()
    assert measure(SignedCoordinates(D, scale=0.3), data)["ce_clean"] == pytest.approx(own, rel=1e-5)


def test_after_the_last_layer_the_spliced_loss_is_that_of_the_edited_stream(measure):
    data = Contexts(layer=2)
    with torch.no_grad():
        resid = data.model.blocks(data.model.embed(data.input_ids))
        clean = data.model.unembed(resid)[:, 2:].flatten(0, 1)
        edited = resid * torch.tensor([1.0] * 4 + [0.0] * 8)
        spliced = data.model.unembed(edited)[:, 2:].flatten(0, 1)
    targets = data.targets[:, 2:].flatten()
    kept = targets != -100
    logged = measure(SignedCoordinates(D, kept=4), data)
    assert logged["ce_spliced"] == pytest.approx(F.cross_entropy(spliced[kept], targets[kept]).item(), rel=1e-5)
    kl = F.kl_div(spliced[kept].log_softmax(1), clean[kept].log_softmax(1), log_target=True, reduction="batchmean")
    assert logged["kl"] == pytest.approx(kl.item(), rel=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_positions_that_are_skipped_keep_their_activations(layer):
    data = Contexts(layer)
    with torch.no_grad():
        resid = data.model.blocks(data.model.embed(data.input_ids), stop=layer)
        everywhere, later = torch.ones(6, T, dtype=torch.bool), (torch.arange(T) >= 3).expand(6, T)
        x, whole = _spliced(data.model, data.sites, data.input_ids, everywhere)
        assert torch.equal(x, resid.flatten(0, 1))
        logits = whole(torch.cat([resid[:, :3], 0 * resid[:, 3:]], 1).flatten(0, 1)).view(6, T, V)
        torch.testing.assert_close(logits[:, :3], data.model(data.input_ids)[:, :3])
        x, rest = _spliced(data.model, data.sites, data.input_ids, later)
        assert torch.equal(x, resid[:, 3:].flatten(0, 1))
        assert torch.equal(rest(0 * x), logits[:, 3:].flatten(0, 1))


def test_random_vectors_are_as_long_as_the_error_and_have_the_covariance_asked_for():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2000, D, generator=generator) * torch.linspace(0.01, 3, D) + 7
    edits = SplicedLoss._edits(SignedCoordinates(D, scale=0.5).requires_grad_(False), x, generator)
    lengths = (x - edits[""]).norm(dim=-1)
    for name in ("_random", "_covariance"):
        torch.testing.assert_close((edits[name] - x).norm(dim=-1), lengths, rtol=1e-3, atol=1e-3)
    share = {}
    for name in ("_random", "_covariance"):
        square = F.normalize(edits[name] - x, dim=1).square().mean(0)
        share[name] = square[0] / square[-1]
    assert share["_random"] == pytest.approx(1, abs=0.2)
    assert share["_covariance"] < 1e-3


def measured_by(rank, seed=0):
    """What a rank measures of all contexts."""
    data, logged = Contexts(), {}
    data.trainer = SimpleNamespace(world_size=1, global_rank=0)
    module = SimpleNamespace(
        device=torch.device("cpu"),
        reconstruct=SignedCoordinates(D, kept=6).reconstruct,
        log=lambda name, value: logged.update({name: value.item()}),
    )
    trainer = SimpleNamespace(sanity_checking=False, datamodule=data, global_rank=rank)
    SplicedLoss(seed).on_validation_epoch_end(trainer, module)
    return logged


def test_random_vectors_are_those_of_a_seed_and_a_rank():
    first = measured_by(0)
    assert measured_by(0) == first
    for other in (measured_by(1), measured_by(0, seed=5)):
        assert {name for name in first if other[name] != first[name]} == {"val/kl_random", "val/kl_covariance"}


def test_a_language_model_that_was_left_in_training_mode_is_measured_without_dropout(measure):
    module, plain, dropping = SignedCoordinates(D, kept=6), Contexts(), Contexts(dropout=0.5)
    dropping.model.load_state_dict(plain.model.state_dict())
    dropping.input_ids, dropping.targets = plain.input_ids, plain.targets
    dropping.model.train()
    assert measure(module, dropping) == measure(module, plain)


def test_two_processes_measure_the_same_as_one(make_trainer, tmp_path):
    def logged(devices):
        callbacks = [SplicedLoss(), KeepMetrics(tmp_path)]
        steps = {"max_steps": 1, "limit_val_batches": 1, "val_check_interval": 1}
        trainer = make_trainer(**steps, callbacks=callbacks, devices=devices)
        trainer.fit(SignedCoordinates(D, kept=6), Contexts())
        return torch.load(tmp_path / "metrics.pt")

    one, two = logged(1), logged(2)
    for name in ("ce_clean", "ce_spliced", "ce_ablated", "loss_recovered", "kl"):
        assert two[f"val/{name}"].item() == pytest.approx(one[f"val/{name}"].item(), rel=1e-5)
    assert 0 < two["val/kl_random"] < math.inf


def test_rows_without_a_language_model_are_refused_in_one_line(make_trainer, refused):
    with refused("SplicedLoss needs a datamodule with model, sites, evaluation_contexts; Rows has no model, sites"):
        make_trainer(callbacks=[SplicedLoss()]).fit(SignedCoordinates(D), Rows(torch.zeros(4, D)))
