"""The zoo checkpoint: a folder with weights, the values that rebuild the network, and its provenance.

====================  ================================================================================================
`model.safetensors`   the tensors; tied tensors are stored once
`config.json`         under the key "zoo": format version, class name, init arguments as plain values, training step,
                      provenance, and the SHA-256 of every tensor, of the other files and of this entry. If the class
                      defines a Hugging Face config, its keys stand next to "zoo", so that `transformers` loads the
                      same folder
`tokenizer.json`      the tokenizer, if the model reads text
`token_counts.json`   how often each token occurs in the training text, one number per token id, if known
`README.md`           the model card
====================  ================================================================================================

The folder contains no executable code and no pickles. A checkpoint refers to its class by name.
"""

import hashlib
import importlib
import inspect
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo import checkpoint_config
from zoo.checkpoint_config import CARD, FILES, TOKEN_COUNTS, TOKENIZER, WEIGHTS
from zoo.errors import ZooError
from zoo.model_card import model_card
from zoo.network import Network
from zoo.paths import expanded
from zoo.replacing import replacing
from zoo.source_files import Folder

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save(
    model: nn.Module,
    folder: str | Path,
    step: int = 0,
    provenance: dict[str, Any] | None = None,
    tokenizer_json: str | None = None,
    card: str | None = None,
    token_counts: list[int] | None = None,
    dtype: torch.dtype | None = None,
    title: str | None = None,
) -> Path:
    """Write a model as a zoo checkpoint; an older checkpoint there is replaced only once the new one is complete.

    Args:
        model: A network of `zoo.models`; its `config` holds the init arguments.
        folder: Where to write.
        step: Training step of the weights.
        provenance: Description of the run in plain JSON: its config, seed, corpus fingerprint, versions, metrics.
        tokenizer_json: The tokenizer, serialised.
        card: Text of the model card; by default it is written from the other arguments.
        token_counts: How often each token occurs in the training text, one number per token id.
        dtype: Type in which floating-point tensors are stored, such as torch.float16 for half the size. By default they
            are stored as they are. Loading returns float32 in both cases.
        title: Title of the card; by default the name of the folder.

    Returns:
        The folder.

    Raises:
        ZooError: If `load` could not rebuild the network, the folder contains something other than a zoo checkpoint, or
            it cannot be written.
    """
    check_loadable(model)
    folder = expanded(folder)
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            stored_as = dtype if dtype and tensor.is_floating_point() else tensor.dtype
            tensors[name] = tensor.detach().to("cpu", stored_as).contiguous()
            if not torch.equal(tensors[name].isfinite(), tensor.isfinite().cpu()):
                raise ZooError(
                    f"tensor {name} does not fit into {dtype}: its largest entry is {tensor.abs().max():.3g}"
                )
    part: dict[str, Any] = {
        **named_class(model),
        "init_args": model.config,
        "step": step,
        "tensors": {name: _tensor_digest(tensor) for name, tensor in tensors.items()},
        "files": {},
        "provenance": provenance or {},
        "dtype": _dtype_name(tensors),
    }
    check_kind(folder)
    with replacing(folder, FILES) as new:
        write_tensors(tensors, new / WEIGHTS)
        counts_json = None if token_counts is None else json.dumps(token_counts)
        for name, text in {TOKENIZER: tokenizer_json, TOKEN_COUNTS: counts_json}.items():
            if text is not None:
                (new / name).write_text(text, "utf-8")
                part["files"][name] = hashlib.sha256(text.encode()).hexdigest()
        hf_config: dict[str, Any] = getattr(model, "hf_config", lambda: {})()
        checkpoint_config.write(new, part, hf_config)
        (new / CARD).write_text(card or model_card(title or folder.name, type(model), part), "utf-8")
    return folder


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the arguments of `build`: class, init arguments and tensors. Every file is checked against its hash.

    Raises:
        ZooError: If the checkpoint is damaged, incomplete or of a newer format.
    """
    part, weights = files.zoo_part or {}, files.require(WEIGHTS)
    tensors = read_tensors(weights)
    for name in part["tensors"]:
        if name not in tensors:
            raise ZooError(f"checkpoint {weights.parent} is damaged: tensor {name} is missing")
    for name, tensor in tensors.items():
        verify_tensor(part, name, tensor, weights.parent)
    for name in part["files"]:
        files.verified(name)
    return class_path(part), part["init_args"], tensors


def read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the network's tensors and the "zoo" part of a Lightning checkpoint; nothing in the file is executed.

    Raises:
        ZooError: If the file is missing or damaged, contains more than plain data, or was not written by the zoo.
    """
    path = expanded(path)
    if not path.is_file():
        raise ZooError(f"{path} is a folder, not a .ckpt file" if path.is_dir() else f"{path} does not exist")
    checkpoint = read_pickle(path)
    zoo_part = checkpoint.get("zoo") if isinstance(checkpoint, dict) and "state_dict" in checkpoint else None
    if not isinstance(zoo_part, dict) or not {"class", "init_args"} <= zoo_part.keys():
        raise ZooError(f"{path} was not written by a module of the zoo: it does not say which network it holds")
    if not isinstance(checkpoint["state_dict"], dict):
        raise ZooError(f"{path} is damaged: its state_dict is not a dict")
    prefix = "net."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if str(k).startswith(prefix)}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise ZooError(f"{path} is damaged: {name} is not a tensor of numbers")
    return state, zoo_part


