"""Distributions of the features that are on at once, with methods to draw them and to compute probabilities."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from zoo.described import Described
from zoo.errors import ZooError


class ActiveInputs(Described, ABC):
    """Distribution of Boolean vectors in which all features have the same role."""

    n_active: float | list[float]  # mean number of features that are on; a list has one number per seed
    n_groups: int = 1  # groups of features, each with as many that are on

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw n independent vectors, (n, n_features) bool. If there are several seeds, each gets an equal part."""

    @abstractmethod
    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """Return the distribution of the number of features that are on, given that `on` of two chosen ones are on.

        It consists of the possible numbers and their probabilities, float64.
        """

    @abstractmethod
    def pair_probabilities(self, n_features: int) -> Tensor:
        """Return the probabilities of 00, 01, 10 and 11 for two chosen features, (4,) float64."""

    @abstractmethod
    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Check that the distribution exists for these numbers of features and seeds.

        Raises:
            ZooError: If it does not exist.
        """


class FixedActive(ActiveInputs):
    """Exactly `n_active` features are on, in all or in each of several equal groups.

    With several groups, pairs are pairs of features of the same group, and counts are counts within a group.

    Args:
        n_active: Number of features that are on, per group.
        n_groups: Number of groups. A group consists of consecutive features.
    """

    n_active: int

    def __init__(self, n_active: int = 2, n_groups: int = 1) -> None:
        if n_active < 0 or n_groups < 1:
            raise ZooError(
                f"n_active is {n_active} and must be at least 0; n_groups is {n_groups} and must be at least 1"
            )
        self.n_active, self.n_groups = n_active, n_groups

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw n vectors, (n, n_features) bool; all subsets of `n_active` features are equally likely."""
        rows, in_group = n * self.n_groups, n_features // self.n_groups
        x = np.zeros((rows, in_group), dtype=bool)
        x[np.arange(rows)[:, None], _distinct(rng, rows, in_group, self.n_active)] = True
        return x.reshape(n, n_features)

    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """Return `n_active` with probability 1."""
        return torch.tensor([float(self.n_active)], dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def pair_probabilities(self, n_features: int) -> Tensor:
        """Return the probabilities of 00, 01, 10 and 11, (4,) float64."""
        m, on = n_features // self.n_groups, self.n_active
        ways = torch.tensor([(m - on) * (m - on - 1), on * (m - on), on * (m - on), on * (on - 1)], dtype=torch.float64)
        return ways / (m * (m - 1))

    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Check the number of features.

        Raises:
            ZooError: If there are fewer features than are on, or if they cannot be divided into equal groups.
        """
        if n_features % self.n_groups:
            raise ZooError(f"{n_features} features cannot be divided into {self.n_groups} equal groups")
        if self.n_active > n_features // self.n_groups:
            raise ZooError(
                f"n_active is {self.n_active}; it must be at most the number of features in a group, "
                f"{n_features // self.n_groups}"
            )


class BernoulliActive(ActiveInputs):
    """Every feature is on with the same probability, independently.

    Args:
        n_active: Mean number of features that are on; a list has one number per seed.
    """

    def __init__(self, n_active: float | list[float] = 2.0) -> None:
        bad = [on for on in np.atleast_1d(n_active) if not 0 <= on < math.inf]
        if bad:
            raise ZooError(f"n_active is {bad[0]}; it must be finite and not negative")
        self.n_active = n_active

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw every feature independently, (n, n_features) bool."""
        p = np.atleast_1d(self.n_active) / n_features
        return rng.random((n, n_features), dtype=np.float32) < np.repeat(p, n // len(p))[:, None]

    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """Return the distribution of `on` plus a binomial number of the other features.

        Raises:
            ZooError: If `n_active` differs between seeds.
        """
        if isinstance(self.n_active, list):
            raise ZooError("n_active is a list, so that it differs between seeds; this needs one number for all seeds")
        others = np.arange(n_features - 1)
        from scipy import stats  # takes half a second, and is not needed to load a network

        probability = stats.binom.pmf(others, n_features - 2, self.n_active / n_features)
        return torch.from_numpy(others + float(on)), torch.from_numpy(probability)

    def pair_probabilities(self, n_features: int) -> Tensor:
        """Return the probabilities of 00, 01, 10 and 11, (4,) float64; their mean over seeds if these differ."""
        p = torch.as_tensor(np.atleast_1d(self.n_active) / n_features, dtype=torch.float64)
        return torch.stack([(1 - p) ** 2, p * (1 - p), p * (1 - p), p**2]).mean(1)

    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Check the numbers of features and seeds.

        Raises:
            ZooError: If there are fewer features than are on, or if a list does not have one number per seed.
        """
        if isinstance(self.n_active, list) and len(self.n_active) != n_seeds:
            raise ZooError(f"n_active has {len(self.n_active)} numbers; it must have one per seed, {n_seeds}")
        if (most := float(np.max(self.n_active))) > n_features:
            raise ZooError(f"n_active is {most:g}; it must be at most the number of features, {n_features}")


def _distinct(rng: np.random.Generator, n: int, n_features: int, k: int) -> np.ndarray:
    """Return subsets of size k, (n, k) int64: drawn with replacement, and drawn again if a number is repeated."""
    if k * k > n_features:  # repeats are too likely
        return np.argpartition(rng.random((n, n_features), dtype=np.float32), k - 1, axis=1)[:, :k]
    chosen = rng.integers(n_features, size=(n, k))
    again = np.arange(n)
    while len(again):
        ordered = np.sort(chosen[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(1)]
        chosen[again] = rng.integers(n_features, size=(len(again), k))
    return chosen
