"""Loaders over the residual stream of a model that reads text."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.activation_store import ActivationStore
from zoo.datamodules.text import TokenLoader

MICRO_BATCH_TOKENS = 8192  # that the model reads at once

Reader = Callable[[Tensor], Tensor]  # token ids (B, T), on any device, to activations (B, T, D)


class ActivationLoader:
    """Endless training batches `x`, one epoch per iteration; its state is the number of batches drawn.

    A refill runs the model on one batch of contexts and serves as many batches as each context has disjoint groups of
    positions. Its random positions are a function of (seed, refill, context).

    Args:
        contexts: The contexts; a refill takes one of its batches.
        read: Gives the activations of contexts.
        positions_per_context: Positions P that a batch takes from each context.
        skip_positions: First positions of a context, which are left out.
        seed: Names the choice of positions.
        store: Where activations are kept, if anywhere.
    """

    def __init__(
        self,
        contexts: TokenLoader,
        read: Reader,
        positions_per_context: int,
        skip_positions: int,
        seed: int,
        store: ActivationStore | None = None,
    ) -> None:
        self.contexts, self.read, self.store, self.seed = contexts, read, store, seed
        self.positions_per_context, self.skip_positions = positions_per_context, skip_positions
        self.batches_per_refill = (contexts.context_length - skip_positions) // positions_per_context
        self.position = 0
        self._buffer: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self.contexts) * self.batches_per_refill

    def batch(self, step: int) -> dict[str, Tensor]:
        """This rank's part of global batch `step`: `x` (B / world_size, D), context by context."""
        refill, index = divmod(step, self.batches_per_refill)
        if self._buffer[0] != refill:
            self._buffer = (-1, torch.empty(0))  # frees the old refill before the new one is made
            self._buffer = (refill, self.refill(refill))
        return {"x": self._buffer[1][:, index].flatten(0, 1)}

    def refill(self, refill: int) -> Tensor:
        """The activations that a refill serves, (contexts of this rank, batches, P, D), stored or computed."""
        device = self.read(torch.zeros(1, 1, dtype=torch.int64)).device
        rank, world_size = self.contexts.rank, self.contexts.world_size
        name = f"refill-{refill:06d}-rank-{rank}-of-{world_size}"
        if self.store and (stored := self.store.load(name)) is not None:
            return stored.to(device)
        positions = self._positions(refill)
        ids = self.contexts.batch(refill)["input_ids"]
        size = max(1, MICRO_BATCH_TOKENS // ids.shape[1])
        parts = []
        for part, chosen in zip(ids.split(size), positions.split(size), strict=True):
            x = self.read(part)  # (b, T, D)
            rows = torch.arange(len(part), device=x.device).view(-1, 1, 1)
            parts.append(x[rows, chosen.to(x.device)])
        x = torch.cat(parts)
        if self.store:
            self.store.save(name, x)
        return x

    def _positions(self, refill: int) -> Tensor:
        """Positions that a refill's batches take, (contexts of this rank, batches, P) int64, all different."""
        n_contexts, share = self.contexts.batch_size, self.contexts.batch_size // self.contexts.world_size
        rng = np.random.default_rng((self.seed, refill))
        order = rng.random((n_contexts, self.contexts.context_length - self.skip_positions)).argsort(1)
        mine = order[self.contexts.rank * share :][:share, : self.batches_per_refill * self.positions_per_context]
        shape = (share, self.batches_per_refill, self.positions_per_context)
        return torch.from_numpy(mine.reshape(shape) + self.skip_positions)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        end = (self.position // len(self) + 1) * len(self)
        while self.position < end:
            batch = self.batch(self.position)
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches drawn so far, the same on every rank."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches drawn before, in the middle of a refill if need be."""
        self.position = state["position"]
