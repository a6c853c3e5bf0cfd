"""Which of many features are on at once: how they are drawn, and what follows for a pair of them."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from zoo.described import Described
from zoo.errors import ZooError


class ActiveInputs(Described, ABC):
    """A distribution of Boolean vectors that treats all features alike."""

    n_active: float | list[float]  # mean number of features that are on; a list has one number per seed
    n_groups: int = 1  # groups of features, each with as many that are on

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw independent vectors, (n, n_features) bool, for one seed or, in equal parts, for each."""

    @abstractmethod
    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """How many features are on, given that `on` of two chosen ones are: values and probabilities, float64."""

    @abstractmethod
    def pair_probabilities(self, n_features: int) -> Tensor:
        """Probability of 00, 01, 10 and 11 for two chosen features, (4,) float64."""

    @abstractmethod
    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Refuse so many features or seeds.

        Raises:
            ZooError: If this distribution does not exist for them.
        """


class FixedActive(ActiveInputs):
    """Exactly so many features are on, in all or in each of several equal groups.

    What is said of a pair is said of two features of one group, and counts are those of the group.

    Args:
        n_active: How many, in a group.
        n_groups: Groups that the features, in order, are dealt out to.
    """

    n_active: int

    def __init__(self, n_active: int = 2, n_groups: int = 1) -> None:
        if n_active < 0 or n_groups < 1:
            raise ZooError(f"n_active is {n_active} in {n_groups} groups; expected at least 0 in at least 1")
        self.n_active, self.n_groups = n_active, n_groups

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw subsets, each as likely as any other, (n, n_features) bool."""
        rows, in_group = n * self.n_groups, n_features // self.n_groups
        x = np.zeros((rows, in_group), dtype=bool)
        x[np.arange(rows)[:, None], _distinct(rng, rows, in_group, self.n_active)] = True
        return x.reshape(n, n_features)

    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """Always `n_active`."""
        return torch.tensor([float(self.n_active)], dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def pair_probabilities(self, n_features: int) -> Tensor:
        """Probability of 00, 01, 10 and 11, (4,) float64."""
        m, on = n_features // self.n_groups, self.n_active
        ways = torch.tensor([(m - on) * (m - on - 1), on * (m - on), on * (m - on), on * (on - 1)], dtype=torch.float64)
        return ways / (m * (m - 1))

    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Refuse fewer features than are on, and groups that are not equal.

        Raises:
            ZooError: If it is so.
        """
        if n_features % self.n_groups:
            raise ZooError(f"{n_features} features do not make {self.n_groups} equal groups")
        if self.n_active > n_features // self.n_groups:
            raise ZooError(f"n_active is {self.n_active}, and there are {n_features // self.n_groups} features")


class BernoulliActive(ActiveInputs):
    """Every feature is on with the same probability, independently.

    Args:
        n_active: Mean number of features that are on; a list has one number per seed.
    """

    def __init__(self, n_active: float | list[float] = 2.0) -> None:
        bad = [on for on in np.atleast_1d(n_active) if not 0 <= on < math.inf]
        if bad:
            raise ZooError(f"n_active is {bad[0]}; it must be a number that is not negative")
        self.n_active = n_active

    def draw(self, rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
        """Draw every feature on its own, (n, n_features) bool."""
        p = np.atleast_1d(self.n_active) / n_features
        return rng.random((n, n_features), dtype=np.float32) < np.repeat(p, n // len(p))[:, None]

    def counts(self, n_features: int, on: int) -> tuple[Tensor, Tensor]:
        """`on` and a binomial number of the others.

        Raises:
            ZooError: If the seeds differ.
        """
        if isinstance(self.n_active, list):
            raise ZooError("n_active is a list, and how many inputs are on differs between seeds; give one number")
        others = np.arange(n_features - 1)
        from scipy import stats  # half a second, and loading a network does not need it

        probability = stats.binom.pmf(others, n_features - 2, self.n_active / n_features)
        return torch.from_numpy(others + float(on)), torch.from_numpy(probability)

    def pair_probabilities(self, n_features: int) -> Tensor:
        """Probability of 00, 01, 10 and 11, (4,) float64; mean over seeds, if they differ."""
        p = torch.as_tensor(np.atleast_1d(self.n_active) / n_features, dtype=torch.float64)
        return torch.stack([(1 - p) ** 2, p * (1 - p), p * (1 - p), p**2]).mean(1)

    def check(self, n_features: int, n_seeds: int = 1) -> None:
        """Refuse fewer features than are on, and a list that is not one number per seed.

        Raises:
            ZooError: If it is so.
        """
        if isinstance(self.n_active, list) and len(self.n_active) != n_seeds:
            raise ZooError(f"n_active has {len(self.n_active)} numbers, and there are {n_seeds} seeds")
        if (most := float(np.max(self.n_active))) > n_features:
            raise ZooError(f"n_active is {most:g}, and there are {n_features} features")


def _distinct(rng: np.random.Generator, n: int, n_features: int, k: int) -> np.ndarray:
    """Subsets of size k, (n, k) int64: drawn with replacement, and again where one number came twice."""
    if k * k > n_features:  # twice is too likely
        return np.argpartition(rng.random((n, n_features), dtype=np.float32), k - 1, axis=1)[:, :k]
    chosen = rng.integers(n_features, size=(n, k))
    again = np.arange(n)
    while len(again):
        ordered = np.sort(chosen[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(1)]
        chosen[again] = rng.integers(n_features, size=(len(again), k))
    return chosen
