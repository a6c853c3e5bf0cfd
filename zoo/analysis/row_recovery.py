"""How much of a reset row comes back: in what the model loses without it, and in its direction."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from scipy import stats
from torch import Tensor


class Cosines(NamedTuple):
    """Of rows with original rows of the embedding, about its mean row."""

    own: Tensor  # (..., R), with that of the same token
    others: Tensor  # (..., R), mean over those of other tokens of the same group
    nearest: Tensor  # (..., R) bool, whether no token's is closer than the own


class Share(NamedTuple):
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


def cosines(rows: Tensor, original: Tensor, tokens: Tensor, groups: Tensor) -> Cosines:
    """How much rows look like what their tokens had, and like what other tokens of their group had.

    Args:
        rows: (..., R, D).
        original: The embedding they come from (V, D), whose mean is taken off everything.
        tokens: Token ids (R,).
        groups: Group of every token (V,) int64; those below 0 belong to none.
    """
    mean = original.mean(0)
    every = F.normalize(rows - mean, dim=-1) @ F.normalize(original - mean, dim=1).mT  # (..., R, V)
    own = every.gather(-1, tokens.expand(every.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    alike = (groups == groups[tokens, None]).to(every.dtype)  # (R, V)
    others = ((every * alike).sum(-1) - own) / (alike.sum(-1) - 1)
    return Cosines(own, others, every.argmax(-1) == tokens)


def recovered(
    before: np.ndarray, reset: np.ndarray, after: np.ndarray, control: np.ndarray, draws: int = 2000, seed: int = 0
) -> Share:
    """Share of a reset's damage that fine-tuning has made good, over n tokens.

        1 - mean(after - control) / mean(reset - before),

    a ratio of means, as a reset that hardly matters makes a token's own ratio meaningless.

    Args:
        before: Losses of the model as it was (n,), n at least 2.
        reset: Losses right after the resets (n,).
        after: Losses after fine-tuning (n,).
        control: Losses after the same fine-tuning without a reset (n,); `before`, to compare with no fine-tuning.
        draws: Bootstrap samples of the tokens.
        seed: Of these.

    Returns:
        The share and its 95 % bootstrap interval; NaN if the damage's 95 % Student t interval is not above 0.
    """
    n, left, damage = len(before), after - control, reset - before
    if damage.mean() <= stats.t.ppf(0.975, n - 1) * stats.sem(damage):
        return Share(np.nan, np.nan, np.nan)
    chosen = np.random.default_rng(seed).integers(n, size=(draws, n))
    low, high = np.quantile(1 - left[chosen].mean(1) / damage[chosen].mean(1), (0.025, 0.975))
    return Share(float(1 - left.mean() / damage.mean()), float(low), float(high))
