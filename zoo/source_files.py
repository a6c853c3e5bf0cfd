"""Files of a source: a local folder or one on the hub, a Lightning checkpoint, or a file with one matrix.

Files that were found or read are kept in memory. The module imports nothing heavy before it reads numbers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import checkpoint_config
from zoo.catalog import step_folder
from zoo.checkpoint_config import FILES, NAME, TOKEN_COUNTS, TOKENIZER, WEIGHTS
from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor, nn

INDEX, SAE_CONFIG = f"{WEIGHTS}.index.json", "cfg.json"
EXPECTED = "a folder, a .ckpt or, for an embedding, a .safetensors or .npy file"
UNREACHABLE = {"ConnectError", "TimeoutException", "ProxyError", "ConnectionError", "Timeout"}  # names of exceptions
HUB_TIMEOUT = 1.5  # seconds after which the hub counts as not reachable
ZOO, HUGGING_FACE = "zoo checkpoint", "Hugging Face"
READERS = {  # kind of a folder -> the module whose `read` returns the arguments of `checkpoints.build`
    ZOO: "zoo.checkpoints",
    HUGGING_FACE: "zoo.hugging_face",
    "SAELens": "zoo.saelens",
    "sparsify": "zoo.sparsify",
    "dictionary_learning": "zoo.dictionary_learning",
}


class Folder:
    """The files of one checkpoint.

    Args:
        name: Name of the checkpoint in messages.
        find: Function from the name of a file to its path, or to None if there is no such file.
        may_hold_steps: Whether folders in it may be checkpoints of training steps.
    """

    def __init__(self, name: str, find: Callable[[str], Path | None], may_hold_steps: bool = False) -> None:
        self.name, self._may_hold_steps = name, may_hold_steps
        self.path: Callable[[str], Path | None] = cache(find)
        self.content: Callable[[str], bytes] = cache(lambda file: self.require(file).read_bytes())
        self.json: Callable[[str], dict[str, Any]] = cache(self._json)

    @classmethod
    def here(cls, name: str, folder: Path) -> Folder:
        """Return a local folder."""
        return cls(name, lambda file: path if (path := folder / file).is_file() else None)

    @classmethod
    def on_hub(cls, name: str, step: int | None = None) -> Folder:
        """Return the folder hf:org/repo[/folder][@revision], or the folder of a training step in it.

        Raises:
            ZooError: If the name is not of this form.
        """
        repo, folder, revision = hub_place(name)
        folder += "" if step is None else f"{step_folder(step)}/"
        label = name if step is None else f"{name} at step {step}"
        return cls(label, lambda file: _hub_file(repo, revision, folder + file), step is None)

    @cached_property
    def kind(self) -> str:
        """The program or library that wrote the checkpoint, one of `READERS`."""
        if not self.path(NAME) and self.path(SAE_CONFIG):
            cfg = self.json(SAE_CONFIG)  # sparsify and SAELens both write a file of this name
            return "sparsify" if "expansion_factor" in cfg and "d_sae" not in cfg else "SAELens"
        if self.zoo_part:
            return ZOO
        trainer = self.json(NAME).get("trainer") if self.path(NAME) else None
        return "dictionary_learning" if isinstance(trainer, dict) and "dict_class" in trainer else HUGGING_FACE

    @cached_property
    def zoo_part(self) -> dict[str, Any] | None:
        """The "zoo" part of the config, see `checkpoint_config.KEYS`; None if the zoo did not write it."""
        file = self.path(NAME)
        if file is None:
            return None
        content = self.json(NAME)
        if "zoo" in content:
            return checkpoint_config.read(file.parent, content)
        ours = any(isinstance(part, dict) and checkpoint_config.KEYS.keys() & part.keys() for part in content.values())
        if ours or (file.parent / TOKEN_COUNTS).is_file():  # only the zoo writes this file
            raise ZooError(f"{file} is damaged: it is not the config that was saved")
        return None

    def load(self, trust_remote_code: bool = False) -> nn.Module:
        """Return the network, in eval mode and without gradients."""
        from zoo.checkpoints import build

        reader = importlib.import_module(READERS[self.kind])
        if self.kind == HUGGING_FACE and not reader.is_gpt2(self.json(NAME)):
            network: nn.Module = reader.load_causal_lm(self, trust_remote_code)
            return network
        path, init_args, tensors = reader.read(self)
        return build(path, init_args, tensors, self.require(NAME).parent if self.kind == ZOO else self.name)

    def require(self, file: str) -> Path:
        """Return the path of a file.

        Raises:
            ZooError: If there is no such file.
        """
        path = self.path(file)
        if path is None:
            hint = "; if it holds folders of training steps, choose one with step=" if file == NAME else ""
            raise ZooError(f"{self.name} has no {file}{hint if self._may_hold_steps else ''}")
        return path

    def verified(self, file: str) -> bytes:
        """Return the content of a file of a zoo checkpoint.

        Raises:
            ZooError: If it is not the content that was saved.
        """
        content = self.content(file) if file in FILES and self.path(file) else None
        saved = self.zoo_part and self.zoo_part["files"].get(file)
        if content is None or hashlib.sha256(content).hexdigest() != saved:
            raise ZooError(f"checkpoint {self.require(NAME).parent} is damaged: {file} is not the file that was saved")
        return content

    def weight_files(self) -> dict[str, str]:
        """Return tensor name -> file, or "*" -> file if one file holds all tensors.

        Raises:
            ZooError: If there are no safetensors files, or their index is damaged.
        """
        if self.path(WEIGHTS):
            return {"*": WEIGHTS}
        if index := self.path(INDEX):
            files = self.json(INDEX).get("weight_map")
            if not isinstance(files, dict) or any(f != Path(str(f)).name for f in files.values()):
                raise ZooError(f"{index} is damaged: its weight_map must name files in the same folder")
            return files
        if self.path("pytorch_model.bin"):
            what = "only pytorch_model.bin, a pickle, which the zoo does not read; convert it to safetensors first"
            raise ZooError(f"{self.name} has {what}")
        raise ZooError(f"{self.name} has no {WEIGHTS}")

    def _json(self, file: str) -> dict[str, Any]:
        """Return the object in a JSON file.

        Raises:
            ZooError: If the file is missing or does not hold a JSON object.
        """
        path = self.require(file)
        try:
            content = json.loads(self.content(file).decode())
        except (ValueError, RecursionError) as error:
            raise ZooError(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise ZooError(f"{path} is damaged: it does not hold a JSON object")
        return content

    def tensor(self, wanted: str | None) -> tuple[str, Tensor]:
        """Return the name and the values of a tensor, by default of the token embedding."""
        from zoo import checkpoints, hugging_face

        files, part = self.weight_files(), self.zoo_part
        config = self.json(NAME) if self.path(NAME) else {}
        shared = hugging_face.shared_tensors(files, None, config)
        file = files["*"] if "*" in files else files[hugging_face.tensor_name(files, wanted, shared, self.name)]
        found, W = hugging_face.read_tensor(self.require(file), wanted, config, self.name)
        if part:
            checkpoints.verify_tensor(part, found, W, self.name)
        return found, W

    def beside(self, file: str) -> Any:
        """Return the content of a file with tokens, tokenizer or token counts, or None if it is absent."""
        if self.zoo_part:
            content = self.verified(file) if file in self.zoo_part["files"] else None
        else:
            content = self.content(file) if file == TOKENIZER and self.path(file) else None
        return None if content is None else _text(content, self.require(file))


class LightningFile:
    """A Lightning checkpoint of a run. Its `zoo_part` has the same keys as that of a `Folder`."""

    kind = "Lightning checkpoint"

    def __init__(self, name: str, path: Path) -> None:
        from zoo.checkpoints import read_lightning

        self.name, self.path = name, path
        self._state, self.zoo_part = read_lightning(path)

    def load(self, trust_remote_code: bool = False) -> nn.Module:
        """Return the network, in eval mode and without gradients."""
        from zoo.checkpoints import build, class_path

        return build(class_path(self.zoo_part), self.zoo_part["init_args"], self._state, self.name)

    def tensor(self, wanted: str | None) -> tuple[str, Tensor]:
        """See `Folder.tensor`."""
        from zoo.hugging_face import tensor_name

        found = tensor_name(self._state, wanted, {}, self.name)
        return found, self._state[found].clone()

    def beside(self, file: str) -> Any:
        """See `Folder.beside`."""
        return self.zoo_part.get({TOKENIZER: "tokenizer_json", TOKEN_COUNTS: "token_counts"}.get(file, ""))


class MatrixFile:
    """A .safetensors file, or a .npy file, in whose folder there may be files with tokens, tokenizer and counts."""

    zoo_part = None

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.kind = name, path, path.suffix

    def load(self, trust_remote_code: bool = False) -> nn.Module:
        """Refuse: the file holds a matrix, not a network."""
        raise ZooError(f"{self.name} is a file; expected {EXPECTED}")

    def tensor(self, wanted: str | None) -> tuple[str, Tensor]:
        """See `Folder.tensor`."""
        from zoo.hugging_face import read_tensor

        is_array = self.kind == ".npy"
        return (self.path.name, _read_npy(self.path)) if is_array else read_tensor(self.path, wanted, {}, self.name)

    def beside(self, file: str) -> str | None:
        """See `Folder.beside`."""
        path = self.path.with_suffix(f".{file}")
        return _text(path.read_bytes(), path) if self.kind == ".npy" and path.is_file() else None


def hub_place(text: str) -> tuple[str, str, str | None]:
    """Return repository, folder ("" or ending in a slash) and revision of a name hf:org/repo[/folder][@revision].

    Raises:
        ZooError: If the text is not of this form.
    """
    place, _, revision = text.removeprefix("hf:").partition("@")
    parts = place.split("/")
    if not text.startswith("hf:") or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", place) or {".", ".."} & set(parts):
        raise ZooError(f"{text!r} is not a name on the hub; write hf:org/repo, hf:org/repo/folder or ...@revision")
    return "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:]), revision or None


def _hub_file(repo: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=not _hub_answers()))
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST:  # the file is known not to exist
            return None
        raise ZooError(f"hf:{repo}: {name} is not in the local cache and the hub cannot be reached") from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ZooError(f"hf:{repo} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error


def _hub_answers() -> bool:
    """Return whether the hub can be reached. Without this, every file that is not there is asked for many times."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


@cache
def _answers(url: str) -> bool:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(url, timeout=HUB_TIMEOUT)
    except Exception as error:  # of httpx or requests, which versions of huggingface_hub use
        return not any(kind.__name__ in UNREACHABLE for kind in type(error).__mro__)
    return True


def parsed(text: str) -> Any:
    """Return the value of a JSON text, or None if it is not valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is damaged: {error}") from None


def _read_npy(path: Path) -> Tensor:
    """Return the array of a .npy file of floating-point numbers, of any width and byte order, as float32."""
    import numpy as np
    import torch

    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception:  # numpy does not catch exceptions of Python's own parser
        raise ZooError(f"{path} is damaged, or is not a .npy file of numbers") from None
    if array.dtype.kind != "f":
        raise ZooError(f"{path} holds {array.dtype} {list(array.shape)}, not a matrix of token rows")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite, which is refused later
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
