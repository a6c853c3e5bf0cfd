"""From a name to a model: shipped checkpoints, folders, Lightning checkpoints, the Hugging Face hub."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import catalog, checkpoint_config, checkpoints, dictionary_learning, hugging_face, saelens, sparsify
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.source_files import open_folder, read_json, reject_step, require, weight_files
from zoo.token_texts import decoded_tokens


def load(source: str | Path, step: int | None = None) -> nn.Module:
    """Load a model with its raw weights, in eval mode and without gradients.

    Args:
        source: A zoo name, a folder (zoo checkpoint, Hugging Face GPT-2, or an autoencoder of SAELens, sparsify or
            dictionary_learning), a Lightning .ckpt, or hf:org/repo[/folder][@revision].
        step: Training step, for a source that holds several; the last by default.

    Returns:
        The network, an nn.Module of `zoo.models`.

    Raises:
        ZooError: If there is no such source or step, or the checkpoint is damaged or not one the zoo can read.
    """
    source = run_checkpoint(source, step)
    if str(source).endswith(".ckpt"):
        reject_step(source, step)
        state, zoo_part = read_lightning(Path(source))
        return checkpoints.build(zoo_part["class"], zoo_part["init_args"], state, source)
    name, get = open_folder(source, step)
    if not get("config.json") and get(saelens.CONFIG):
        reject_step(source, step)
        read = sparsify.read if sparsify.is_config(read_json(get(saelens.CONFIG), name)) else saelens.read
        return checkpoints.build(*read(name, get), name)
    if part := _zoo_part(name, get):
        for file in checkpoint_config.FILES:
            if file in part["files"]:
                get(file)  # fetches what lies on the hub
        return checkpoints.load(require(get(checkpoint_config.WEIGHTS), name, checkpoint_config.WEIGHTS).parent)
    if name.startswith("hf:") and step is None and not get(checkpoint_config.NAME):
        raise ZooError(f"{name} has no config.json; if it holds folders of steps, say which with step=")
    is_dictionary = dictionary_learning.is_config(read_json(get(checkpoint_config.NAME), name))
    read = dictionary_learning.read if is_dictionary else hugging_face.read_gpt2
    return checkpoints.build(*read(name, get), name)


def embedding(source: str | Path, step: int | None = None, tensor: str | None = None) -> Tensor:
    """Read a token embedding, and of a safetensors file nothing else.

    Args:
        source: What `load` takes, any other Hugging Face repository or folder with safetensors weights, a
            .safetensors file, or a .npy file (beside which NAME.tokens.json may hold a list of the tokens' texts or
            NAME.tokenizer.json their tokenizer, and NAME.token_counts.json a list of how often they occur).
        step: Training step, for a source that holds several; the last by default.
        tensor: Name of the tensor; by default that of the token embedding in the families of `hugging_face.W_E_NAMES`.

    Returns:
        W_E, (V, D) float32, one row per token.

    Raises:
        ZooError: If there is no such source, step or tensor, or it is no matrix of finite floating-point numbers.
    """
    path = expanded(source := run_checkpoint(source, step))
    if path.suffix in (".npy", ".ckpt", ".safetensors"):
        reject_step(source, step)
    if path.suffix == ".npy":
        W_E, found = _read_npy(path), path.name
    elif path.suffix == ".ckpt":
        state, _ = read_lightning(path)
        found = _choose(state, tensor, source, {})
        W_E = state[found]
    else:
        alone = path.suffix == ".safetensors"
        file, config, zoo_part = (path, {}, None) if alone else _embedding_file(source, step, tensor)
        with checkpoints.open_tensors(file) as tensors:
            shared = hugging_face.shared_tensors(tensors.keys(), tensors.metadata(), config)
            found = _choose(tensors.keys(), tensor, source, shared)
            W_E = tensors.get_tensor(found)
        if zoo_part:
            checkpoints.verify_tensor(zoo_part, found, W_E, source)
    if W_E.ndim != 2:
        raise ZooError(f"tensor {found} of {source} is {W_E.dtype} {list(W_E.shape)}, not a matrix of token rows")
    return checkpoints.as_weights(W_E, torch.float32, found, source)


def read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors and the "zoo" part of a Lightning checkpoint; nothing in the file is executed.

    Raises:
        ZooError: If the file is missing, damaged, holds other things than plain data, or was not written by the zoo.
    """
    path = expanded(path)
    if not path.is_file():
        raise ZooError(f"{path} is a folder, not a .ckpt file" if path.is_dir() else f"{path} does not exist")
    checkpoint = checkpoints.read_pickle(path)
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


