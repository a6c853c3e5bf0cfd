"""Autoencoders of other libraries where rounding cannot hide an error, and what they were trained on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from supported import autoencoders

import zoo
from zoo import models, saelens
from zoo.export import export_saelens
from zoo.source import Source

D_IN, D_SAE, K = 4, 12, 5


def quarters(*shape, seed):
    """Multiples of 1/4 between -2 and 2: float32 computes sums of a few of their products without rounding."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)) / 4


X = quarters(400, D_IN, seed=0)
W_ENC, W_DEC = quarters(D_IN, D_SAE, seed=1), quarters(D_SAE, D_IN, seed=2)
B_ENC, B_DEC = quarters(D_SAE, seed=3), quarters(D_IN, seed=4)
KEPT, SUBTRACTED = X @ W_ENC + B_ENC, (X - B_DEC) @ W_ENC + B_ENC  # pre-activations: the input keeps b_dec or not
LINEAR = {"encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T, "encoder.bias": B_ENC}
PLAIN = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}


def thresholds(pre):
    """One threshold for each latent. Every one is a pre-activation, and some are negative or 0."""
    found = torch.stack([pre[5 * j, j] for j in range(D_SAE)])
    found[:2] = torch.tensor([-0.5, 0.0])
    return found


def jump(pre, threshold):
    return torch.where(pre > threshold, pre.clamp(min=0), 0)


def gemma_scope(folder):
    np.savez(folder / "params.npz", **PLAIN, threshold=thresholds(KEPT))
    return jump(KEPT, thresholds(KEPT)), KEPT, thresholds(KEPT)


def gemma_scope_2(folder):
    stored = {name.replace("W", "w"): tensor.contiguous() for name, tensor in PLAIN.items()}
    save_file(stored | {"threshold": thresholds(KEPT)}, folder / "params.safetensors")
    (folder / "config.json").write_text(json.dumps({"hf_hook_point_in": "model.layers.1.output"}))
    return jump(KEPT, thresholds(KEPT)), KEPT, thresholds(KEPT)


def of_dictionary_learning(folder, theirs, stored):
    torch.save({name: tensor.clone() for name, tensor in stored.items()}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": theirs}}))


def jump_relu_auto_encoder(folder):
    of_dictionary_learning(folder, "JumpReluAutoEncoder", PLAIN | {"threshold": thresholds(KEPT)})
    return jump(KEPT, thresholds(KEPT)), KEPT, thresholds(KEPT)


def batch_top_k_sae(folder):
    bound = SUBTRACTED.clamp(min=0).quantile(0.8, interpolation="nearest")
    stored = LINEAR | {"b_dec": B_DEC, "threshold": bound, "k": torch.tensor(K)}
    of_dictionary_learning(folder, "BatchTopKSAE", stored)
    return jump(SUBTRACTED, bound), SUBTRACTED, bound


def matryoshka_batch_top_k_sae(folder):
    bound = torch.tensor(-1.0)  # the threshold before the first training step: all positive pre-activations are on
    stored = PLAIN | {"threshold": bound, "k": torch.tensor(K), "group_sizes": torch.tensor([4, 8])}
    of_dictionary_learning(folder, "MatryoshkaBatchTopKSAE", stored)
    return jump(SUBTRACTED, 0), SUBTRACTED, torch.tensor(0.0)


def auto_encoder_new(folder):
    of_dictionary_learning(folder, "AutoEncoderNew", LINEAR | {"decoder.bias": B_DEC})
    return KEPT.clamp(min=0), KEPT, torch.tensor(0.0)


def gated_auto_encoder(folder):
    mag_bias, without_bias = quarters(D_SAE, seed=5), SUBTRACTED - B_ENC
    stored = {name: LINEAR[name] for name in ("encoder.weight", "decoder.weight")}
    stored |= {"decoder_bias": B_DEC, "gate_bias": B_ENC, "mag_bias": mag_bias, "r_mag": torch.zeros(D_SAE)}
    of_dictionary_learning(folder, "GatedAutoEncoder", stored)
    return torch.where(SUBTRACTED > 0, (without_bias + mag_bias).clamp(min=0), 0), SUBTRACTED, torch.tensor(0.0)


@pytest.mark.parametrize(
    "write",
    [
        gemma_scope,
        gemma_scope_2,
        jump_relu_auto_encoder,
        batch_top_k_sae,
        matryoshka_batch_top_k_sae,
        auto_encoder_new,
        gated_auto_encoder,
    ],
)
def test_a_code_at_its_threshold_is_off_and_all_codes_are_exact(tmp_path, write):
    codes, pre, bound = write(tmp_path)
    sae = zoo.load(tmp_path)
    x_hat, found = sae.reconstruct(X)
    assert torch.equal(found, codes)
    assert torch.equal(x_hat, codes @ W_DEC + B_DEC)
    assert torch.equal(sae(X), x_hat)
    assert torch.equal(sae.decode(codes), x_hat)
    at_the_threshold = found[pre == bound.expand_as(pre)]
    assert len(at_the_threshold) > 20
    assert not at_the_threshold.any()
    assert (found > 0).any(0).sum() > D_SAE / 2


def sparsify(folder):
    cfg = {"activation": "topk", "expansion_factor": 3, "num_latents": 0, "k": K, "d_in": D_IN}
    stored = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg))


