"""Reader of the autoencoders of Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors`), as `JumpReLUSAE`.

With z = x W_enc + b_enc, codes are ReLU(z) where z > threshold and 0 elsewhere, and the reconstruction is codes W_dec +
b_dec (Lieberum et al. 2024, arXiv 2408.05147, section 2). A `JumpReLUSAE` subtracts b_dec from its input, so b_enc is
converted. Gemma Scope has no config: the model and the site are read from the names of the folders, as in
gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82. Gemma Scope 2 has a `config.json`.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.checkpoint_config import NAME
from zoo.checkpoints import as_weights, read_tensors
from zoo.errors import ZooError
from zoo.saelens import check_shapes, undo_subtraction
from zoo.source_files import GEMMA_SCOPE, Folder

NPZ, SAFETENSORS = GEMMA_SCOPE
REPOSITORY = re.compile(r"gemma-scope-(2-)?(270m|1b|2b|4b|9b|12b|27b)-(pt|it)(?:-(res|mlp|att|transcoders))?(?=/|$)")
HOOKS = {  # part of a repository's or a folder's name, or module in a config -> hook point of TransformerLens
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",
    "output": "hook_resid_post",
    "post_feedforward_layernorm.output": "hook_mlp_out",
    "self_attn.o_proj.input": "attn.hook_z",
}


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the class, init arguments and tensors from which `checkpoints.build` makes a network.

    Raises:
        ZooError: If a file is missing or damaged, or it holds a transcoder.
    """
    name, file, config = files.name, _weights(files), _config(files)
    repository, folder = _place(files)
    goes_in = config.get("hf_hook_point_in")
    is_transcoder = config.get("hf_hook_point_out", goes_in) not in (goes_in, None)
    is_transcoder |= bool(re.search(r"(?:^|/)(transcoder|crosscoder|clt)\w*/", folder))
    if is_transcoder or (repository and repository[4] == "transcoders"):
        raise ZooError(f"{name} is a transcoder of Gemma Scope, not an autoencoder: its output is not its input")
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise ZooError(f"{name}: the architecture is {architecture!r}; the zoo reads 'jump_relu'")
    stored = _read_npz(files.require(NPZ)) if file == NPZ else read_tensors(files.require(SAFETENSORS))
    tensors = {re.sub("^w_", "W_", key): as_weights(tensor, torch.float32, key, name) for key, tensor in stored.items()}
    W_enc = tensors.get("W_enc")
    if W_enc is None or W_enc.ndim != 2:
        what = "has no tensor W_enc" if W_enc is None else f"holds W_enc of shape {list(W_enc.shape)}, not a matrix"
        raise ZooError(f"{name}: {file} {what}")
    d_in, d_sae = W_enc.shape
    shapes = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_in),
        "b_dec": (d_in,),
        "b_enc": (d_sae,),
        "threshold": (d_sae,),
    }
    check_shapes(tensors, shapes, name, file, "W_enc")
    tensors["threshold"] = tensors["threshold"].clamp(min=0)  # codes are rectified, so negative ones act as 0
    undo_subtraction(tensors)
    return "JumpReLUSAE", {"d_in": d_in, "d_sae": d_sae}, tensors | {"scale": torch.ones(())}


def trained_on(files: Folder) -> dict[str, Any]:
    """Return `model` and `hook_name`, see `Folder.trained_on`.

    For autoencoders of embedding rows, `hook_name` is "hook_embed". They read rows that are not scaled.
    """
    config, (repository, folder) = _config(files), _place(files)
    model, hook_name = config.get("model_name"), None
    if repository:
        generation, size, training = "3" if repository[1] else "2", repository[2], repository[3]
        suffix = f"-{training}" if training == "it" or (generation == "3" and size != "270m") else ""
        model = f"google/gemma-{generation}-{size}{suffix}"
    told = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", str(config.get("hf_hook_point_in")))
    layer = re.search(r"(?:(\w+?)(?:_all)?/)?layer_(\d+)(?=[_/])", folder)
    if told:
        site = HOOKS.get(told[2])
        hook_name = f"blocks.{told[1]}.{site}" if site else told[0]
    elif repository and repository[4] == "res" and "/embedding/" in folder:
        hook_name = "hook_embed"
    elif layer and (site := HOOKS.get((repository and repository[4]) or layer[1] or "")):
        hook_name = f"blocks.{layer[2]}.{site}"
    return {"model": model, "hook_name": hook_name}


def _weights(files: Folder) -> str:
    """Return the name of the file of the weights."""
    return SAFETENSORS if _config(files) or not files.path(NPZ) else NPZ


def _config(files: Folder) -> dict[str, Any]:
    """Return the config of Gemma Scope 2, empty for Gemma Scope."""
    return files.json(NAME) if files.marker == NAME else {}


def _place(files: Folder) -> tuple[re.Match[str] | None, str]:
    """Return the parts of the repository's name, if a folder has it, and the path of the folder in the repository."""
    path = files.require(_weights(files)).absolute().parent.as_posix() + "/"
    repository = REPOSITORY.search(path)
    return repository, path[repository.end() :] if repository else "/".join(path.split("/")[-3:])


def _read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a .npz file; nothing in the file is executed.

    Raises:
        ZooError: If the file is damaged, or holds anything but arrays of floating-point numbers.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    arrays[entry.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
                    if file.read(1) or not entry.removesuffix(".npy").isidentifier():  # reading to the end checks it
                        raise ValueError("there is more than an array, or its name is damaged")
    except Exception:  # zipfile, zlib and numpy raise exceptions of many kinds
        raise ZooError(f"{path} is damaged, or is not a .npz file of numbers") from None
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ZooError(f"{path} holds {array.dtype} numbers in {name}; expected floating-point numbers")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite, which is refused later
        return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}
