"""Readers of `transformers` folders: they read a whole GPT-2, or the token embedding of any model with a known name."""

import importlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import checkpoint_config
from zoo.checkpoints import read_tensors
from zoo.errors import ZooError
from zoo.quantised import Rounding
from zoo.source_files import INDEX, PICKLE, Folder, only_rows
from zoo.tensor_files import tensor_file

W_E_NAMES = (  # endings of the token embedding's name, in the order in which they are tried
    "wte.weight",  # GPT-2 and similar models
    "embed_in.weight",  # GPT-NeoX, Pythia
    "shared.weight",  # T5, BART: shared by encoder and decoder
    "embed_tokens.weight",  # Llama and similar models, OPT
    "word_embeddings.weight",  # BERT, RoBERTa, DistilBERT and similar models, BLOOM
    "tok_embeddings.weight",  # ModernBERT
    "token_embd.weight",  # GGUF files
    "W_E",  # TransformerLens
)
SHOWN = 6  # largest number of tensors that a message names
AUTO_CLASSES = ("AutoConfig", "AutoModelForCausalLM")  # entries of auto_map that are needed
INSTALL = "pip install 'superposition-zoo[transformers]'"
GPT2_EMBEDDING, GPT2_HEAD = "transformer.wte.weight", "lm_head.weight"
GPT2_SIZES = {  # argument of GPT2 -> its names in a config, and its value if the config does not contain it
    "vocab_size": (("vocab_size",), 50257),
    "context_length": (("n_positions", "max_position_embeddings"), 1024),
    "d_model": (("n_embd", "hidden_size"), 768),
    "n_layers": (("n_layer", "num_hidden_layers"), 12),
    "n_heads": (("n_head", "num_attention_heads"), 12),
    "dropout": (("resid_pdrop",), 0.1),
    "tied": (("tie_word_embeddings",), True),
}
TANH_GELUS = (
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_python_tanh",
    "gelu_fast",
    "gelu_accurate",
)  # names of the same function


def is_gpt2(config: Mapping[str, Any]) -> bool:
    """Return whether `GPT2` computes the same function as a model with this config from the same weights."""
    d_model = _setting(config, *GPT2_SIZES["d_model"])
    expected: dict[str, tuple[Any, ...]] = {
        "activation_function": TANH_GELUS,
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "n_inner": (None, 4 * d_model if isinstance(d_model, int) else None),
    }
    same = all(config.get(key, allowed[0]) in allowed for key, allowed in expected.items())
    return config.get("model_type") == "gpt2" and same


