"""Batches of synthetic sparse features, for toy models."""

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

EPOCH = 1000  # batches, a number without meaning: every batch is drawn anew
PHI_STREAM, VALIDATION_STREAM, TEST_STREAM = 1, 2, 3


class SparseFeaturesDataModule(ZooDataModule):
    """Vectors of sparse features, drawn anew for every batch and for each of several seeds.

    Batches are dicts: `f` (N, n_features), the features; `x` (N, d_in), what the network sees of them; and `row` (N,),
    the seed of each vector. N is `n_seeds` times the vectors per seed, and vectors of one seed stand together. A batch
    is a function of (seed, step, rank) and of nothing else.

    Args:
        n_features: Features m.
        active: Which of them are on at once; by default exactly two, `FixedActive`.
        values: What a feature is when it is on: 1; uniform in [0, 1]; or `signed`, uniform in [-1, 1].
        d_superposed: Dimensions d0 in which the features are superposed: x = sum of f_i phi_i, with random unit vectors
            phi_i of each seed's own. By default x is f itself.
        n_seeds: Independent networks that are trained side by side, each on data of its own.
        batch_size: Vectors per seed and batch, over all devices together.
        n_validation: Vectors per seed to judge by.
        seed: Names the vectors and the superposition.

    Raises:
        ZooError: If an argument is out of range.
    """

    batches = "feature vectors"
    row_counts = None

    def __init__(
        self,
        n_features: int = 5,
        active: ActiveInputs | None = None,
        values: Literal["one", "uniform", "signed"] = "one",
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
        """SHA-256 over what names the training vectors."""
        active = {"class": type(self.active).__name__, **vars(self.active)}
        sizes = (self.n_features, self.d_superposed, self.n_seeds, self.batch_size, self.seed)
        return hashlib.sha256(json.dumps([active, self.values, *sizes]).encode()).hexdigest()

    def vectors(self, stream: tuple[int, ...], start: int, stop: int, total: int) -> dict[str, Tensor]:
        """Vectors start to stop of the `total` that each seed has in a stream."""
        rng = np.random.default_rng((self.seed, *stream))
        on = self.active.draw(rng, self.n_seeds * total, self.n_features)
        on = on.reshape(self.n_seeds, total, self.n_features)[:, start:stop]
        f = torch.from_numpy(on.astype(np.float32))
        if self.values != "one":
            sizes = torch.from_numpy(rng.random((self.n_seeds, total, self.n_features), dtype=np.float32))
            f *= (sizes if self.values == "uniform" else 2 * sizes - 1)[:, start:stop]
        x = f if self.directions is None else f @ self.directions
        row = torch.arange(self.n_seeds).repeat_interleave(stop - start)
        return {"f": f.flatten(0, 1), "x": x.flatten(0, 1), "row": row}

    def train_dataloader(self) -> "FeatureLoader":
        """Endless batches."""
        return FeatureLoader(self, *self._ranks())

    def val_dataloader(self) -> "FeatureEvaluationLoader":
        """The same fresh vectors at every validation."""
        return FeatureEvaluationLoader(self, VALIDATION_STREAM, *self._ranks())

    def test_dataloader(self) -> "FeatureEvaluationLoader":
        """Fresh vectors, others than those of validation."""
        return FeatureEvaluationLoader(self, TEST_STREAM, *self._ranks())

    def _ranks(self) -> tuple[int, int]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size % world_size:
            raise ZooError(f"batch_size {self.batch_size} (over all devices) does not divide by {world_size} devices")
        return rank, world_size


class FeatureLoader(ResumableLoader):
    """Training batches; each rank gets the same number of every seed's vectors."""

    def __init__(self, data: SparseFeaturesDataModule, rank: int, world_size: int) -> None:
        super().__init__()
        self.data, self.rank, self.share = data, rank, data.batch_size // world_size

    def __len__(self) -> int:
        return EPOCH

    def batch(self, step: int) -> dict[str, Tensor]:
        """This rank's part of global batch `step`."""
        start = self.rank * self.share
        return self.data.vectors((step,), start, start + self.share, self.data.batch_size)


class FeatureEvaluationLoader:
    """Vectors to judge by, none of which is trained on; ranks share every batch, and of the last one may get none."""

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
