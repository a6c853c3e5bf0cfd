"""Loaders that yield activations of a language model on text."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.activation_store import ActivationStore
from zoo.datamodules.resumable import ResumableLoader
from zoo.datamodules.text import EvaluationLoader, TokenLoader
from zoo.errors import ZooError
from zoo.interventions import activations
from zoo.metrics.next_token import IGNORED
from zoo.protocols import LanguageModel

MICRO_BATCH_TOKENS = 8192  # tokens per forward pass of the model in training
MICRO_BATCH_TOKENS_CPU = 1024  # the same on a CPU, whose cache does not hold more


def after_bos(batch: dict[str, Tensor], bos: Sequence[int]) -> dict[str, Tensor]:
    """Put the same tokens before every context of a batch `input_ids` and `targets` (B, T).

    The last of them predicts the first token of the context. The others predict nothing, and neither does padding.
    """
    ids, targets = batch["input_ids"], batch["targets"]
    if not bos:
        return batch
    first = ids[:, :1].where(targets[:, :1] != IGNORED, IGNORED)
    before = torch.tensor(bos).expand(len(ids), -1)
    return {
        "input_ids": torch.cat([before, ids], 1),
        "targets": torch.cat([torch.full_like(before[:, 1:], IGNORED), first, targets], 1),
    }


class SiteReader:
    """Function from token ids to the activations at some sites, concatenated in this order.

    Args:
        model: The language model.
        sites: Names of the sites, see `zoo.interventions`.
    """

    def __init__(self, model: LanguageModel, sites: Sequence[str]) -> None:
        self.model, self.sites = model, sites

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.W_E.device

    @torch.no_grad()
    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return the activations of token ids (B, T) on any device, (B, T, D), in the model's precision and device.

        Raises:
            ZooError: If activations are too large for float16.
        """
        found = activations(self.model, input_ids.to(self.device), self.sites)
        x = torch.cat([found[site] for site in self.sites], -1)
        if x.dtype == torch.float16 and not x.isfinite().all():
            sites = ", ".join(self.sites)
            raise ZooError(
                f"activations at {sites} are too large for float16; use data.model_dtype bfloat16 or float32"
            )
        return x


