"""Folders of SAELens 6, with `cfg.json` and `sae_weights.safetensors`: written for `SAE.load_from_disk`, and read.

==================  ===============================================================================================
SAELens             the zoo
==================  ===============================================================================================
`standard`          `ReLUSAE`
`topk`              `TopKSAE`
`jumprelu`          `JumpReLUSAE`. `BatchTopKSAE` and `MatryoshkaSAE` are written as the `jumprelu` SAE that computes
                    the same at inference, and read back as a `JumpReLUSAE`
`gated`             `GatedSAE`
==================  ===============================================================================================

Folders of SAELens 1 to 5 are read as well. Some settings give the same function with other parameters: an input from
which b_dec is not subtracted, codes in units of the decoder's norms, and codes that are rescaled before decoding. The
parameters are then converted. Settings that no network of the zoo can represent are refused.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.checkpoints import as_weights, read_tensors, write_tensors
from zoo.errors import ZooError
from zoo.models.sae.top_k import BatchTopKSAE
from zoo.models.sae.variants import variants
from zoo.paths import expanded
from zoo.replacing import replacing
from zoo.source_files import Folder

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
CLASSES = {  # SAELens's architecture -> class of `zoo.models`
    "standard": "ReLUSAE",
    "topk": "TopKSAE",
    "jumprelu": "JumpReLUSAE",
    "gated": "GatedSAE",
}
LAYOUT_VERSION = "6.0.0"  # version of SAELens; without it, SAELens reads `cfg.json` as a file of version 5
FACTORS = ("scaling_factor", "finetuning_scaling_factor")  # names of factors on codes in decoding, in old versions
DEFAULTS = {"apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": False, "finetuning_scaling_factor": False}
HARMLESS = {  # settings that may change the function, and their values that leave it unchanged
    "normalize_activations": ("none", False, None),
    "reshape_activations": ("none", None),
    "activation_fn": ("relu", None),
}


def write(sae: nn.Module, folder: str | Path, metadata: dict[str, Any] | None = None) -> Path:
    """Write a sparse autoencoder as a SAELens folder; a SAELens folder that exists there is replaced.

    Args:
        sae: Sparse autoencoder, an instance of a variant of `zoo.models`.
        folder: Folder to write.
        metadata: SAELens's metadata about the data, such as `model_name`, `hook_name` and `context_size`.

    Returns:
        The folder.

    Raises:
        ZooError: If SAELens has no architecture for the network, or the folder contains other files.
    """
    folder, name = expanded(folder), type(sae).__name__
    architecture = vars(type(sae)).get("saelens_architecture")
    if architecture is None:
        known = [cls.__name__ for cls in variants().values() if vars(cls).get("saelens_architecture")]
        raise ZooError(f"SAELens has no architecture for a {name}; it has one for {', '.join(known)}")
    tensors = {key: tensor.detach().float().cpu().contiguous() for key, tensor in sae.state_dict().items()}
    scale = tensors.pop("scale").item()
    config: dict[str, Any] = getattr(sae, "config", {})
    if isinstance(sae, BatchTopKSAE):  # its latents are on at or above the threshold, those of a JumpReLU only above it
        least = tensors["threshold"].clamp(min=0)
        tensors["threshold"] = torch.nextafter(least, torch.zeros(())).expand_as(tensors["b_enc"]).contiguous()
    cfg = {
        "architecture": architecture,
        "d_in": config["d_in"],
        "d_sae": config["d_sae"],
        **({"k": config["k"], "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": LAYOUT_VERSION,
            "sae_lens_training_version": None,
            "zoo": {"class": name, "init_args": config, "scale": scale},
            **(metadata or {}),
        },
    }
    with replacing(folder, (CONFIG, WEIGHTS)) as new:
        write_tensors(tensors, new / WEIGHTS)
        (new / CONFIG).write_text(json.dumps(cfg, indent=1) + "\n", "utf-8")
    return folder


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the arguments of `checkpoints.build`: class, init arguments and tensors.

    Raises:
        ZooError: If a file is missing or damaged, or no network of the zoo computes the same function.
    """
    name = files.name
    cfg = _settings(files.json(CONFIG), name)
    architecture, d_in, d_sae = cfg["architecture"], cfg["d_in"], cfg["d_sae"]
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    shapes |= dict.fromkeys(("b_gate", "b_mag", "r_mag") if architecture == "gated" else ("b_enc",), (d_sae,))
    shapes |= {"threshold": (d_sae,)} if architecture == "jumprelu" else {}
    stored = read_tensors(files.require(WEIGHTS))
    tensors = {key: as_weights(tensor, torch.float32, key, name) for key, tensor in stored.items()}
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    shapes |= {key: (d_sae,) for key in FACTORS if key in tensors}
    check_shapes(tensors, shapes, name, WEIGHTS, CONFIG)
    factors = next((tensors.pop(key) for key in FACTORS if key in tensors), torch.ones(d_sae))
    if not cfg["finetuning_scaling_factor"] and not torch.allclose(factors, torch.ones(d_sae)):
        raise ZooError(f"{name}: {WEIGHTS} has scaling factors, but finetuning_scaling_factor is not true")
    norms = tensors["W_dec"].norm(dim=1) if cfg["rescale_acts_by_decoder_norm"] else torch.ones(d_sae)
    tensors["W_dec"] = tensors["W_dec"] * (factors / norms.clamp(min=1e-30))[:, None]
    tensors["W_enc"] = tensors["W_enc"] * norms
    if "b_enc" in tensors:
        tensors["b_enc"] = tensors["b_enc"] * norms
    if not cfg["apply_b_dec_to_input"]:
        undo_subtraction(tensors)
    if architecture == "jumprelu":
        tensors["threshold"] = tensors["threshold"].clamp(min=0)  # codes are rectified, so negative ones act as 0
    tensors["scale"] = torch.tensor(cfg["scale"])
    return CLASSES[architecture], {"d_in": d_in, "d_sae": d_sae, **cfg["k"]}, tensors


