"""Datamodule for a toy attention head: contexts with skip bigrams between features of mutually exclusive groups."""

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.datamodules.sparse_features import SparseFeaturesDataModule
from zoo.errors import ZooError

PAIRS_STREAM = 4


class SkipBigramDataModule(SparseFeaturesDataModule):
    """Contexts whose last position should attend to the positions that hold a partner of one of its features.

    Every position holds one feature of each group. Feature i of group g has the number g * group_size + i. A skip
    bigram is a pair of a query feature and a key feature; every seed has its own set of pairs. To make a context, one
    pair of the seed is drawn. Its query feature is put into the last position, and its key feature into one of the
    other positions. All other features are uniform, so that a context may contain further partners by chance.

    Batches are dicts: `x` (N, context_length + 1, n_groups) int64, the features at every position, the query last;
    `ideal` (N, context_length), the ideal attention, which is uniform over the positions with a partner; and `row`
    (N,), the seed of each context. N is `n_seeds` times the contexts per seed; the contexts of a seed are consecutive.
    A batch depends only on (seed, step, rank).

    Args:
        n_groups: Number of groups of mutually exclusive features.
        group_size: Number of features in each group.
        n_pairs: Number of skip bigrams of each seed, all different.
        context_length: Number of key positions before the query.
        n_seeds: Number of independent heads that are trained in parallel, each on its own pairs and contexts.
        batch_size: Contexts per seed and batch, over all devices together.
        n_validation: Contexts per seed in validation, and as many in testing.
        seed: Seed of the pairs and the contexts.

    Raises:
        ZooError: If an argument is out of range.
    """

    batches = "feature contexts"  # type: ignore[assignment]

    def __init__(
        self,
        n_groups: int = 4,
        group_size: int = 16,
        n_pairs: int = 64,
        context_length: int = 16,
        n_seeds: int = 1,
        batch_size: int = 256,
        n_validation: int = 2048,
        seed: int = 0,
    ) -> None:
        sizes = {"n_groups": n_groups, "group_size": group_size, "n_pairs": n_pairs, "context_length": context_length}
        for name, size in sizes.items():
            if size < 1:
                raise ZooError(f"data.{name} is {size}; it must be at least 1")
        n_features = n_groups * group_size
        if n_pairs > n_features**2:
            raise ZooError(
                f"data.n_pairs is {n_pairs}; {n_groups} groups of {group_size} features have at most {n_features**2} "
                "different pairs"
            )
        super().__init__(
            n_features,
            FixedActive(n_groups),
            n_seeds=n_seeds,
            batch_size=batch_size,
            n_validation=n_validation,
            seed=seed,
        )
        self.n_groups, self.group_size = n_groups, group_size
        self.n_pairs, self.context_length = n_pairs, context_length
        rng = np.random.default_rng((seed, 0, PAIRS_STREAM))
        drawn = np.stack([rng.choice(n_features**2, n_pairs, replace=False) for _ in range(n_seeds)])
        # pairs: query feature and key feature, (n_seeds, n_pairs, 2). is_pair: whether two features are a pair.
        self.pairs = torch.from_numpy(np.stack(np.divmod(drawn, n_features), 2))
        self.is_pair = torch.zeros(n_seeds, n_features, n_features, dtype=torch.bool)
        self.is_pair[torch.arange(n_seeds)[:, None], self.pairs[..., 0], self.pairs[..., 1]] = True

    @property
    def corpus_fingerprint(self) -> str:
        """SHA-256 of the settings that determine the training contexts."""
        shape = (self.n_groups, self.group_size, self.n_pairs, self.context_length)
        named = ["skip bigrams", *shape, self.n_seeds, self.batch_size, self.seed]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def vectors(self, stream: tuple[int, ...], start: int, stop: int, total: int) -> dict[str, Tensor]:
        """Return contexts `start` to `stop` of the `total` contexts that each seed has in a random stream."""
        rng = np.random.default_rng((self.seed, *stream))
        shape = (self.n_seeds, total, self.context_length + 1, self.n_groups)
        x = rng.integers(self.group_size, size=shape) + self.group_size * np.arange(self.n_groups)
        which = rng.integers(self.n_pairs, size=shape[:2])
        seeds, contexts = np.ogrid[: self.n_seeds, :total]
        query, key = np.moveaxis(self.pairs.numpy()[seeds, which], 2, 0)  # (n_seeds, total) each
        x[seeds, contexts, self.context_length, query // self.group_size] = query
        x[seeds, contexts, rng.integers(self.context_length, size=shape[:2]), key // self.group_size] = key
        kept = torch.from_numpy(x[:, start:stop])
        row = torch.arange(self.n_seeds).repeat_interleave(stop - start)
        return {"x": kept.flatten(0, 1), "ideal": self.ideal_attention(kept).flatten(0, 1), "row": row}

    def ideal_attention(self, contexts: Tensor) -> Tensor:
        """Return the ideal attention (n_seeds, B, T) in contexts (n_seeds, B, T + 1, G).

        It is uniform over the key positions that hold a partner.
        """
        seeds = torch.arange(self.n_seeds)[:, None, None]
        partners = self.is_pair[seeds, contexts[:, :, -1]].any(2)  # (n_seeds, B, n_features)
        held = partners.gather(2, contexts[:, :, :-1].flatten(2))
        matching = held.unflatten(2, (-1, self.n_groups)).any(3).float()
        return matching / matching.sum(2, keepdim=True)