def auto_encoder_top_k(folder):
    of_dictionary_learning(folder, "AutoEncoderTopK", LINEAR | {"b_dec": B_DEC, "k": torch.tensor(K)})


@pytest.mark.parametrize("write", [sparsify, auto_encoder_top_k])
def test_of_equal_pre_activations_no_more_than_k_are_on_and_fewer_if_too_few_are_positive(tmp_path, write):
    write(tmp_path)
    codes = zoo.load(tmp_path).encode(X)
    largest = SUBTRACTED.clamp(min=0).sort(dim=1, descending=True).values
    assert torch.equal(codes.sort(dim=1, descending=True).values[:, :K], largest[:, :K])
    assert not codes.sort(dim=1, descending=True).values[:, K:].any()
    assert torch.equal(codes[codes > 0], SUBTRACTED[codes > 0])
    tied, few = largest[:, K - 1] == largest[:, K], (SUBTRACTED > 0).sum(1) < K
    assert (tied & ~few).any()
    assert few.any()
    untied = ~(tied & ~few)
    top = SUBTRACTED.clamp(min=0).topk(K)
    expected = torch.zeros_like(SUBTRACTED).scatter(1, top.indices, top.values)
    assert torch.equal(codes[untied], expected[untied])


def test_a_pickle_in_a_file_of_arrays_is_not_executed(tmp_path, refused):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    np.savez(tmp_path / "params.npz", **PLAIN, threshold=np.array([Payload()]))
    with refused(r"params\.npz is damaged, or is not a \.npz file of numbers"):
        zoo.load(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_of_arrays_is_refused_or_holds_the_same_numbers(tmp_path, save):
    save(tmp_path / "params.npz", **PLAIN, threshold=thresholds(KEPT))
    intact, state = (tmp_path / "params.npz").read_bytes(), zoo.load(tmp_path).state_dict()
    damaged = [intact[:n] for n in range(0, len(intact), 97)]
    damaged += [intact[:n] + bytes([intact[n] ^ 1 << n % 8]) + intact[n + 1 :] for n in range(0, len(intact), 5)]
    messages = []
    for content in damaged:
        (tmp_path / "params.npz").write_bytes(content)
        try:
            again = zoo.load(tmp_path).state_dict()
        except zoo.ZooError as error:
            messages.append(str(error))
        else:
            assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert len(messages) > len(damaged) / 2
    assert all(len(message.splitlines()) == 1 for message in messages)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.dtype(">f4"), np.longdouble])
def test_arrays_of_gemma_scope_in_another_precision_are_read_as_float32(tmp_path, dtype):
    arrays = {name: tensor.numpy().astype(dtype) for name, tensor in PLAIN.items()}
    np.savez_compressed(tmp_path / "params.npz", **arrays, threshold=np.zeros(D_SAE, dtype))
    assert torch.equal(zoo.load(tmp_path).encode(X), KEPT.clamp(min=0))


# What an autoencoder was trained on.


def put_gemma_scope(folder, config=None):
    folder.mkdir(parents=True)
    if config is None:
        np.savez(folder / "params.npz", **PLAIN, threshold=thresholds(KEPT))
    else:
        gemma_scope_2(folder)
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("place", "model", "hook_name"),
    [
        ("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", "google/gemma-2-2b", "blocks.12.hook_resid_post"),
        ("gemma-scope-9b-it-res/layer_9/width_1m/average_l0_6", "google/gemma-2-9b-it", "blocks.9.hook_resid_post"),
        ("gemma-scope-2b-pt-mlp/layer_0/width_16k/average_l0_9", "google/gemma-2-2b", "blocks.0.hook_mlp_out"),
        ("gemma-scope-27b-pt-att/layer_3/width_131k/average_l0_1", "google/gemma-2-27b", "blocks.3.attn.hook_z"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "google/gemma-2-2b", "hook_embed"),
        ("layer_4/gemma-scope-2b-pt-res/layer_5/width_16k/canonical", "google/gemma-2-2b", "blocks.5.hook_resid_post"),
        (
            "models--google--gemma-scope-2b-pt-res/snapshots/0123/layer_12/width_16k/average_l0_82",
            "google/gemma-2-2b",
            "blocks.12.hook_resid_post",
        ),
        ("gemma-scope-2b-pt-res", "google/gemma-2-2b", None),
        ("mine/layer_12", None, None),
    ],
)
def test_folders_of_gemma_scope_tell_model_and_hook_point(tmp_path, place, model, hook_name):
    told = Source.open(put_gemma_scope(tmp_path / place)).provenance()
    assert (told.get("model"), told.get("hook_name")) == (model, hook_name)


