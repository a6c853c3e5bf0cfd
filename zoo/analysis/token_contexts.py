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
    """Tokens of every stratum of frequency, each with contexts to train on and, apart from these, to judge by.

    Those to judge by come from the validation split or, of tokens that are too rare there, from the training split.

    Args:
        train: Token ids of the training split (N,).
        val: Of the validation split (M,).
        counts: How often each token occurs in the training split (V,).
        rows: Tokens R to draw.
        strata: As many, of equally many tokens that have enough contexts.
        length: Inputs T of a context.
        n_train: Contexts of every token to train on.
        n_evaluation: And to judge by.

    Returns:
        `tokens` (R,), their `stratum`, `counts` and whether they are judged on the validation split, `from_val`;
        `stratum_of` every token (V,), -1 for none; `train` and `evaluation`, (R, n, T + 1).

    Raises:
        ZooError: If fewer tokens have enough contexts.
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
    """Pairs of a token and a window that has it early, each once, sorted."""
    early = windows[:, : length // 2].astype(np.int64)
    pairs = np.unique(early * len(windows) + np.arange(len(windows))[:, None])
    return np.divmod(pairs, max(len(windows), 1))
