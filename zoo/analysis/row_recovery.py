"""Measures how far fine-tuning recovers a reset row: in the model's loss, and in the row's direction."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from zoo.estimates import Estimate, mean

Measured = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]  # by mode, arm and quantity; arrays (points, rows)
Summary = tuple[list[dict[str, Any]], dict[str, Any]]


class Cosines(NamedTuple):
    """Cosines of rows with original rows of the embedding, after the mean original row is subtracted from both."""

    own: Tensor  # (..., R), with the original row of the same token
    others: Tensor  # (..., R), mean over the original rows of other tokens of the same group
    nearest: Tensor  # (..., R) bool, whether no other token's original row is closer


class Share(NamedTuple):
    """A share and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def cosines(rows: Tensor, original: Tensor, tokens: Tensor, groups: Tensor) -> Cosines:
    """Return cosines of rows with the original rows of their tokens, and of other tokens of the same group.

    Args:
        rows: Rows after a reset, (..., R, D).
        original: The original embedding, (V, D). The mean of its rows is subtracted from all rows.
        tokens: Token ids of the rows, (R,).
        groups: Group of every token, (V,) int64; below 0 for tokens without a group.
    """
    centre = original.mean(0)
    every = F.normalize(rows - centre, dim=-1) @ F.normalize(original - centre, dim=1).mT  # (..., R, V)
    own = every.gather(-1, tokens.expand(every.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    alike = (groups == groups[tokens, None]).to(every.dtype)  # (R, V)
    others = ((every * alike).sum(-1) - own) / (alike.sum(-1) - 1)
    return Cosines(own, others, every.argmax(-1) == tokens)


def recovered(
    before: np.ndarray, reset: np.ndarray, after: np.ndarray, control: np.ndarray, draws: int = 2000, seed: int = 0
) -> Share:
    """Return the share of a reset's damage (its increase of the loss) that fine-tuning has recovered, over n tokens.

        1 - mean(after - control) / mean(reset - before)

    This is a ratio of means, because the ratio of a single token has no meaning if its reset hardly changes the loss.

    Args:
        before: Losses of the original model, (n,), n at least 2.
        reset: Losses right after the resets, (n,).
        after: Losses after fine-tuning, (n,).
        control: Losses after the same fine-tuning without a reset, (n,). Pass `before` to compare with the original
            model instead.
        draws: Number of bootstrap samples of the tokens.
        seed: Seed of the bootstrap samples.

    Returns:
        The share and its 95 % bootstrap interval; NaN if the 95 % Student t interval of the damage is not above 0.
    """
    n, left, damage = len(before), after - control, reset - before
    if damage.mean() <= stats.t.ppf(0.975, n - 1) * stats.sem(damage):
        return Share(np.nan, np.nan, np.nan)
    chosen = np.random.default_rng(seed).integers(n, size=(draws, n))
    low, high = np.quantile(1 - left[chosen].mean(1) / damage[chosen].mean(1), (0.025, 0.975))
    return Share(float(1 - left.mean() / damage.mean()), float(low), float(high))


def summary(measured: Measured, stratum: np.ndarray, counts: np.ndarray, from_val: np.ndarray) -> Summary:
    """Return means over all rows and over every stratum, from the rarest tokens to the most frequent.

    Args:
        measured: `loss`, `own`, `others` and `nearest` for every mode ("row" and others) and arm ("reset", "control").
        stratum: Stratum of every row, (R,).
        counts: How often every row's token occurs in the training text, (R,).
        from_val: Whether the row is evaluated on the validation split, (R,).

    Returns:
        Groups, the group of all rows first; and curves, the means over all rows at every point.
    """
    groups = []
    for i in (None, *np.unique(stratum).tolist()):
        chosen = np.ones(len(stratum), bool) if i is None else stratum == i
        low, high = int(counts[chosen].min()), int(counts[chosen].max())
        group: dict[str, Any] = {"name": "all" if i is None else f"{low:,} to {high:,}", "n": int(chosen.sum())}
        group["on_validation"] = int(from_val[chosen].sum())
        groups.append(group | {mode: _losses(arms, chosen) for mode, arms in measured.items()})
        groups[-1]["row"] |= _directions(measured["row"]["reset"], chosen)
    curves: dict[str, Any] = {}
    for mode, arms in measured.items():
        before = arms["control"]["loss"][0]
        curves[mode] = {name: [mean(loss - before) for loss in arm["loss"]] for name, arm in arms.items()}
    for name in ("own", "others", "nearest"):
        curves["row"][name] = [mean(values) for values in measured["row"]["reset"][name]]
    return groups, curves


def _losses(arms: Mapping[str, Mapping[str, np.ndarray]], chosen: np.ndarray) -> dict[str, Estimate]:
    reset, control = (arms[arm]["loss"][:, chosen] for arm in ("reset", "control"))
    before, at_reset, after, trained = control[0], reset[0], reset[-1], control[-1]
    found = {"before": mean(before), "reset": mean(at_reset), "after": mean(after), "control": mean(trained)}
    found |= {"damage": mean(at_reset - before), "left": mean(after - trained)}
    for name, reference in (("recovered", trained), ("recovered_without_control", before)):
        found[name] = Estimate(*recovered(before, at_reset, after, reference), len(before))
    return found


def _directions(reset: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, Estimate]:
    own, others, nearest = (reset[name][:, chosen] for name in ("own", "others", "nearest"))
    above = own - others
    found = {"own_at_reset": mean(own[0]), "own": mean(own[-1]), "others": mean(others[-1])}
    return found | {"drift": mean(above[-1] - above[0]), "nearest": mean(nearest[-1])}
