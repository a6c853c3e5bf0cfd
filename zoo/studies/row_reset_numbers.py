"""What `row_reset` found, in means over tokens with their intervals."""

import math
from typing import Any

import numpy as np

from zoo.analysis.row_recovery import recovered
from zoo.studies.intervals import interval

ARMS = ("reset", "control")
Numbers = dict[str, Any]
Measured = dict[str, dict[str, dict[str, np.ndarray]]]  # by mode, arm and quantity: (points, rows), seeds averaged


def summary(measured: Measured, stratum: np.ndarray, counts: np.ndarray, from_val: np.ndarray) -> Numbers:
    """What is told of all rows and of each stratum, from the rarest tokens to the most frequent.

    Args:
        measured: Of every mode and arm, `loss`, `own`, `others` and `nearest`.
        stratum: Of every row (R,).
        counts: How often its token occurs in the training text (R,).
        from_val: Whether it is judged on the validation split (R,).

    Returns:
        `groups`, all rows first, and `curves`, means over all rows at every point.
    """
    groups = []
    for i in (None, *np.unique(stratum).tolist()):
        chosen = np.ones(len(stratum), bool) if i is None else stratum == i
        low, high = int(counts[chosen].min()), int(counts[chosen].max())
        group: Numbers = {"name": "all" if i is None else f"{low:,} to {high:,}", "n": int(chosen.sum())}
        group["on_validation"] = int(from_val[chosen].sum())
        groups.append(group | {mode: _losses(arms, chosen) for mode, arms in measured.items()})
        groups[-1]["row"] |= _directions(measured["row"]["reset"], chosen)
    curves: Numbers = {}
    for mode, arms in measured.items():
        before = arms["control"]["loss"][0]
        curves[mode] = {arm: [interval(loss - before) for loss in arms[arm]["loss"]] for arm in ARMS}
    for name in ("own", "others", "nearest"):
        curves["row"][name] = [interval(values) for values in measured["row"]["reset"][name]]
    return {"groups": groups, "curves": curves}


def _losses(arms: dict[str, dict[str, np.ndarray]], chosen: np.ndarray) -> Numbers:
    reset, control = (arms[arm]["loss"][:, chosen] for arm in ARMS)
    before, at_reset, after, trained = control[0], reset[0], reset[-1], control[-1]
    found: Numbers = {"before": interval(before), "reset": interval(at_reset), "after": interval(after)}
    found |= {"control": interval(trained), "damage": interval(at_reset - before), "left": interval(after - trained)}
    for name, reference in (("recovered", trained), ("recovered_without_control", before)):
        share = recovered(before, at_reset, after, reference)
        found[name] = None if math.isnan(share.value) else dict(zip(("mean", "low", "high"), share, strict=True))
    return found


def _directions(reset: dict[str, np.ndarray], chosen: np.ndarray) -> Numbers:
    own, others, nearest = (reset[name][:, chosen] for name in ("own", "others", "nearest"))
    found = {"own_at_reset": interval(own[0]), "own": interval(own[-1]), "others": interval(others[-1])}
    above = own - others
    return found | {"drift": interval(above[-1] - above[0]), "nearest": interval(nearest[-1])}
