"""Datamodule of synthetic sparse features, for toy models."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.active_inputs import ActiveInputs, FixedActive
from zoo.datamodules.resumable import ResumableLoader
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.errors import ZooError

EPOCH = 1000  # batches; an arbitrary number, because every batch is newly drawn
PHI_STREAM, VALIDATION_STREAM, TEST_STREAM = 1, 2, 3


class SparseFeaturesDataModule(ZooDataModule):
    """Vectors of sparse features. New vectors are drawn for every batch and for each of several seeds.

    Batches are dicts: `f` (N, n_features), the features; `x` (N, d_in), the input of the network; and `row` (N,), the
    seed of each vector. N is `n_seeds` times the vectors per seed; the vectors of a seed are consecutive. A batch
    depends only on (seed, step, rank).

    Args:
        n_features: Number of features m.
        active: Distribution of the features that are on at once. By default exactly two, `FixedActive`.
        values: Value of a feature that is on: 1 for `one`, uniform in [0, 1] for `uniform`, uniform in [-1, 1] for
            `signed`, 1 or -1 for `sign`.
        d_superposed: Number of dimensions d0 in which the features are superposed: x = sum of f_i phi_i, where the
            phi_i are random unit vectors that differ between seeds. By default x = f.
        n_seeds: Number of independent networks that are trained in parallel, each on its own data.
        batch_size: Vectors per seed and batch, over all devices together.
        n_validation: Vectors per seed in validation, and as many in testing.
        seed: Seed of the vectors and of the directions phi_i.

    Raises:
        ZooError: If an argument is out of range.
    """

    batches = "feature vectors"
    row_counts = None

    def __init__(
        self,
        n_features: int = 5,
        active: ActiveInputs | None = None,
        values: Literal["one", "uniform", "signed", "sign"] = "one",
        d_superposed: int | None = None,
        n_seeds: int = 1,
        batch_size: int = 256,
        n_validation: int = 2048,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"n_features": n_features, "n_seeds": n_seeds, "batch_size": batch_size, "n_validation": n_validation}
        for name, size in (sizes | {"d_superposed": 1 if d_superposed is None else d_superposed}).items():
            if size < 1:
                raise ZooError(f"data.{name} is {size}; it must be at least 1")
        if seed < 0:
            raise ZooError(f"data.seed is {seed}; it must not be negative")
        active = active or FixedActive(2)
        active.check(n_features, n_seeds)
        self.n_features, self.active, self.values, self.n_seeds = n_features, active, values, n_seeds
        self.batch_size, self.n_validation, self.seed = batch_size, n_validation, seed
        self.d_superposed, self.d_in = d_superposed, d_superposed or n_features
        self.directions = None  # phi, (n_seeds, n_features, d0)
        if d_superposed is not None:
            rng = np.random.default_rng((seed, 0, PHI_STREAM))
            drawn = rng.standard_normal((n_seeds, n_features, d_superposed), dtype=np.float32)
            self.directions = F.normalize(torch.from_numpy(drawn), dim=2)

    @property
    def row_labels(self) -> list[str]:
        """Names of the seeds."""
        return [f"seed {i}" for i in range(self.n_seeds)]

    @property
    def corpus_fingerprint(self) -> str:
        """SHA-256 of the settings that determine the training vectors."""
        active = {"class": type(self.active).__name__, **vars(self.active)}
        sizes = (self.n_features, self.d_superposed, self.n_seeds, self.batch_size, self.seed)
        return hashlib.sha256(json.dumps([active, self.values, *sizes]).encode()).hexdigest()

    def vectors(self, stream: tuple[int, ...], start: int, stop: int, total: int) -> dict[str, Tensor]:
        """Return vectors `start` to `stop` of the `total` vectors that each seed has in a random stream."""
        rng = np.random.default_rng((self.seed, *stream))
        on = self.active.draw(rng, self.n_seeds * total, self.n_features)
        on = on.reshape(self.n_seeds, total, self.n_features)[:, start:stop]
        f = torch.from_numpy(on.astype(np.float32))
        if self.values != "one":
            sizes = torch.from_numpy(rng.random((self.n_seeds, total, self.n_features), dtype=np.float32))
            sizes = sizes if self.values == "uniform" else 2 * sizes - 1
            f *= (sizes.sign() if self.values == "sign" else sizes)[:, start:stop]
        x = f if self.directions is None else f @ self.directions
        row = torch.arange(self.n_seeds).repeat_interleave(stop - start)
        return {"f": f.flatten(0, 1), "x": x.flatten(0, 1), "row": row}

    def train_dataloader(self) -> "FeatureLoader":
        """Return a loader of endless batches."""
        return FeatureLoader(self, *self._ranks())

    def val_dataloader(self) -> "FeatureEvaluationLoader":
        """Return a loader of vectors that are never trained on, the same at every validation."""
        return FeatureEvaluationLoader(self, VALIDATION_STREAM, *self._ranks())

    def test_dataloader(self) -> "FeatureEvaluationLoader":
        """Return a loader of vectors that occur neither in training nor in validation."""
        return FeatureEvaluationLoader(self, TEST_STREAM, *self._ranks())

    def _ranks(self) -> tuple[int, int]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size % world_size:
            raise ZooError(
                f"batch_size {self.batch_size} (over all devices) is not a multiple of the number of devices, "
                f"{world_size}"
            )
        return rank, world_size


class FeatureLoader(ResumableLoader):
    """Training batches. Each rank gets the same number of vectors of every seed."""

    def __init__(self, data: SparseFeaturesDataModule, rank: int, world_size: int) -> None:
        super().__init__()
        self.data, self.rank, self.share = data, rank, data.batch_size // world_size

    def __len__(self) -> int:
        return EPOCH

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`."""
        start = self.rank * self.share
        return self.data.vectors((step,), start, start + self.share, self.data.batch_size)


class FeatureEvaluationLoader:
    """Evaluation batches of vectors that are never trained on.

    Every batch is divided among the ranks. A rank may get no vectors of the last batch.
    """

    def __init__(self, data: SparseFeaturesDataModule, stream: int, rank: int, world_size: int) -> None:
        self.data, self.stream, self.rank, self.world_size = data, stream, rank, world_size

    def __len__(self) -> int:
        return -(-self.data.n_validation // self.data.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self)):
            total = min(self.data.batch_size, self.data.n_validation - i * self.data.batch_size)
            share = -(-total // self.world_size)
            start, stop = (min(total, r * share) for r in (self.rank, self.rank + 1))
            batch = self.data.vectors((0, self.stream, i), start, stop, total)
            yield batch | {"held_out": torch.ones(len(batch["row"]), dtype=torch.bool)}
