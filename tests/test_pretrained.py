"""What ships inside the package: whole, small, of every family, and as good as its cards say."""

import math
import re
from pathlib import Path

import every
import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo import catalog, checkpoint_config
from zoo.datamodules import ActivationsDataModule, EmbeddingRowsDataModule, TextDataModule, TrainedBPE
from zoo.metrics import FVU
from zoo.models import SAE, CircuitNet, CompressedNet, Dictionary, GateNet, NeuronNet, SkipBigramHead, SuperpositionNet
from zoo.rebuild import rebuild

NAMES = catalog.list_models()
SITES = [  # a language model, and a layer before which its residual stream is read; the last is after the last layer
    *(("gpt2-stdlib.learned", layer) for layer in range(5)),
    *((model, layer) for model in ("gpt2-mini.learned", "gpt2-mini.frozen-gaussian") for layer in range(3)),
]
SEEDS = (0, 1)
TOYS = (CircuitNet, CompressedNet, GateNet, NeuronNet, SkipBigramHead, SuperpositionNet)
FAMILIES = {"gpt2": "GPT2", "sae": SAE, "dictionary": Dictionary, "toy": TOYS}


def shipped(name):
    """Every folder of a checkpoint."""
    root = catalog.PRETRAINED / name
    return [root / catalog.step_folder(step) for step in catalog.steps(root)] or [root]


def test_what_ships_is_small_and_plain():
    files = [p for p in catalog.PRETRAINED.rglob("*") if p.is_file()]
    assert {p.name for p in files} <= set(checkpoint_config.FILES)
    assert sum(p.stat().st_size for p in files) < 36e6


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_checkpoint_loads_at_every_step_and_tells_where_it_comes_from(name):
    for folder in shipped(name):
        part = checkpoint_config.read(folder)
        model = zoo.load(name, step=part["step"])
        family = FAMILIES[name.partition("-")[0].partition(".")[0]]
        assert type(model).__name__ == family if isinstance(family, str) else isinstance(model, family)
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())
        assert part["provenance"]["command"].startswith("python -m zoo fit --config cli_configs/")
    card = zoo.info(name)
    assert card.startswith(f"# {name}\n")
    assert part["provenance"]["command"] in card
    assert f"| val/{'fvu' if 'toy' not in name and name[:4] != 'gpt2' else 'loss'} |" in card
    assert model.not_for in card


def test_every_family_and_every_variant_ships():
    classes = {checkpoint_config.read(shipped(name)[-1])["class"] for name in NAMES}
    assert classes == set(every.NETWORKS)


def test_a_frozen_embedding_stays_where_the_learned_one_starts():
    start = zoo.embedding("gpt2-mini.learned", step=0)
    for step in catalog.steps(catalog.PRETRAINED / "gpt2-mini.frozen-gaussian"):
        assert torch.equal(zoo.embedding("gpt2-mini.frozen-gaussian", step=step), start)
    assert not torch.equal(zoo.embedding("gpt2-mini.learned", step=32), start)


@pytest.mark.parametrize("name", ["gpt2-mini.learned", "gpt2-mini.frozen-gaussian", "gpt2-stdlib.learned"])
def test_a_shipped_gpt2_has_the_loss_that_its_card_says(name, stdlib_cache):
    part = checkpoint_config.read(shipped(name)[-1])
    model = zoo.load(name)
    data = TextDataModule(
        tokenizer=TrainedBPE(model.config["vocab_size"]), context_length=128, batch_size=16, cache_dir=str(stdlib_cache)
    )
    data.prepare_data()
    data.setup()
    if data.corpus_fingerprint != part["provenance"]["corpus_fingerprint"]:
        pytest.skip("the standard library of another version of Python is another corpus")
    batches = list(data.val_dataloader())[: part["provenance"]["config"]["trainer"]["limit_val_batches"]]
    logits = (model(b["input_ids"]).flatten(0, 1) for b in batches)
    losses = [F.cross_entropy(y, b["targets"].flatten(), reduction="sum") for y, b in zip(logits, batches, strict=True)]
    loss = sum(losses).item() / sum((b["targets"] != -100).sum().item() for b in batches)
    assert loss == pytest.approx(part["provenance"]["metrics"]["val/loss"], abs=2e-4)
    bits = sum(losses).item() / math.log(2) / sum(b["target_bytes"].sum().item() for b in batches)
    assert bits == pytest.approx(part["provenance"]["metrics"]["val/bits_per_byte"], rel=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".gpt2-mini")])
def test_a_shipped_dictionary_has_the_error_that_its_card_says(name):
    data = EmbeddingRowsDataModule(source="gpt2-mini.learned", batch_size=512, val_fraction=0.1)
    data.prepare_data()
    data.setup("fit")
    fvu, x = FVU(), data.W_E[data.held_out]
    fvu.update(zoo.load(name).reconstruct(x)[0], x)
    said = checkpoint_config.read(shipped(name)[-1])["provenance"]["metrics"]["val/fvu"]
    assert fvu.compute().item() == pytest.approx(said, rel=1e-4)