def at_step(source: str, step: int | None) -> tuple[str, int | None]:
    """A source and a step of it; where the source's name has {step} in it, the name for that step, and no step.

    Raises:
        ZooError: If the name asks for a step and none is given.
    """
    if "{step}" not in source:
        return source, step
    if step is None:
        raise ZooError(f"{source} names a step of training by {{step}}; say which with step")
    return source.replace("{step}", str(step)), None


def run_checkpoint(source: str | Path, step: int | None) -> str | Path:
    """The last checkpoint of a run's folder, unless its newest single step is as far; any other source as it is."""
    run = expanded(source)
    last, kept = run / "checkpoints" / "last.ckpt", run / "steps"
    if step is not None or not last.is_file():
        return source
    newest = max(catalog.steps(kept), default=-1) if kept.is_dir() else -1
    return source if 0 <= read_lightning(last)[1].get("step", 0) <= newest else last


def zoo_part(source: str | Path, step: int | None = None) -> dict[str, Any] | None:
    """What a folder says of itself if it is a zoo checkpoint: see `checkpoint_config.KEYS`; arguments as in `load`.

    Raises:
        ZooError: If there is no such source or step, or its config is damaged.
    """
    return _zoo_part(*open_folder(source, step))


def tokenizer_json(source: str | Path, step: int | None = None) -> str | None:
    """The tokenizer that came with a checkpoint's training, serialised, if it has one; arguments as in `embedding`.

    Raises:
        ZooError: If there is no such source or step, or the file is not the one that was saved.
    """
    return _side_file(source, step, "tokenizer_json", checkpoint_config.TOKENIZER)


def token_strings(source: str | Path, step: int | None = None) -> list[str] | None:
    """Every token of a checkpoint's tokenizer as text, by token id, if it has one; arguments as in `embedding`.

    Raises:
        ZooError: If there is no such source or step, or the tokenizer cannot be read.
    """
    if str(source).endswith(".npy") and (listed := _listed_tokens(source)) is not None:
        return listed
    text = tokenizer_json(source, step)
    return None if text is None else decoded_tokens(read_tokenizer(text, str(source)))


