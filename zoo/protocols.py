"""What datamodules, LightningModules and callbacks may ask of one another.

A callback, or a module that depends on its data, calls `require` with one of the protocols below and gets either an
object that has everything the protocol lists or one line that says what is missing. What an object may have, but need
not, stands in `OPTIONAL` and is read with `offered`. Nothing else is asked, so a datamodule, module or callback of your
own works as soon as it has what is listed here.

**Batches.** A datamodule and a module state what their batches hold by a class attribute `batches`; the command line
refuses pairs that differ. All batches are dicts of tensors, with B examples per process:

==================== ===================================================================================================
`batches`            keys
==================== ===================================================================================================
`"tokens"`           `input_ids` and `targets`, (B, T) int64; targets of -100 are left out of the loss. Optionally
                     `target_bytes`, (B, T): the bytes of text that each target stands for.
`"vectors"`          `x`, (B, d_in). Optionally `row`, (B,) int64: the index in the datamodule's `row_labels` of the row
                     that a vector belongs to; `weight`, (B,): its weight; and, in validation and test, `held_out`, (B,)
                     bool: whether it is never trained on. A tensor (..., d_in), or a tuple or list whose first entry is
                     one, is read as `x`; weights are then 1, and all vectors of validation and test are held out.
`"feature vectors"`  `f`, (N, n_features): sparse features; `x`, (N, d_in): what the network sees of them; `row`, (N,)
                     int64: the seed of each vector. N is the same number for each seed, one seed after the other.
`"feature contexts"` `x`, (N, T + 1, n_groups) int64: the features at each position, the query last; `ideal`, (N, T):
                     the attention that is right; `row`, (N,) int64: the seed of each context.
==================== ===================================================================================================

**Steps.** `validation_step` and `test_step` of a module that reconstructs return a dict with `x`, `x_hat` (B, d) and
`codes` (B, K); a module that solves for its codes adds `relative_gap` (B,) and `certified` (B,) bool.
"""

import inspect
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import lightning as L
from torch import Tensor

from zoo.errors import ZooError

P = TypeVar("P")


# Asked of datamodules.


class LabelledRows(Protocol):
    """Data whose batches have `row`: embedding rows, tokens with activations, or the seeds of a toy."""

    row_labels: list[str]  # what tables and pictures call each row, one text per row
    row_counts: Tensor | None  # how often each row's token occurs in the text of training, (V,) int64, if known


class EmbeddingData(LabelledRows, Protocol):
    """Data whose rows are those of one embedding matrix."""

    W_E: Tensor | None  # the matrix, (V, D); None where atoms are to be compared with no matrix


class WeightedRows(EmbeddingData, Protocol):
    """Data that are the rows of one matrix, each with a weight, and some held out."""

    W_E: Tensor
    train_rows: Tensor  # indices of the rows that are trained on, ascending, (n,) int64
    row_weights: Tensor  # weight of every row in training, (V,) float32 of mean 1


class LanguageModelData(Protocol):
    """Activations of a language model, at one place of its residual stream."""

    model: Any  # a `ResidualModel`
    layer: int  # the activations are the residual stream before this layer

    def evaluation_contexts(self) -> Iterable[dict[str, Tensor]]:
        """This process's validation contexts, as batches of tokens."""


class SyntheticFeatures(Protocol):
    """Vectors of sparse features that are drawn anew for every batch."""

    n_features: int
    n_seeds: int
    values: str  # "one", "uniform" or "signed"
    active: Any  # a `zoo.datamodules.ActiveInputs`

    def vectors(self, stream: tuple[int, ...], start: int, stop: int, total: int) -> dict[str, Tensor]:
        """The vectors `start` to `stop` - 1 of the `total` that each seed has in a stream of random numbers."""


# Asked of networks.