def build(path: str, init_args: dict[str, Any], tensors: dict[str, Tensor], source: str | Path) -> nn.Module:
    """Build a network and load its weights. All tensors must be given, except copies of tied tensors.

    Args:
        path: Class of the network, in the format of `class_path`.
        init_args: Arguments of the class.
        tensors: State dict of the network.
        source: Name of the checkpoint, for messages.

    Returns:
        The network, in eval mode and without gradients.

    Raises:
        ZooError: If the class is unknown, or a tensor is missing, unexpected or of another shape.
    """
    cls, class_name = network_class(path, source), path.rpartition(":")[2]
    try:
        n_numbers = sum(tensor.numel() for tensor in tensors.values())
        with torch.random.fork_rng(devices=[]), _of_size(init_args, n_numbers, source):
            model = cls(**init_args)
    except ZooError as error:
        if str(source) in str(error):
            raise
        raise ZooError(f"checkpoint {source}: {class_name} cannot be built: {error}") from error
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ZooError(f"checkpoint {source}: {class_name} cannot be built: {first_line}") from error
    load_strictly(model, tensors, source)
    return model.eval().requires_grad_(False)


@contextmanager
def _of_size(init_args: dict[str, Any], n_numbers: int, source: str | Path) -> Iterator[None]:
    """Refuse to build a network that is far larger than its file; a wrong size in a config could fill the memory.

    Raises:
        ZooError: If an argument, or the parameters registered within the block, exceed the size of the file.
    """
    most = 4 * n_numbers + 10_000  # copies of tied tensors, and parameters that are replaced, are counted as well
    for name, value in init_args.items():
        if type(value) is int and value > most:
            raise ZooError(f"checkpoint {source}: its config says {name} {value}, but it holds {n_numbers:,} numbers")

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal most
        most -= 0 if parameter is None else parameter.numel()
        if most < 0:
            raise ZooError(f"checkpoint {source}: its config has more parameters than the {n_numbers:,} numbers stored")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load tensors into a model. A tensor may be missing only if it is tied to one that is given.

    Raises:
        ZooError: If a tensor is missing, unexpected or of another shape, or if `as_weights` refuses it. The message
            names the tensor.
    """
    state = model.state_dict()
    tensors = {n: as_weights(t, state[n].dtype, n, source) if n in state else t for n, t in tensors.items()}
    owner = {state[name].data_ptr(): name for name in tensors if name in state}
    complete = {name: tensors.get(name, tensors.get(owner.get(own.data_ptr(), ""))) for name, own in state.items()}
    missing = [name for name, tensor in complete.items() if tensor is None]
    unexpected = [name for name in tensors if name not in state]
    if missing or unexpected:
        what = f"tensor {missing[0]} is missing" if missing else f"tensor {unexpected[0]} does not belong to it"
        raise ZooError(f"checkpoint {source} does not fit {type(model).__name__}: {what}")
    for name, tensor in complete.items():
        assert tensor is not None
        if tensor.shape != state[name].shape:
            found, expected = list(tensor.shape), list(state[name].shape)
            raise ZooError(f"checkpoint {source}: tensor {name} has shape {found}; its config says {expected}")
    model.load_state_dict(complete)


def as_weights(tensor: Tensor, dtype: torch.dtype, name: str, source: str | Path) -> Tensor:
    """Return a tensor of a checkpoint in another precision.

    Raises:
        ZooError: If the tensor is quantised or has no other plain floating-point type, or if an entry is NaN, infinite
            or too large for the precision.
    """
    if tensor.dtype not in FLOATS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FLOATS)
        raise ZooError(f"{source}: tensor {name} is {tensor.dtype}; weights are read in {kinds}, not quantised")
    weights = tensor.to(dtype)
    bad = ~weights.isfinite()
    if bad.any():
        where = f"row {int(bad.nonzero()[0, 0])} of tensor {name}" if bad.ndim > 1 else f"tensor {name}"
        precision = str(dtype).removeprefix("torch.")
        raise ZooError(f"{source}: {where} has entries that are NaN or infinite in {precision}")
    return weights


def named_class(model: nn.Module) -> dict[str, str]:
    """Return the entries for a network's class: its name and, unless `zoo.models` exports it, its module."""
    cls = type(model)
    exported = getattr(importlib.import_module("zoo.models"), cls.__name__, None) is cls
    return {"class": cls.__name__} if exported else {"class": cls.__name__, "module": cls.__module__}