OF_GEMMA_3 = {"model_name": "google/gemma-3-1b-it", "architecture": "jump_relu"}


@pytest.mark.parametrize(
    ("place", "config", "model", "hook_name"),
    [
        ("a", {"hf_hook_point_in": "model.layers.17.output"}, "google/gemma-3-1b-it", "blocks.17.hook_resid_post"),
        (
            "a",
            {"hf_hook_point_in": "model.layers.0.self_attn.o_proj.input"},
            "google/gemma-3-1b-it",
            "blocks.0.attn.hook_z",
        ),
        (
            "gemma-scope-2-270m-pt/mlp_out_all/layer_5_width_16k_l0_small",
            {"hf_hook_point_in": "model.layers.5.post_feedforward_layernorm.output"},
            "google/gemma-3-270m",
            "blocks.5.hook_mlp_out",
        ),
        (
            "a",
            {"hf_hook_point_in": "model.layers.1.mlp.gate_proj"},
            "google/gemma-3-1b-it",
            "model.layers.1.mlp.gate_proj",
        ),
    ],
)
def test_configs_of_gemma_scope_2_tell_model_and_hook_point(tmp_path, place, config, model, hook_name):
    source = Source.open(put_gemma_scope(tmp_path / place, OF_GEMMA_3 | config))
    assert source.kind == "Gemma Scope"
    assert source.provenance() == {"model": model, "hook_name": hook_name}


def test_a_folder_of_gemma_scope_2_without_config_tells_both_by_its_name(tmp_path):
    place = put_gemma_scope(tmp_path / "gemma-scope-2-4b-pt" / "attn_out_all" / "layer_5_width_16k_l0_small", {})
    (place / "config.json").unlink()
    assert Source.open(place).provenance() == {"model": "google/gemma-3-4b-pt", "hook_name": "blocks.5.attn.hook_z"}
    assert torch.equal(zoo.load(place).encode(X), jump(KEPT, thresholds(KEPT)))


@pytest.mark.parametrize(
    ("hookpoint", "hook_name"),
    [
        ("layers.12", "blocks.12.hook_resid_post"),
        ("h.0", "blocks.0.hook_resid_post"),
        ("layers.3.mlp", "blocks.3.hook_mlp_out"),
        ("layers.3.attention", "blocks.3.hook_attn_out"),
        ("layers.3.mlp.dense_h_to_4h", "layers.3.mlp.dense_h_to_4h"),
        ("embed_in", "hook_embed"),
        ("layers.12/seed1", "blocks.12.hook_resid_post"),
        ("mine", None),
    ],
)
def test_folders_of_sparsify_tell_the_hook_point_and_the_run_tells_the_model(tmp_path, hookpoint, hook_name):
    folder = tmp_path / "run" / hookpoint
    folder.mkdir(parents=True)
    sparsify(folder)
    told = Source.open(folder).provenance()
    assert told == ({"hook_name": hook_name} if hook_name else {})
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m"}))
    assert Source.open(folder).provenance() == {"model": "EleutherAI/pythia-70m", **told}


def test_a_run_of_sparsify_on_the_hub_tells_the_same(tmp_path, hub):
    autoencoders.run_of_sparsify(tmp_path)
    hub("org/run", tmp_path, absent=["layers.3/config.json", "layers.3.mlp/config.json"])
    for hookpoint, hook in (("layers.3", "hook_resid_post"), ("layers.3.mlp", "hook_mlp_out")):
        told = Source.open(f"hf:org/run/{hookpoint}").provenance()
        assert told == {"model": "EleutherAI/pythia-70m", "hook_name": f"blocks.3.{hook}"}


