"""Which rows of an embedding were never trained?

Training moves such rows only by weight decay and, in a tied matrix, by the softmax, all of them alike: they end as near
copies of each other. A dictionary gives them atoms for nothing, and every neighbour of one is another.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo import null_models
from zoo.analysis.near_neighbours import nearest

NEIGHBOURS = 10
COMPARED = 1024  # rows of the null model


class UntrainedRows(NamedTuple):
    """What tells untrained rows, and the verdict."""

    distance: Tensor  # (V,) to the 10th nearest other row
    threshold: float
    untrained: Tensor  # (V,) bool


def untrained_rows(W: Tensor, counts: Tensor | None = None, seed: int = 0) -> UntrainedRows:
    """Find rows that are near copies of several others, and those whose token never occurs.

    A row is called untrained if its 10th nearest neighbour is less than half as far as that of any of 1,024 rows of a
    Gaussian with the same covariance, of which there are V, as of W: in D dimensions distances concentrate, and
    independent rows never come so close.

    Args:
        W: The embedding, (V, D); with at most 20 rows none is called untrained for its distance.
        counts: How often every token occurs in the training text, (V,), if known.
        seed: Of the Gaussian.
    """
    V = len(W)
    never = torch.zeros(V, dtype=torch.bool) if counts is None else counts == 0
    if V <= 2 * NEIGHBOURS:
        return UntrainedRows(torch.full((V,), torch.nan), 0.0, never)
    rows = W.float() - W.float().mean(0)
    distance = nearest(rows, NEIGHBOURS)[0][:, -1]
    null = null_models.covariance_matched(rows, torch.Generator().manual_seed(seed))
    threshold = nearest(null, NEIGHBOURS, torch.arange(min(V, COMPARED)))[0][:, -1].min().item() / 2
    return UntrainedRows(distance, threshold, (distance < threshold) | never)


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """Chance that a score (n,) is higher for a positive than for another, ties counting half; NaN if either is absent.

    Args:
        score: (n,).
        positive: (n,) bool.
    """
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(score.double().numpy()))
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")
