"""Autoencoders of other libraries.

Each case writes a folder and returns it. If the folder is read, the case also returns an input and the reconstruction
that the library's formula gives.
"""

import json
from functools import partial

import torch
from safetensors.torch import load_file, save_file

from supported import Case
from supported.checkpoints import refused_settings
from zoo import models, saelens

TITLE = "Autoencoders of other libraries"
INTRODUCTION = (
    "`zoo.load` reads autoencoders of SAELens (versions 1 to 6), of EleutherAI's sparsify and of dictionary_learning. "
    "The table shows as which class, and what is refused."
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


def dictionary_learning(folder, theirs, change=lambda stored: stored):
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
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": theirs, "steps": 9}, "buffer": {}}))
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
        for key, value in {"activation": "groupmax", "transcode": True, "skip_connection": True}.items()
    ],
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
]