@pytest.mark.parametrize(
    ("trainer", "hook_name"),
    [
        ({"layer": 12, "submodule_name": "resid_post_layer_12"}, "blocks.12.hook_resid_post"),
        ({"layer": 3, "submodule_name": "resid_out_layer3"}, "blocks.3.hook_resid_post"),
        ({"layer": 3, "submodule_name": "mlp_out"}, "blocks.3.hook_mlp_out"),
        ({"layer": 3, "submodule_name": "attention_out_layer_3"}, "blocks.3.hook_attn_out"),
        ({"layer": None, "submodule_name": "model.layers[3]"}, "model.layers[3]"),
        ({"layer": 3, "submodule_name": None}, None),
    ],
)
def test_configs_of_dictionary_learning_tell_model_and_hook_point(tmp_path, trainer, hook_name):
    autoencoders.dictionary_learning(tmp_path, "BatchTopKSAE", lm_name="EleutherAI/pythia-160m-deduped", **trainer)
    told = Source.open(tmp_path).provenance()
    assert told == {"model": "EleutherAI/pythia-160m-deduped"} | ({"hook_name": hook_name} if hook_name else {})


@pytest.mark.parametrize(
    "cfg",
    [
        {"metadata": {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"}},
        {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"},
        {"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre"},
    ],
)
def test_configs_of_saelens_of_all_versions_tell_model_and_hook_point(tmp_path, cfg):
    folder = autoencoders.written_by_saelens(tmp_path / "sae")[0]
    written = json.loads((folder / "cfg.json").read_text())
    assert Source.open(folder).provenance() == {}
    (folder / "cfg.json").write_text(json.dumps(written | cfg))
    assert Source.open(folder).provenance() == {"model": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"}


def test_a_checkpoint_of_the_zoo_tells_model_and_hook_point_as_well(tmp_path):
    data = {"class_path": "ActivationsDataModule", "init_args": {"model": "gpt2-stdlib.learned", "layer": 2}}
    provenance = {"config": {"data": data}, "hook_name": "blocks.2.hook_resid_pre", "seed": 4}
    source = Source.open(zoo.save(models.TopKSAE(8, 32, k=3), tmp_path / "sae", provenance=provenance))
    assert source.provenance() == {"model": "gpt2-stdlib.learned", **provenance}
    rows = {"config": {"data": {"init_args": {"source": "gpt2-stdlib.learned"}}}}
    assert Source.open(zoo.save(models.TopKSAE(8, 32, k=3), tmp_path / "rows", provenance=rows)).provenance() == rows


def test_an_autoencoder_of_another_library_keeps_model_and_hook_point_when_it_is_exported(tmp_path):
    autoencoders.run_of_sparsify(tmp_path)
    folder = export_saelens(tmp_path / "layers.3.mlp", tmp_path / "saelens")
    told = {"model": "EleutherAI/pythia-70m", "hook_name": "blocks.3.hook_mlp_out"}
    assert Source.open(folder).provenance() == Source.open(tmp_path / "layers.3.mlp").provenance() == told
    assert torch.equal(zoo.load(folder)(autoencoders.X), zoo.load(tmp_path / "layers.3.mlp")(autoencoders.X))


# On the hub.


def test_gemma_scope_is_read_from_a_cache_that_holds_the_weights_alone(tmp_path, hub, refused):
    folder = "layer_12/width_16k/average_l0_82"
    place = autoencoders.gemma_scope(tmp_path)[0]
    hub("google/gemma-scope-2b-pt-res", place.parents[2])
    source = Source.open(f"hf:google/gemma-scope-2b-pt-res/{folder}")
    assert source.kind == "Gemma Scope"
    assert torch.equal(source.load()(autoencoders.X), zoo.load(place)(autoencoders.X))
    assert source.provenance() == {"model": "google/gemma-2-2b", "hook_name": "blocks.12.hook_resid_post"}
    with refused("layer_13/config.json is not in the local cache and the hub cannot be reached"):
        zoo.load("hf:google/gemma-scope-2b-pt-res/layer_13")


def test_an_autoencoder_of_saelens_is_read_from_a_cache_that_does_not_tell_whether_there_is_another_config(
    tmp_path, hub
):
    saelens.write(models.TopKSAE(8, 32, k=3), tmp_path / "repo" / "a")
    hub("org/repo", tmp_path / "repo")
    assert Source.open("hf:org/repo/a").kind == "SAELens"
    assert torch.equal(zoo.load("hf:org/repo/a")(autoencoders.X), zoo.load(tmp_path / "repo" / "a")(autoencoders.X))


def test_a_model_beside_autoencoders_is_read_as_before(tmp_path, refused):
    autoencoders.run_of_sparsify(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with refused("is a model of type 't5'"):
        zoo.load(tmp_path)
    shutil.rmtree(tmp_path / "layers.3.mlp")
    (tmp_path / "config.json").unlink()
    with refused(r"in each of its folders layers\.3; choose one of them"):
        zoo.load(tmp_path)
