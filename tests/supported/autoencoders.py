"""Autoencoders of other libraries.

Each case writes a folder and returns it. If the folder is read, the case also returns an input and the reconstruction
that the library's formula gives.
"""

import json
from functools import partial

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from supported import Case
from supported.checkpoints import refused_settings
from zoo import models, saelens

TITLE = "Autoencoders of other libraries"
INTRODUCTION = (
    "`zoo.load` reads autoencoders of SAELens (versions 1 to 6), of EleutherAI's sparsify, of dictionary_learning, of "
    "Gemma Scope and of Gemma Scope 2. The table shows as which class, and what is refused. `Source.provenance` tells "
    "the language model (`model`) and the place in it (`hook_name`), as far as the files tell."
)
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


def written_by_saelens(folder, dtype=torch.float32):
    torch.manual_seed(0)
    sae = models.TopKSAE(8, 32, k=3).eval().requires_grad_(False)
    saelens.write(sae, folder)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder, X, sae(X)


def early_saelens(folder):
    """Write a folder as versions before 6 did, where the activation function gives the architecture."""
    made = written_by_saelens(folder)
    cfg = {"d_in": 8, "d_sae": 32, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "prepend_bos": True}
    (folder / "cfg.json").write_text(json.dumps(cfg | {"hook_point": "blocks.8.hook_resid_pre", "dtype": "float32"}))
    return made


def saelens_with(change):
    def make(folder):
        written_by_saelens(folder)
        tensors = load_file(folder / "sae_weights.safetensors")
        save_file(tensors | {"W_enc": change(tensors["W_enc"])}, folder / "sae_weights.safetensors")
        return folder

    return make


def sparsify(folder, **options):
    """Write a folder as `SparseCoder.save_to_disk` of eai-sparsify 1.3 does; also return its `forward`'s output."""
    torch.manual_seed(0)
    cfg = {"activation": "topk", "expansion_factor": 4, "normalize_decoder": True, "num_latents": 0, "k": 3}
    cfg |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": 8} | options
    n = cfg["num_latents"] or 8 * cfg["expansion_factor"]
    W_enc, b_enc, W_dec, b_dec = torch.randn(n, 8), torch.randn(n), torch.randn(n, 8), torch.randn(8)
    tensors = {"W_dec": W_dec, "b_dec": b_dec, "encoder.bias": b_enc, "encoder.weight": W_enc}
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg))
    codes, latents = ((X - b_dec) @ W_enc.T + b_enc).relu().topk(3)
    return folder, X, (codes.unsqueeze(2) * W_dec[latents]).sum(1) + b_dec


def run_of_sparsify(folder):
    """Write the folder of a run of sparsify on two hookpoints."""
    for hookpoint in ("layers.3", "layers.3.mlp"):
        (folder / hookpoint).mkdir()
        sparsify(folder / hookpoint)
    (folder / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m", "sae": {"k": 3}, "layers": [3]}))
    return folder


def gemma_scope_arrays():
    """Random arrays of Gemma Scope, and the output of its function."""
    torch.manual_seed(0)
    W_enc, W_dec, b_enc, b_dec = torch.randn(8, 32), torch.randn(32, 8), torch.randn(32), torch.randn(8)
    threshold = torch.rand(32)
    pre = X @ W_enc + b_enc
    arrays = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": threshold}
    return arrays, (pre > threshold) * pre.relu() @ W_dec + b_dec


def gemma_scope(folder, change=lambda arrays: arrays, place="gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"):
    """Write a folder as Gemma Scope has it; also return the output of the function in its tutorial."""
    arrays, output = gemma_scope_arrays()
    (folder / place).mkdir(parents=True)
    np.savez(folder / place / "params.npz", **change({name: array.numpy() for name, array in arrays.items()}))
    return folder / place, X, output


def gemma_scope_2(folder, change=lambda tensors: tensors, **config):
    """Write a folder as Gemma Scope 2 has it; also return the output of its function."""
    arrays, output = gemma_scope_arrays()
    hook = "model.layers.17.output"
    told = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "width": 32, "l0": 60}
    told |= {"hf_hook_point_in": hook, "hf_hook_point_out": hook, "affine_connection": False}
    save_file(change({n.replace("W", "w"): t for n, t in arrays.items()}), folder / "params.safetensors")
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder, X, output


