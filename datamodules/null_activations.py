"""Null model of activations: Gaussian vectors with the mean and covariance of the activations."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.resumable import ResumableLoader
from zoo.precision import float64

MOMENT_VECTORS = 2**17  # number of activations from which mean and covariance are estimated
EVALUATED_AT_ONCE = 2048  # vectors per evaluation batch on one rank
STREAMS = {"train": 4, "val": 5, "test": 6}  # streams of random numbers, apart from those of the text


class GaussianVectors:
    """Gaussian vectors with a given mean and covariance.

    Args:
        mean: Mean, (D,) float64.
        covariance: Covariance, (D, D) float64.
        device: Device on which vectors are made.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, device: torch.device) -> None:
        variances, axes = torch.linalg.eigh(covariance)
        self.mean = mean.to(device, torch.float32)
        self.factor = (axes * variances.clamp(min=0).sqrt()).T.to(
            device, torch.float32
        )  # factor.T @ factor: covariance

    def draw(self, stream: tuple[int, ...], n: int, part: slice = slice(None)) -> Tensor:
        """Draw n vectors from a stream of random numbers and return a part of them, (<= n, D) float32."""
        white = np.random.default_rng(stream).standard_normal((n, len(self.mean)), dtype=np.float32)[part]
        return torch.from_numpy(white).to(self.mean.device) @ self.factor + self.mean


def moments_of(batches: Iterable[Mapping[str, Tensor]], n: int = MOMENT_VECTORS) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and covariance (D, D), float64, of the first n vectors of batches with `x` (B, D).

    All vectors are used if there are fewer.
    """
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        x = float64(batch["x"][: n - count])
        new = x.sum(0) / max(1, len(x))
        share = len(x) / max(1, count + len(x))
        scatter = scatter + (x - new).T @ (x - new) + count * share * torch.outer(new - mean, new - mean)
        count, mean = count + len(x), mean + share * (new - mean)
        if count == n:
            break
    return mean, scatter / count


class NullLoader(ResumableLoader):
    """Training batches `x` of Gaussian vectors. A vector depends only on the seed, the step and its index in the batch.

    Args:
        vectors: The distribution.
        length: Number of batches in an epoch.
        batch_size: Vectors per batch over all ranks.
        seed: Seed of the vectors.
        rank: Rank of this process.
        world_size: Number of processes; each gets batch_size / world_size vectors of every global batch.
    """

    def __init__(
        self, vectors: GaussianVectors, length: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        super().__init__()
        self.vectors, self.length, self.batch_size, self.seed = vectors, length, batch_size, seed
        share = batch_size // world_size
        self.mine = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self.length

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`: `x` (B / world_size, D)."""
        return {"x": self.vectors.draw((self.seed, step, STREAMS["train"]), self.batch_size, self.mine)}

    def sample(self, n: int) -> Tensor:
        """Return at most `n` vectors of this rank's part of the first batch, (<= n, D)."""
        return self.batch(0)["x"][:n]


class NullEvaluationLoader:
    """Batches `x` of Gaussian vectors for validation or test, the same in every evaluation and for every seed.

    Args:
        vectors: The distribution.
        n_vectors: Number of vectors over all ranks.
        split: "val" or "test". The two have different vectors.
        rank: Rank of this process.
        world_size: Number of processes. A rank may get no vector of the last batch.
    """

    def __init__(self, vectors: GaussianVectors, n_vectors: int, split: str, rank: int, world_size: int) -> None:
        self.vectors, self.n_vectors, self.split = vectors, n_vectors, split
        self.batch_size = EVALUATED_AT_ONCE * world_size
        self.mine = slice(rank * EVALUATED_AT_ONCE, (rank + 1) * EVALUATED_AT_ONCE)

    def __len__(self) -> int:
        return -(-self.n_vectors // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for index in range(len(self)):
            n = min(self.batch_size, self.n_vectors - index * self.batch_size)
            yield {"x": self.vectors.draw((0, index, STREAMS[self.split]), n, self.mine)}