def training_data(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return SAELens's metadata about the data of a run on activations; empty for other runs.

    Args:
        provenance: The result of `Source.provenance`.
    """
    if "model" not in provenance:
        return {}
    model = str(provenance["model"]).removeprefix("hf:").partition("@")[0]
    data = ((provenance.get("config") or {}).get("data") or {}).get("init_args") or {}
    before_layer = f"blocks.{data['layer']}.hook_resid_pre" if "layer" in data else None  # of early versions
    metadata = {
        "model_name": model.removeprefix("openai-community/"),  # TransformerLens calls it gpt2
        "hook_name": provenance.get("hook_name", before_layer),  # None if there are several
    }
    more = {"context_size": data.get("sequence_length"), "prepend_bos": bool(provenance.get("prepend_bos"))}
    return metadata | (more if data else {})


def trained_on(files: Folder) -> dict[str, Any]:
    """See `Folder.trained_on`. Versions before 6 keep the names outside the metadata."""
    cfg = files.json(CONFIG)
    told = {**cfg, **metadata} if isinstance(metadata := cfg.get("metadata"), dict) else cfg
    return {"model": told.get("model_name"), "hook_name": told.get("hook_name", told.get("hook_point"))}


def _settings(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings on which the function depends, from a `cfg.json` of any version."""
    cfg = {"architecture": "standard", "activation_fn": cfg.get("activation_fn_str"), **DEFAULTS} | cfg
    if "hook_z" in str(cfg.get("hook_name", cfg.get("hook_point"))):  # version 6 has hook_name in metadata
        cfg.setdefault("reshape_activations", "hook_z")
    if cfg["activation_fn"] == "topk" and cfg["architecture"] in ("standard", "topk"):
        kwargs = cfg.get("activation_fn_kwargs")
        k = kwargs.get("k") if isinstance(kwargs, dict) else None
        cfg |= {"architecture": "topk", "activation_fn": None, "k": cfg.get("k", k)}
    architecture = cfg["architecture"]
    if architecture not in list(CLASSES):
        raise ZooError(f"{name}: the architecture is {architecture!r}; the zoo reads {', '.join(CLASSES)}")
    for key, harmless in HARMLESS.items():
        if cfg.get(key) not in harmless:
            hint = "; fold it into the weights with SAELens first" if "average" in str(cfg[key]) else ""
            raise ZooError(f"{name}: {key} is {cfg[key]!r}, which no network of the zoo supports{hint}")
    kinds = dict.fromkeys(("d_in", "d_sae", *(["k"] if architecture == "topk" else [])), int)
    for key, kind in (kinds | dict.fromkeys(DEFAULTS, bool)).items():
        if type(cfg.get(key)) is not kind:
            expected = "true or false" if kind is bool else "a whole number"
            raise ZooError(f"{name}: {key} in {CONFIG} is {cfg.get(key)!r}, not {expected}")
    metadata = cfg.get("metadata")
    ours = metadata.get("zoo") if isinstance(metadata, dict) else None
    scale = ours.get("scale") if isinstance(ours, dict) else None
    return {
        **{key: cfg[key] for key in ("architecture", "d_in", "d_sae", *DEFAULTS)},
        "rescale_acts_by_decoder_norm": architecture == "topk" and cfg["rescale_acts_by_decoder_norm"],
        "k": {"k": cfg["k"]} if architecture == "topk" else {},
        "scale": scale if isinstance(scale, float) and scale > 0 else 1.0,
    }


def check_shapes(
    tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], name: str, weights: str, sizes: str
) -> None:
    """Refuse tensors that are missing, unknown or of another shape.

    Args:
        tensors: Tensors by name.
        shapes: Names and shapes of the tensors of the architecture.
        name: Name of the source, for messages.
        weights: Name of the file of the tensors, for messages.
        sizes: Name of what tells the shapes, for messages.

    Raises:
        ZooError: If a tensor does not fit.
    """
    for key in sorted(shapes.keys() | tensors.keys()):
        if key not in tensors:
            raise ZooError(f"{name}: {weights} has no tensor {key}")
        if key not in shapes:
            raise ZooError(f"{name}: tensor {key} of {weights} does not belong to its architecture")
        if (shape := tuple(tensors[key].shape)) != shapes[key]:
            raise ZooError(f"{name}: tensor {key} has shape {list(shape)}; {sizes} says {list(shapes[key])}")


def undo_subtraction(tensors: dict[str, Tensor]) -> None:
    """Change the biases so that the function stays the same when b_dec is subtracted from the input."""
    lost = (tensors["b_dec"].double() @ tensors["W_enc"].double()).float()
    if "b_enc" in tensors:
        tensors["b_enc"] = tensors["b_enc"] + lost
    else:
        tensors["b_gate"] = tensors["b_gate"] + lost
        tensors["b_mag"] = tensors["b_mag"] + tensors["r_mag"].exp() * lost
