"""From a name to a model or an embedding: shipped checkpoints, folders, runs, files, the Hugging Face hub.

What a user typed is opened once, as a `Source`, and everything that needs it takes that. Imports nothing heavy before
numbers are read.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import catalog
from zoo.checkpoint_config import CARD, NAME, TOKEN_COUNTS, TOKENIZER, WEIGHTS
from zoo.errors import ZooError
from zoo.source_files import EXPECTED, INDEX, SAE_CONFIG, Folder, LightningFile, MatrixFile, hub_place, parsed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Opened = Folder | LightningFile | MatrixFile
REVISIONS = ("step{step}", "checkpoint-{step}")  # what Pythia and Mistral call those that hold a step
SUFFIXES: dict[str, type[LightningFile | MatrixFile]]
SUFFIXES = {".ckpt": LightningFile, ".npy": MatrixFile, ".safetensors": MatrixFile}


def load(
    source: str | Path,
    step: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Load a model with its raw weights, in eval mode and without gradients.

    Args:
        source: A zoo name, a folder (zoo checkpoint, Hugging Face GPT-2, or an autoencoder of SAELens, sparsify or
            dictionary_learning), a Lightning .ckpt, or hf:org/repo[/folder][@revision].
        step: Training step, for a source that holds several; the last by default.
        device: Device of the weights, such as "cuda"; the CPU by default.
        dtype: Floating-point type of the parameters, such as torch.bfloat16; float32 by default.

    Returns:
        The network, a `zoo.models.Network`. Networks of your own are found if their module has been imported.

    Raises:
        ZooError: If there is no such source, step or device, or the checkpoint is damaged or of an unknown kind.
    """
    model = Source.open(source).load(step)
    if dtype is not None and not (hasattr(dtype, "is_floating_point") and dtype.is_floating_point):
        raise ZooError(f"dtype is {dtype}; expected a floating-point type such as torch.bfloat16")
    try:
        return model.to(device, dtype)
    except (RuntimeError, AssertionError) as error:  # torch's answer to a device that is not there
        raise ZooError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from None


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
    return Source.open(source).embedding(step, tensor)


def info(name: str) -> str:
    """The model card of a shipped checkpoint or of a zoo checkpoint's folder, in Markdown.

    Raises:
        ZooError: If there is no such checkpoint or it has no card.
    """
    folder = Source.open(name).folder()
    for readme in (folder.parent / CARD, folder / CARD):
        if readme.is_file() and (readme.parent == folder or catalog.steps(folder.parent)):
            try:
                return readme.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise ZooError(f"{readme} is damaged: {error}") from None
    raise ZooError(f"{name} has no model card (README.md)")


