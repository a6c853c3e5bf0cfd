"""Activations of models of transformers are those of transformers, and training on them resumes exactly."""

import csv

import pytest
import torch
import yaml
from killed_runs import forked
from processes import ROOT
from tiny_transformers import KINDS, ROWS, D, save
from transformers import AutoModelForCausalLM

from zoo.__main__ import main
from zoo.callbacks import AtomReport, ReconstructionError, SplicedLoss
from zoo.datamodules import ActivationsDataModule, LocalFiles
from zoo.models import AdamLinear, SparseAutoencoder, TopKSAE

T = 16


@pytest.fixture
def make(tiny_data, tiny_corpus, tmp_path):
    """Builds the data, and returns them and the model of transformers."""

    def make(kind, prepared=True, dtype=torch.float32, bos=False, **options):
        folder = tmp_path / kind
        model = save(kind, folder, tiny_data.tokenizer, dtype, bos)
        defaults = {"layer": 1, "corpus": LocalFiles([str(tiny_corpus)]), "sequence_length": T, "val_contexts": 8}
        defaults |= {"batch_size": 24, "positions_per_context": 3, "cache_dir": str(tmp_path / "cache")}
        data = ActivationsDataModule(str(folder), **defaults | {"val_fraction": 0.2, "test_fraction": 0.2} | options)
        if prepared:
            data.prepare_data()
            data.setup()
        return data, model

    return make


def states(model, ids):
    """The hidden states of transformers after every layer but the last, (L, B, T, D)."""
    with torch.no_grad():
        return model(ids, output_hidden_states=True).hidden_states[:-1]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_hidden_states_of_transformers(make, kind, layer, bos):
    data, model = make(kind, layer=layer, bos=bos)
    assert data.d_in == D
    batches = data.train_dataloader()
    ids = batches.contexts.batch(2)["input_ids"]
    if bos:
        ids = torch.cat([torch.full((8, 1), data.text.tokenizer.token_to_id("<s>")), ids], 1)
    own = states(model, ids)[layer]
    assert own.shape == (8, T, D)
    for step in range(10, 15):
        x = batches.batch(step)["x"].view(8, 3, 1, D)
        distance = (x - own.unsqueeze(1)).norm(dim=3)
        assert distance.amin(2).max() < 1e-5
        assert distance.argmin(2).min() >= 1
    contexts, evaluated = list(data.evaluation_contexts()), list(data.val_dataloader())
    for context, batch in zip(contexts, evaluated, strict=True):
        counts = context["targets"] != -100
        counts[:, 0] = False
        torch.testing.assert_close(batch["x"], states(model, context["input_ids"])[layer][counts], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "pythia"])
def test_attention_and_mlp_outputs_are_those_of_transformers_modules(make, kind):
    data, model = make(kind, site=["attn_out", "mlp_out"])
    layers = {"llama": "model.layers", "pythia": "gpt_neox.layers"}[kind]
    names = {"llama": ("self_attn", "mlp"), "pythia": ("attention", "mlp")}[kind]
    found = {}
    for name in names:
        module = model.get_submodule(f"{layers}.1.{name}")
        module.register_forward_hook(
            lambda _, args, out, name=name: found.update({name: out[0] if isinstance(out, tuple) else out})
        )
    batches = data.train_dataloader()
    states(model, batches.contexts.batch(0)["input_ids"])
    own = torch.cat([found[name].view(8, T, D) for name in names], 2)
    x = batches.batch(0)["x"].view(8, 3, 1, 2 * D)
    assert (x - own.unsqueeze(1)).norm(dim=3).amin(2).max() < 1e-4


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("asked", ["stored", "float32", "bfloat16"])
def test_the_model_computes_in_the_precision_asked_for(make, stored, asked):
    data, _ = make("llama", dtype=stored, model_dtype=asked)
    wanted = stored if asked == "stored" else getattr(torch, asked)
    assert data.model.W_E.dtype == wanted
    x = data.train_dataloader().batch(0)["x"]
    assert x.dtype == torch.float32
    model = AutoModelForCausalLM.from_pretrained(data.model_name, dtype=wanted)
    own = states(model, data.train_dataloader().contexts.batch(0)["input_ids"])[1].float()
    assert (x.view(8, 3, 1, D) - own.unsqueeze(1)).norm(dim=3).amin(2).max() < 1e-5


def test_a_padded_vocabulary_has_rows_without_tokens(make):
    data, _ = make("pythia")
    assert len(data.row_labels) == len(data.row_counts) == ROWS
    assert data.row_labels[-1] == f"row {ROWS - 1}"
    assert data.row_counts[300:].sum() == 0


