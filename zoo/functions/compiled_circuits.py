"""Boolean functions of random circuits and random tables, compiled: 64 inputs are evaluated at a time, bit by bit."""

import numpy as np

from zoo.functions.keys import Keys
from zoo.functions.streams import LANES, Stream, compiled, fill_bits, inlined

AT_ONCE = 2**15  # random words that are drawn at a time; samples depend on it


@compiled
def circuit_keys(stream: Stream, size: int, columns: Keys, width: int, n_layers: int, n_rows: int) -> Keys:
    """Draw layered circuits and return the keys (size, words) of their functions.

    A gate needs three random words: two for its wires, of which each is chosen with a probability that deviates from
    uniform by less than 2^-32, and one for the kind of gate.

    Args:
        stream: State of the random numbers, which is advanced.
        size: Number of circuits.
        columns: Keys (n, words) of the functions that return one input.
        width: Number of gates in every layer but the last, which has one.
        n_layers: Number of layers before the last.
        n_rows: Number 2^n of inputs.
    """
    n_inputs, n_words = columns.shape
    n_gates = n_layers * width + 1
    at_once = max(1, AT_ONCE // (3 * n_gates))
    words = np.empty(-(-at_once * 3 * n_gates // LANES) * LANES, np.uint32)
    before = np.empty((max(n_inputs, width), n_words), np.uint64)
    after = np.empty_like(before)
    keys = np.empty((size, n_words), np.uint64)
    used = _first_bits(n_rows)
    for start in range(0, size, at_once):
        fill_bits(stream, words)
        for number in range(min(at_once, size - start)):
            drawn = words[number * 3 * n_gates : (number + 1) * 3 * n_gates].reshape(n_gates, 3)
            before[:n_inputs] = columns
            n_before, gate = n_inputs, 0
            for layer in range(n_layers + 1):
                n_after = width if layer < n_layers else 1
                for k in range(n_after):
                    a = before[np.int64(np.uint64(drawn[gate, 0]) * np.uint64(n_before) >> np.uint64(32))]
                    b = before[np.int64(np.uint64(drawn[gate, 1]) * np.uint64(n_before) >> np.uint64(32))]
                    kind = drawn[gate, 2]
                    for word in range(n_words):
                        where_0 = _chosen(kind, 0, ~b[word]) | _chosen(kind, 1, b[word])
                        where_1 = _chosen(kind, 2, ~b[word]) | _chosen(kind, 3, b[word])
                        after[k, word] = (~a[word] & where_0) | (a[word] & where_1)
                    gate += 1
                before, after, n_before = after, before, n_after
            keys[start + number] = before[0] & used
    return keys


@inlined
def _chosen(kind: np.uint32, bit: int, value: np.uint64) -> np.uint64:
    """Return the value if this bit of the kind is on, and 0 otherwise."""
    return value if (kind >> np.uint32(bit)) & 1 else np.uint64(0)


@compiled
def table_keys(stream: Stream, size: int, n_rows: int, n_words: int) -> Keys:
    """Draw keys (size, words) of tables of `n_rows` independent fair bits."""
    at_once = AT_ONCE // (2 * n_words)
    words = np.empty(AT_ONCE, np.uint32)
    keys = np.empty((size, n_words), np.uint64)
    used = _first_bits(n_rows)
    for start in range(0, size, at_once):
        fill_bits(stream, words)
        pairs = words.reshape(at_once, n_words, 2)
        for number in range(min(at_once, size - start)):
            for word in range(n_words):
                high, low = pairs[number, word]
                keys[start + number, word] = (np.uint64(high) << np.uint64(32) | np.uint64(low)) & used
    return keys


@inlined
def _first_bits(n_rows: int) -> np.uint64:
    """Return a word in which the first `n_rows` bits are on, or all if there are more."""
    return ~np.uint64(0) if n_rows >= 64 else (np.uint64(1) << np.uint64(n_rows)) - np.uint64(1)