class Source:
    """What a user named, opened once: what is read of it beside weights is remembered. Made by `open`.

    Sources are equal if their names are. A pickled one holds the name and the fingerprints that are known. In all
    methods, step is the training step, for a source that holds several, and the last by default; in a name, {step}
    stands for it. All raise ZooError if there is no such step, or what is asked for is damaged or cannot be read.
    """

    def __init__(self, name: str, fingerprints: dict[tuple[str, int | None], str] | None = None) -> None:
        self.name, self._fingerprints = name, fingerprints or {}
        self._opened: dict[int | None, Opened] = {}
        self._shapes: dict[int | None, tuple[int, int]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, (self.name, self._fingerprints)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def open(cls, source: str | Path | Source) -> Source:
        """The source of a name or path, of which nothing is read yet; a Source is returned as it is.

        Raises:
            ZooError: If there is no such file or folder, or it is no place on the hub.
        """
        if isinstance(source, Source):
            return source
        is_path_like_a_name = isinstance(source, Path) and str(source) in catalog.list_models()
        opened = cls(f"./{source}" if is_path_like_a_name else str(source))
        if "{step}" in opened.name:
            return opened
        if opened.path is None:
            hub_place(opened.name)
        elif opened._reader and not opened.path.exists():
            raise ZooError(f"{opened.path} does not exist")
        elif not opened._reader and opened._root is None:
            raise opened._no_folder()
        return opened

    @cached_property
    def path(self) -> Path | None:
        """Where it lies on this machine; None for what lies on the hub and for a name with {step} in it."""
        elsewhere = self.name.startswith("hf:") or "{step}" in self.name
        return None if elsewhere else catalog.place(self.name)

    @property
    def kind(self) -> str:
        """One of `READERS`, or run, Lightning checkpoint, .npy, .safetensors; {step} where that is in the name."""
        if "{step}" in self.name:
            return "{step}"
        is_run = self._root and (self._root != self.path or (self._root / "checkpoints").is_dir())
        return "run" if is_run else self.at().kind

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The training steps it holds, ascending; empty where it holds one, or does not say, as the hub."""
        return tuple(catalog.steps(self._root)) if self._root else ()

    def at(self, step: int | None = None) -> Opened:
        """What lies at a step."""
        if step not in self._opened:
            self._opened[step] = self._open(step)
        return self._opened[step]

    def folder(self, step: int | None = None) -> Path:
        """The folder of this machine that a step lies in."""
        if self._root is None:
            raise self._no_folder()
        if not self.steps and (self._root / "checkpoints").is_dir():
            raise self._no_steps(step)
        if not self.steps:
            return self._root
        chosen = self.steps[-1] if step is None else step
        if chosen not in self.steps:
            raise ZooError(f"{self.name} has no step {step}; it has {', '.join(map(str, self.steps))}")
        return self._root / catalog.step_folder(chosen)

    def load(self, step: int | None = None) -> nn.Module:
        """The network, an nn.Module of `zoo.models`, in eval mode and without gradients."""
        return self.at(step).load()

    def embedding(self, step: int | None = None, tensor: str | None = None) -> Tensor:
        """The token embedding, or another matrix by the name of its tensor, (V, D) float32."""
        import torch

        from zoo.checkpoints import as_weights

        opened = self.at(step)
        found, W = opened.tensor(tensor)
        if W.ndim != 2:
            raise ZooError(f"tensor {found} of {opened.name} is {W.dtype} {list(W.shape)}, not a matrix of token rows")
        return as_weights(W, torch.float32, found, opened.name)

    def zoo_part(self, step: int | None = None) -> dict[str, Any] | None:
        """What it says of itself, see `checkpoint_config.KEYS`; None for what the zoo did not write."""
        return self.at(step).zoo_part

    def provenance(self, step: int | None = None) -> dict[str, Any]:
        """The account of the run it comes from; empty if there is none."""
        return (self.zoo_part(step) or {}).get("provenance") or {}

    def tokenizer_json(self, step: int | None = None) -> str | None:
        """The tokenizer that came with it, serialised, if there is one."""
        text: str | None = self.at(step).beside(TOKENIZER)
        return text

    def token_strings(self, step: int | None = None) -> list[str] | None:
        """Every token as text, by token id, if there is a tokenizer or, beside a .npy file, a list."""
        from zoo.token_texts import decoded_tokens, read_tokenizer

        listed = self.at(step).beside("tokens.json")
        if listed is None:
            text = self.tokenizer_json(step)
            return None if text is None else decoded_tokens(read_tokenizer(text, self.at(step).name))
        tokens = parsed(listed)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ZooError(f"{Path(self.at(step).name).with_suffix('.tokens.json')} is no list of texts")
        return tokens

    def token_counts(self, step: int | None = None) -> Tensor | None:
        """How often each token occurs in the text of training, (V,) int64, if it says so."""
        import torch

        opened = self.at(step)
        counts = opened.beside(TOKEN_COUNTS)
        if counts is None:
            return None
        try:
            tensor = torch.tensor(parsed(counts) if isinstance(counts, str) else counts)
        except (ValueError, TypeError, RuntimeError):
            tensor = torch.empty(0)
        if tensor.dtype != torch.int64 or tensor.ndim != 1 or not len(tensor) or tensor.min() < 0:
            raise ZooError(f"the token counts of {opened.name} are no list of counts")
        return tensor

    def row_counts(self, step: int | None = None, n_rows: int | None = None) -> Tensor | None:
        """`token_counts` with one for every row of the embedding, (n_rows,) int64; its number is read if not given.

        Rows after those of the tokenizer's tokens belong to no token and have count 0. Counts that are neither for as
        many tokens as there are rows nor for those of the tokenizer are refused.
        """
        import torch

        counts = self.token_counts(step)
        if counts is None:
            return None
        n_rows = len(self.embedding(step)) if n_rows is None else n_rows
        if len(counts) == n_rows:
            return counts
        n_tokens = len(self.token_strings(step) or ())
        if not len(counts) == n_tokens < n_rows:
            known = f"its tokenizer has {n_tokens} tokens" if n_tokens else "it has no tokenizer"
            raise ZooError(f"{self.name} has counts of {len(counts)} tokens and an embedding of {n_rows} rows; {known}")
        return torch.nn.functional.pad(counts, (0, n_rows - n_tokens))

    def shape(self, step: int | None = None) -> tuple[int, int]:
        """Rows V and dimensions D of its embedding."""
        if step not in self._shapes:
            V, D = self.embedding(step).shape
            self._shapes[step] = V, D
        return self._shapes[step]

    def fingerprint(self, step: int | None = None) -> str:
        """SHA-256 of the shape and the float32 bytes of the embedding, of the tokens and their counts, if any.

        Tokens and counts on the hub count as absent where it cannot be reached.
        """
        if ("embedding", step) not in self._fingerprints:
            W = self.embedding(step).contiguous()
            tokens, counts = None, None
            try:
                tokens, counts = self.token_strings(step), self.token_counts(step)
            except ZooError:
                if not self.name.startswith("hf:"):
                    raise
            told = [list(W.shape), tokens, None if counts is None else counts.tolist()]
            digest = hashlib.sha256(json.dumps(told).encode())
            digest.update(W.numpy().data)
            self._fingerprints["embedding", step] = digest.hexdigest()
        return self._fingerprints["embedding", step]

    def weights_fingerprint(self, step: int | None = None) -> str:
        """SHA-256 of the network's class, arguments and weights, in the precision that it computes in."""
        if ("weights", step) not in self._fingerprints:
            from zoo.checkpoints import weights_digest

            model: Any = self.load(step)
            told = json.dumps([type(model).__name__, model.config, weights_digest(model)], sort_keys=True)
            self._fingerprints["weights", step] = hashlib.sha256(told.encode()).hexdigest()
        return self._fingerprints["weights", step]

    @cached_property
    def _reader(self) -> type[LightningFile | MatrixFile] | None:
        """What reads it, if it is a file of a kind that is known."""
        is_folder = self.path is None or (self.path.suffix != ".ckpt" and self.path.is_dir())
        return None if self.path is None or is_folder else SUFFIXES.get(self.path.suffix)

    @cached_property
    def _root(self) -> Path | None:
        """Its folder, if it is one of this machine; of a run that in it which holds its steps."""
        if self.path is None or self.name == "" or not self.path.is_dir():
            return None
        is_run = not (self.path / NAME).is_file() and (self.path / "steps").is_dir()
        return self.path / "steps" if is_run else self.path

    def _no_folder(self) -> ZooError:
        """What is wrong where a folder of this machine is needed."""
        if self.path is None or self.name == "":
            return ZooError(f"{self.name!r} is no name or folder of a checkpoint; `python -m zoo list` shows the names")
        if self.path.exists():
            return ZooError(f"{self.name} is a file; expected {EXPECTED}")
        import difflib

        close = difflib.get_close_matches(self.name, catalog.list_models(), 1)
        hint = f"did you mean {close[0]}?" if close else "`python -m zoo list` shows the names"
        return ZooError(f"no checkpoint {self.name!r}: it is neither a zoo name nor a folder; {hint}")

    def _lightning_files(self) -> list[Path]:
        """The checkpoints of a run, where Lightning's own callback has written them."""
        return sorted((self.path / "checkpoints").glob("*.ckpt")) if self.path is not None else []

    def _no_steps(self, step: int | None) -> ZooError:
        """What is wrong with a run that has neither the wanted step nor a last checkpoint."""
        if step is not None:
            return ZooError(f"the run {self.name} has no step {step}: only LogSpacedCheckpoints keeps single steps")
        files = [file.name for file in self._lightning_files()]
        if not files:
            return ZooError(f"the run {self.name} has no checkpoint yet")
        if len(files) == 1 or "last.ckpt" in files:
            return ZooError(f"{self.name} is a run, not a checkpoint's folder; `python -m zoo export` makes one of it")
        return ZooError(f"the run {self.name} has several checkpoints: {', '.join(files)}; name the file")

    def _open(self, step: int | None) -> Opened:
        if "{step}" in self.name:
            if step is None:
                raise ZooError(f"{self.name} names a step of training by {{step}}; say which with step")
            return Source.open(self.name.replace("{step}", str(step))).at()
        if self.path is None:
            return self._on_hub(step)
        if self._reader:
            if step is not None:
                raise ZooError(f"{self.name} holds one step only; leave step out")
            return self._reader(self.name, self.path)
        last = self.path / "checkpoints" / "last.ckpt"
        if step is None and last.is_file():
            of_run = LightningFile(str(last), last)
            if not self.steps or of_run.zoo_part.get("step", 0) > self.steps[-1]:
                return of_run
        if step is None and not self.steps and len(files := self._lightning_files()) == 1:
            return LightningFile(str(files[0]), files[0])
        opened = Folder.here(self.name, self.folder(step))
        if step is not None and not self.steps:
            if not opened.zoo_part:
                raise ZooError(f"{self.name} holds one step only; leave step out")
            if (only := opened.zoo_part["step"]) != step:
                raise ZooError(f"{self.name} holds step {only} only, not step {step}")
        return opened

    def _on_hub(self, step: int | None) -> Folder:
        """A repository's folder; steps are folders in it or, the way Pythia or Mistral has them, revisions."""
        inside, failures = Folder.on_hub(self.name, step), []
        if step is None or "@" in self.name:
            return inside
        for folder in (inside, *(Folder.on_hub(f"{self.name}@{r.format(step=step)}") for r in REVISIONS)):
            try:
                if any(map(folder.path, (NAME, SAE_CONFIG))):
                    return folder
                failures.append(f"{folder.name} has no {NAME}")
                if any(map(folder.path, (WEIGHTS, INDEX))):
                    return folder
            except ZooError as error:
                failures.append(str(error))
        known = f"as a folder nor as {' or '.join(REVISIONS)}"
        raise ZooError(f"{self.name} has no step {step}, neither {known}: {failures[0]}")
