"""Complexities of Boolean functions: Lempel-Ziv words, the entropy of the share of ones, and Boolean circuits."""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

from zoo.errors import ZooError
from zoo.functions.keys import Keys, inputs, keys_from_tables, n_words, tables_from_keys
from zoo.functions.names import with_inputs_in_order

compiled = numba.njit(nogil=True, cache=True)
MOST_INPUTS = 7  # a table of 128 values, two words
ONE, TOP = np.uint64(1), np.uint64(63)
MOST_OF_CIRCUITS = 3  # inputs of functions whose smallest circuits are found


@compiled
def _count_words(low: Any, high: Any, N: Any) -> Any:
    """Return the number of words of a table of N values in two 64-bit words.

    `ends` is the set of positions at which copies of the word so far end. All copies begin before the word.
    """
    zero = np.uint64(0)
    rest_low, rest_high = low, high
    before_low, before_high = zero, zero
    ends_low, ends_high = zero, zero
    words = 0
    inside = False
    for _ in range(N):
        if inside:
            ends_high = (ends_high << ONE) | (ends_low >> TOP)
            ends_low = ends_low << ONE
        else:
            words += 1
            ends_low, ends_high = before_low, before_high
        if rest_low & ONE:
            ends_low, ends_high = ends_low & low, ends_high & high
        else:
            ends_low, ends_high = ends_low & ~low, ends_high & ~high
        inside = (ends_low | ends_high) != zero
        rest_low = (rest_low >> ONE) | (rest_high << TOP)
        rest_high = rest_high >> ONE
        before_high = (before_high << ONE) | (before_low >> TOP)
        before_low = (before_low << ONE) | ONE
    return words


@compiled
def _reversed(low: Any, high: Any, N: Any) -> Any:
    back_low, back_high = np.uint64(0), np.uint64(0)
    for _ in range(N):
        back_high = (back_high << ONE) | (back_low >> TOP)
        back_low = (back_low << ONE) | (low & ONE)
        low = (low >> ONE) | (high << TOP)
        high = high >> ONE
    return back_low, back_high


@compiled
def _count_all(keys: Any, N: Any) -> Any:
    found = np.empty((len(keys), 2), np.int64)
    for row in range(len(keys)):
        low = keys[row, 0]
        high = keys[row, 1] if keys.shape[1] > 1 else np.uint64(0)
        found[row, 0] = _count_words(low, high, N)
        back_low, back_high = _reversed(low, high, N)
        found[row, 1] = _count_words(back_low, back_high, N)
    return found


def words(keys: Keys, n: int) -> np.ndarray:
    """Return the numbers of Lempel-Ziv words of tables and of reversed tables, (m, 2).

    A table is divided from its beginning. Each word is the shortest piece that does not occur earlier in the table; the
    earlier occurrence begins before the word, and may overlap it. The last word may be one that does occur (Lempel &
    Ziv 1976; Kaspar & Schuster 1987).

    Args:
        keys: Keys of the functions, (m, words of 64 bits).
        n: Number of inputs, 1 to 7.

    Raises:
        ZooError: If n is out of range, or the keys do not have its number of words.
    """
    if not 1 <= n <= MOST_INPUTS:
        raise ZooError(f"n_inputs is {n}; Lempel-Ziv complexities exist for 1 to {MOST_INPUTS} inputs")
    keys = np.ascontiguousarray(keys, np.uint64)
    if keys.ndim != 2 or keys.shape[1] != n_words(n):
        raise ZooError(f"keys have the shape {keys.shape}; for {n} inputs it must be (m, {n_words(n)})")
    found: np.ndarray = _count_all(keys, 2**n)
    return found


def lempel_ziv(keys: Keys, n: int) -> np.ndarray:
    """Return the Lempel-Ziv complexities C of functions in bits, (m,).

    C = log2(N) (W(x) + W(reversed x)) / 2 for the table x of length N = 2^n with W words, see `words`; for the two
    constants, C = log2 N (Dingle, Camargo & Louis 2018, "Input-output maps are strongly biased towards simple outputs",
    Nature Communications 9, 761; methods). C depends on the order of the inputs, because the table does: see
    `over_orders`.

    Args:
        keys: Keys of the functions, (m, words).
        n: Number of inputs, 1 to 7.

    Raises:
        ZooError: If n is out of range.
    """
    C = n * words(keys, n).sum(1) / 2
    ones = tables_from_keys(keys, n).sum(1, dtype=np.int64)
    return np.where((ones == 0) | (ones == 2**n), float(n), C)


