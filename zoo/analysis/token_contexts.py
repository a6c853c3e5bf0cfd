"""Selects windows of a text that contain a given token in the first half of their inputs."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import ZooError


def windows_per_token(tokens: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
    """Return the number of windows with each token in their first half, (V,) int64: the choice that `contexts` has."""
    token, _ = _places(_windows(tokens, length), length)
    return np.bincount(token, minlength=vocab_size)


def contexts(tokens: np.ndarray, wanted: Sequence[int], n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return, for every token in `wanted`, n windows of a text that contain it in the first half of their inputs.

    The text is cut into windows of length + 1 without overlap.

    Args:
        tokens: Token ids of the text, (N,).
        wanted: Token ids, (R,).
        n: Number of windows per token, drawn without replacement and in random order.
        length: Number T of inputs of a window; the targets are the window shifted by one position.
        rng: Generator of the draw.

    Returns:
        Token ids, (R, n, T + 1) int64.

    Raises:
        ZooError: If a token has fewer than n windows.
    """
    windows = _windows(tokens, length)
    token, window = _places(windows, length)
    order = np.lexsort((rng.random(len(token)), token))
    token, window = token[order], window[order]
    first, last = (np.searchsorted(token, wanted, side) for side in ("left", "right"))
    if (scarce := np.flatnonzero(last - first < n)).size:
        i = int(scarce[0])
        raise ZooError(
            f"token {wanted[i]} is in the first half of {last[i] - first[i]} windows of {length} tokens, fewer than {n}"
        )
    return windows[window[first[:, None] + np.arange(n)]].astype(np.int64)


def draw(
    train: np.ndarray,
    val: np.ndarray,
    counts: np.ndarray,
    rows: int,
    strata: int,
    length: int,
    n_train: int,
    n_evaluation: int,
) -> dict[str, np.ndarray]:
    """Draw tokens from every stratum of frequency, each with contexts for training and other contexts for evaluation.

    Contexts for evaluation come from the validation split or, for tokens that are too rare there, from the training
    split.

    Args:
        train: Token ids of the training split, (N,).
        val: Token ids of the validation split, (M,).
        counts: How often each token occurs in the training split, (V,).
        rows: Number R of tokens to draw.
        strata: Number of strata; each has equally many of the tokens with enough contexts.
        length: Number T of inputs of a context.
        n_train: Contexts of every token for training.
        n_evaluation: Contexts of every token for evaluation.

    Returns:
        `tokens` (R,), with their `stratum`, their `counts`, and `from_val`: whether they are evaluated on the
        validation split; `stratum_of`, the stratum of every token (V,), -1 for none; `train` and `evaluation`,
        (R, n, T + 1).

    Raises:
        ZooError: If fewer than R tokens have enough contexts.
    """
    train, val, vocab_size = np.asarray(train), np.asarray(val), len(counts)
    in_train, in_val = (windows_per_token(part, length, vocab_size) for part in (train, val))
    in_both = (in_train >= n_train) & (in_val >= n_evaluation)
    fit = np.flatnonzero(in_both | (in_train >= n_train + n_evaluation))
    if len(fit) < rows:
        raise ZooError(
            f"{len(fit)} tokens have {n_train} + {n_evaluation} contexts of {length} tokens in the text, fewer than "
            f"the {rows} rows; lower rows, or name a config with more text"
        )
    rng = np.random.default_rng(0)
    stratum_of = np.full(vocab_size, -1)
    wanted = []
    for i, members in enumerate(np.array_split(fit[np.argsort(counts[fit], kind="stable")], strata)):
        stratum_of[members] = i
        wanted.append(np.sort(rng.choice(members, rows // strata + (i < rows % strata), replace=False)))
    tokens = np.concatenate(wanted)
    from_val = in_both[tokens]
    drawn = np.empty((rows, n_train + n_evaluation, length + 1), np.int64)
    drawn[~from_val] = contexts(train, tokens[~from_val], n_train + n_evaluation, length, rng)
    drawn[from_val, :n_train] = contexts(train, tokens[from_val], n_train, length, rng)
    drawn[from_val, n_train:] = contexts(val, tokens[from_val], n_evaluation, length, rng)
    return {
        "tokens": tokens,
        "stratum": stratum_of[tokens],
        "counts": counts[tokens],
        "from_val": from_val,
        "stratum_of": stratum_of,
        "train": drawn[:, :n_train].astype(np.int32),
        "evaluation": drawn[:, n_train:].astype(np.int32),
    }


def _windows(tokens: np.ndarray, length: int) -> np.ndarray:
    n = len(tokens) // (length + 1)
    return tokens[: n * (length + 1)].reshape(n, length + 1)


def _places(windows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of a token and a window with this token in its first half, sorted, each once."""
    early = windows[:, : length // 2].astype(np.int64)
    pairs = np.unique(early * len(windows) + np.arange(len(windows))[:, None])
    return np.divmod(pairs, max(len(windows), 1))
