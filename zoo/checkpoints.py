"""The zoo checkpoint: a folder with weights, everything that rebuilds the model, and where it came from.

====================  ================================================================================================
`model.safetensors`   the tensors; a tied copy is left out
`config.json`         under "zoo": format version, class name, plain init arguments, training step, provenance, and
                      the SHA-256 of every tensor, of the other files and of itself. Beside it the keys of a Hugging
                      Face config, if the class has any, so that `transformers` loads the same folder
`tokenizer.json`      the tokenizer, if the model reads text
`token_counts.json`   how often each token occurs in the text it was trained on, one number per token id, if known
`README.md`           the model card
====================  ================================================================================================

Nothing in it is executable, and nothing is unpickled. Classes are known here by name only.
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
        provenance: Plain-JSON account of the run: its config, seed, corpus fingerprint, versions, metrics.
        tokenizer_json: The tokenizer, serialised.
        card: Text of the model card; by default made from the rest.
        token_counts: How often each token occurs in the training text, one number per token id.
        dtype: What floating-point tensors are rounded to, float16 for half the size. By default they stay as they are.
            Loading gives float32 in either case.
        title: Title of the card; by default the folder's name.

    Returns:
        The folder.

    Raises:
        ZooError: If something that is not a zoo checkpoint is in the way, or the disk refuses.
    """
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
    """What `build` makes a network from: its class, init arguments and tensors, every file checked against its hash.

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
    """The network's tensors and the "zoo" part of a Lightning checkpoint; nothing in the file is executed.

    Raises:
        ZooError: If the file is missing, damaged, holds other things than plain data, or was not written by the zoo.
    """
    path = expanded(path)
    if not path.is_file():
        raise ZooError(f"{path} is a folder, not a .ckpt file" if path.is_dir() else f"{path} does not exist")
    checkpoint = read_pickle(path)
    zoo_part = checkpoint.get("zoo") if isinstance(checkpoint, dict) and "state_dict" in checkpoint else None
    if not isinstance(zoo_part, dict) or not {"class", "init_args"} <= zoo_part.keys():
        raise ZooError(f"{path} was not written by a module of the zoo: it does not say which network it holds")
    if not isinstance(checkpoint["state_dict"], dict):
        raise ZooError(f"{path} is damaged: its state_dict is no dict")
    prefix = "net."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if str(k).startswith(prefix)}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise ZooError(f"{path} is damaged: {name} is no tensor of numbers")
    return state, zoo_part


def build(path: str, init_args: dict[str, Any], tensors: dict[str, Tensor], source: str | Path) -> nn.Module:
    """Make a network and give it weights, strictly, except that a tied copy may be missing.

    Args:
        path: Its class, as `class_path` names it.
        init_args: Arguments of the class.
        tensors: Its state dict.
        source: Where they come from, for messages.

    Returns:
        The network, in eval mode and without gradients.

    Raises:
        ZooError: If the class is unknown or its tensors are not exactly these.
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
    """Stop a network that is made far larger than its file: a config with a wrong size would fill the memory.

    Raises:
        ZooError: If an argument, or the parameters registered within the block, exceed what the file can hold.
    """
    most = 4 * n_numbers + 10_000  # tied copies, and those about to be replaced, count too
    for name, value in init_args.items():
        if type(value) is int and value > most:
            raise ZooError(f"checkpoint {source}: its config says {name} {value}, and it holds {n_numbers:,} numbers")

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal most
        most -= 0 if parameter is None else parameter.numel()
        if most < 0:
            raise ZooError(f"checkpoint {source}: its config says more parameters than its {n_numbers:,} numbers")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load tensors into a model, naming what is missing, unexpected or of another shape.

    Raises:
        ZooError: If the tensors are not exactly the model's, or are no weights that `as_weights` takes; a tensor tied
            to one that is there may be missing.
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
    """A checkpoint's weights in the precision that the zoo computes in.

    Raises:
        ZooError: If they are quantised or otherwise no plain floating-point numbers, or any is NaN, infinite or too
            large for the precision.
    """
    if tensor.dtype not in FLOATS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FLOATS)
        raise ZooError(f"{source}: tensor {name} is {tensor.dtype}; weights are read in {kinds}, and not quantised")
    weights = tensor.to(dtype)
    bad = ~weights.isfinite()
    if bad.any():
        where = f"row {int(bad.nonzero()[0, 0])} of tensor {name}" if bad.ndim > 1 else f"tensor {name}"
        precision = str(dtype).removeprefix("torch.")
        raise ZooError(f"{source}: {where} has entries that are NaN or infinite in {precision}")
    return weights


