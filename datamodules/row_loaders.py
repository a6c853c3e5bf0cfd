"""Loaders of batches of rows of a matrix that lies on the training device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.resumable import ResumableLoader

EPOCH = 1000  # batches; an arbitrary number, because rows are drawn with replacement


class RowLoader(ResumableLoader):
    """Training batches of rows that are drawn independently, with replacement.

    Args:
        rows: All rows (V, d), on the device on which batches are made.
        ids: Indices of the rows to draw from, (n,).
        weights: Weights of these rows, (n,), or None to draw all with the same probability.
        batch_size: Rows per global batch.
        seed: Seed of the draws.
        rank: Rank of this process.
        world_size: Number of processes; each gets batch_size / world_size rows of every global batch.
    """

    def __init__(
        self,
        rows: Tensor,
        ids: Tensor,
        weights: Tensor | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.rows, self.ids, self.batch_size, self.seed = rows, ids, batch_size, seed
        self.distribution = None if weights is None else cumulative(weights)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return EPOCH

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`: `x` (B / world_size, d)."""
        rng = np.random.default_rng((self.seed, step))
        if self.distribution is None:
            drawn = torch.from_numpy(rng.integers(len(self.ids), size=self.batch_size))
        else:
            drawn = draw(rng, self.distribution, self.batch_size)
        share = self.batch_size // self.world_size
        ids = self.ids[drawn[self.rank * share : (self.rank + 1) * share]]
        return {"x": self.rows[ids.to(self.rows.device)]}


class AllRowsLoader(ResumableLoader):
    """Training batches, each of which holds all training rows and their weights.

    Args:
        rows: All rows (V, d), on the device on which batches are made.
        ids: Indices of the training rows, (n,).
        weights: Weights of all rows (V,).
        rank: Rank of this process.
        world_size: Number of processes, among which the rows are divided.
    """

    def __init__(self, rows: Tensor, ids: Tensor, weights: Tensor, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        mine = ids.tensor_split(world_size)[rank].to(rows.device)
        self.content = {"x": rows[mine], "row": mine, "weight": weights.to(rows.device)[mine]}

    def __len__(self) -> int:
        return EPOCH

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's rows `x` (n / world_size, d), their indices `row` and their `weight`."""
        return self.content


class RowEvaluationLoader:
    """Evaluation batches that hold every row once, in a fixed random order.

    The first few batches are therefore a random sample of the rows. Every batch is divided among the ranks.

    Args:
        rows: All rows (V, d), on the device on which batches are made.
        weights: Weights of the rows, (V,).
        held_out: True for rows that are never trained on, (V,).
        batch_size: Rows per global batch. The last batch is smaller, and a rank may get none of its rows.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, rows: Tensor, weights: Tensor, held_out: Tensor, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.rank, self.world_size = rows, batch_size, rank, world_size
        self.weights, self.held_out = weights.to(rows.device), held_out.to(rows.device)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        share = self.batch_size // self.world_size
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(self.rows)))
        for batch in order.split(self.batch_size):
            ids = batch[self.rank * share : (self.rank + 1) * share].to(self.rows.device)
            yield {"x": self.rows[ids], "row": ids, "weight": self.weights[ids], "held_out": self.held_out[ids]}


def side_rng(seed: int, purpose: int) -> np.random.Generator:
    """Return a generator whose stream differs from those of the batches, which are seeded with (seed, step)."""
    return np.random.default_rng((seed, 0, purpose))


def cumulative(weights: Tensor) -> np.ndarray:
    """Return the cumulative distribution of indices that are drawn by weight, (n,) float64, for `draw`."""
    sums = weights.double().cumsum(0)
    return (sums / sums[-1]).numpy()


def draw(rng: np.random.Generator, distribution: np.ndarray, n: int) -> Tensor:
    """Draw `n` independent indices by weight, (n,) int64; an index of weight 0 is never drawn."""
    return torch.from_numpy(np.searchsorted(distribution, rng.random(n), side="right"))
