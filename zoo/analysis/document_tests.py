"""Comparisons of two measurements of the same tokens, with documents as the independent units."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate

DRAWS_AT_ONCE = 500


class SignTest(NamedTuple):
    """Numbers of documents in which the mean of one measurement is above or below the other's, and the p-value."""

    above: int
    below: int
    p_value: float  # two-sided; 1 if all documents are tied


def ratio_of_means(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    documents: Sequence[int] | np.ndarray,
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Return the mean of some values divided by that of their reference, with a bootstrap interval over documents.

    The bootstrap draws whole documents with replacement. The interval is from the 2.5 % to the 97.5 % quantile of the
    ratio.

    Args:
        values: One value per token, (n,).
        reference: The value to compare with, (n,).
        documents: Document of every token, (n,).
        draws: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        The ratio, whose `n` is the number of documents. It is UNKNOWN if the reference is 0 in all documents.

    Raises:
        ZooError: If there is only one document, or a value is not finite.
    """
    top, bottom, _ = _sums(values, reference, documents)
    if not bottom.any():
        return UNKNOWN
    rng, n, ratios = np.random.default_rng(seed), len(top), []
    for first in range(0, draws, DRAWS_AT_ONCE):
        chosen = rng.integers(n, size=(min(DRAWS_AT_ONCE, draws - first), n))
        below = bottom[chosen].sum(1)
        ratios.append(top[chosen].sum(1)[below != 0] / below[below != 0])
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), n)


def sign_test(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    documents: Sequence[int] | np.ndarray,
) -> SignTest:
    """Return the sign test of the difference between two measurements, over documents.

    Tokens of a document are not independent, so the mean difference of every document counts once. Documents whose
    difference is 0 do not count.

    Args:
        values: One value per token, (n,).
        reference: The value to compare with, (n,).
        documents: Document of every token, (n,).

    Raises:
        ZooError: If there is only one document, or a value is not finite.
    """
    from scipy import stats

    *_, difference = _sums(values, reference, documents)
    above, below = int((difference > 0).sum()), int((difference < 0).sum())
    p_value = float(stats.binomtest(above, above + below).pvalue) if above + below else 1.0
    return SignTest(above, below, p_value)


def _sums(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    documents: Sequence[int] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of values, reference and difference in every document."""
    top, bottom = np.asarray(values, float), np.asarray(reference, float)
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        raise ZooError("a value is not finite; leave out the positions that are not counted")
    _, index = np.unique(np.asarray(documents), return_inverse=True)
    if index.max(initial=0) < 1:
        raise ZooError("all values are of one document; an interval over documents needs at least two")
    top_sum, bottom_sum, difference = (np.bincount(index, x) for x in (top, bottom, top - bottom))
    return top_sum, bottom_sum, difference
