"""Files of a source: a local folder or one on the hub, or a Lightning checkpoint.

Files that were found or read are kept in memory. The module imports nothing heavy before it reads numbers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import posixpath
import re
import threading
import time
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

    from zoo.quantised import Rounding

INDEX, SAE_CONFIG = f"{WEIGHTS}.index.json", "cfg.json"
GEMMA_SCOPE = ("params.npz", "params.safetensors")  # weights of Gemma Scope and of Gemma Scope 2
OF_AUTOENCODERS = (SAE_CONFIG, "ae.pt", *GEMMA_SCOPE)  # each of these files marks the folder of an autoencoder
PICKLE = "pytorch_model.bin"
EXPECTED = "a folder, a .ckpt or, for an embedding, a .safetensors, .gguf, .npz, .bin or .npy file"
ZOO, HUGGING_FACE = "zoo checkpoint", "Hugging Face"
MATRIX_SUFFIXES = (".npy", ".safetensors", ".bin", ".npz", ".gguf")  # of the files that `MatrixFile` reads
READERS = {  # kind of a folder -> the module whose `read` returns the arguments of `checkpoints.build`
    ZOO: "zoo.checkpoints",
    HUGGING_FACE: "zoo.hugging_face",
    "SAELens": "zoo.saelens",
    "sparsify": "zoo.sparsify",
    "dictionary_learning": "zoo.dictionary_learning",
    "Gemma Scope": "zoo.gemma_scope",
}
REMEMBERED = 60  # seconds for which it is remembered whether the hub answers
_asked: dict[str, tuple[float, bool]] = {}  # address of the hub -> when it was asked, and whether it answered


class NotCached(ZooError):
    """A file that may exist on the hub, which cannot be reached, and is not in the local cache."""


class Folder:
    """The files of one checkpoint.

    Args:
        name: Name of the checkpoint in messages.
        find: Function from the name of a file to its path, or to None if there is no such file.
        may_hold_steps: Whether folders in it may be checkpoints of training steps.
        autoencoders: Function that returns the names of folders in it that hold autoencoders of other libraries.
        matrix_files: Function that returns the names of files in it that are sources by themselves.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[str], Path | None],
        may_hold_steps: bool = False,
        autoencoders: Callable[[], list[str]] = list,
        matrix_files: Callable[[], list[str]] = list,
    ) -> None:
        self.name, self._may_hold_steps, self._autoencoders = name, may_hold_steps, autoencoders
        self._matrix_files = matrix_files
        self.path: Callable[[str], Path | None] = cache(find)
        self.content: Callable[[str], bytes] = cache(lambda file: self.require(file).read_bytes())
        self.json: Callable[[str], dict[str, Any]] = cache(self._json)

    @classmethod
    def here(cls, name: str, folder: Path) -> Folder:
        """Return a local folder."""
        return cls(
            name,
            lambda file: path if (path := folder / file).is_file() else None,
            autoencoders=lambda: sorted({p.parent.name for file in OF_AUTOENCODERS for p in folder.glob(f"*/{file}")}),
            matrix_files=lambda: sorted(p.name for p in folder.iterdir() if p.suffix in MATRIX_SUFFIXES),
        )

    @classmethod
    def on_hub(cls, name: str, step: int | None = None) -> Folder:
        """Return the folder hf:org/repo[/folder][@revision], or the folder of a training step in it.

        Raises:
            ZooError: If the name is not of this form.
        """
        repo, folder, revision = hub_place(name)
        folder += "" if step is None else f"{step_folder(step)}/"
        label = name if step is None else f"{name} at step {step}"
        return cls(label, lambda file: hub_file(repo, revision, folder + file), step is None)

    @cached_property
    def kind(self) -> str:
        """The program or library that wrote the checkpoint, one of `READERS`."""
        if self.marker == SAE_CONFIG:
            cfg = self.json(SAE_CONFIG)  # sparsify and SAELens both write a file of this name
            return "sparsify" if "expansion_factor" in cfg and "d_sae" not in cfg else "SAELens"
        if self.marker in GEMMA_SCOPE:
            return "Gemma Scope"
        if self.marker is None:
            return HUGGING_FACE
        if self.zoo_part:
            return ZOO
        config = self.json(NAME)
        if "hf_hook_point_in" in config:
            return "Gemma Scope"
        trainer = config.get("trainer")
        return "dictionary_learning" if isinstance(trainer, dict) and "dict_class" in trainer else HUGGING_FACE

    @cached_property
    def marker(self) -> str | None:
        """The file that tells the kind, None if there is none.

        A file of which it is not known whether it exists on the hub, which cannot be reached, is passed over if a later
        one is in the cache.
        """
        unknown = None
        for file in (NAME, SAE_CONFIG, *GEMMA_SCOPE):
            try:
                if self.path(file):
                    return file
            except NotCached as error:
                unknown = unknown or error
        if unknown:
            raise unknown
        return None

    @cached_property
    def zoo_part(self) -> dict[str, Any] | None:
        """The "zoo" part of the config, see `checkpoint_config.KEYS`; None if the zoo did not write it."""
        if self.marker != NAME:
            return None
        file = self.require(NAME)
        content = self.json(NAME)
        if "zoo" in content:
            return checkpoint_config.read(file.parent, content)
        ours = any(isinstance(part, dict) and checkpoint_config.KEYS.keys() & part.keys() for part in content.values())
        if ours or (file.parent / TOKEN_COUNTS).is_file():  # only the zoo writes this file
            raise ZooError(f"{file} is damaged: it is not the config that was saved")
        return None

    def trained_on(self) -> dict[str, str]:
        """Return `model` and `hook_name` of an autoencoder of another library, as far as its files tell.

        See `Source.provenance`. For other checkpoints, the result is empty.
        """
        if self.kind in (ZOO, HUGGING_FACE):
            return {}
        told = importlib.import_module(READERS[self.kind]).trained_on(self)
        return {name: value for name, value in told.items() if isinstance(value, str)}

    def load(self, trust_remote_code: bool = False) -> nn.Module:
        """Return the network, in eval mode and without gradients."""
        from zoo.checkpoints import build

        is_model = self.marker == NAME and "model_type" in self.json(NAME)
        if self.kind == HUGGING_FACE and not is_model and (inside := self._autoencoders()):
            folders = ", ".join(inside[:20]) + (", ..." if len(inside) > 20 else "")
            raise ZooError(f"{self.name} has an autoencoder in each of its folders {folders}; choose one of them")
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

    def weight_files(self, pickles: bool = False) -> dict[str, str]:
        """Return tensor name -> file, or "*" -> file if one file holds all tensors.

        Args:
            pickles: Whether files of pickles are named if there are no safetensors files.

        Raises:
            ZooError: If there are no such files, or their index is damaged.
        """
        for file in (WEIGHTS, PICKLE) if pickles else (WEIGHTS,):
            if self.path(file):
                return {"*": file}
            if index := self.path(f"{file}.index.json"):
                files = self.json(index.name).get("weight_map")
                if not isinstance(files, dict) or any(f != Path(str(f)).name for f in files.values()):
                    raise ZooError(f"{index} is damaged: its weight_map must name files in the same folder")
                return files
        if self.path(PICKLE):
            what = f"only {PICKLE}, a pickle, which the zoo does not load; convert it to safetensors first"
            raise ZooError(f"{self.name} has {what}. Without that, {only_rows(self.name)}")
        others = self._matrix_files()
        hint = f"; name one of its files: {', '.join(others[:5])}" if others else ""
        raise ZooError(f"{self.name} has no {WEIGHTS}{hint}")

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

    def tensor(self, wanted: str | None) -> tuple[str, Tensor, Rounding | None]:
        """Return the name and the values of a tensor, by default of the token embedding, and how it was rounded."""
        from zoo import checkpoints, hugging_face

        files, part = self.weight_files(pickles=True), self.zoo_part
        config = self.json(NAME) if self.path(NAME) else {}
        shared = hugging_face.shared_tensors(files, None, config)
        file = files["*"] if "*" in files else files[self._tensor_name(files, wanted, shared)]
        found, W, rounding = hugging_face.read_tensor(self.require(file), wanted, config, self.name)
        if part:
            checkpoints.verify_tensor(part, found, W, self.name)
        return found, W, rounding

    def _tensor_name(self, files: dict[str, str], wanted: str | None, shared: dict[str, str]) -> str:
        """Return the name of a tensor in several files; of local files, an error also tells the shapes."""
        from zoo.hugging_face import tensor_name
        from zoo.tensor_files import tensor_file

        try:
            return tensor_name(list(files), wanted, shared, self.name)
        except ZooError:
            if self.name.startswith("hf:"):
                raise
        shapes: dict[str, Any] = {}
        for path in filter(None, map(self.path, sorted(set(files.values())))):
            with tensor_file(path) as opened:
                shapes |= opened.shapes
        return tensor_name(shapes or list(files), wanted, shared, self.name)

    def beside(self, file: str) -> Any:
        """Return the content of a file with tokens, tokenizer or token counts, or None if it is absent."""
        if self.zoo_part:
            content = self.verified(file) if file in self.zoo_part["files"] else None
        else:
            content = self.content(file) if file == TOKENIZER and self.path(file) else None
        return None if content is None else decoded(content, self.require(file))


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

    def tensor(self, wanted: str | None) -> tuple[str, Tensor, Rounding | None]:
        """See `Folder.tensor`."""
        from zoo.hugging_face import tensor_name

        found = tensor_name({n: tensor.shape for n, tensor in self._state.items()}, wanted, {}, self.name)
        return found, self._state[found].clone(), None

    def beside(self, file: str) -> Any:
        """See `Folder.beside`."""
        return self.zoo_part.get({TOKENIZER: "tokenizer_json", TOKEN_COUNTS: "token_counts"}.get(file, ""))


