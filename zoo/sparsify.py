"""Reader of EleutherAI's sparsify (`eai-sparsify`) autoencoders, `cfg.json` and `sae.safetensors`, as `TopKSAE`.

A run of sparsify has one such folder for every hookpoint. The folder's name is the name of the module whose output was
reconstructed, such as `layers.12` or `layers.12.mlp`. If the run has several seeds, the folder is `layers.12/seed0`.
"""

import re
from typing import Any

import torch
from torch import Tensor

from zoo import checkpoint_config
from zoo.checkpoints import read_tensors
from zoo.errors import ZooError
from zoo.source_files import Folder

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
EXPECTED = {
    "activation": "topk",
    "transcode": False,
    "skip_connection": False,
    "embed_skip": False,
    "gram_lookup": False,
    "signed": False,
}
HOOKS = {  # module of a layer -> hook point of TransformerLens at its output
    "": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "attn": "hook_attn_out",
    "attention": "hook_attn_out",
    "self_attn": "hook_attn_out",
}
EMBEDDINGS = dict.fromkeys(("embed_in", "embed_tokens", "wte"), "hook_embed")


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the class, init arguments and tensors from which `checkpoints.build` makes a network.

    Raises:
        ZooError: If a file is missing or damaged, or the zoo has no network that computes the same.
    """
    cfg, name = files.json(CONFIG), files.name
    for key, expected in EXPECTED.items():
        if cfg.get(key, expected) != expected:
            raise ZooError(
                f"{name}: {key} is {cfg[key]!r}, which the zoo's networks do not support; expected {expected!r}"
            )
    sizes = {key: cfg.get(key, 0 if key == "num_latents" else None) for key in ("d_in", "k", "num_latents")}
    for key, size in (sizes | {"expansion_factor": cfg["expansion_factor"]}).items():
        if type(size) is not int:
            raise ZooError(f"{name}: {key} in {CONFIG} is {size!r}; expected a whole number")
    d_sae = sizes["num_latents"] or sizes["d_in"] * cfg["expansion_factor"]
    tensors: dict[str, Tensor] = {"scale": torch.ones(())}
    for key, tensor in read_tensors(files.require(WEIGHTS)).items():
        tensors[NAMES.get(key, key)] = tensor.mT if key == "encoder.weight" and tensor.ndim == 2 else tensor
    return "TopKSAE", {"d_in": sizes["d_in"], "d_sae": d_sae, "k": sizes["k"]}, tensors


def trained_on(files: Folder) -> dict[str, Any]:
    """See `Folder.trained_on`. The model's name is in the `config.json` of the run, which is next to the folder."""
    place, up = files.require(CONFIG).absolute().parent, "../"
    if re.fullmatch(r"seed\d+", place.name):
        place, up = place.parent, "../../"
    config = files.json(up + checkpoint_config.NAME) if files.path(up + checkpoint_config.NAME) else {}
    module = re.fullmatch(r"[\w.]+\.(\d+)(?:\.([\w.]+))?", place.name)
    hook = HOOKS.get(module[2] or "") if module else None
    hook_name = f"blocks.{module[1]}.{hook}" if module and hook else module and module[0]
    return {"model": config.get("model"), "hook_name": EMBEDDINGS.get(place.name, hook_name)}
