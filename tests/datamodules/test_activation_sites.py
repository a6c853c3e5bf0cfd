"""Activations at any site of any language model, at several of them, in its own precision and on its own device."""

import csv
import logging

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.callbacks import AtomReport, ReconstructionError, SplicedLoss
from zoo.datamodules import ActivationsDataModule, LocalFiles
from zoo.interventions import activations, edited, hook_name
from zoo.models import GPT2, SparseAutoencoder, TopKSAE
from zoo.source import Source

V, T, D = 302, 18, 8


def network(seed=0):
    torch.manual_seed(seed)
    net = GPT2(V, 20, D, 3, 2).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(std=0.5)
    return net


class Cumulative(torch.nn.Module):
    """Vectors that are longer than rows of W_E, as in OPT-350m; every layer adds the mean of all earlier positions."""

    context_length = None  # no position has an embedding

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = torch.nn.Parameter(torch.randn(V, 4), requires_grad=False)
        self.up = torch.nn.Parameter(torch.randn(4, D), requires_grad=False)
        self.n_layers = 2
        self.sites = [hook_name(layer, site) for layer in range(2) for site in ("resid_pre", "attn_out", "resid_post")]

    @property
    def W_E(self):
        return self.embedding

    def run(self, input_ids, edits=None, start=None):
        edits = edits or {}
        first, resid = start or (0, self.embedding[input_ids] @ self.up)
        for layer in range(first, 2):
            resid = edited(resid, edits, hook_name(layer, "resid_pre"))
            n = torch.arange(1, resid.shape[1] + 1, device=resid.device)[:, None]
            resid = resid + edited(resid.cumsum(1) / n, edits, hook_name(layer, "attn_out"))
            resid = edited(resid, edits, hook_name(layer, "resid_post"))
        return resid @ self.up.T @ self.embedding.T


@pytest.fixture
def make(tiny_data, tiny_corpus, tmp_path):
    model = str(zoo.save(network(), tmp_path / "model", tokenizer_json=tiny_data.tokenizer.to_str()))

    def make(prepared=True, **options):
        defaults = {"model": model, "layer": 1, "corpus": LocalFiles([str(tiny_corpus)]), "sequence_length": T}
        defaults |= {"batch_size": 40, "positions_per_context": 5, "val_contexts": 7, "skip_positions": 2}
        defaults |= {"val_fraction": 0.15, "test_fraction": 0.15, "cache_dir": str(tmp_path / "cache")}
        data = ActivationsDataModule(**defaults | options)
        if prepared:
            data.prepare_data()
            data.setup()
        return data

    return make


@pytest.fixture
def cumulative(monkeypatch):
    """Every source holds this model from now on."""
    monkeypatch.setattr(Source, "load", lambda *args: Cumulative())


def x_of(data, step=0):
    return data.train_dataloader().batch(step)["x"]


def test_parts_of_a_layer_add_up_to_the_stream_that_leaves_it(make):
    data = make(site=["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"])
    assert data.d_in == 5 * D
    assert data.sites[1] == "blocks.1.hook_attn_out"
    before, attention, middle, mlp, after = x_of(data).split(D, 1)
    torch.testing.assert_close(before, x_of(make()))
    torch.testing.assert_close(before + attention, middle)
    torch.testing.assert_close(middle + mlp, after)
    torch.testing.assert_close(after, x_of(make(layer=2)))


def test_several_layers_come_in_the_order_asked_for(make):
    data = make(layer=[3, 0], site=["resid_pre"])
    assert data.sites == ["blocks.2.hook_resid_post", "blocks.0.hook_resid_pre"]
    assert torch.equal(x_of(data), torch.cat([x_of(make(layer=3)), x_of(make(layer=0))], 1))
    both = make(layer=[1, 0], site=["mlp_out", "attn_out"])
    order = [(1, "mlp_out"), (1, "attn_out"), (0, "mlp_out"), (0, "attn_out")]
    assert both.sites == [hook_name(*place) for place in order]
    assert both.hook_name is None
    for (layer, site), x in zip(order, x_of(both).split(D, 1), strict=True):
        assert torch.equal(x, x_of(make(layer=layer, site=site)))


def test_the_model_runs_once_for_all_sites_and_not_beyond_the_last(make, monkeypatch):
    data, ran = make(layer=[0, 1], site=["attn_out", "mlp_out"]), []
    for i, block in enumerate(data.model.transformer.h):
        block.attn.register_forward_hook(lambda *_, i=i: ran.append(i))
    x_of(data)
    assert ran == [0, 1]


def test_evaluation_vectors_are_those_of_the_sites(make):
    data = make(layer=[1, 2], site="mlp_out")
    contexts, batches = list(data.evaluation_contexts()), list(data.val_dataloader())
    for context, batch in zip(contexts, batches, strict=True):
        counts = context["targets"] != -100
        counts[:, :2] = False
        found = activations(network(), context["input_ids"], data.sites)
        own = torch.cat([found[site][counts] for site in data.sites], 1)
        torch.testing.assert_close(batch["x"], own)
        assert torch.equal(batch["row"], context["input_ids"][counts])