def only_rows(name: str) -> str:
    """Return what can be done with a model that cannot be loaded, or run."""
    named = " (add --tensor NAME if the name of its tensor is unusual)"
    return f"its embedding can be studied: python -m zoo study embedding --embedding {name}{named}"


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


def hub_file(repo: str, revision: str | None, name: str) -> Path | None:
    """Return the path of a file of a repository, None if there is none.

    If the hub does not answer, only the local cache is read, without any waiting.

    Raises:
        ZooError: If the file cannot be read; `NotCached` if the hub does not answer and its cache does not tell.
    """
    from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name = posixpath.normpath(name)
    if name.startswith("../"):
        return None
    try:
        online = hub_answers(hf_hub_url(repo, name, revision=revision))
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=not online))
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST:  # the file is known not to exist
            return None
        if online:  # it answers, but not with files
            _asked[constants.ENDPOINT] = time.monotonic(), False
        why = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise NotCached(f"hf:{repo}: {name} is not in the local cache and the hub cannot be reached{why}") from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ZooError(f"hf:{repo} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error


def hub_answers(url: str) -> bool:
    """Return whether the hub answers one request, which is not repeated, within HF_HUB_ETAG_TIMEOUT seconds.

    This variable of huggingface_hub is 10 by default. Looking up the hub's name, and trying all its addresses, count.
    The answer is remembered for `REMEMBERED` seconds. Without this, huggingface_hub tries again for half a minute or
    more, for every file.

    Args:
        url: Address of any file on the hub.
    """
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return False
    when, answered = _asked.get(constants.ENDPOINT, (-float("inf"), False))
    if time.monotonic() - when < REMEMBERED:
        return answered
    found = []

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except HfHubHTTPError:  # an answer, such as that there is no such file
            pass
        except Exception:
            return
        found.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # a timeout of a request holds for one address of the hub only
    thread.start()
    thread.join(constants.HF_HUB_ETAG_TIMEOUT)
    _asked[constants.ENDPOINT] = time.monotonic(), bool(found)
    return bool(found)


def parsed(text: str) -> Any:
    """Return the value of a JSON text, or None if it is not valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def decoded(content: bytes, path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        ZooError: If it is not.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is damaged: {error}") from None
