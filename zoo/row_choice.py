"""Choice of some of an embedding's rows: at random, evenly over frequencies, or the most frequent tokens."""

from typing import Any, Literal

import numpy as np

from zoo.errors import ZooError

RowChoice = Literal["random", "stratified", "most frequent"]
IN_WORDS: dict[RowChoice, str] = {
    "random": "drawn at random",
    "stratified": "evenly spaced in the order of frequency, or of the vocabulary if frequencies are not known",
    "most frequent": "those of the most frequent tokens",
}


def chosen_rows(n_rows: int, at_most: int, choice: RowChoice, counts: Any = None) -> np.ndarray:
    """Return the indices of some rows, ascending.

    - "random": drawn without replacement; the same rows every time.
    - "stratified": evenly spaced in the order of frequency. If frequencies are not known, in the order of the rows,
      which for most tokenizers is about that of frequency.
    - "most frequent": the tokens that occur most.

    Args:
        n_rows: Number of rows V.
        at_most: Number of rows to choose; all rows if there are no more.
        choice: How to choose.
        counts: How often the rows' tokens occur, (V,); None if not known.

    Returns:
        Indices, (n,) int64.

    Raises:
        ZooError: If the most frequent tokens are asked for, but counts are not known.
    """
    if at_most >= n_rows:
        return np.arange(n_rows)
    if choice == "random":
        return np.sort(np.random.default_rng((0, 0, 4)).permutation(n_rows)[:at_most])
    if choice == "most frequent" and counts is None:
        raise ZooError(
            "how often the tokens occur is not known, so the most frequent ones cannot be chosen; use stratified"
        )
    order = np.arange(n_rows) if counts is None else np.argsort(-np.asarray(counts), kind="stable")
    if choice == "most frequent":
        return np.sort(order[:at_most])
    return np.sort(order[((np.arange(at_most) + 0.5) * n_rows / at_most).astype(np.int64)])
