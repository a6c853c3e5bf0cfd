"""Reader of autoencoders of the package `dictionary_learning`: `config.json`, and `ae.pt` with a dict of tensors.

==========================================  ===========================================================================
class of `dictionary_learning`              class of the zoo
==========================================  ===========================================================================
`AutoEncoder`, `AutoEncoderNew`             `ReLUSAE`
`AutoEncoderTopK`                           `TopKSAE`
`GatedAutoEncoder`                          `GatedSAE`
`JumpReluAutoEncoder`                       `JumpReLUSAE`
`BatchTopKSAE`, `MatryoshkaBatchTopKSAE`    `JumpReLUSAE` with their threshold, which computes the same at inference
==========================================  ===========================================================================

Codes are those of the weights as they are stored. For an `AutoEncoder`, the library's `from_pretrained` multiplies each
code by the norm of its atom, unless told not to; the reconstruction is the same.
"""

import re
from typing import Any

import torch
from torch import Tensor

from zoo import checkpoint_config
from zoo.checkpoints import as_weights, read_pickle
from zoo.errors import ZooError
from zoo.saelens import undo_subtraction
from zoo.source_files import Folder

WEIGHTS = "ae.pt"
LINEAR = {"encoder.weight": "W_enc", "decoder.weight": "W_dec"}  # these tensors are stored transposed
BIASED = LINEAR | {"encoder.bias": "b_enc"}
PLAIN = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
CLASSES = {  # class of dictionary_learning -> class of the zoo, and names of tensors in both
    "AutoEncoder": ("ReLUSAE", BIASED | {"bias": "b_dec"}),
    "AutoEncoderNew": ("ReLUSAE", BIASED | {"decoder.bias": "b_dec"}),
    "AutoEncoderTopK": ("TopKSAE", BIASED | {"b_dec": "b_dec"}),
    "GatedAutoEncoder": (
        "GatedSAE",
        LINEAR | {"decoder_bias": "b_dec", "r_mag": "r_mag", "gate_bias": "b_gate", "mag_bias": "b_mag"},
    ),
    "JumpReluAutoEncoder": ("JumpReLUSAE", PLAIN),
    "BatchTopKSAE": ("JumpReLUSAE", BIASED | {"b_dec": "b_dec", "threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": ("JumpReLUSAE", PLAIN),
}
KEEP_B_DEC = ("AutoEncoderNew", "JumpReluAutoEncoder")  # classes that do not subtract b_dec from the input
OF_TRAINING = {"AutoEncoderTopK": ("k", "threshold"), "BatchTopKSAE": ("k",)}  # early versions do not store them
OF_TRAINING["MatryoshkaBatchTopKSAE"] = ("k", "group_sizes")
HOOKS = {  # beginning of a `submodule_name` -> hook point of TransformerLens
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "resid_out": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "attention_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
}


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the class, init arguments and tensors from which `checkpoints.build` makes a network.

    Raises:
        ZooError: If a file is missing or damaged, or the zoo has no network that computes the same.
    """
    trainer, name = files.json(checkpoint_config.NAME)["trainer"], files.name
    theirs = trainer["dict_class"]
    if theirs not in list(CLASSES):
        raise ZooError(f"{name} is a {theirs} of dictionary_learning; the zoo reads {', '.join(CLASSES)}")
    ours, names = CLASSES[theirs]
    stored = read_pickle(files.require(WEIGHTS))
    aside = OF_TRAINING.get(theirs, ())
    if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise ZooError(f"{name}: {WEIGHTS} must hold a dict of tensors")
    if odd := sorted((stored.keys() | {*aside}) ^ {*names, *aside}):
        raise ZooError(f"{name}: the tensors in {WEIGHTS} are not those of a {theirs}; they differ in {odd[0]}")
    tensors = {new: as_weights(stored[old], torch.float32, old, name) for old, new in names.items()}
    tensors |= {new: tensors[new].mT for old, new in LINEAR.items() if old in names and tensors[new].ndim == 2}
    if tensors["W_enc"].ndim != 2:
        raise ZooError(f"{name}: the encoder's weights have shape {list(tensors['W_enc'].shape)}; expected a matrix")
    d_in, d_sae = tensors["W_enc"].shape
    if "threshold" in tensors:  # codes are rectified, so thresholds below 0 have the effect of 0
        threshold = tensors["threshold"].clamp(min=0)
        tensors["threshold"] = threshold if threshold.ndim else threshold.expand(d_sae)
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for key, tensor in tensors.items():
        if (shape := tuple(tensor.shape)) != (expected := shapes.get(key, (d_sae,))):
            raise ZooError(
                f"{name}: {key} has shape {list(shape)}; expected {list(expected)} from the encoder's weights"
            )
    if theirs in KEEP_B_DEC:
        undo_subtraction(tensors)
    tensors["scale"] = torch.ones(())
    k = {"k": _k(stored.get("k"), trainer.get("k"), name)} if ours == "TopKSAE" else {}
    return ours, {"d_in": d_in, "d_sae": d_sae, **k}, tensors


def trained_on(files: Folder) -> dict[str, Any]:
    """See `Folder.trained_on`. The hook point is known only if `submodule_name` begins with one of `HOOKS`."""
    trainer = files.json(checkpoint_config.NAME)["trainer"]
    layer, submodule = trainer.get("layer"), trainer.get("submodule_name")
    site = re.match("|".join(HOOKS), str(submodule))
    hook_name = f"blocks.{layer}.{HOOKS[site[0]]}" if site and type(layer) is int else submodule
    return {"model": trainer.get("lm_name"), "hook_name": hook_name}


def _k(stored: Tensor | None, configured: Any, name: str) -> int:
    """Return the number of latents that are on. Early versions store it in the config only."""
    k = configured if stored is None else stored.tolist()
    if type(k) is not int:
        where = checkpoint_config.NAME if stored is None else WEIGHTS
        raise ZooError(f"{name}: k in {where} is {k!r}; expected a whole number")
    return k
