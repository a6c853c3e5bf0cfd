"""The corner of simple functions: all functions below a complexity, and how many of them a map leaves improbable."""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from zoo.errors import ZooError
from zoo.functions.complexity import MOST_INPUTS, ONE, _count_words, _reversed
from zoo.functions.keys import Keys, n_words

MOST = 5_000_000
compiled = numba.njit(nogil=True, cache=True)


@compiled
def _search(N: Any, most_words: Any, found: Any) -> Any:
    """Write all tables with W(x) + W(reversed x) <= most_words into `found`, constants too, and return their number.

    Prefixes are extended bit by bit. The number of words of a prefix does not decrease when it is extended, so a prefix
    of more than most_words // 2 words is left.
    """
    zero, least = np.uint64(0), most_words // 2
    prefix, ends, before = np.zeros((2 * N, 2), np.uint64), np.zeros((2 * N, 2), np.uint64), np.zeros(2, np.uint64)
    at, counted, inside = np.zeros(2 * N, np.int64), np.zeros(2 * N, np.int64), np.zeros(2 * N, np.bool_)
    top, count = 1, 0
    while top > 0:
        top -= 1
        low, high, position, words = prefix[top, 0], prefix[top, 1], at[top], counted[top]
        if position == N:
            back_low, back_high = _reversed(low, high, N)
            back = _count_words(back_low, back_high, N)
            if words + back <= most_words:
                for again in range(2 if back > least else 1):
                    if count < len(found):
                        found[count, 0] = back_low if again else low
                        if found.shape[1] > 1:
                            found[count, 1] = back_high if again else high
                    count += 1
                if count > len(found):
                    return count
            continue
        ends_low, ends_high = ends[top, 0], ends[top, 1]
        if inside[top]:
            ends_high = (ends_high << ONE) | (ends_low >> np.uint64(63))
            ends_low = ends_low << ONE
        else:
            words += 1
            if words > least:
                continue
            before[0] = ~zero if position >= 64 else (ONE << np.uint64(position)) - ONE
            before[1] = (ONE << np.uint64(position - 64)) - ONE if position > 64 else zero
            ends_low, ends_high = before[0], before[1]
        for bit in range(2):
            own_low, own_high = (ends_low & low, ends_high & high) if bit else (ends_low & ~low, ends_high & ~high)
            prefix[top, 0], prefix[top, 1] = low, high
            if bit and position < 64:
                prefix[top, 0] = low | (ONE << np.uint64(position))
            elif bit:
                prefix[top, 1] = high | (ONE << np.uint64(position - 64))
            ends[top, 0], ends[top, 1] = own_low, own_high
            at[top], counted[top], inside[top] = position + 1, words, (own_low | own_high) != zero
            top += 1
    return count


def functions_below(c: float, n: int, most: int = MOST) -> Keys:
    """Return the keys of all functions of n inputs whose Lempel-Ziv complexity is below c, (m, words), sorted.

    The list is complete. C < c means that W(x) + W(reversed x) is at most some number S, see
    `zoo.functions.complexity.lempel_ziv`, so x or reversed x has at most S / 2 words. Words are cut from the beginning
    of a table, so a prefix never has more words than the table. A search over all prefixes of at most S / 2 words
    therefore meets every such table or its reverse; both are kept.

    Args:
        c: Complexity in bits; above log2 N = n, the complexity of the two constants.
        n: Number of inputs, 1 to 7.
        most: Number of functions that are kept in memory.

    Raises:
        ZooError: If no function has a complexity below c, or more than `most` have.
    """
    if not 1 <= n <= MOST_INPUTS:
        raise ZooError(f"n_inputs is {n}; simple functions are listed for 1 to {MOST_INPUTS} inputs")
    words = n_words(n)
    if not c > n:
        raise ZooError(f"c is {c:g}; no function of {n} inputs has a complexity below {n}, that of a constant")
    constants = np.array([[0] * words, [2 ** min(2**n, 64) - 1] * words], np.uint64)
    most_words = math.ceil(2 * c / n) - 1
    size = min(100_000, most)
    while True:
        found = np.zeros((size, words), np.uint64)
        count = _search(2**n, most_words, found)
        if count <= size:
            break
        if size == most:
            raise ZooError(f"c is {c:g}; more than {most:,} functions of {n} inputs are below it; choose a smaller c")
        size = min(10 * size, most)
    every = np.concatenate([constants, found[:count]])
    return np.unique(every, axis=0)


@dataclass(frozen=True)
class Corner:
    """How many simple functions have a probability above a threshold.

    Args:
        above: Functions whose interval lies above the threshold.
        undecided: Functions whose interval contains it.
        below: Functions whose interval lies below it.
    """

    above: int
    undecided: int
    below: int

    @property
    def total(self) -> int:
        """Number of simple functions."""
        return self.above + self.undecided + self.below


def corner(low: np.ndarray, high: np.ndarray, tau: float) -> Corner:
    """Return how many simple functions have a probability above tau.

    Args:
        low: Lower ends of the intervals of their probabilities, (m,). An exact probability is an interval of length 0.
        high: Upper ends, (m,).
        tau: The threshold. A function whose exact probability is tau counts as undecided.
    """
    above, below = int((low > tau).sum()), int((high < tau).sum())
    return Corner(above, len(low) - above - below, below)


def counts_of(wanted: Keys, keys: Keys, counts: np.ndarray) -> np.ndarray:
    """Return how often functions were met, 0 for those that were not, (m,).

    Args:
        wanted: Keys of the functions, (m, words).
        keys: Keys of all functions that were met, each once, (k, words).
        counts: How often each was met, (k,).
    """
    both = np.concatenate([keys, wanted])
    order = np.lexsort(both.T[::-1])
    new = np.r_[True, (both[order][1:] != both[order][:-1]).any(1)]
    place = np.empty(len(both), np.int64)
    place[order] = new.cumsum() - 1
    found = np.zeros(int(new.sum()), np.int64)
    found[place[: len(keys)]] = counts
    return found[place[len(keys) :]]