def read_tokenizer(text: str, owner: str) -> Any:
    """The `tokenizers.Tokenizer` in the text of a tokenizer.json.

    Raises:
        ZooError: If it is none; the owner is named.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        raise ZooError(f"the tokenizer of {owner} cannot be read: {error}") from None


def _listed_tokens(source: str | Path) -> list[str] | None:
    """The tokens in the list beside a .npy file, if there is one."""
    file = expanded(source).with_suffix(".tokens.json")
    if not file.is_file():
        return None
    try:
        tokens = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        tokens = None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ZooError(f"{file} is no list of texts")
    return tokens


def token_counts(source: str | Path, step: int | None = None) -> Tensor | None:
    """How often each token occurs in the text a checkpoint was trained on, (V,) int64, if it says so.

    Arguments are those of `embedding`; only zoo and Lightning checkpoints hold counts, and .npy files beside them.

    Raises:
        ZooError: If there is no such source or step, or its counts are no counts.
    """
    counts = _side_file(source, step, "token_counts", checkpoint_config.TOKEN_COUNTS)
    if counts is None:
        return None
    try:
        tensor = torch.tensor(json.loads(counts) if isinstance(counts, str) else counts)
    except (ValueError, TypeError, RuntimeError):
        tensor = torch.empty(0)
    if tensor.dtype != torch.int64 or tensor.ndim != 1 or not len(tensor) or tensor.min() < 0:
        raise ZooError(f"the token counts of {source} are no list of counts")
    return tensor


def row_counts(source: str | Path, step: int | None, n_rows: int) -> Tensor | None:
    """`token_counts` with one for every row of the source's embedding, (n_rows,) int64.

    Rows after those of the tokenizer's tokens belong to no token and have count 0.

    Raises:
        ZooError: As `token_counts`, and if the counts are neither for as many tokens as there are rows nor for those of
            the source's tokenizer.
    """
    counts = token_counts(source, step)
    if counts is None or len(counts) == n_rows:
        return counts
    n_tokens = len(token_strings(source, step) or ())
    if not len(counts) == n_tokens < n_rows:
        known = f"its tokenizer has {n_tokens} tokens" if n_tokens else "it has no tokenizer"
        raise ZooError(f"{source} has counts of {len(counts)} tokens and an embedding of {n_rows} rows; {known}")
    return torch.nn.functional.pad(counts, (0, n_rows - n_tokens))


def _side_file(source: str | Path, step: int | None, key: str, name: str) -> Any:
    """What a Lightning checkpoint's "zoo" part has under a key, or the text of a folder's file; None if neither."""
    path = expanded(source := run_checkpoint(source, step))
    if path.suffix == ".npy" and (beside := path.with_suffix(f".{name}")).is_file():
        return beside.read_text("utf-8")
    if path.suffix in (".npy", ".ckpt", ".safetensors"):
        reject_step(source, step)
        return read_lightning(path)[1].get(key) if path.suffix == ".ckpt" else None
    label, get = open_folder(source, step)
    part = _zoo_part(label, get)
    if name not in (part["files"] if part else [checkpoint_config.TOKENIZER]):
        return None
    file = get(name)
    if part:
        checkpoints.verify_file(part, require(file, label, name).parent, name)
    return file.read_text("utf-8") if file else None


def _embedding_file(
    source: str | Path, step: int | None, tensor: str | None
) -> tuple[Path, dict[str, Any], dict[str, Any] | None]:
    """The safetensors file that holds a folder's embedding, the folder's config, and the "zoo" part of that, if any."""
    label, get = open_folder(source, step)
    files, zoo_part = weight_files(label, get), _zoo_part(label, get)
    file = get(checkpoint_config.NAME)
    config = read_json(file, label) if file else {}
    shared = hugging_face.shared_tensors(files, None, config)
    name = files["*"] if "*" in files else files[_choose(files, tensor, source, shared)]
    return require(get(name), label, name), config, zoo_part


def _zoo_part(label: str, get: Callable[[str], Path | None]) -> dict[str, Any] | None:
    """The "zoo" part of a folder's config, if it has one."""
    file = get(checkpoint_config.NAME)
    if file is None:
        return None
    content = read_json(file, label)
    if "zoo" in content:
        return checkpoint_config.read(file.parent)
    ours = any(isinstance(part, dict) and checkpoint_config.KEYS.keys() & part.keys() for part in content.values())
    if ours or (file.parent / checkpoint_config.TOKEN_COUNTS).is_file():  # which only the zoo writes
        raise ZooError(f"{file} is damaged: it is not the config that was saved")
    return None


def _choose(names: Iterable[str], wanted: str | None, source: str | Path, shared: Mapping[str, str]) -> str:
    """The tensor to read: the one that is wanted, by default the token embedding; `shared` as in `hugging_face`."""
    names = list(names)
    if wanted is None:
        return hugging_face.embedding_name(names, shared, source)
    if wanted not in (*names, *shared):
        close = ", ".join(sorted(n for n in names if "emb" in n or "wte" in n)[:5]) or ", ".join(names[:5])
        raise ZooError(f"{source} has no tensor {wanted!r}; it has {close}, ...")
    return shared.get(wanted, wanted)


def _read_npy(path: Path) -> Tensor:
    """The array of a .npy file; its floating-point numbers, of any width and byte order, as float32."""
    import numpy as np

    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception:  # numpy lets through whatever Python's own parser raises
        raise ZooError(f"{path} is damaged or no .npy file of numbers") from None
    if array.dtype.kind != "f":
        raise ZooError(f"{path} holds {array.dtype} {list(array.shape)}, not a matrix of token rows")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
