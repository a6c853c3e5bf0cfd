"""Datamodule whose batches are rows of an embedding matrix or of a null model."""

import hashlib
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo.datamodules.null_rows import NullModel
from zoo.datamodules.row_loaders import AllRowsLoader, RowEvaluationLoader, RowLoader, cumulative, draw, side_rng
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.source import Source
from zoo.token_texts import read_tokenizer, without_text
from zoo.untrained_rows import KEPT, NEVER_OCCURS, REASONS, untrained_rows

SAMPLE_SIZE = 16_384
EVALUATED_AT_ONCE = 4096  # rows per device in evaluation if batch_size is null


class EmbeddingRowsDataModule(ZooDataModule):
    """Rows of a token embedding, drawn by a power of the frequency of their tokens. Some rows are held out.

    The whole matrix lies on the training device, where batches are made. A batch depends only on (seed, step, rank).
    Resuming is therefore exact, and the global batches do not depend on the number of ranks.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision]. In a source, {step} is replaced by the training
            step, as in hf:EleutherAI/pythia-160m@step{step}.
        step: Training step, for a source that holds several. By default the last.
        tensor: Name of the tensor. By default the token embedding.
        null_model: Null model whose random rows replace the rows of the source. By default the rows of the source are
            used.
        n_rows: Number of rows V of a null model without a source.
        d_in: Number of coordinates of every row of a null model without a source.
        token_counts: A .npy file with one count per row, such as token_counts.npy of a token cache. By default the
            counts in the source's checkpoint, if it has them.
        frequency_power: Rows are drawn with probability proportional to p^power, where p is the frequency of their
            token; 0 draws all rows with the same probability. A power of 1 concentrates the weight on few rows: the
            3,686 training rows of gpt2-stdlib.learned then have an effective number of 154.
        batch_size: Rows per batch over all devices together. With null, every batch holds all training rows, which are
            weighted instead of drawn.
        val_fraction: Share of rows that are held out, chosen uniformly.
        untrained: Treatment of the source's rows that look untrained, see `zoo.untrained_rows.untrained_rows`: "keep"
            uses them, "aside" leaves them out. The indices in the source of the rows that are used are `source_rows`.
        seed: Seed for the choice of the held-out rows and for the draws of training rows.

    Raises:
        ZooError: If the matrix or its counts cannot be read or used, or an argument is out of range.
    """

    batches = "vectors"
    true_atoms: Tensor | None = None  # (n_atoms, d_in)

    def __init__(
        self,
        source: str | None = None,
        step: int | None = None,
        tensor: str | None = None,
        null_model: NullModel | None = None,
        n_rows: int | None = None,
        d_in: int | None = None,
        token_counts: str | None = None,
        frequency_power: float = 0.0,
        batch_size: int | None = 4096,
        val_fraction: float = 0.1,
        seed: int = 0,
        untrained: Literal["keep", "aside"] = "keep",
    ) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise ZooError(f"batch_size is {batch_size}; it must be at least 1")
        if not 0 <= val_fraction < 1:
            raise ZooError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
        if not 0 <= frequency_power < float("inf"):
            raise ZooError(f"frequency_power is {frequency_power}; it must be finite and not negative")
        if untrained not in ("keep", "aside"):
            raise ZooError(f"untrained is {untrained!r}; it must be keep or aside")
        if seed < 0:
            raise ZooError(f"data.seed is {seed}; it must not be negative")
        self.batch_size, self.seed, self.frequency_power = batch_size, seed, frequency_power
        opened = None if source is None else Source.open(source)
        if opened is not None:
            if n_rows is not None or d_in is not None:
                raise ZooError("n_rows and d_in are given by the source; leave them out, or leave out source")
            W = _checked(opened.embedding(step, tensor), opened.name)
        elif null_model is None or n_rows is None or d_in is None or min(n_rows, d_in) < 1:
            raise ZooError("without a source, give a null_model and positive n_rows and d_in")
        elif step is not None or tensor is not None:
            raise ZooError("step and tensor require a source; give data.source, or leave them out")
        else:
            W = _checked(null_model.rows_of_shape(n_rows, d_in), type(null_model).__name__)
        counts = _read_counts(token_counts, len(W)) if token_counts else _source_counts(opened, step, tensor, len(W))
        labels = _labels(opened, step, len(W))
        self.source_rows = torch.arange(len(W))  # indices of the rows in the source, ascending, (V,)
        if opened is not None and untrained == "aside":
            self.source_rows = _trained(W, counts, labels, opened, step)
            W = W[self.source_rows]
        self.W_E = null_model.rows(W) if source is not None and null_model is not None else W.clone()
        self.true_atoms = null_model.true_atoms if null_model else None
        V, self.d_in = self.W_E.shape
        self.row_counts = None if counts is None else counts[self.source_rows]
        self.row_labels = [labels[i] for i in self.source_rows.tolist()]
        self.held_out = torch.zeros(V, dtype=torch.bool)
        n_held_out = min(V - 1, max(1, round(V * val_fraction))) if val_fraction else 0
        self.held_out[side_rng(seed, 1).permutation(V)[:n_held_out]] = True
        if not self.W_E[self.train_rows].var(0, correction=0).any():
            raise ZooError(f"the {len(self.train_rows)} training rows of {source or null_model} are all the same")
        self.row_weights = self._weights()
        self._resident = self.W_E

    @property
    def train_rows(self) -> Tensor:
        """Indices of the training rows, ascending, (n_train,) int64."""
        return (~self.held_out).nonzero().squeeze(1)

    @property
    def effective_rows(self) -> float:
        """Effective number of training rows, (Σw)² / Σw², which is at most the number of training rows."""
        w = self.row_weights[~self.held_out].double()
        return (w.sum().square() / w.square().sum()).item()

    @property
    def evaluation_weights(self) -> Tensor:
        """Weights of the rows in weighted metrics, (V,) of mean 1.

        They are the training weights or, if frequency_power is 0 and counts are known, the token frequencies.
        """
        if self.frequency_power or self.row_counts is None:
            return self.row_weights
        return (self.row_counts / self.row_counts.double().mean()).float()

    @property
    def never_occurring(self) -> Tensor | None:
        """True for rows whose token never occurs, (V,) bool; None if counts are not known.

        Training leaves such rows at their initial values or moves all of them in the same way. Structure that is found
        in them was not learned.
        """
        return None if self.row_counts is None else self.row_counts == 0

    @cached_property
    def corpus_fingerprint(self) -> str:
        """SHA-256 of the rows and their weights."""
        digest = hashlib.sha256(self.W_E.contiguous().numpy().data)
        digest.update(self.row_weights.numpy().data)
        return digest.hexdigest()

    def setup(self, stage: str | None = None) -> None:
        """Move the matrix to the training device."""
        self._resident = self.W_E.to(self.trainer.strategy.root_device if self.trainer else "cpu")

    def sample(self) -> Tensor:
        """Return training rows for initialisation, (n <= 16384, d_in), the same on every rank.

        They are drawn by weight if frequency_power is not 0.
        """
        ids, rng = self.train_rows, side_rng(self.seed, 2)
        if self.frequency_power:
            ids = ids[draw(rng, cumulative(self.row_weights[ids]), SAMPLE_SIZE)]
        elif len(ids) > SAMPLE_SIZE:
            ids = ids[rng.permutation(len(ids))[:SAMPLE_SIZE]]
        return self._resident[ids.to(self._resident.device)]

    def train_dataloader(self) -> RowLoader | AllRowsLoader:
        """Return a loader of training rows drawn by weight with replacement, or of all of them."""
        ids = self.train_rows
        if self.batch_size is None:
            return AllRowsLoader(self._resident, ids, self.row_weights, *self._ranks())
        weights = self.row_weights[ids] if self.frequency_power else None
        return RowLoader(self._resident, ids, weights, self.batch_size, self.seed, *self._ranks())

    def val_dataloader(self) -> RowEvaluationLoader:
        """Return a loader of every row once, training and held-out rows, in a fixed random order."""
        rank, world_size = self._ranks()
        batch_size = self.batch_size or EVALUATED_AT_ONCE * world_size
        return RowEvaluationLoader(self._resident, self.evaluation_weights, self.held_out, batch_size, rank, world_size)

    def test_dataloader(self) -> RowEvaluationLoader:
        """Return the same loader as `val_dataloader`, because there is no separate test split of the rows."""
        return self.val_dataloader()

    def _ranks(self) -> tuple[int, int]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size is not None and self.batch_size % world_size:
            raise ZooError(
                f"batch_size {self.batch_size} (over all devices) is not a multiple of the number of devices, "
                f"{world_size}"
            )
        return rank, world_size

    def _weights(self) -> Tensor:
        """Return the weight of every row, (V,) float32, of mean 1."""
        if not self.frequency_power:
            return torch.ones(len(self.W_E))
        if self.row_counts is None:
            raise ZooError(
                f"frequency_power is {self.frequency_power}, which requires token counts, but none are known; give "
                "token_counts, a .npy file with one count per row"
            )
        weights = (self.row_counts.double() / self.row_counts.max().clamp(min=1)) ** self.frequency_power
        if not weights[~self.held_out].any():
            raise ZooError("the tokens of all training rows have count 0; use frequency_power 0 or other token_counts")
        return (weights / weights.mean()).float()


