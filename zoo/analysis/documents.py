"""Draws windows of tokens from the documents of a text. Windows of different documents are independent."""

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


def several_windows(
    tokens: np.ndarray, end: int, n: int, length: int, seed: int = 0, prefix: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return n windows that do not overlap, and the document of each, (n, length) and (n,) int64.

    Documents are visited in random order, again and again, until there are n windows. So every document has one window
    before any has two. Arguments are those of `document_windows`.

    Raises:
        ZooError: If there are fewer than n windows, or fewer than two documents that are long enough.
    """
    size = length - len(prefix)
    spans = long_documents(tokens, end, size)
    rng = np.random.default_rng(seed)
    slots = [rng.permutation((stop - start) // size) for start, stop in spans]
    most = sum(map(len, slots))
    if len(spans) < 2 or most < n:
        raise ZooError(
            f"the text has {len(spans)} documents of at least {size} tokens, with {most} windows; at least 2 documents "
            f"and {n} windows are needed; lower documents or length, or name a config with more text"
        )
    found, of_document = np.empty((n, length), np.int64), np.empty(n, np.int64)
    found[:, : len(prefix)] = prefix
    order = rng.permutation(len(spans))
    turns = [(turn, one) for turn in range(max(map(len, slots))) for one in order if turn < len(slots[one])]
    for row, (turn, one) in enumerate(turns[:n]):
        start, stop = spans[one]
        at = start + slots[one][turn] * size + rng.integers((stop - start) % size + 1) * (len(slots[one]) == 1)
        found[row, len(prefix) :] = tokens[at : at + size]
        of_document[row] = one
    return found, of_document
