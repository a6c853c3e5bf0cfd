"""Boolean functions as tables, keys, texts and names.

A function of n inputs is the table (f(0), ..., f(2^n - 1)). Input number i has its binary digits as bits; the first of
the n inputs is the most significant digit. A key is the same table as 64-bit words: value i is bit i % 64 of word
i // 64.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from zoo.errors import ZooError

MOST_INPUTS = 7  # a table of 128 values, two words


def n_words(n: int) -> int:
    """Return the number of 64-bit words of a key.

    Args:
        n: Number of inputs.

    Raises:
        ZooError: If n is not between 1 and 7.
    """
    if not 1 <= n <= MOST_INPUTS:
        raise ZooError(f"n_inputs is {n}; functions of 1 to {MOST_INPUTS} inputs fit into keys of 128 bits")
    return max(1, 2**n // 64)


def keys_of(tables: np.ndarray) -> np.ndarray:
    """Return the keys of tables.

    Args:
        tables: Values 0 and 1, (m, 2^n).

    Returns:
        Keys as uint64, (m, words).
    """
    packed = np.packbits(np.asarray(tables, np.uint8), axis=1, bitorder="little")
    wide = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    wide[:, : packed.shape[1]] = packed
    return wide.view("<u8").astype(np.uint64)


def tables_of(keys: np.ndarray, n: int) -> np.ndarray:
    """Return the tables of keys as uint8, (m, 2^n).

    Args:
        keys: Keys, (m, words).
        n: Number of inputs.
    """
    little = np.ascontiguousarray(keys, "<u8").reshape(-1, n_words(n))
    return np.unpackbits(little.view(np.uint8), axis=1, bitorder="little", count=2**n)


def all_keys(n: int) -> np.ndarray:
    """Return the keys of all 2^(2^n) functions of at most 4 inputs, ascending, (2^(2^n), 1).

    Raises:
        ZooError: If n is not between 1 and 4.
    """
    if not 1 <= n <= 4:
        raise ZooError(f"n_inputs is {n}; all functions can be listed for 1 to 4 inputs")
    return np.arange(2 ** (2**n), dtype=np.uint64)[:, None]


def texts_of(keys: np.ndarray, n: int) -> list[str]:
    """Return the tables as texts of 0 and 1, beginning with f(0)."""
    return ["".join(row) for row in tables_of(keys, n).astype(str)]


def inputs(n: int) -> np.ndarray:
    """Return the inputs as uint8, (2^n, n), the first of the n inputs in column 0."""
    return ((np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)) & 1).astype(np.uint8)


def with_inputs_in_order(keys: np.ndarray, n: int, order: Sequence[int]) -> np.ndarray:
    """Return the keys of the same functions with their inputs in another order, (m, words).

    Args:
        keys: Keys, (m, words).
        n: Number of inputs.
        order: Which of the inputs 0 to n - 1 comes first, second, ...
    """
    places = inputs(n)[:, np.argsort(order)].astype(np.int64) @ (1 << np.arange(n - 1, -1, -1))
    return keys_of(tables_of(keys, n)[:, places])


def names_of(keys: np.ndarray, n: int) -> list[str]:
    """Return a name for every function that has a short one, and "" for the others.

    Names exist for constants, for products and sums (AND, OR) of inputs or their negations, for parities of some of the
    inputs, for functions of the number of ones, for tables that change only once or twice, and for tables that repeat
    a piece of at most a third of their length. x_1 is the first, most significant input.
    """
    known = _named(n)
    return [known.get(tuple(map(int, key))) or _pattern(text) for key, text in zip(keys, texts_of(keys, n), strict=True)]


def _named(n: int) -> dict[tuple[int, ...], str]:
    x = inputs(n).astype(bool)
    found: dict[tuple[int, ...], str] = {}

    def add(table: np.ndarray, name: str) -> None:
        found.setdefault(tuple(map(int, keys_of(table[None])[0])), name)

    add(np.zeros(2**n, bool), "constant 0")
    add(np.ones(2**n, bool), "constant 1")
    for i in range(n):
        add(x[:, i], f"x_{i + 1}")
        add(~x[:, i], f"not x_{i + 1}")
    for size in range(2, n + 1):
        for chosen in itertools.combinations(range(n), size):
            which = "all inputs" if size == n else " ".join(f"x_{i + 1}" for i in chosen)
            parity = x[:, chosen].sum(1) % 2 == 1
            add(parity, f"parity of {which}")
            add(~parity, f"not the parity of {which}")
    ones = x.sum(1)
    for least in range(1, n + 1):
        add(ones >= least, f"at least {least} of {n} inputs on")
        add(ones < least, f"fewer than {least} of {n} inputs on")
        add(ones == least, f"exactly {least} of {n} inputs on")
    for signs in itertools.product((None, True, False), repeat=n):
        used = [(i, sign) for i, sign in enumerate(signs) if sign is not None]
        if len(used) > 1:
            literals = [x[:, i] if sign else ~x[:, i] for i, sign in used]
            words = [f"x_{i + 1}" if sign else f"not x_{i + 1}" for i, sign in used]
            add(np.all(literals, 0), " and ".join(words))
            add(np.any(literals, 0), " or ".join(words))
    return found


def _pattern(text: str) -> str:
    """Return a description of a table by its changes or its period, or ""."""
    N = len(text)
    changes = [i for i in range(1, N) if text[i] != text[i - 1]]
    if len(changes) == 1:
        return f"{text[0]} for inputs below {changes[0]}, {text[-1]} from there on"
    if len(changes) == 2:
        first, last = changes[0], changes[1] - 1
        return f"{text[first]} for inputs {first} to {last}" if last > first else f"{text[first]} for input {first} only"
    for period in range(1, N // 3 + 1):
        if all(text[i] == text[i - period] for i in range(period, N)):
            return f"{text[:period]} repeated"
    return ""