def read(files: Folder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the class, init arguments and tensors from which `checkpoints.build` makes a GPT2.

    The config fulfils `is_gpt2`. Names of tensors may have the prefix `transformer.` or not. Attention masks in old
    files are left out. If the head differs from the embedding, the model is untied, even if its config says that it is
    tied. The file of a tied model may hold only the head or only the embedding.

    Raises:
        ZooError: If a file is missing or damaged.
    """
    config = files.json(checkpoint_config.NAME)
    arguments = {argument: _setting(config, keys, other) for argument, (keys, other) in GPT2_SIZES.items()}
    tensors = _all_tensors(files)
    prefix = "" if any(key.startswith("transformer.") for key in tensors) else "transformer."
    tensors = {
        key if key == GPT2_HEAD else prefix + key: tensor
        for key, tensor in tensors.items()
        if not key.endswith((".attn.bias", ".attn.masked_bias"))
    }
    if GPT2_EMBEDDING in tensors and GPT2_HEAD in tensors:
        arguments["tied"] = arguments["tied"] and torch.equal(tensors[GPT2_EMBEDDING], tensors[GPT2_HEAD])
    return "GPT2", arguments, tensors


def load_causal_lm(files: Folder, trust_remote_code: bool = False) -> nn.Module:
    """Load a causal language model of `transformers` as a `zoo.models.CausalLM`, in the precision of its files.

    Files of pickles are read without running the code in them.

    Args:
        files: The folder, with `config.json` and the weights.
        trust_remote_code: Whether Python code that comes with the model may be run.

    Raises:
        ZooError: If `transformers` is not installed or has no causal language model of this type; if a file is missing
            or damaged; if a weight is missing, not used, not finite or quantised; or if the model needs code of its
            own.
    """
    config, name = files.json(checkpoint_config.NAME), files.name
    kind = config.get("model_type")
    code = config.get("auto_map")
    code = [path for name in AUTO_CLASSES if isinstance(path := code.get(name), str)] if isinstance(code, dict) else []
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN
    except ImportError:
        raise ZooError(f"{name} is a model of type {kind!r}, which needs transformers; run {INSTALL}") from None
    if not isinstance(kind, str) or (kind not in KNOWN and not (trust_remote_code and code)):
        why = "transformers has no causal language model of this type"
        if code:
            why = "it needs Python code that comes with it, which is run only with trust_remote_code"
        raise ZooError(f"{name} is a model of type {kind!r}: {why}; {only_rows(name)}")
    if "quantization_config" in config:
        raise ZooError(f"{name} is quantised, and quantised models cannot be run; {only_rows(name)}")
    modules = [f"{path.rpartition('--')[2].partition('.')[0]}.py" for path in code]
    for file in [*_weight_files(files), *(modules if trust_remote_code else [])]:
        files.require(file)
    folder = files.require(checkpoint_config.NAME).parent
    with _quiet():
        try:
            settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
            settings.dtype = None  # that of the files counts
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=settings,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:
            raise ZooError(f"{name} cannot be loaded: {one_line(error)}") from error
    model, told = loaded
    if told["mismatched_keys"]:
        key, found, expected = min(told["mismatched_keys"])
        raise ZooError(f"{name}: tensor {key} has shape {list(found)}; its config says {list(expected)}")
    if told["missing_keys"]:
        what = f"it is damaged, or has no head: it has no tensor {min(told['missing_keys'])}"
        raise ZooError(f"{name} cannot be loaded as a network, because {what}; {only_rows(name)}")
    if told["unexpected_keys"]:
        raise ZooError(f"{name}: tensor {min(told['unexpected_keys'])} does not belong to a {type(model).__name__}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ZooError(f"{name}: tensor {key} has entries that are NaN or infinite")
    return importlib.import_module("zoo.models.causal_lm").CausalLM(model, name)


def _weight_files(files: Folder) -> list[str]:
    """Return the names of the files with the weights, by preference safetensors."""
    index = f"{PICKLE}.index.json"
    if any(map(files.path, (checkpoint_config.WEIGHTS, INDEX))) or not any(map(files.path, (PICKLE, index))):
        return [checkpoint_config.WEIGHTS if name == "*" else file for name, file in files.weight_files().items()]
    if files.path(PICKLE):
        return [PICKLE]
    shards = files.json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise ZooError(f"{files.require(index)} is damaged: it has no weight_map")
    return sorted({str(file) for file in shards.values()})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `transformers` from printing progress and warnings; what matters is raised."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def one_line(error: Exception) -> str:
    """Return the message of an error of another library in one line of at most 300 characters."""
    what = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
    return textwrap.shorten(what or type(error).__name__, 300, placeholder=" ...")


def read_tensor(
    file: Path, wanted: str | None, config: Mapping[str, Any], name: str
) -> tuple[str, Tensor, Rounding | None]:
    """Read one tensor of a file, by default the token embedding, and return its name, the tensor and its rounding.

    Args:
        file: A .safetensors, .bin, .npz or .gguf file.
        wanted: Name of the tensor; None for the token embedding.
        config: The `config.json` next to the file; empty if there is none.
        name: Name of the source, for messages.

    Raises:
        ZooError: If the file is missing or damaged, or `tensor_name` finds no tensor.
    """
    with tensor_file(file) as tensors:
        shared = shared_tensors(tensors.shapes, tensors.metadata, config)
        found = tensor_name(tensors.shapes, wanted, shared, name)
        try:
            return found, *tensors.read(found)
        except ZooError as error:
            raise error if name in str(error) else ZooError(f"{name}: {error}") from None


def tensor_name(
    names: Iterable[str] | Mapping[str, Sequence[int]], wanted: str | None, shared: Mapping[str, str], source: str
) -> str:
    """Return the name of the tensor to read from a model's file.

    Args:
        names: Names of the tensors in the file, with their shapes if these are known.
        wanted: Name of the tensor; None for the token embedding.
        shared: Names of tensors that the file leaves out, each with the name of an equal tensor in the file.
        source: Name of the source, for messages.

    Raises:
        ZooError: If there is no such tensor, or if no tensor or several have a known name of a token embedding.
    """
    candidates = _candidates(names)
    names = list(names)
    if wanted is not None and wanted in (*names, *shared):
        return shared.get(wanted, wanted)
    if wanted is not None:
        raise ZooError(f"{source} has no tensor {wanted!r}; it has {candidates}")
    for end in W_E_NAMES:
        found = {shared.get(n, n) for n in (*names, *shared) if n == end or n.endswith(f".{end}")}
        if len(found) > 1:
            raise ZooError(
                f"{source} has several token embeddings, {', '.join(sorted(found))}; choose one with --tensor"
            )
        if found:
            return found.pop()
    raise ZooError(f"{source} has no tensor with a known embedding name; choose one with --tensor: {candidates}")


def _candidates(names: Iterable[str] | Mapping[str, Sequence[int]]) -> str:
    """Return up to `SHOWN` names of matrices with their shapes: likely embeddings first, then the most rows."""
    shapes = {name: tuple(shape) for name, shape in names.items()} if isinstance(names, Mapping) else {}
    chosen = [name for name in names if len(shapes.get(name, (0, 0))) == 2] or list(names)
    chosen.sort(key=lambda name: (not any(part in name for part in ("emb", "wte")), -max((*shapes.get(name, ()), 0))))
    told = [f"{name} {list(shapes[name])}" if name in shapes else name for name in chosen]
    return ", ".join(told[:SHOWN]) + (", ..." if len(told) > SHOWN else "")


def shared_tensors(
    names: Iterable[str], metadata: Mapping[str, str] | None, config: Mapping[str, Any]
) -> dict[str, str]:
    """Return the names of tensors that a file leaves out, each with the name of an equal tensor in the file.

    Args:
        names: Names of the tensors in the file.
        metadata: Metadata of the file, in which `safetensors.torch.save_model` lists the tensors that it left out.
        config: The `config.json` next to the file; empty if there is none.
    """
    there = set(names)
    shared = {left_out: kept for left_out, kept in (metadata or {}).items() if kept in there - {left_out}}
    is_tied_gpt2 = config.get("model_type") == "gpt2" and config.get("tie_word_embeddings", True)
    if is_tied_gpt2 and GPT2_HEAD in there and not any(name.endswith("wte.weight") for name in there):
        shared[GPT2_EMBEDDING] = GPT2_HEAD
    return shared


def _setting(config: Mapping[str, Any], keys: Iterable[str], otherwise: Any) -> Any:
    return next((config[key] for key in keys if key in config), otherwise)


def _all_tensors(files: Folder) -> dict[str, Tensor]:
    """Return all tensors of a folder's safetensors files."""
    places = files.weight_files()
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        for key, tensor in read_tensors(files.require(file)).items():
            if places.get(key, places.get("*")) != file:
                raise ZooError(
                    f"{files.name} is damaged: {file} holds tensor {key}, which its index does not list there"
                )
            tensors[key] = tensor
    if missing := sorted(places.keys() - tensors.keys() - {"*"}):
        where = f"its index says that tensor {missing[0]} is in {places[missing[0]]}, but it is not"
        raise ZooError(f"{files.name} is damaged: {where}")
    return tensors