class ActivationLoader(ResumableLoader):
    """Training batches `x` of activations at random positions.

    The loader keeps a buffer of activations. To refill it, the model runs on one batch of contexts. The positions of
    every context are split at random into disjoint groups, and each training batch takes one group from every context.
    The split is a function of (seed, refill, context).

    Args:
        contexts: Loader of the contexts; a refill takes one of its batches.
        stream: Function from token ids to activations.
        positions_per_context: Number of positions P in a group.
        skip_positions: Number of first positions of each context that are excluded, BOS included.
        store: Storage for the activations of refills. By default they are not stored.
        bos: Tokens that are put before every context.
        device: Device of the batches. By default that of the model.
        skip_tokens: Tokens whose positions are excluded, as long as the others of the context are enough.
    """

    def __init__(
        self,
        contexts: TokenLoader,
        stream: SiteReader,
        positions_per_context: int,
        skip_positions: int,
        store: ActivationStore | None = None,
        bos: Sequence[int] = (),
        device: torch.device | None = None,
        skip_tokens: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.contexts, self.stream, self.store, self.bos = contexts, stream, store, bos
        self.skip_tokens = skip_tokens
        self.device = stream.device if device is None else device
        self.positions_per_context, self.skip_positions = positions_per_context, skip_positions
        self.n_positions = len(bos) + contexts.context_length - skip_positions
        self.batches_per_refill = self.n_positions // positions_per_context
        self._buffer: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self.contexts) * self.batches_per_refill

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`: `x` (B / world_size, D) float32, ordered by context."""
        refill, index = divmod(step, self.batches_per_refill)
        if self._buffer[0] != refill:
            self._buffer = (-1, torch.empty(0))  # free the old activations before the new ones are computed
            self._buffer = (refill, self._refill(refill))
        return {"x": self._buffer[1][:, index].flatten(0, 1).to(self.device, torch.float32)}

    def sample(self, n: int) -> Tensor:
        """Return at most `n` vectors of this rank's part of the first batch, (<= n, D), ordered by context."""
        n_contexts = max(1, n // self.positions_per_context)
        x = self._read(self._input_ids(0)[:n_contexts], self._positions(0)[:n_contexts, :1])
        return x.flatten(0, 2)[:n].to(self.device, torch.float32)

    def _refill(self, refill: int) -> Tensor:
        """Read or compute all activations of a refill, (contexts of this rank, batches, P, D)."""
        name = f"refill-{refill:06d}-rank-{self.contexts.rank}-of-{self.contexts.world_size}"
        if self.store and (stored := self.store.load(name)) is not None:
            return stored.to(self.stream.device)
        x = self._read(self._input_ids(refill), self._positions(refill))
        if self.store:
            self.store.save(name, x)
        return x

    def _input_ids(self, refill: int) -> Tensor:
        """Return the contexts of a refill, (contexts of this rank, T)."""
        return after_bos(self.contexts.batch(refill), self.bos)["input_ids"]

    def _read(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Return the activations of contexts (C, T) at positions (C, batches, P), as (C, batches, P, D)."""
        n_tokens = MICRO_BATCH_TOKENS_CPU if self.stream.device.type == "cpu" else MICRO_BATCH_TOKENS
        size, parts = max(1, n_tokens // input_ids.shape[1]), []
        for ids, chosen in zip(input_ids.split(size), positions.to(self.stream.device).split(size), strict=True):
            context = torch.arange(len(ids), device=chosen.device).view(-1, 1, 1)
            parts.append(self.stream(ids)[context, chosen])
        return torch.cat(parts)

    def _positions(self, refill: int) -> Tensor:
        """Draw the positions of a refill's batches, (contexts of this rank, batches, P) int64, without repeats."""
        share = self.contexts.batch_size // self.contexts.world_size
        shape = (share, self.batches_per_refill, self.positions_per_context)
        rng = np.random.default_rng((self.contexts.seed, refill, 1))  # another stream than the contexts'
        ranks = rng.random((self.contexts.batch_size, self.n_positions))[self.contexts.rank * share :][:share]
        if self.skip_tokens:
            ids = self._input_ids(refill)[:, self.skip_positions :]
            ranks = ranks + np.isin(ids.numpy(), self.skip_tokens)  # the last ones are left over
        order = ranks.argsort(1)[:, : shape[1] * shape[2]]
        return torch.from_numpy(order.reshape(shape)) + self.skip_positions


class EvaluationContexts:
    """Batches of the first few windows of an `EvaluationLoader`, on a device.

    A batch has `input_ids` and `targets`, (B, T), and `counted`, (B, T) bool: whether the activations at a position are
    among the vectors of the split.

    Args:
        windows: The windows of a split, in a fixed random order.
        n_contexts: Number of windows over all ranks. The last batch is filled up with padding, whose target is -100.
        device: Device to which batches are moved.
        bos: Tokens that are put before every context.
        skip_positions: Number of first positions of each context that are excluded, BOS included.
        skip_tokens: Tokens whose positions are excluded.
    """

    def __init__(
        self,
        windows: EvaluationLoader,
        n_contexts: int,
        device: torch.device,
        bos: Sequence[int] = (),
        skip_positions: int = 0,
        skip_tokens: Sequence[int] = (),
    ) -> None:
        self.windows, self.device, self.bos = windows, device, bos
        self.skip_positions, self.skip_tokens = skip_positions, skip_tokens
        self.n_contexts = min(n_contexts, windows.n_windows)

    def __len__(self) -> int:
        return -(-self.n_contexts // self.windows.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        share = self.windows.batch_size // self.windows.world_size
        for index, batch in enumerate(islice(self.windows, len(self))):
            first = index * self.windows.batch_size + self.windows.rank * share
            beyond = torch.arange(first, first + share) >= self.n_contexts
            batch["input_ids"][beyond], batch["targets"][beyond] = 0, IGNORED
            batch = after_bos(batch, self.bos)
            counted = batch["targets"] != IGNORED
            counted &= ~torch.isin(batch["input_ids"], torch.tensor(self.skip_tokens, dtype=torch.int64))
            counted[:, : self.skip_positions] = False
            yield {key: value.to(self.device) for key, value in {**batch, "counted": counted}.items()}


class ActivationEvaluationLoader:
    """Batches of the activations of evaluation contexts at the positions that count.

    Args:
        contexts: The contexts.
        stream: Function from token ids to activations.
    """

    def __init__(self, contexts: EvaluationContexts, stream: SiteReader) -> None:
        self.contexts, self.stream = contexts, stream

    def __len__(self) -> int:
        return len(self.contexts)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.contexts:
            counted = batch["counted"]
            row = batch["input_ids"][counted]
            x = self.stream(batch["input_ids"])
            x, weight = x[counted.to(x.device)].to(row.device, torch.float32), torch.ones(len(row), device=row.device)
            yield {"x": x, "row": row, "weight": weight, "held_out": weight.bool()}
