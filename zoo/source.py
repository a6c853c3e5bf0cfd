"""Sources of models and embeddings: pretrained checkpoints, folders, runs, files, and the Hugging Face hub.

A name or path is opened once, as a `Source`, which is then passed to all functions that read from it. The module
imports nothing heavy before numbers are read.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import catalog
from zoo.checkpoint_config import CARD, NAME, TOKEN_COUNTS, TOKENIZER, WEIGHTS
from zoo.errors import ZooError
from zoo.matrix_files import MatrixFile
from zoo.source_files import (
    EXPECTED,
    INDEX,
    MATRIX_SUFFIXES,
    SAE_CONFIG,
    Folder,
    LightningFile,
    hub_file,
    hub_place,
    parsed,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from zoo.quantised import Rounding

Opened = Folder | LightningFile | MatrixFile
REVISIONS = ("step{step}", "checkpoint-{step}")  # names of the revisions of a training step of Pythia and of Mistral
SUFFIXES: dict[str, type[LightningFile | MatrixFile]]
SUFFIXES = {".ckpt": LightningFile} | dict.fromkeys(MATRIX_SUFFIXES, MatrixFile)


def load(
    source: str | Path,
    step: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load a model with its raw weights, in eval mode and without gradients.

    Args:
        source: The name of a pretrained checkpoint; a folder (a zoo checkpoint, a run, a causal language model of
            Hugging Face, or an autoencoder of SAELens, sparsify, dictionary_learning or Gemma Scope); a Lightning
            .ckpt; or hf:org/repo[/folder][@revision].
        step: Training step, if the source has several; by default the last one.
        device: Device of the weights, such as "cuda"; by default the CPU.
        dtype: Floating-point type of the parameters, such as torch.bfloat16; by default float32.
        trust_remote_code: Whether Python code that comes with a Hugging Face model may be run.

    Returns:
        The network, a `zoo.models.Network`, or a `zoo.models.CausalLM` for a language model that is not a GPT-2. If it
        is of your own class, import the module of the class first.

    Raises:
        ZooError: If there is no such source, step or device, or the checkpoint is damaged or of an unknown kind.
    """
    import torch

    model = Source.open(source).load(step, trust_remote_code)
    if dtype is None and any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        dtype = torch.float32
    if dtype is not None and not (hasattr(dtype, "is_floating_point") and dtype.is_floating_point):
        raise ZooError(f"dtype is {dtype}; expected a floating-point type such as torch.bfloat16")
    try:
        return model.to(device, dtype)
    except (RuntimeError, AssertionError) as error:  # raised by torch if there is no such device
        raise ZooError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from None


def embedding(source: str | Path, step: int | None = None, tensor: str | None = None) -> Tensor:
    """Read a token embedding. The other tensors of a safetensors or GGUF file are not read.

    Args:
        source: Any source of `load`; any other Hugging Face repository or folder with weights in safetensors or
            pytorch_model.bin; a file .safetensors, .bin, .npz or .gguf, also hf:org/repo/FILE; or a file NAME.npy. In
            the folder of NAME.npy, there may be NAME.tokens.json (a list of the tokens' texts) or NAME.tokenizer.json
            (their tokenizer), and NAME.token_counts.json (a list of how often each token occurs). Quantised matrices of
            GGUF files are dequantised, and int8 matrices are multiplied by their scale (`zoo.quantised.scaled`).
        step: Training step, if the source has several; by default the last one.
        tensor: Name of the tensor. By default the token embedding, if its name is in `hugging_face.W_E_NAMES`.

    Returns:
        W_E, (V, D) float32, one row per token.

    Raises:
        ZooError: If there is no such source, step or tensor, or the tensor is not a matrix of finite floating-point
            numbers, or has as many columns as there are tokens.
    """
    return Source.open(source).embedding(step, tensor)