def test_the_fingerprint_follows_sites_and_precision_and_not_the_device(make):
    before = make().corpus_fingerprint
    assert make(model_device="cpu", site="resid_pre", model_dtype="stored").corpus_fingerprint == before
    others = [{"site": "mlp_out"}, {"layer": [1, 2]}, {"site": ["resid_pre", "mlp_out"]}, {"model_dtype": "bfloat16"}]
    prints = {make(**change).corpus_fingerprint for change in others}
    assert len(prints | {before}) == 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_half_precision_gives_its_own_activations_as_float32(make, tmp_path, dtype):
    data, store = make(model_dtype=dtype), str(tmp_path / "store")
    x = x_of(data)
    assert x.dtype == torch.float32
    half = network().to(getattr(torch, dtype))
    ids = data.train_dataloader().contexts.batch(0)["input_ids"]
    own = half.residual_stream(ids)[1].float()
    distance = (x.view(8, 5, 1, D) - own.view(8, 1, T, D)).norm(dim=3)
    assert distance.amin(2).max() == 0
    assert 0 < (x - x_of(make())).abs().max() < 0.5
    assert next(iter(data.val_dataloader()))["x"].dtype == torch.float32

    written = x_of(make(model_dtype=dtype, activations_dir=store))
    (path,) = (tmp_path / "store").rglob("*.safetensors")
    assert load_file(path)["x"].dtype == getattr(torch, dtype)  # half the space
    read = make(model_dtype=dtype, activations_dir=store)
    read.model.requires_grad_(False).transformer.wte.weight.zero_()
    assert torch.equal(x_of(read), written)
    assert torch.equal(written, x)


def test_vectors_of_another_width_than_the_embedding_are_trained_on_without_a_nearest_token(
    make, make_trainer, cumulative, tmp_path, caplog
):
    data = make(prepared=False, layer=[0, 1], site=["attn_out", "resid_post"], sequence_length=60)
    assert (data.d_in, data.W_E) == (4 * D, None)
    module = SparseAutoencoder(TopKSAE(4 * D, 64, k=4))
    callbacks = [AtomReport(), ReconstructionError(), SplicedLoss()]
    trainer = make_trainer(max_steps=3, limit_val_batches=1.0, val_check_interval=3, callbacks=callbacks)
    with caplog.at_level(logging.INFO):
        trainer.fit(module, data)
    assert "note: rows of W_E have 4 dimensions and vectors 32" in caplog.text
    with (tmp_path / "run" / "atoms" / "atoms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["nearest_token"] for row in rows} == {""}
    assert any(row["top_tokens"] != "[]" for row in rows)
    contexts = list(data.evaluation_contexts())
    logits, targets = (
        torch.cat(parts).flatten(0, 1)
        for parts in (
            [Cumulative().run(batch["input_ids"])[:, 2:] for batch in contexts],
            [batch["targets"][:, 2:] for batch in contexts],
        )
    )
    own = torch.nn.functional.cross_entropy(logits, targets).item()
    assert trainer.callback_metrics["val/ce_clean"].item() == pytest.approx(own, rel=1e-5)


def test_a_spliced_loss_of_a_model_in_half_precision_is_that_of_the_model(make, make_trainer):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        trainer = make_trainer(max_steps=1, limit_val_batches=1.0, val_check_interval=1, callbacks=[SplicedLoss()])
        data = make(prepared=False, model_dtype=dtype)
        trainer.fit(SparseAutoencoder(TopKSAE(D, 32, k=4)), data)
        losses[dtype] = trainer.callback_metrics["val/ce_clean"].item()
        assert data.model.W_E.dtype == getattr(torch, dtype)
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3, "site": "mlp_out"}, "layer is 3; .* has 3 layers: 0 to 2$"),
        ({"layer": [0, 4]}, "layer is 4; .* has 3 layers: 0 to 2 means before that layer, 3 means after"),
        ({"layer": []}, r"data.layer is \[\] and data.site is .*; give at least one"),
        ({"site": []}, "give at least one"),
        ({"layer": [1, 1]}, r"data.layer \[1, 1\] and .* name blocks.1.hook_resid_pre twice"),
        ({"site": "hook_resid_pre"}, "the model has no site blocks.1.hook_hook_resid_pre; it has blocks.0"),
        ({"model_device": "gpu"}, "data.model_device gpu cannot be used: Expected one of cpu"),
        ({"model_device": "cuda:7"}, "data.model_device cuda:7 cannot be used"),
    ],
)
def test_sites_and_devices_that_do_not_exist_are_refused(make, refused, options, message):
    with refused(message):
        make(prepared=False, **options)


def test_a_width_that_does_not_fit_is_refused_before_training(make, make_trainer, refused):
    with refused("the data have 16 dimensions, but d_in of the model is 8"):
        make_trainer().fit(SparseAutoencoder(TopKSAE(D, 32, k=4)), make(layer=[0, 1]))


def test_a_start_from_another_site_or_model_is_noted(make, make_trainer, tmp_path, caplog, tiny_data):
    told = {"model": make(prepared=False).model_name, "hook_name": "blocks.1.hook_resid_pre"}
    start = str(zoo.save(TopKSAE(D, 32, k=4), tmp_path / "sae", provenance=told))
    other = str(zoo.save(network(1), tmp_path / "other", tokenizer_json=tiny_data.tokenizer.to_str()))
    notes = {
        "same": {},
        "site": {"layer": 2},
        "model": {"model": other},
    }
    for changed, options in notes.items():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            make_trainer(max_steps=1).fit(SparseAutoencoder(TopKSAE(D, 32, k=4), init_from=start), make(**options))
        found = [what for what in ("site", "model") if f"note: the weights were trained on {what} " in caplog.text]
        assert found == [what for what in ("site", "model") if what == changed]
