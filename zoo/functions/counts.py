"""Counts of samples by distinct functions, which merge."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.functions.keys import Keys


@dataclass(frozen=True)
class Counts:
    """Numbers of samples of each function that was met.

    Args:
        keys: Keys (F, words) of the distinct functions, sorted by the first word, then by the second, and so on.
        counts: Number of samples (F,) of each function, int64.
        n_samples: Number of all samples, the sum of the counts.
        ties: Number of pairs of a sample and an input at which the output was exactly 0.
    """

    keys: Keys
    counts: npt.NDArray[np.int64]
    n_samples: int
    ties: int

    def __len__(self) -> int:
        """Return the number of distinct functions."""
        return len(self.keys)


def count(keys: Keys, ties: int = 0) -> Counts:
    """Return the counts of samples with these keys (size, words), in any order."""
    keys = keys[np.lexsort(keys.T[::-1])]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(1)])
    return Counts(keys[starts], np.diff(starts, append=len(keys)), len(keys), ties)


def merge(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all samples of several counts. Neither the order nor the grouping of the parts matters.

    Raises:
        ZooError: If there are no parts, or their keys have different numbers of words.
    """
    left = sorted(parts, key=len)
    if len({part.keys.shape[1] for part in left}) != 1:
        raise ZooError("counts to be merged must be at least one, and all of functions with as many inputs")
    while len(left) > 1:
        left = sorted([_merged(left[0], left[1]), *left[2:]], key=len)
    return left[0]


def _merged(first: Counts, second: Counts) -> Counts:
    from zoo.functions.compiled_counts import merged

    keys, counts = merged(first.keys, first.counts, second.keys, second.counts)
    return Counts(keys, counts, first.n_samples + second.n_samples, first.ties + second.ties)
