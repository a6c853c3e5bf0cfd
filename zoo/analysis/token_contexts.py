"""Windows of a text in which a given token stands early enough to matter for what follows."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import ZooError


def windows_per_token(tokens: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
    """How many windows of a text have each token early, (V,) int64: what `contexts` can choose from."""
    token, _ = _places(_windows(tokens, length), length)
    return np.bincount(token, minlength=vocab_size)


def contexts(tokens: np.ndarray, wanted: Sequence[int], n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Windows of a text that have a token within the first half of their inputs, n for every wanted token.

    The text is cut into windows of length + 1 without overlap, so that two windows share nothing.

    Args:
        tokens: Token ids (N,).
        wanted: Token ids (R,).
        n: Windows per token, drawn without replacement and in random order.
        length: Inputs T of a window; its targets are the inputs one place later.
        rng: Of the draw.

    Returns:
        Token ids, (R, n, T + 1) int64.

    Raises:
        ZooError: If a token has fewer windows.
    """
    windows = _windows(tokens, length)
    token, window = _places(windows, length)
    order = np.lexsort((rng.random(len(token)), token))
    token, window = token[order], window[order]
    first, last = (np.searchsorted(token, wanted, side) for side in ("left", "right"))
    if (scarce := np.flatnonzero(last - first < n)).size:
        i = int(scarce[0])
        raise ZooError(f"token {wanted[i]} is early in {last[i] - first[i]} windows of {length} tokens, fewer than {n}")
    return windows[window[first[:, None] + np.arange(n)]].astype(np.int64)


def _windows(tokens: np.ndarray, length: int) -> np.ndarray:
    n = len(tokens) // (length + 1)
    return tokens[: n * (length + 1)].reshape(n, length + 1)


def _places(windows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a token and a window that has it early, each once, sorted."""
    early = windows[:, : length // 2].astype(np.int64)
    pairs = np.unique(early * len(windows) + np.arange(len(windows))[:, None])
    return np.divmod(pairs, max(len(windows), 1))
