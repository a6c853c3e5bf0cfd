"""Numbers of the study that several parts of its report tell."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.analysis.limits import limit
from zoo.studies.intervals import difference_from_draws, interval

Interval = dict[str, float]
Lines = Sequence[dict[str, Any]]


def mean_and_interval(values: Sequence[float] | np.ndarray, least: float | None = None) -> Interval:
    """Mean and 95 % interval; NaN where a value is, or with fewer than two.

    Args:
        values: Independent ones, (n,).
        least: Value that what is measured cannot be below, such as 0 for a share of a variance; nor is the interval.
    """
    array = np.asarray(values, float)
    if len(array) < 2 or not np.isfinite(array).all():
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    found = interval(array)
    return found if least is None else found | {"low": max(found["low"], least)}


def share(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean and interval of shares of a variance, which are not negative."""
    return mean_and_interval(values, 0.0)


def difference(values: np.ndarray, null: np.ndarray, runs: int = 1) -> Interval:
    """The embedding's mean less its null model's, with the interval that tells the two apart.

    Args:
        values: Of the embedding, one per seed, or per run of pretraining where there are several.
        null: Of draws of the null model, likewise.
        runs: Runs of pretraining. With several the interval is that of the mean over runs, and otherwise that in which
            one more draw of the null model would lie, see `difference_from_draws`.
    """
    if not (np.isfinite(values).all() and np.isfinite(null).all() and min(len(values), len(null)) > 1):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    return interval(values - null) if runs > 1 else difference_from_draws(values, null)


def spelled(value: Interval, digits: int = 3) -> str:
    """An interval as text."""
    if not np.isfinite(value["mean"]):
        return "-"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def pursued(done: dict[str, Any], step: Any, matrix: str) -> np.ndarray:
    """Held-out FVU of learned atoms with greedy codes of the study's L0, one per run of pretraining or per seed.

    Of the dictionaries along the penalties the best counts, for a null model as for the embedding.
    """
    lines = [r for r in done["A2"] if (r["step"], r["matrix"]) == (step, matrix) and "fvu_pursued" in r]
    table = [
        [
            min(r["fvu_pursued"] for r in lines if (r["source"], r["seed"]) == (source, seed))
            for seed in range(done["settings"]["seeds"])
        ]
        for source in done["rows"]["patterns"]
    ]
    return np.mean(table, 1) if len(table) > 1 else np.array(table[0])


def pursued_error(file: Path) -> float:
    """The least held-out FVU, over penalties, of the dictionaries in one result of `basis_pursuit`."""
    return min(float(line["fvu_pursued"]) for line in json.loads(file.read_text("utf-8")))


def units_of(done: dict[str, Any]) -> str:
    """What intervals of errors are over."""
    runs, seeds = len(done["rows"]["patterns"]), done["settings"]["seeds"]
    if runs > 1:
        return f"{runs} runs of pretraining, of {seeds} seeds each"
    return (
        f"{seeds} seeds (of held-out rows, dictionaries, null models and trained networks; one embedding was studied)"
    )


def limit_of(done: dict[str, Any]) -> Interval | None:
    """Where the error is going over pretraining, under limit + b step^-c, from its last turn on.

    None with fewer than 5 steps since, or if what fits is no fraction of a variance.
    """
    steps = [step for step in done["steps"] if step]
    if len(steps) < 5:
        return None
    curve = np.array([pursued(done, step, "embedding").mean() for step in steps])
    turns = np.flatnonzero(np.diff(np.sign(np.diff(curve))))
    start = int(turns[-1]) + 1 if len(turns) else 0
    if len(steps) - start < 5:
        return None
    fitted = limit(np.array(steps[start:]), curve[start:])
    if fitted.high < 0 or fitted.low > 1:
        return None
    value, low, high = (min(max(number, 0.0), 1.0) for number in (fitted.value, fitted.low, fitted.high))
    return {"mean": value, "low": low, "high": high, "from_step": float(steps[start])}
