"""Protocols: the attributes and methods that datamodules, LightningModules and callbacks require of one another.

A callback, or a module that depends on its data, calls `require` with one of the protocols below. It gets an object
that has all attributes and methods of the protocol, or an error of one line that names the missing ones. Attributes and
methods that are optional are listed in `OPTIONAL` and read with `offered`. Nothing else is required. Your own
datamodule, module or callback therefore works if it has what is listed here.

**Batches.** The class attribute `batches` of a datamodule and of a module names the kind of their batches. The command
line refuses a datamodule and a module of different kinds. All batches are dicts of tensors, with B examples per
process:

==================== ===================================================================================================
`batches`            keys
==================== ===================================================================================================
`"tokens"`           `input_ids` and `targets`, (B, T) int64. Targets of -100 do not count in the loss. Optionally
                     `target_bytes`, (B, T): the number of bytes of text that each target encodes.
`"vectors"`          `x`, (B, d_in). Optionally `row`, (B,) int64: the index of each vector in the datamodule's
                     `row_labels`; `weight`, (B,): the weight of each vector; and, in validation and test, `held_out`,
                     (B,) bool: whether the vector is never trained on. Without a dict, a tensor (..., d_in), or a tuple
                     or list whose first entry is such a tensor, is read as `x`. Without `weight`, weights are 1.
                     Without `held_out`, all vectors of validation and test are held out.
`"feature vectors"`  `f`, (N, n_features): sparse features. `x`, (N, d_in): the input of the network, made from `f`.
                     `row`, (N,) int64: the seed of each vector. All seeds have the same number of vectors, one seed
                     after the other.
`"feature contexts"` `x`, (N, T + 1, n_groups) int64: the features at each position, the query last. `ideal`, (N, T):
                     the correct attention. `row`, (N,) int64: the seed of each context.
==================== ===================================================================================================

**Steps.** `validation_step` and `test_step` of a module that reconstructs return a dict with `x` (B, d), `x_hat` (B, d)
and `codes` (B, K). If the codes are certified solutions, it also has `relative_gap` (B,) and `certified` (B,) bool.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import lightning as L
from torch import Tensor

from zoo.errors import ZooError

P = TypeVar("P")


# Protocols for datamodules.


class LabelledRows(Protocol):
    """Data whose batches have `row`. Rows are embedding rows, tokens with activations, or the seeds of a toy."""

    row_labels: list[str]  # label of each row in tables and figures
    row_counts: Tensor | None  # how often each row's token occurs in the training text, (V,) int64; None if not known


class EmbeddingData(LabelledRows, Protocol):
    """Data whose rows belong to one embedding matrix."""

    W_E: Tensor | None  # the matrix that atoms are compared with, (V, D), or None for no comparison


class WeightedRows(EmbeddingData, Protocol):
    """Data that are the rows of one matrix. Every row has a weight, and some rows are held out."""

    W_E: Tensor
    train_rows: Tensor  # indices of the rows that are trained on, ascending, (n,) int64
    row_weights: Tensor  # weight of every row in training, (V,) float32 with mean 1


class LanguageModelData(Protocol):
    """Activations of a language model, at one or several of its sites."""

    model: "LanguageModel"
    sites: Sequence[str]  # names of the sites, see `zoo.interventions`; vectors of several sites are concatenated

    def evaluation_contexts(self) -> Iterable[dict[str, Tensor]]:
        """Return the validation contexts of this process, as batches of kind `"tokens"`.

        They may have `counted`, (B, T) bool: whether the activations at a position are among the data's vectors.
        """


class SyntheticFeatures(Protocol):
    """Vectors of sparse features, newly drawn for every batch."""

    n_features: int
    n_seeds: int
    values: str  # "one", "uniform", "signed" or "sign"
    active: Any  # a `zoo.datamodules.ActiveInputs`

    def vectors(self, stream: tuple[int, ...], start: int, stop: int, total: int) -> dict[str, Tensor]:
        """Return a batch with the vectors `start` to `stop` - 1 of every seed, out of `total` per seed.

        `stream` selects a stream of random numbers.
        """


# Protocols for networks.


class LanguageModel(Protocol):
    """A causal language model whose activations can be read and edited, see `zoo.interventions`."""

    W_E: Tensor  # the token embedding, (V, D)
    n_layers: int
    context_length: int | None  # largest number of tokens of a text; None if there is no limit
    sites: Sequence[str]  # names of the sites that can be read and edited

    def run(
        self,
        input_ids: Tensor,
        edits: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        start: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Return the logits (B, T, V) of token ids (B, T), on the model's device.

        At every site in `edits`, its function is called once with the activations, and the result is used instead of
        them. With `start`, a layer and the residual stream before it (B, T, D), the run begins there.
        """


# Protocols for LightningModules.


class TracksRows(Protocol):
    """A module with matrices whose rows are tracked during training."""

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the matrices (rows, D) by name, sharing memory with the parameters."""


class Reconstructs(Protocol):
    """A module that reconstructs vectors from codes."""

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (B, d) and the codes (B, K) of vectors (B, d_in)."""


class HasAtoms(Reconstructs, TracksRows, Protocol):
    """A module that reconstructs vectors, and whose `embedding_rows()["W_dec"]` are its atoms (K, d_in)."""