def residual(model, layer, seed):
    """Name of the autoencoder of a residual stream; its null twin's name has .null at the end."""
    return f"sae-resid.{model}.layer-{layer}.seed-{seed}"


RESIDUAL = [residual(*site, seed) + twin for site in SITES for seed in SEEDS for twin in ("", ".null")]


def provenance(name):
    return checkpoint_config.read(catalog.PRETRAINED / name)["provenance"]


def test_every_layer_of_every_gpt2_has_two_autoencoders_each_with_a_null_twin():
    assert catalog.list_models("sae-resid.*") == sorted(RESIDUAL)
    assert {model for model, _ in SITES} == set(catalog.list_models("gpt2*"))
    for model in {model for model, _ in SITES}:
        assert zoo.load(model).n_layers + 1 == sum(site[0] == model for site in SITES)


@pytest.mark.parametrize(("model", "layer"), SITES)
def test_an_autoencoder_of_a_residual_stream_and_its_null_twin_differ_in_the_data_alone(model, layer):
    width = zoo.embedding(model).shape[1]
    for seed in SEEDS:
        name = residual(model, layer, seed)
        real, null = provenance(name), provenance(f"{name}.null")
        settings = [part["config"]["data"]["init_args"] for part in (real, null)]
        assert [args.pop("null_model") for args in settings] == [None, "covariance-matched"]
        assert settings[0] == settings[1]
        assert (settings[0]["model"], settings[0]["layer"], settings[0]["seed"]) == (model, layer, seed)
        assert real["config"]["model"] == null["config"]["model"]
        assert real["seed"] == null["seed"] == seed
        assert real["hook_name"] == null["hook_name"]
        assert real["corpus_fingerprint"] != null["corpus_fingerprint"]
        assert (zoo.load(name).d_in, zoo.load(name).d_sae) == (width, 4 * width)
        assert real["metrics"]["val/fvu"] < null["metrics"]["val/fvu"]
        assert {"val/kl", "val/loss_recovered"} <= real["metrics"].keys() - null["metrics"].keys()


QUICK = {f"{residual('gpt2-mini.learned', 1, 0)}{twin}" for twin in ("", ".null")}
QUICK.add(residual("gpt2-mini.frozen-gaussian", 2, 1))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RESIDUAL]
)
def test_an_autoencoder_of_a_residual_stream_has_the_error_that_its_card_says(name, stdlib_cache):
    part = provenance(name)
    args = part["config"]["data"]["init_args"]
    data = ActivationsDataModule(
        args["model"], args["layer"], null_model=args["null_model"], cache_dir=str(stdlib_cache)
    )
    data.prepare_data()
    data.setup()
    text = checkpoint_config.read(shipped(args["model"])[-1])["provenance"]["corpus_fingerprint"]
    if data.text.corpus_fingerprint != text:
        pytest.skip("the standard library of another version of Python is another corpus")
    assert data.corpus_fingerprint == part["corpus_fingerprint"]
    fvu, sae, n = FVU(), zoo.load(name), 0
    for batch in data.val_dataloader():
        fvu.update(sae.reconstruct(batch["x"])[0], batch["x"])
        n += len(batch["x"])
    assert n == 64 * 127
    assert fvu.compute().item() == pytest.approx(part["metrics"]["val/fvu"], rel=1e-3)


def test_the_table_of_the_page_is_what_its_code_prints():
    page = (Path(__file__).parents[1] / "docs" / "pretrained.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = []
    exec(compile(code, "docs/pretrained.md", "exec"), {"print": lines.append})
    assert len(lines) == 2 + len(SITES)
    assert "\n".join(lines) in page


def test_a_checkpoint_is_rebuilt_by_one_command(tmp_path, capsys):
    assert rebuild("dictionary.gpt2-mini", tmp_path / "anew")
    assert "val/fvu" in capsys.readouterr().out
    assert zoo.load(tmp_path / "anew").W_dec.shape == (256, 64)


def test_a_checkpoint_that_comes_out_otherwise_is_told_apart(tmp_path, capsys):
    folder = tmp_path / "model"
    part = checkpoint_config.read(shipped("dictionary.gpt2-mini")[-1])
    part["provenance"]["metrics"]["val/fvu"] *= 1.2
    part["provenance"]["config"]["trainer"]["max_steps"] = 2
    zoo.save(zoo.load("dictionary.gpt2-mini"), folder, step=2, provenance=part["provenance"])
    assert not rebuild(str(folder), tmp_path / "anew")
    assert "val/fvu differs by more than the tolerance of 5%" in capsys.readouterr().out


def test_what_was_not_trained_by_the_command_line_is_not_rebuilt(tmp_path, refused):
    zoo.save(SuperpositionNet(5, 2), tmp_path / "model")
    with refused("does not say how it was made"):
        rebuild(str(tmp_path / "model"), tmp_path / "anew")


def test_only_the_end_of_a_run_is_rebuilt(tmp_path, refused):
    with refused("is step 512 of a run of 4096"):
        rebuild(str(catalog.PRETRAINED / "gpt2-mini.learned" / "step-000512"), tmp_path / "anew")
    assert not (tmp_path / "anew").exists()