class ResidualModel(Protocol):
    """A language model that can be cut between two layers, see `zoo.models.GPT2`."""

    W_E: Tensor  # the token embedding, (V, D)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Residual stream before layer 0, (B, T) int64 -> (B, T, D)."""

    def blocks(self, resid: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Residual stream after the layers `start` to `stop` - 1, (B, T, D) -> (B, T, D)."""

    def unembed(self, resid: Tensor) -> Tensor:
        """Logits, (B, T, D) -> (B, T, V)."""


# Asked of LightningModules.


class TracksRows(Protocol):
    """A module with matrices whose rows are followed over training."""

    def embedding_rows(self) -> dict[str, Tensor]:
        """Matrices (rows, D) by name, sharing memory with the parameters."""


class Reconstructs(Protocol):
    """A module that reconstructs vectors from codes."""

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, d) and codes (B, K) of vectors (B, d_in)."""


class HasAtoms(Reconstructs, TracksRows, Protocol):
    """A module that reconstructs, and whose `embedding_rows()` have the atoms (K, d_in) under the name `W_dec`."""


class HasFeatures(Protocol):
    """A toy with a direction for every feature."""

    seed_losses: Tensor  # loss of every seed in the last validation, (n_seeds,); NaN before the first one

    def features(self) -> Tensor:
        """Directions of the features, (n_seeds, n_features, d_hidden)."""


class HasGates(Protocol):
    """A toy that computes Boolean gates."""

    case_errors: list[dict[str, Tensor]]  # for every depth, what `zoo.metrics.CaseErrors.compute` returns


# Asked of callbacks.


class Summarises(Protocol):
    """A callback that adds lines to the table printed at the end of a run."""

    def summary(self) -> dict[str, str]:
        """Label -> text."""


OPTIONAL = {
    # of datamodules
    "batches": "what the batches hold: tokens, vectors, feature vectors or feature contexts",
    "corpus_fingerprint": "text that names the training data; a run is not resumed on data with another one",
    "tokenizer": "the `tokenizers.Tokenizer` of the text, kept in checkpoints",
    "hook_name": "TransformerLens's name of the place that activations come from",
    "vocab_size": "number of tokens, which the model's `vocab_size` follows",
    "context_length": "tokens per context, which the model's `context_length` follows",
    "d_in": "length of the vectors, which the model's `d_in` follows",
    "n_features": "number of features, which the model's `n_features` follows",
    "n_seeds": "number of networks trained side by side, which the model's `n_seeds` follows",
    "n_groups": "number of groups of the model's inputs, where they are mutually exclusive within a group",
    "sample": "method: vectors (n, d_in) that scale, bias and first atoms are fitted to, the same on every rank; by "
    "default the first training batches",
    "batch_size": "examples per batch over all devices together; None where a batch is all training rows",
    "frequency_power": "rows are weighted by their token's frequency to this power; 0 or absent for equal weights",
    "train_rows": "indices of the rows that are trained on, (n,) int64",
    "effective_rows": "effective number of training rows, (sum w)² / sum w²",
    "never_occurring": "which rows have a token that never occurs, (V,) bool, or None if counts are unknown",
    "true_atoms": "the atoms (M, d_in) that the data were made of, if they are known",
    "skip_positions": "positions at the start of every context that are left out",
    "row_labels": "see `LabelledRows`",
    "row_counts": "see `LabelledRows`",
    # of LightningModules
    "summary": "method: see `Summarises`",
    "signed_codes": "whether codes may be negative; by default not",
}


def require(asker: L.Callback | L.LightningModule, owner: object, protocol: type[P]) -> P:
    """The owner, which has everything that a protocol lists.

    Args:
        asker: The callback or module that needs it, for the message.
        owner: A module, a datamodule, or None where there is no datamodule.
        protocol: One of the protocols of this file.

    Raises:
        ZooError: Naming what the owner lacks.
    """
    names = members(protocol)
    if missing := missing_in(owner, protocol):
        kind = "model" if isinstance(owner, L.LightningModule) else "datamodule"
        lacks = "there is none" if owner is None else f"{type(owner).__name__} has no {', '.join(missing)}"
        raise ZooError(
            f"{type(asker).__name__} needs a {kind} with {', '.join(names)}; {lacks} (see {protocol.__name__} in "
            f"{__name__})"
        )
    return owner  # type: ignore[return-value]


def offered(owner: object, name: str) -> Any:
    """What the owner has under one of the `OPTIONAL` names, or None."""
    assert name in OPTIONAL, f"{name} is not listed in {__name__}.OPTIONAL"
    return getattr(owner, name, None)


def batch_rows(asker: L.Callback, batch: Any) -> Tensor:
    """The index in `row_labels` of every vector of a batch, (B,) int64.

    Raises:
        ZooError: If the batch does not say.
    """
    if not isinstance(batch, dict) or "row" not in batch:
        raise ZooError(f"{type(asker).__name__} needs batches with `row`, the index of each vector in row_labels")
    rows: Tensor = batch["row"]
    return rows


def datamodule(trainer: Any) -> Any:
    """The trainer's datamodule; None where it was given loaders."""
    return getattr(trainer, "datamodule", None)


def missing_in(owner: object, protocol: type) -> list[str]:
    """Names that a protocol lists and an object lacks."""
    return [name for name in members(protocol) if not hasattr(owner, name)]


def members(protocol: type) -> list[str]:
    """Names of the attributes and methods that a protocol lists, those that it inherits first."""
    names: list[str] = []
    for cls in reversed(protocol.__mro__):
        if getattr(cls, "_is_protocol", False) and cls is not Protocol:
            own = [*inspect.get_annotations(cls), *vars(cls)]
            names += [name for name in own if name not in names and not name.startswith("_")]
    return names