class HasFeatures(Protocol):
    """A toy model with a direction for every feature."""

    seed_losses: Tensor  # loss of every seed in the last validation, (n_seeds,); NaN before the first one

    def features(self) -> Tensor:
        """Return the directions of the features, (n_seeds, n_features, d_hidden)."""


class HasMeanLoss(Protocol):
    """A module whose training loss is a mean over data points, so that a local learning coefficient is defined."""

    def mean_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss per data point of a batch: (), or (n_seeds,) for networks that are trained side by side.

        It is the loss of `training_step` in eval mode, for batches of the same kind. It logs nothing and changes no
        state. It has true gradients, not straight-through ones, and `torch.func` can batch it over many parameters.
        """


class HasGates(Protocol):
    """A toy model that computes Boolean gates."""

    case_errors: list[dict[str, Tensor]]  # for every depth, the result of `zoo.metrics.CaseErrors.compute`


# Protocols for callbacks.


class Summarises(Protocol):
    """A callback that adds lines to the table printed at the end of a run."""

    def summary(self) -> dict[str, str]:
        """Return the lines: label -> text."""


OPTIONAL = {
    # for datamodules
    "batches": "kind of the batches: tokens, vectors, feature vectors or feature contexts",
    "corpus_fingerprint": "text that identifies the training data; a run is not resumed on data with another one",
    "tokenizer": "the `tokenizers.Tokenizer` of the text, which checkpoints store",
    "model_name": "name of the language model that the activations come from",
    "hook_name": "TransformerLens's name of the hook point that the activations come from; None if there are several",
    "prepend_bos": "whether every context begins with the tokens that the tokenizer puts before a text",
    "vocab_size": "number of tokens, which the model's `vocab_size` follows",
    "context_length": "tokens per context, which the model's `context_length` follows",
    "d_in": "length of the vectors, which the model's `d_in` follows",
    "n_features": "number of features, which the model's `n_features` follows",
    "n_seeds": "number of networks trained in parallel, which the model's `n_seeds` follows",
    "sample": "method: returns vectors (n, d_in) that scale, bias and first atoms are fitted to, the same on every "
    "rank; by default the first training batches are used",
    "batch_size": "examples per batch, over all devices together; None if a batch is all training rows",
    "frequency_power": "rows are weighted by their token's frequency to this power; 0 or absent for equal weights",
    "train_rows": "indices of the rows that are trained on, (n,) int64",
    "effective_rows": "effective number of training rows, (sum w)² / sum w²",
    "never_occurring": "whether the token of each row never occurs, (V,) bool, or None if counts are not known",
    "true_atoms": "the atoms (M, d_in) from which the data were generated, if they are known",
    "null_model": "name of the null model whose random vectors replace activations, or None",
    "row_labels": "see `LabelledRows`",
    "row_counts": "see `LabelledRows`",
    # for language models
    "config": "settings that decide, with the weights, what the model computes; plain values",
    # for callbacks and LightningModules
    "summary": "method: see `Summarises`",
    "signed_codes": "whether codes may be negative; false if absent",
}


def require(asker: L.Callback | L.LightningModule, owner: object, protocol: type[P]) -> P:
    """Return the owner unchanged if it has all attributes and methods of a protocol.

    Args:
        asker: The callback or module that requires them; the message names it.
        owner: A module, a datamodule, or None if there is no datamodule.
        protocol: One of the protocols of this file.

    Raises:
        ZooError: If the owner lacks attributes or methods; the message names them.
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


def refuse_null_model(asker: L.Callback, data: object) -> None:
    """Refuse a null model of activations, because its vectors belong to no token and no text.

    Raises:
        ZooError: If the datamodule's `null_model` is not None.
    """
    if name := offered(data, "null_model"):
        raise ZooError(
            f"{type(asker).__name__} needs the text that vectors come from, and data.null_model {name} draws random "
            f"vectors that come from none; leave {type(asker).__name__} out"
        )


def offered(owner: object, name: str) -> Any:
    """Return an attribute or method of the owner by one of the `OPTIONAL` names, or None if it has none."""
    assert name in OPTIONAL, f"{name} is not listed in {__name__}.OPTIONAL"
    return getattr(owner, name, None)


def batch_rows(asker: L.Callback, batch: Any) -> Tensor:
    """Return the index in `row_labels` of every vector of a batch, (B,) int64.

    Raises:
        ZooError: If the batch has no `row`.
    """
    if not isinstance(batch, dict) or "row" not in batch:
        raise ZooError(f"{type(asker).__name__} requires batches with `row`, the index of each vector in row_labels")
    rows: Tensor = batch["row"]
    return rows


def datamodule(trainer: Any) -> Any:
    """Return the datamodule of the trainer, or None if it was given loaders."""
    return getattr(trainer, "datamodule", None)


def missing_in(owner: object, protocol: type) -> list[str]:
    """Return the names of a protocol's attributes and methods that an object lacks."""
    return [name for name in members(protocol) if not hasattr(owner, name)]


def members(protocol: type) -> list[str]:
    """Return the names of a protocol's attributes and methods, inherited ones first."""
    names: list[str] = []
    for cls in reversed(protocol.__mro__):
        if getattr(cls, "_is_protocol", False) and cls is not Protocol:
            own = [*inspect.get_annotations(cls), *vars(cls)]
            names += [name for name in own if name not in names and not name.startswith("_")]
    return names
