"""Three forms of a Boolean function of n inputs: a table, a key of 64-bit words, and a text of zeros and ones.

Input number i, from 0 to 2^n - 1, has as bits the binary digits of i; the first input is the most significant digit.
The table of a function f is (f(0), ..., f(2^n - 1)). Bit i of the table is bit i % 64 of word i // 64 of the key, where
bit 0 is the least significant bit of a word. The text shows the table from left to right: "0001" is AND of two inputs.
"""

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError

MAX_INPUTS = 8
Keys = npt.NDArray[np.uint64]
Tables = npt.NDArray[np.bool_]


def check_n_inputs(n_inputs: int) -> None:
    """Refuse numbers of inputs that keys do not support.

    Raises:
        ZooError: Unless 1 <= n_inputs <= 8.
    """
    if not 1 <= n_inputs <= MAX_INPUTS:
        raise ZooError(f"n_inputs is {n_inputs}; it must be from 1 to {MAX_INPUTS}")


def n_words(n_inputs: int) -> int:
    """Return the number of 64-bit words of a key: 1 up to 6 inputs, 2 for 7 inputs, 4 for 8 inputs."""
    return max(1, 2**n_inputs // 64)


def inputs(n_inputs: int) -> npt.NDArray[np.uint8]:
    """Return the bits (2^n, n) of all inputs, in the order of tables; column 0 is the most significant digit."""
    check_n_inputs(n_inputs)
    numbers = np.arange(2**n_inputs)[:, None]
    return (numbers >> np.arange(n_inputs - 1, -1, -1) & 1).astype(np.uint8)


def keys_from_tables(tables: npt.ArrayLike) -> Keys:
    """Return keys (F, words) of tables (F, 2^n), whose entries are 0 or 1.

    Raises:
        ZooError: If the tables are not a matrix with 2, 4, ..., 256 columns.
    """
    tables = np.asarray(tables, dtype=bool)
    if tables.ndim != 2 or tables.shape[1] not in [2**n for n in range(1, MAX_INPUTS + 1)]:
        raise ZooError(f"tables have the shape {tables.shape}; it must be (number of functions, 2^n), n = 1 to 8")
    padded = np.zeros((len(tables), max(64, tables.shape[1])), dtype=bool)
    padded[:, : tables.shape[1]] = tables
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def tables_from_keys(keys: Keys, n_inputs: int) -> Tables:
    """Return tables (F, 2^n) of keys (F, words).

    Raises:
        ZooError: If the keys have another number of words than n inputs need.
    """
    check_n_inputs(n_inputs)
    if keys.ndim != 2 or keys.shape[1] != n_words(n_inputs):
        raise ZooError(f"keys have the shape {keys.shape}; for {n_inputs} inputs it must be (F, {n_words(n_inputs)})")
    octets = np.ascontiguousarray(keys).astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=2**n_inputs, bitorder="little").astype(bool)


def texts_from_tables(tables: npt.ArrayLike) -> list[str]:
    """Return one text of zeros and ones for every table of (F, 2^n)."""
    digits = np.ascontiguousarray(np.asarray(tables, dtype=bool).astype(np.uint8) + ord("0"))
    return [row.tobytes().decode() for row in digits]


def tables_from_texts(texts: list[str]) -> Tables:
    """Return the tables (F, 2^n) of texts of zeros and ones, which all have the same length.

    Raises:
        ZooError: If a text has other characters, a length that is no power of 2, or another length than the first.
    """
    widths = [2**n for n in range(1, MAX_INPUTS + 1)]
    for text in texts:
        if len(texts[0]) not in widths:
            raise ZooError(f"{text!r} is not a table of 2, 4, ..., or 256 zeros and ones")
        if set(text) - {"0", "1"} or len(text) != len(texts[0]):
            raise ZooError(f"{text!r} is not a table of {len(texts[0])} zeros and ones")
    return np.array([[c == "1" for c in text] for text in texts], dtype=bool)