def test_a_text_longer_than_the_models_context_is_refused(make, refused):
    with refused("sequence_length is 33, more than the 32 positions of .*pythia"):
        make("pythia", prepared=False, sequence_length=33)


def trained(make_trainer, make, steps, devices=1, ckpt_path=None, save_at=None):
    torch.manual_seed(0)
    module = SparseAutoencoder(TopKSAE(2 * D, 48, k=4), AdamLinear(learning_rate=0.01, decay_fraction=0))
    options = {"prepared": False, "bos": True, "dtype": torch.bfloat16, "model_dtype": "stored"}
    data, _ = make("llama", site=["resid_pre", "mlp_out"], **options)
    callbacks = [ReconstructionError(), AtomReport(), SplicedLoss()]
    checks = {"limit_val_batches": 1.0, "val_check_interval": 4, "check_val_every_n_epoch": None}
    trainer = make_trainer(max_steps=steps, devices=devices, callbacks=callbacks, **checks)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    if save_at:
        trainer.save_checkpoint(save_at)
    return dict(module.net.state_dict()), {name: v.item() for name, v in trainer.callback_metrics.items()}


def test_a_fit_resumed_within_a_refill_ends_in_the_same_bits(make_trainer, make, tmp_path):
    whole, measured = trained(make_trainer, make, 12)
    trained(make_trainer, make, 7, save_at=tmp_path / "seven.ckpt")
    resumed, again = trained(make_trainer, make, 12, ckpt_path=tmp_path / "seven.ckpt")
    assert {name for name in whole if not torch.equal(whole[name], resumed[name])} == set()
    assert again == measured
    assert {"val/fvu", "val/ce_spliced", "val/kl_covariance"} <= measured.keys()


def test_two_processes_train_as_one(make_trainer, make):
    (one, _), (two, _), (short, _) = (trained(make_trainer, make, *how) for how in ((8, 1), (8, 2), (4, 1)))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    assert (short["W_dec"] - two["W_dec"]).abs().max() > 1e-3


def test_the_shipped_config_needs_nothing_but_the_name_of_the_model(tiny_data, tiny_corpus, tmp_path, monkeypatch):
    save("llama", tmp_path / "llama", tiny_data.tokenizer, bos=True)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    small = {"data.batch_size": 128, "data.sequence_length": 32, "data.val_contexts": 4, "model.sae.d_sae": 64}
    small |= {"trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.accelerator": "cpu"}
    small |= {"data.corpus": "LocalFiles", "data.corpus.paths": f"[{tiny_corpus}]"}
    small |= {"data.val_fraction": 0.2, "data.test_fraction": 0.2}
    args = ["fit", "--config", "sae/residual_stream", "--data.model", str(tmp_path / "llama")]
    args += ["--run_dir", str(tmp_path / "run"), *(str(word) for pair in small.items() for word in pair)]
    args = [f"--{word}" if word in small else word for word in args]
    log = tmp_path / "log.txt"
    assert forked(log, lambda: main(args)) == 0, log.read_text()
    part = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["zoo"]["provenance"]
    told = (part["model"], part["hook_name"], part["prepend_bos"])
    assert told == (str(tmp_path / "llama"), "blocks.1.hook_resid_post", True)
    with (tmp_path / "run" / "atoms" / "atoms.csv").open() as file:
        assert {row["nearest_token"] != "" for row in csv.DictReader(file)} == {True}
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["init_args"]
    assert {"site", "prepend_bos", "model_dtype", "model_device"} <= settings.keys()


def test_data_of_a_model_with_another_config_are_other_data(make, tmp_path):
    data, _ = make("llama")
    config = tmp_path / "llama" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.5'))
    options = {"corpus": data.text.cache.corpus, "sequence_length": T, "batch_size": 24, "positions_per_context": 3}
    options |= {"cache_dir": str(tmp_path / "cache"), "val_fraction": 0.2, "test_fraction": 0.2}
    other = ActivationsDataModule(str(tmp_path / "llama"), layer=1, **options)
    other.prepare_data()
    other.setup()
    assert not torch.equal(other.sample(), data.sample())
    assert other.corpus_fingerprint != data.corpus_fingerprint


def test_activations_that_float16_cannot_hold_are_refused(make, refused):
    data, _ = make("llama", model_dtype="float16")
    data.model.W_E.mul_(1e6)
    with refused("activations at blocks.1.hook_resid_pre are too large for float16; use data.model_dtype"):
        data.sample()


def test_a_device_that_computes_nothing_is_refused(make, refused):
    with refused("data.model_device is meta, on which nothing is computed"):
        make("llama", model_device="meta")
