"""Loaders over the rows of one resident matrix."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.resumable import ResumableLoader

EPOCH = 1000  # batches, a number without meaning: rows are drawn with replacement


class RowLoader(ResumableLoader):
    """Training batches of rows that are drawn independently, with replacement.

    Args:
        rows: All rows (V, d), on the device where batches are wanted.
        ids: The rows to draw from (n,).
        weights: Their weights (n,), or None to draw all alike.
        batch_size: Rows per global batch.
        seed: Names the draws.
        rank: This process.
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
        """This rank's part of global batch `step`: `x` (B / world_size, d)."""
        rng = np.random.default_rng((self.seed, step))
        if self.distribution is None:
            drawn = torch.from_numpy(rng.integers(len(self.ids), size=self.batch_size))
        else:
            drawn = draw(rng, self.distribution, self.batch_size)
        share = self.batch_size // self.world_size
        ids = self.ids[drawn[self.rank * share : (self.rank + 1) * share]]
        return {"x": self.rows[ids.to(self.rows.device)]}


class AllRowsLoader(ResumableLoader):
    """Training batches that each hold all the rows to train on, with their weights.

    Args:
        rows: All rows (V, d), on the device where batches are wanted.
        ids: The rows to train on (n,).
        weights: Weights of all rows (V,).
        rank: This process.
        world_size: Number of processes, which share the rows.
    """

    def __init__(self, rows: Tensor, ids: Tensor, weights: Tensor, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        mine = ids.tensor_split(world_size)[rank].to(rows.device)
        self.content = {"x": rows[mine], "row": mine, "weight": weights.to(rows.device)[mine]}

    def __len__(self) -> int:
        return EPOCH

    def batch(self, step: int) -> dict[str, Tensor]:
        """This rank's rows: `x` (n / world_size, d), which `row` each is, and its `weight`."""
        return self.content


class RowEvaluationLoader:
    """Every row once, in a fixed random order, so that the first few batches are a sample; ranks share every batch.

    Args:
        rows: All rows (V, d), on the device where batches are wanted.
        weights: Their weights (V,).
        held_out: Which of them are never trained on (V,).
        batch_size: Rows per global batch; of the last one, which is smaller, a rank may get none.
        rank: This process.
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
    """A generator that shares no stream with the batches, which are named by (seed, step)."""
    return np.random.default_rng((seed, 0, purpose))


def cumulative(weights: Tensor) -> np.ndarray:
    """Distribution function of indices that are drawn by weight, (n,) float64, for `draw`."""
    sums = weights.double().cumsum(0)
    return (sums / sums[-1]).numpy()


def draw(rng: np.random.Generator, distribution: np.ndarray, n: int) -> Tensor:
    """Independent indices by weight, (n,) int64; one without weight is never drawn."""
    return torch.from_numpy(np.searchsorted(distribution, rng.random(n), side="right"))
