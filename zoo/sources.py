"""From a name to a model: shipped checkpoints, folders, Lightning checkpoints, the Hugging Face hub."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import catalog, checkpoints
from zoo.errors import ZooError

W_E_NAMES = (
    "transformer.wte.weight",  # GPT-2
    "wte.weight",
    "gpt_neox.embed_in.weight",  # GPT-NeoX, Pythia
    "embed_in.weight",
    "bert.embeddings.word_embeddings.weight",  # BERT and its kin
    "embeddings.word_embeddings.weight",
    "model.embed_tokens.weight",  # Llama and its kin
    "embed_tokens.weight",
    "W_E",  # TransformerLens
)


def load(source: str | Path, step: int | None = None) -> nn.Module:
    """Load a model with its raw weights, in eval mode and without gradients.

    Args:
        source: A zoo name, a folder (zoo checkpoint or Hugging Face GPT-2), a Lightning .ckpt, or
            hf:org/repo[@revision].
        step: Training step, for a source that holds several; the last by default.

    Returns:
        The network, an nn.Module of `zoo.models`.

    Raises:
        ZooError: If there is no such source or step, or the checkpoint is damaged or not one the zoo can read.
    """
    source = _run_checkpoint(source, step)
    if str(source).endswith(".ckpt"):
        _reject_step(source, step)
        state, zoo_part = read_lightning(Path(source))
        return checkpoints.build(zoo_part["class"], zoo_part["init_args"], state, source)
    name, get = _open_folder(source, step)
    config = _read_json(get("config.json"), name)
    if "zoo" in config:
        folder = _require(get(checkpoints.WEIGHTS), name, checkpoints.WEIGHTS).parent
        for file in checkpoints.read_config(folder)["files"]:
            get(file)  # fetches what lies on the hub
        return checkpoints.load(folder)
    if config.get("model_type") != "gpt2":
        raise ZooError(f"{name} is a model of type {config.get('model_type')!r}; load() reads zoo checkpoints and gpt2")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(_weight_files(name, get).values())):
        tensors |= checkpoints.read_tensors(_require(get(file), name, file))
    try:
        with torch.random.fork_rng(devices=[]):
            model = checkpoints.model_class("GPT2", name).from_hf(config, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ZooError(f"{name} cannot be read as a GPT-2: {' '.join(str(error).split())}") from error
    return model.eval().requires_grad_(False)


def embedding(source: str | Path, step: int | None = None, tensor: str | None = None) -> Tensor:
    """Read a token embedding, and of a safetensors file nothing else.

    Args:
        source: What `load` takes, any other Hugging Face repository or folder with safetensors weights, a
            .safetensors file, or a .npy file.
        step: Training step, for a source that holds several; the last by default.
        tensor: Name of the tensor; by default that of the embedding in GPT-2, GPT-NeoX, BERT and Llama models.

    Returns:
        W_E, (V, D) float32, one row per token.

    Raises:
        ZooError: If there is no such source, step or tensor, or it is no matrix.
    """
    path = Path(source := _run_checkpoint(source, step)).expanduser()
    if path.suffix in (".npy", ".ckpt", ".safetensors"):
        _reject_step(source, step)
    if path.suffix == ".npy":
        W_E, found = _read_npy(path), path.name
    elif path.suffix == ".ckpt":
        state, _ = read_lightning(path)
        found = _choose(state, tensor, source)
        W_E = state[found]
    else:
        file, zoo_part = (path, None) if path.suffix == ".safetensors" else _embedding_file(source, step, tensor)
        with checkpoints.open_tensors(file) as tensors:
            found = _choose(tensors.keys(), tensor, source)
            W_E = tensors.get_tensor(found)
        if zoo_part:
            checkpoints.verify_tensor(zoo_part, found, W_E, source)
    if W_E.ndim != 2 or not W_E.is_floating_point():
        raise ZooError(f"tensor {found} of {source} is {W_E.dtype} {list(W_E.shape)}, not a matrix of token rows")
    return W_E.float()


def read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors and the "zoo" part of a Lightning checkpoint; nothing in the file is executed.

    Raises:
        ZooError: If the file is missing, damaged, holds other things than plain data, or was not written by the zoo.
    """
    path = path.expanduser()
    if not path.is_file():
        raise ZooError(f"{path} is a folder, not a .ckpt file" if path.is_dir() else f"{path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ZooError(f"{path} is damaged or no plain Lightning checkpoint: {first_line}") from None
    zoo_part = checkpoint.get("zoo") if isinstance(checkpoint, dict) and "state_dict" in checkpoint else None
    if not isinstance(zoo_part, dict) or not {"class", "init_args"} <= zoo_part.keys():
        raise ZooError(f"{path} was not written by a module of the zoo: it does not say which network it holds")
    prefix = "net."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    return state, zoo_part


def _run_checkpoint(source: str | Path, step: int | None) -> str | Path:
    """The last checkpoint of a run's folder that holds no checkpoints of single steps; any other source as it is."""
    last = Path(source).expanduser() / "checkpoints" / "last.ckpt"
    return last if step is None and last.is_file() and not (last.parents[1] / "steps").is_dir() else source


def tokenizer_json(source: str | Path) -> str | None:
    """The tokenizer that came with a checkpoint's training, serialised, if it has one."""
    source = _run_checkpoint(source, None)
    if str(source).endswith(".ckpt"):
        return read_lightning(Path(source))[1].get("tokenizer_json")
    _, get = _open_folder(source, None)
    file = get(checkpoints.TOKENIZER)
    return file.read_text("utf-8") if file else None


def _embedding_file(source: str | Path, step: int | None, tensor: str | None) -> tuple[Path, dict[str, Any] | None]:
    """The safetensors file that holds a folder's embedding, and the "zoo" part of its config, if it has one."""
    label, get = _open_folder(source, step)
    files = _weight_files(label, get)
    name = files["*"] if "*" in files else files[_choose(files, tensor, source)]
    config = get("config.json")
    is_zoo = config is not None and "zoo" in _read_json(config, label)
    return _require(get(name), label, name), checkpoints.read_config(config.parent) if config and is_zoo else None


def _open_folder(source: str | Path, step: int | None) -> tuple[str, Callable[[str], Path | None]]:
    """A label, and a function from a file's name to its path, or None where there is no such file."""
    text = str(source)
    if text.startswith("hf:"):
        _reject_step(source, step)
        repo, _, revision = text.removeprefix("hf:").partition("@")
        return text, lambda name: _hub_file(repo, revision or None, name)
    folder = catalog.folder(text, step)
    return text, lambda name: path if (path := folder / name).is_file() else None


def _hub_file(repo: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        raise ZooError(f"hf:{repo} is no repository name; write hf:org/repo or hf:org/repo@revision")
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST:  # known to be absent
            return None
        raise ZooError(f"hf:{repo}: {name} is not in the local cache and the hub cannot be reached") from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ZooError(f"hf:{repo} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error


def _weight_files(name: str, get: Callable[[str], Path | None]) -> dict[str, str]:
    """Tensor name -> file, or "*" -> file where one file holds all."""
    if get(checkpoints.WEIGHTS):
        return {"*": checkpoints.WEIGHTS}
    if index := get(f"{checkpoints.WEIGHTS}.index.json"):
        files = _read_json(index, name).get("weight_map")
        if not isinstance(files, dict) or any(f != Path(str(f)).name for f in files.values()):
            raise ZooError(f"{index} is damaged: its weight_map does not name files beside it")
        return files
    if get("pytorch_model.bin"):
        raise ZooError(f"{name} has only pytorch_model.bin, a pickle, which the zoo does not read; convert it first")
    raise ZooError(f"{name} has no {checkpoints.WEIGHTS}")


def _choose(names: Any, wanted: str | None, source: str | Path) -> str:
    names = list(names)
    if wanted is not None:
        if wanted not in names:
            close = ", ".join(sorted(n for n in names if "emb" in n or "wte" in n)[:5]) or ", ".join(names[:5])
            raise ZooError(f"{source} has no tensor {wanted!r}; it has {close}, ...")
        return wanted
    for name in W_E_NAMES:
        if name in names:
            return name
    raise ZooError(f"{source} has no tensor with a known embedding name; say which with tensor=, it has {names[:5]}")


def _read_npy(path: Path) -> Tensor:
    import numpy as np

    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ZooError(f"{path} cannot be read as a .npy matrix: {' '.join(str(error).split())}") from None


def _read_json(path: Path | None, name: str) -> dict[str, Any]:
    try:
        content = json.loads(_require(path, name, "config.json").read_text("utf-8"))
    except ValueError as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ZooError(f"{path} is damaged: it holds no JSON object")
    return content


def _require(path: Path | None, name: str, file: str) -> Path:
    if path is None:
        raise ZooError(f"{name} has no {file}")
    return path


def _reject_step(source: str | Path, step: int | None) -> None:
    if step is not None:
        raise ZooError(f"{source} holds one step only; leave step out (on the hub, steps are revisions)")