def truncated_gemma_scope(folder):
    place = gemma_scope(folder)[0]
    content = (place / "params.npz").read_bytes()
    (place / "params.npz").write_bytes(content[: len(content) // 2])
    return place


def dictionary_learning(folder, theirs, change=lambda stored: stored, **trainer):
    """Write a folder as `dictionary_learning` 0.1 does; also return the output of that library's class."""
    torch.manual_seed(0)
    E, D, b_enc, b_dec = torch.randn(32, 8), torch.randn(8, 32), torch.randn(32), torch.randn(8)
    linear, plain = {"encoder.weight": E, "decoder.weight": D}, {"W_enc": E.T, "W_dec": D.T, "b_enc": b_enc}
    threshold, k = torch.tensor(0.7), torch.tensor(3, dtype=torch.int32)
    pre = (X - b_dec) @ E.T + b_enc
    if theirs == "AutoEncoder":
        stored, codes = linear | {"encoder.bias": b_enc, "bias": b_dec}, pre.relu()
    elif theirs == "AutoEncoderNew":
        stored, codes = linear | {"encoder.bias": b_enc, "decoder.bias": b_dec}, (X @ E.T + b_enc).relu()
    elif theirs == "AutoEncoderTopK":
        stored = linear | {"encoder.bias": b_enc, "b_dec": b_dec, "k": k, "threshold": threshold}
        top = pre.relu().topk(3)
        codes = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    elif theirs == "GatedAutoEncoder":
        r_mag, mag_bias = torch.randn(32) / 2, torch.randn(32)
        stored = linear | {"decoder_bias": b_dec, "r_mag": r_mag, "gate_bias": b_enc, "mag_bias": mag_bias}
        codes = (pre > 0) * ((pre - b_enc) * r_mag.exp() + mag_bias).relu()
    elif theirs == "JumpReluAutoEncoder":
        thresholds, pre = torch.rand(32), X @ E.T + b_enc
        stored, codes = plain | {"b_dec": b_dec, "threshold": thresholds}, (pre * (pre > thresholds)).relu()
    else:
        stored = linear | {"encoder.bias": b_enc} if theirs == "BatchTopKSAE" else plain
        stored = stored | {"b_dec": b_dec, "k": k, "threshold": threshold}
        stored |= {"group_sizes": torch.tensor([8, 24])} if theirs == "MatryoshkaBatchTopKSAE" else {}
        codes = pre.relu() * (pre.relu() > threshold)
    torch.save(change({name: tensor.clone() for name, tensor in stored.items()}), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": theirs, "steps": 9} | trainer}))
    return folder, X, codes @ D.T + b_dec


CASES = [
    Case("SAELens, version 6", written_by_saelens),
    Case("SAELens, versions 1 to 5", early_saelens),
    Case("SAELens in float64", lambda f: written_by_saelens(f, torch.float64), "read as float32"),
    Case(
        "SAELens with integer weights",
        saelens_with(lambda t: t.to(torch.int8)),
        "refused: names the tensor and its type",
        "tensor W_enc is torch.int8",
    ),
    Case(
        "SAELens with a weight that is NaN",
        saelens_with(lambda t: t * torch.nan),
        "refused: names the tensor",
        "row 0 of tensor W_enc has entries that are NaN or infinite",
    ),
    Case("TopK autoencoder of sparsify", sparsify, "read as `TopKSAE`"),
    Case("TopK autoencoder of sparsify with `num_latents`", lambda f: sparsify(f, num_latents=40), "read as `TopKSAE`"),
    *[
        Case(
            f"sparsify with {key} {value}",
            refused_settings(sparsify, **{key: value}),
            "refused: names the setting",
            key,
        )
        for key, value in {
            "activation": "groupmax",
            "transcode": True,
            "skip_connection": True,
            "embed_skip": True,
            "gram_lookup": True,
        }.items()
    ],
    Case(
        "run of sparsify on several hookpoints",
        run_of_sparsify,
        "refused: names the folders, each of which is read",
        r"has an autoencoder in each of its folders layers\.3, layers\.3\.mlp; choose one of them",
    ),
    *[
        Case(f"{theirs} of dictionary_learning", partial(dictionary_learning, theirs=theirs), f"read as `{ours}`")
        for theirs, ours in {
            "AutoEncoder": "ReLUSAE",
            "AutoEncoderNew": "ReLUSAE",
            "AutoEncoderTopK": "TopKSAE",
            "GatedAutoEncoder": "GatedSAE",
            "JumpReluAutoEncoder": "JumpReLUSAE",
            "BatchTopKSAE": "JumpReLUSAE",
            "MatryoshkaBatchTopKSAE": "JumpReLUSAE",
        }.items()
    ],
    Case(
        "AutoEncoderTopK of dictionary_learning with k in the config only",
        lambda f: dictionary_learning(
            f, "AutoEncoderTopK", lambda s: {n: t for n, t in s.items() if n not in ("k", "threshold")}, k=3
        ),
        "read as `TopKSAE`",
    ),
    Case(
        "AutoEncoderTopK of dictionary_learning without k",
        refused_settings(
            dictionary_learning, theirs="AutoEncoderTopK", change=lambda s: {n: t for n, t in s.items() if n != "k"}
        ),
        "refused: says so",
        r"k in config\.json is None; expected a whole number",
    ),
    Case(
        "another class of dictionary_learning",
        refused_settings(dictionary_learning, theirs="CrossCoder"),
        "refused: names the class and the classes that are read",
        "is a CrossCoder of dictionary_learning; the zoo reads AutoEncoder, ",
    ),
    *[
        Case(
            f"dictionary_learning {what}",
            refused_settings(dictionary_learning, theirs="JumpReluAutoEncoder", change=change),
            "refused: names the tensor",
            message,
        )
        for what, change, message in (
            ("with NaN", lambda s: s | {"b_enc": s["b_enc"] * torch.nan}, "tensor b_enc has entries that are NaN"),
            ("with an extra tensor", lambda s: s | {"W_skip": s["W_dec"]}, "differ in W_skip"),
            ("with a missing tensor", lambda s: {"W_enc": s["W_enc"]}, "differ in W_dec"),
            ("with a wrong shape", lambda s: s | {"b_dec": s["b_enc"]}, r"b_dec has shape \[32\]; expected \[8\]"),
        )
    ],
    Case("Gemma Scope, `params.npz`", gemma_scope, "read as `JumpReLUSAE`"),
    Case("Gemma Scope 2, `params.safetensors`", gemma_scope_2, "read as `JumpReLUSAE`"),
    Case(
        "transcoder of Gemma Scope, in a folder with the name of its repository",
        refused_settings(gemma_scope, place="gemma-scope-2b-pt-transcoders/layer_12/width_16k/average_l0_6"),
        "refused: says that it is a transcoder",
        "is a transcoder of Gemma Scope",
    ),
    Case(
        "transcoder of Gemma Scope 2",
        refused_settings(gemma_scope_2, hf_hook_point_out="model.layers.17.post_feedforward_layernorm.output"),
        "refused: says that it is a transcoder",
        "is a transcoder of Gemma Scope",
    ),
    Case(
        "Gemma Scope 2 with another architecture",
        refused_settings(gemma_scope_2, architecture="topk"),
        "refused: names the architecture",
        "the architecture is 'topk'",
    ),
    Case("truncated Gemma Scope", truncated_gemma_scope, "refused: names the file", r"params\.npz is damaged"),
    *[
        Case(
            f"Gemma Scope {what}", refused_settings(gemma_scope, change=change), f"refused: names the {named}", message
        )
        for what, change, named, message in (
            (
                "with NaN",
                lambda a: a | {"b_enc": a["b_enc"] * np.nan},
                "tensor",
                "tensor b_enc has entries that are NaN",
            ),
            (
                "with an extra array",
                lambda a: a | {"W_skip": a["W_dec"]},
                "array",
                "W_skip of params.npz does not belong",
            ),
            ("with a missing array", lambda a: {"W_enc": a["W_enc"]}, "array", "params.npz has no tensor W_dec"),
            ("without encoder", lambda a: {"W_dec": a["W_dec"]}, "array", "params.npz has no tensor W_enc"),
            (
                "with a wrong shape",
                lambda a: a | {"b_dec": a["b_enc"]},
                "array",
                r"b_dec has shape \[32\]; W_enc says \[8\]",
            ),
            ("with an encoder that is no matrix", lambda a: a | {"W_enc": a["b_enc"]}, "array", "W_enc of shape"),
            ("of integers", lambda a: a | {"W_enc": a["W_enc"].astype(int)}, "array", "int64 numbers in W_enc"),
            (
                "with a pickle",
                lambda a: a | {"W_enc": np.array([print])},
                "file",
                r"params\.npz is damaged, or is not a",
            ),
        )
    ],
]