def _checked(W: Tensor, source: str) -> Tensor:
    if len(W) < 2:
        raise ZooError(f"{source} has {len(W)} rows; at least 2 are needed")
    bad = ~W.isfinite().all(1)
    if bad.any():
        raise ZooError(f"row {int(bad.int().argmax())} of {source} has entries that are NaN or infinite")
    return W


def _trained(W: Tensor, counts: Tensor | None, labels: list[str], source: Source, step: int | None) -> Tensor:
    """Return the indices of the rows that do not look untrained, ascending."""
    try:
        tokenizer = source.tokenizer_json(step)
    except ZooError:
        tokenizer = None  # optional if the hub cannot be reached; the labels were read before
    no_text = torch.tensor(without_text(read_tokenizer(tokenizer, source.name))) if tokenizer else None
    if no_text is not None and len(no_text) > len(W):
        no_text = None
    reason = untrained_rows(W, counts, labels, no_text).reason
    nameless = torch.tensor([label == f"row {i}" for i, label in enumerate(labels)])
    if not nameless.all():  # rows after the last token's row
        reason[nameless] = NEVER_OCCURS
    told = [f"{n} {why}" for i, why in enumerate(REASONS) if i and (n := int((reason == i).sum()))]
    kept = (reason == KEPT).nonzero().squeeze(1)
    n_aside = len(W) - len(kept)
    rank_zero_info(f"note: {n_aside} of {len(W)} rows of {source.name} are set aside: {', '.join(told) or 'none'}")
    if len(kept) < 2:
        raise ZooError(f"{source.name} has {len(kept)} rows that look trained; at least 2 are needed")
    return kept