def info(name: str) -> str:
    """Return the model card of a pretrained checkpoint, or of a folder with a zoo checkpoint, in Markdown.

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
    """A source of a model or an embedding. It is made by `open`, and reads small files only once.

    Two sources are equal if their names and tensors are equal. A pickled source has the name, the tensor and the
    fingerprints that are known. `wanted` is the name of the tensor that is the embedding; None for the token embedding.
    In all methods, `step` is a training step, if the source has several; by default it is the last one. A name may
    contain {step}, which is replaced by the training step. All methods raise ZooError if there is no such step, or if
    what they read is damaged or cannot be read. If the hub does not answer within HF_HUB_ETAG_TIMEOUT seconds, only the
    local cache is read. HF_HUB_ETAG_TIMEOUT is an environment variable of huggingface_hub; its default is 10.
    """

    def __init__(
        self, name: str, fingerprints: dict[tuple[str, int | None], str] | None = None, wanted: str | None = None
    ) -> None:
        self.name, self.wanted, self._fingerprints = name, wanted, fingerprints or {}
        self._opened: dict[int | None, Opened] = {}
        self._shapes: dict[int | None, tuple[int, int]] = {}
        self._texts: dict[str, list[str]] = {}  # texts of the tokens, by tokenizer; steps mostly have the same one

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, (self.name, self._fingerprints, self.wanted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.name, self.wanted) == (other.name, other.wanted)

    def __hash__(self) -> int:
        return hash((self.name, self.wanted))

    @classmethod
    def open(cls, source: str | Path | Source, tensor: str | None = None) -> Source:
        """Return the source of a name or path; no file is read yet. A Source is returned unchanged.

        Args:
            source: The name or path, see `embedding`.
            tensor: Name of the tensor that is the embedding; by default the token embedding.

        Raises:
            ZooError: If there is no such file or folder, or the text is not a valid name on the hub.
        """
        if isinstance(source, Source):
            return source
        is_path_like_a_name = isinstance(source, Path) and str(source) in catalog.list_models()
        opened = cls(f"./{source}" if is_path_like_a_name else str(source), wanted=tensor)
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
        """Path of the file or folder; None for a source on the hub and for a name that contains {step}."""
        elsewhere = self.name.startswith("hf:") or "{step}" in self.name
        return None if elsewhere else catalog.place(self.name)

    @property
    def kind(self) -> str:
        """Kind of the source: one of `READERS`, run, Lightning checkpoint, a suffix of `SUFFIXES`, or {step}.

        It is {step} if the name contains {step}.
        """
        if "{step}" in self.name:
            return "{step}"
        is_run = self._root and (self._root != self.path or (self._root / "checkpoints").is_dir())
        return "run" if is_run else self.at().kind

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Training steps of the source, ascending; empty if it has only one, or if it is on the hub."""
        return tuple(catalog.steps(self._root)) if self._root else ()

    def at(self, step: int | None = None) -> Opened:
        """Return the folder or file of a step, opened."""
        if step not in self._opened:
            self._opened[step] = self._open(step)
        return self._opened[step]

    def folder(self, step: int | None = None) -> Path:
        """Return the local folder of a step."""
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

    def load(self, step: int | None = None, trust_remote_code: bool = False) -> nn.Module:
        """Return the network, in eval mode and without gradients.

        It is in float32, except a `CausalLM`, which is in the precision in which it is stored.
        """
        return self.at(step).load(trust_remote_code)

    def embedding(self, step: int | None = None, tensor: str | None = None) -> Tensor:
        """Return the token embedding, or another matrix by the name of its tensor, (V, D) float32."""
        return self.rounded_embedding(step, tensor)[0]

    def rounded_embedding(self, step: int | None = None, tensor: str | None = None) -> tuple[Tensor, Rounding | None]:
        """Return the `embedding` and how it was rounded, None if it is not quantised."""
        import torch

        from zoo.checkpoints import as_weights

        opened = self.at(step)
        found, W, rounding = opened.tensor(tensor or self.wanted)
        if W.ndim != 2:
            raise ZooError(f"tensor {found} of {opened.name} is {W.dtype} {list(W.shape)}, not a matrix of token rows")
        W = as_weights(W, torch.float32, found, opened.name)
        if W.shape[0] < W.shape[1] == self._n_tokens(step):
            raise ZooError(
                f"tensor {found} of {opened.name} is {list(W.shape)}, and there are {W.shape[1]} tokens: it is "
                "transposed, or not an embedding; a row for every token is needed"
            )
        if tensor is None:
            self._shapes[step] = W.shape[0], W.shape[1]
        return W, rounding

    def _n_tokens(self, step: int | None) -> int:
        """Return the number of tokens; 0 if it is not known, or if the hub cannot be reached."""
        try:
            return len(self.token_strings(step) or ())
        except ZooError:
            if not self.name.startswith("hf:"):
                raise
            return 0

    def zoo_part(self, step: int | None = None) -> dict[str, Any] | None:
        """Return the "zoo" part of the config, see `checkpoint_config.KEYS`; None if the zoo did not write it."""
        return self.at(step).zoo_part

    def provenance(self, step: int | None = None) -> dict[str, Any]:
        """Return the description of the run that the source comes from; empty if there is none.

        For an autoencoder of activations, in any format, `model` is the name of the language model, and `hook_name` is
        TransformerLens's name of the place in it, as far as the source tells. A place that has no such name has the
        name of its module.
        """
        opened = self.at(step)
        told = (opened.zoo_part or {}).get("provenance") or {}
        if isinstance(opened, Folder) and not opened.zoo_part:
            return {**opened.trained_on()}
        data = ((told.get("config") or {}).get("data") or {}).get("init_args") or {}
        return {"model": data["model"], **told} if {"model", "layer"} <= data.keys() else told

    def tokenizer_json(self, step: int | None = None) -> str | None:
        """Return the tokenizer of the source, serialised, or None if there is none."""
        text: str | None = self.at(step).beside(TOKENIZER)
        return text

    def token_strings(self, step: int | None = None) -> list[str] | None:
        """Return the text of every token, by token id, or None.

        It is read from the tokenizer or, for a .npy file, from the list NAME.tokens.json.
        """
        from zoo.token_texts import decoded_tokens, read_tokenizer

        listed = self.at(step).beside("tokens.json")
        if listed is None:
            if (text := self.tokenizer_json(step)) is None:
                return None
            if text not in self._texts:
                self._texts[text] = decoded_tokens(read_tokenizer(text, self.at(step).name))
            return list(self._texts[text])
        tokens = parsed(listed)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ZooError(f"{Path(self.at(step).name).with_suffix('.tokens.json')} is not a list of texts")
        return tokens

    def token_counts(self, step: int | None = None) -> Tensor | None:
        """Return how often each token occurs in the training text, (V,) int64, or None if it is not known."""
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
            raise ZooError(f"the token counts of {opened.name} are not a list of counts")
        return tensor

    def row_counts(self, step: int | None = None, n_rows: int | None = None) -> Tensor | None:
        """Return `token_counts` with one count for every row of the embedding, (n_rows,) int64, or None.

        Without `n_rows`, the number of rows is read from the embedding. Rows after the tokenizer's tokens belong to no
        token and have count 0. The number of counts must be the number of rows or that of the tokenizer's tokens.
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
        """Return the number of rows V and of dimensions D of the embedding.

        The embedding is read once for its shape and its `fingerprint`, because studies need both.
        """
        if step not in self._shapes:
            with suppress(ZooError):  # the fingerprint also reads the tokens, which may be damaged
                self.fingerprint(step)
        if step not in self._shapes:
            self.embedding(step)
        return self._shapes[step]

    def fingerprint(self, step: int | None = None) -> str:
        """Return the SHA-256 of the embedding's shape and float32 bytes, and of the tokens and their counts, if any.

        If the hub cannot be reached, tokens and counts on the hub count as absent.
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
        """Return the SHA-256 of the network's class, arguments and weights, in the precision in which it computes."""
        if ("weights", step) not in self._fingerprints:
            from zoo.checkpoints import weights_digest

            model: Any = self.load(step)
            told = json.dumps([type(model).__name__, model.config, weights_digest(model)], sort_keys=True)
            self._fingerprints["weights", step] = hashlib.sha256(told.encode()).hexdigest()
        return self._fingerprints["weights", step]

    @cached_property
    def _reader(self) -> type[LightningFile | MatrixFile] | None:
        """The class that reads the source if it is a file of a known kind, otherwise None."""
        is_folder = self.path is None or (self.path.suffix != ".ckpt" and self.path.is_dir())
        return None if self.path is None or is_folder else SUFFIXES.get(self.path.suffix)

    @cached_property
    def _root(self) -> Path | None:
        """The local folder of the source, if it is one. For a run that stores steps, it is the folder of the steps."""
        if self.path is None or self.name == "" or not self.path.is_dir():
            return None
        is_run = not (self.path / NAME).is_file() and (self.path / "steps").is_dir()
        return self.path / "steps" if is_run else self.path

    def _no_folder(self) -> ZooError:
        """Return the error for a source that is not a local folder."""
        if self.path is None or self.name == "":
            return ZooError(
                f"{self.name!r} is not the name or folder of a checkpoint; `python -m zoo list` shows the names"
            )
        if self.path.exists():
            return ZooError(f"{self.name} is a file; expected {EXPECTED}")
        import difflib

        close = difflib.get_close_matches(self.name, catalog.list_models(), 1)
        hint = f"did you mean {close[0]}?" if close else "`python -m zoo list` shows the names"
        return ZooError(
            f"no checkpoint {self.name!r}: it is neither the name of a pretrained checkpoint nor a folder; {hint}"
        )

    def _lightning_files(self) -> list[Path]:
        """Return the Lightning checkpoints in the run's folder `checkpoints`."""
        return sorted((self.path / "checkpoints").glob("*.ckpt")) if self.path is not None else []

    def _no_steps(self, step: int | None) -> ZooError:
        """Return the error for a run that has neither the given step nor a last checkpoint."""
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
                raise ZooError(f"{self.name} contains {{step}}; choose a training step with step")
            return Source.open(self.name.replace("{step}", str(step)), self.wanted).at()
        if self.path is None:
            return self._on_hub(step)
        if self._reader:
            if step is not None:
                raise ZooError(f"{self.name} holds one step only; do not set step")
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
                raise ZooError(f"{self.name} holds one step only; do not set step")
            if (only := opened.zoo_part["step"]) != step:
                raise ZooError(f"{self.name} holds step {only} only, not step {step}")
        return opened

    def _on_hub(self, step: int | None) -> Folder | MatrixFile:
        """Return a folder or file of a repository. A step is a folder or, as for Pythia and Mistral, a revision."""
        if Path(hub_place(self.name)[1]).suffix in MATRIX_SUFFIXES:
            return self._file_on_hub(step)
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

    def _file_on_hub(self, step: int | None) -> MatrixFile:
        """Return the file hf:org/repo/FILE[@revision], or that of the revision of a step."""
        repo, file, revision = hub_place(self.name)
        if revision is not None and step is not None:
            raise ZooError(f"{self.name} holds one step only; do not set step")
        tried = [revision] if step is None else [one.format(step=step) for one in REVISIONS]
        failures = []
        for one in tried:
            try:
                if path := hub_file(repo, one, file.rstrip("/")):
                    return MatrixFile(self.name if one == revision else f"{self.name}@{one}", path)
                failures.append(f"hf:{repo} has no {file.rstrip('/')}{f' at revision {one}' if one else ''}")
            except ZooError as error:
                failures.append(str(error))
        raise ZooError(failures[0])