def class_path(part: dict[str, Any]) -> str:
    """Return the class that a checkpoint names: a class name of `zoo.models`, or module:Name for other classes."""
    return f"{part['module']}:{part['class']}" if "module" in part else str(part["class"])


def network_class(path: str, source: str | Path) -> Any:
    """Return the network class that `class_path` names. Only modules of this package are imported.

    Args:
        path: Name of a class of `zoo.models`, or module:Name.
        source: Name of the checkpoint, for messages.

    Raises:
        ZooError: If there is no such network, or its module is not part of this package and has not been imported.
    """
    module, _, name = path.rpartition(":")
    module = module or "zoo.models"
    if module not in sys.modules and not module.startswith("zoo."):
        raise ZooError(
            f"checkpoint {source} holds a network of class {name} from module {module}, which is not part of the zoo;"
            f" import {module} first (on the command line: --import {module})"
        )
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except ImportError:
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        where = "this version of the zoo" if module.startswith("zoo.") else f"the module {module}"
        raise ZooError(f"checkpoint {source} names class {name!r}, which {where} does not have")
    return cls


def check_loadable(model: nn.Module) -> None:
    """Refuse a network that `load` could not rebuild from its checkpoint.

    Raises:
        ZooError: If it is not a `Network`, its class cannot be found by name, or its `config` does not rebuild it.
    """
    cls, config = type(model), getattr(model, "config", None)
    if not isinstance(model, Network):
        raise ZooError(f"a checkpoint of a {cls.__name__} could not be loaded: it must be a zoo.models.Network")
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise ZooError(
            f"a checkpoint of {cls.__qualname__} could not be loaded: define the class at the top level of a module"
        )
    if not isinstance(config, dict):
        raise ZooError(f"{cls.__name__} has no `config`, a dict with the arguments of __init__ that rebuild it")
    try:
        inspect.signature(cls).bind(**config)
        json.dumps(config)
    except TypeError as error:
        raise ZooError(f"the `config` of {cls.__name__} does not rebuild it: {error}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def read_pickle(path: Path) -> Any:
    """Return the content of a file that `torch.save` wrote; nothing in the file is executed.

    Raises:
        ZooError: If the file is damaged or contains more than plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ZooError(f"{path} is damaged, or is not a plain checkpoint: {first_line}") from None


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        ZooError: If it cannot be written.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise ZooError(f"{path.name} could not be written: {str(error).rpartition('I/O error: ')[2]}") from error
    path.chmod(0o644)  # the library makes the file readable by its owner only


def verify_tensor(config: dict[str, Any], name: str, tensor: Tensor, source: str | Path) -> None:
    """Check one tensor of a zoo checkpoint against its hash.

    Raises:
        ZooError: If it differs from the tensor that was saved.
    """
    if config["tensors"].get(name) != _tensor_digest(tensor):
        raise ZooError(f"checkpoint {source} is damaged: tensor {name} is not the one that was saved")


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file; its tensors are read only when they are accessed.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ZooError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{path} is damaged, or is not a safetensors file: {error}") from None


def check_kind(folder: Path) -> None:
    """Refuse to replace a model that is not a zoo checkpoint.

    Raises:
        ZooError: If the folder, or a folder of a training step in it, has a config without a "zoo" part.
    """
    for config in (folder / checkpoint_config.NAME, *folder.glob(f"step-*/{checkpoint_config.NAME}")):
        if config.is_file() and not checkpoint_config.is_ours(config):
            raise ZooError(f"{folder} holds a model that is not a zoo checkpoint; choose another folder")


def _dtype_name(tensors: dict[str, Tensor]) -> str:
    """Return the dtype of most of the numbers, such as "float16"."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return str(max(sizes, key=sizes.__getitem__)).removeprefix("torch.")


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