def _read_counts(file: str, n_rows: int) -> Tensor:
    try:
        counts = np.load(expanded(file), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ZooError(f"token_counts {file} cannot be read: {' '.join(str(error).split())}") from None
    if counts.shape != (n_rows,) or counts.dtype.kind not in "iu":
        raise ZooError(
            f"token_counts {file} holds {counts.dtype} {list(counts.shape)}; expected {n_rows} counts, one per row"
        )
    if not 0 <= counts.min() <= counts.max() < 2**63:
        raise ZooError(
            f"token_counts {file} holds values from {counts.min()} to {counts.max()}; counts must be at least 0 and "
            "below 2**63"
        )
    return torch.from_numpy(counts.astype(np.int64))


def _source_counts(source: Source | None, step: int | None, tensor: str | None, n_rows: int) -> Tensor | None:
    """Return the token counts of the source, or None. If a tensor is named, there must be one count per row."""
    if source is None:
        return None
    if tensor is None:
        return source.row_counts(step, n_rows)
    counts = source.token_counts(step)
    return counts if counts is not None and len(counts) == n_rows else None


def _labels(source: Source | None, step: int | None, n_rows: int) -> list[str]:
    """Return the text of every row's token, or the row's number if it has no token."""
    try:
        strings = (source.token_strings(step) if source is not None else None) or []
    except ZooError:
        if source is not None and not source.name.startswith("hf:"):
            raise
        strings = []  # names are optional if the hub cannot be reached
    strings = strings if len(strings) <= n_rows else []
    return strings + [f"row {i}" for i in range(len(strings), n_rows)]
