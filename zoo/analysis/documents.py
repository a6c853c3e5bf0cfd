"""Draws one window of tokens from every document of a text, so that windows are independent."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import ZooError


def long_documents(tokens: np.ndarray, end: int, length: int) -> np.ndarray:
    """Return the documents of a text that have at least `length` tokens: first and last token + 1, (n, 2) int64.

    Args:
        tokens: Token ids of the text, (N,), in which every document ends with the token `end`.
        end: Id of the end-of-text token, which belongs to no document.
        length: Smallest number of tokens.
    """
    stops = np.flatnonzero(tokens == end)
    starts = np.append(0, stops[:-1] + 1)[: len(stops)]
    spans = np.stack([starts, stops], 1)
    return spans[stops - starts >= length]


def document_windows(
    tokens: np.ndarray, end: int, n: int, length: int, seed: int = 0, prefix: Sequence[int] = ()
) -> np.ndarray:
    """Return a random window of each of n random documents.

    Args:
        tokens: Token ids of the text, (N,), in which every document ends with the token `end`.
        end: Id of the end-of-text token.
        n: Number of documents.
        length: Number of tokens of a window.
        seed: Seed of the draw.
        prefix: Token ids with which every window begins, such as that of the beginning of a sequence. They count in
            `length`.

    Returns:
        Token ids, (n, length) int64.

    Raises:
        ZooError: If fewer than n documents are long enough.
    """
    size = length - len(prefix)
    spans = long_documents(tokens, end, size)
    if len(spans) < n:
        raise ZooError(
            f"the text has {len(spans)} documents of at least {size} tokens, fewer than the {n} documents; lower "
            "documents or length, or name a config with more text"
        )
    rng = np.random.default_rng(seed)
    found = np.empty((n, length), np.int64)
    found[:, : len(prefix)] = prefix
    for row, (start, stop) in zip(found, spans[rng.permutation(len(spans))[:n]], strict=True):
        at = rng.integers(start, stop - size + 1)
        row[len(prefix) :] = tokens[at : at + size]
    return found