def named_class(model: nn.Module) -> dict[str, str]:
    """What a checkpoint says about a network's class: its name and, unless `zoo.models` exports it, its module."""
    cls = type(model)
    exported = getattr(importlib.import_module("zoo.models"), cls.__name__, None) is cls
    return {"class": cls.__name__} if exported else {"class": cls.__name__, "module": cls.__module__}


def class_path(part: dict[str, Any]) -> str:
    """The class that a checkpoint names: the name of one of `zoo.models`, or module:Name of another one."""
    return f"{part['module']}:{part['class']}" if "module" in part else str(part["class"])


def network_class(path: str, source: str | Path) -> Any:
    """The network class that `class_path` names. Only modules of the zoo are imported for it.

    Args:
        path: Name of a class of `zoo.models`, or module:Name.
        source: The checkpoint that names it, for messages.

    Raises:
        ZooError: If there is no such network, or its module is not the zoo's and has not been imported.
    """
    module, _, name = path.rpartition(":")
    module = module or "zoo.models"
    if module not in sys.modules and not module.startswith("zoo."):
        raise ZooError(
            f"checkpoint {source} holds a {name} of the module {module}, which is not part of the zoo: import {module} "
            f"first (on the command line, --import {module})"
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
    """Refuse a network that `load` could not make again from its checkpoint.

    Raises:
        ZooError: If it is no `Network`, its class cannot be found by name, or its `config` does not rebuild it.
    """
    cls, config = type(model), getattr(model, "config", None)
    if not isinstance(model, Network):
        raise ZooError(f"a checkpoint of a {cls.__name__} could not be loaded: derive it from zoo.models.Network")
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise ZooError(
            f"a checkpoint of {cls.__qualname__} could not be loaded: define the class at the top level of a module"
        )
    if not isinstance(config, dict):
        raise ZooError(f"{cls.__name__} has no `config`, a dict with the arguments of __init__ that make it again")
    try:
        inspect.signature(cls).bind(**config)
        json.dumps(config)
    except TypeError as error:
        raise ZooError(f"the `config` of {cls.__name__} does not rebuild it: {error}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, if it is plain data; nothing in the file is executed.

    Raises:
        ZooError: If the file is damaged or holds other things than plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ZooError(f"{path} is damaged or no plain checkpoint: {first_line}") from None


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        ZooError: If the disk refuses it.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise ZooError(f"{path.name} could not be written: {str(error).rpartition('I/O error: ')[2]}") from error
    path.chmod(0o644)  # the library leaves it to its owner alone


def verify_tensor(config: dict[str, Any], name: str, tensor: Tensor, source: str | Path) -> None:
    """Check one tensor of a zoo checkpoint against its hash.

    Raises:
        ZooError: If it is not the tensor that was saved.
    """
    if config["tensors"].get(name) != _tensor_digest(tensor):
        raise ZooError(f"checkpoint {source} is damaged: tensor {name} is not the one that was saved")


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """An open safetensors file; tensors are read when asked for.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ZooError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{path} is damaged or no safetensors file: {error}") from None


def check_kind(folder: Path) -> None:
    """Refuse to replace a model that is not the zoo's.

    Raises:
        ZooError: If the folder, or one of a step in it, has a config without a "zoo" part.
    """
    for config in (folder / checkpoint_config.NAME, *folder.glob(f"step-*/{checkpoint_config.NAME}")):
        if config.is_file() and not checkpoint_config.is_ours(config):
            raise ZooError(f"{folder} holds a model that is not the zoo's; choose another folder")


def _dtype_name(tensors: dict[str, Tensor]) -> str:
    """What most of the numbers are stored as, such as "float16"."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return str(max(sizes, key=sizes.__getitem__)).removeprefix("torch.")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
