"""Lists of Boolean functions, their names, and the same functions with their inputs in another order."""

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from zoo.errors import ZooError
from zoo.functions.keys import Keys, inputs, keys_from_tables, tables_from_keys, texts_from_tables

LISTED = 4  # inputs up to which all functions are listed


def all_keys(n: int) -> Keys:
    """Return the keys of all 2^(2^n) functions of at most 4 inputs, ascending, (2^(2^n), 1).

    Raises:
        ZooError: If n is not between 1 and 4.
    """
    if not 1 <= n <= LISTED:
        raise ZooError(f"n_inputs is {n}; all functions can be listed for 1 to {LISTED} inputs")
    return np.arange(2 ** (2**n), dtype=np.uint64)[:, None]


def with_inputs_in_order(keys: Keys, n: int, order: Sequence[int]) -> Keys:
    """Return the keys of the same functions with their inputs in another order, (m, words).

    Args:
        keys: Keys, (m, words).
        n: Number of inputs.
        order: Which of the inputs 0 to n - 1 comes first, second, ...
    """
    places = inputs(n)[:, np.argsort(order)].astype(np.int64) @ (1 << np.arange(n - 1, -1, -1))
    return keys_from_tables(tables_from_keys(keys, n)[:, places])


def names_of(keys: Keys, n: int) -> list[str]:
    """Return a name for every function that has a short one, and "" for the others.

    Names exist for constants, for products and sums (AND, OR) of inputs or their negations, for parities of some of the
    inputs, for functions of the number of ones, for tables that change only once or twice, and for tables that repeat
    a piece of at most a third of their length. x_1 is the first, most significant input.
    """
    known = _named(n)
    return [
        known.get(tuple(map(int, key))) or _pattern(text)
        for key, text in zip(keys, texts_from_tables(tables_from_keys(keys, n)), strict=True)
    ]


@cache
def _named(n: int) -> dict[tuple[int, ...], str]:
    x = inputs(n).astype(bool)
    found: dict[tuple[int, ...], str] = {}

    def add(table: np.ndarray, name: str) -> None:
        found.setdefault(tuple(map(int, keys_from_tables(table[None])[0])), name)

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
    for name, every, other in (("AND", ones == n, "not AND"), ("OR", ones > 0, "not OR")):
        add(every, f"{name} of all inputs")
        add(~every, f"{other} of all inputs")
    for k in range(1, n):
        add(ones >= k, f"at least {k} of {n} inputs on")
        add(ones < k, f"fewer than {k} of {n} inputs on")
        add(ones == k, f"exactly {k} of {n} inputs on")
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
        return (
            f"{text[first]} for inputs {first} to {last}" if last > first else f"{text[first]} for input {first} only"
        )
    for period in range(1, N // 3 + 1):
        if all(text[i] == text[i - period] for i in range(period, N)):
            return f"{text[:period]} repeated"
    return ""


def well_known(n: int) -> dict[str, Keys]:
    """Return the keys, (1, words), of functions that are often spoken of, by name.

    Args:
        n: Number of inputs.
    """
    x = inputs(n).astype(bool)
    ones = x.sum(1)
    tables = {"constant 0": np.zeros(2**n, bool), "constant 1": np.ones(2**n, bool)}
    tables |= {f"x_{i + 1}": x[:, i] for i in dict.fromkeys((0, n // 2, n - 1))}
    tables |= {"AND of all inputs": ones == n, "OR of all inputs": ones > 0}
    tables |= {"majority": ones > n / 2, "parity of all inputs": ones % 2 == 1}
    found: dict[bytes, str] = {}
    for name, table in tables.items():
        found.setdefault(table.tobytes(), name)
    return {name: keys_from_tables(np.frombuffer(table, bool)[None]) for table, name in found.items()}
