"""Reader of EleutherAI's sparsify (`eai-sparsify`) autoencoders, `cfg.json` and `sae.safetensors`, as `TopKSAE`."""

from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints import read_tensors
from zoo.errors import ZooError
from zoo.source_files import Folder

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
EXPECTED = {"activation": "topk", "transcode": False, "skip_connection": False, "signed": False}


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