def over_orders(keys: Keys, n: int, most: int = 24, seed: int = 0) -> np.ndarray:
    """Return the Lempel-Ziv complexities of functions with their inputs in other orders, (m, orders).

    The function itself stays the same; only its table is written in another order. The mean over orders is a complexity
    that does not depend on how inputs are numbered.

    Args:
        keys: Keys of the functions, (m, words).
        n: Number of inputs.
        most: Number of orders. If there are at most so many (n! for n inputs), all are used; otherwise orders are
            drawn.
        seed: Seed of the draws.
    """
    orders = [*itertools.permutations(range(n))]
    if len(orders) > most:
        chosen = np.random.default_rng(seed).choice(len(orders), most, replace=False)
        orders = [orders[i] for i in chosen]
    return np.stack([lempel_ziv(with_inputs_in_order(keys, n, order), n) for order in orders], 1)


def entropy_of_ones(keys: Keys, n: int) -> np.ndarray:
    """Return the entropy of the share p of ones, -p log2 p - (1 - p) log2 (1 - p), in bits, (m,)."""
    p = tables_from_keys(keys, n).mean(1)
    terms = [np.where(q > 0, -q * np.log2(np.where(q > 0, q, 1)), 0.0) for q in (p, 1 - p)]
    found: np.ndarray = terms[0] + terms[1]
    return found


@compiled
def _deepen(have: Any, count: Any, left: Any, size: Any, sizes: Any, full: Any) -> Any:
    """Try every gate on what is computed so far, and write down what is computed with fewer gates than before."""
    for i in range(1, count):
        for j in range(i):
            for negated in range(4):
                a = have[i] ^ (full if negated & 1 else 0)
                b = have[j] ^ (full if negated & 2 else 0)
                made = a & b
                made = min(made, made ^ full)
                sizes[made] = min(sizes[made], size)
                if left == 1 or made == 0:
                    continue
                last = have[count - 1]
                if size > 1 and i < count - 1 and made < last:
                    continue  # the last two gates do not depend on each other: one of their orders is enough
                known = False
                for k in range(count):
                    known = known or have[k] == made
                if not known:
                    have[count] = made
                    _deepen(have, count + 1, left - 1, size + 1, sizes, full)


@cache
def circuit_sizes(n: int) -> np.ndarray:
    """Return the size of the smallest circuit of every function of at most 3 inputs, in the order of `all_keys`.

    A circuit consists of AND and OR gates with two inputs each. Its size is their number. Negation is free, and the
    output of a gate may be used any number of times. Sizes are found by trying all circuits.

    Args:
        n: Number of inputs, 1 to 3.

    Raises:
        ZooError: If n is out of range.
    """
    if not 1 <= n <= MOST_OF_CIRCUITS:
        raise ZooError(f"n_inputs is {n}; smallest circuits are known for 1 to {MOST_OF_CIRCUITS} inputs")
    full, unknown = 2 ** (2**n) - 1, 99
    given = [int(key) for (key,) in keys_from_tables(inputs(n).T)]
    sizes = np.full(full + 1, unknown)
    have = np.zeros(32, np.int64)
    have[:n] = [min(key, key ^ full) for key in given]
    sizes[[0, *have[:n]]] = 0
    most = 0
    while (sizes[: (full + 1) // 2] == unknown).any():
        most += 1
        _deepen(have, n, most, 1, sizes, full)
    found: np.ndarray = np.minimum(sizes, sizes[::-1])  # a function and its negation have the same size
    return found


def circuit_size(keys: Keys, n: int) -> np.ndarray:
    """Return the sizes of the smallest circuits of functions, (m,), see `circuit_sizes`."""
    return circuit_sizes(n)[keys[:, 0].astype(np.int64)].astype(float)


MEASURES: dict[str, Callable[[Keys, int], np.ndarray]] = {
    "lempel-ziv": lempel_ziv,
    "entropy": entropy_of_ones,
    "circuit": circuit_size,
}
