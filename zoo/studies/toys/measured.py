"""Results over seeds: as series of charts, and beside a theory."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from zoo.report import Series
from zoo.report.chart import Style
from zoo.studies.embedding.numbers import Interval, mean_and_interval, spelled

Sample = Sequence[float] | np.ndarray
COLORS = ("first", "second", "third", "fourth")  # names of colours, for series that no other chart has
TOLERANCE = 0.05  # by how much a measurement may differ from its closed form, as a share


def series(name: str, x: Sequence[Any], samples: Sequence[Sample], style: Style = "points", **options: Any) -> Series:
    """Means of samples over seeds with their 95 % intervals."""
    spans = [mean_and_interval(list(sample)) for sample in samples]
    mean, low, high = ([span[key] for span in spans] for key in ("mean", "low", "high"))
    return Series(name, list(x), mean, style, low, high, **options)


def theory(name: str, x: Sequence[Any], y: Sequence[float], color: str | None = None) -> Series:
    """What theory says of the series of that name, whose entry in the legend it shares."""
    return Series(name, list(x), list(y), "dashed", labels=["theory"] * len(x), color=color)


def agreement(ratios: np.ndarray) -> dict[str, Any]:
    """How measurements agree with their theory.

    Args:
        ratios: Measured over theory, (settings, seeds).

    Returns:
        The interval over seeds of the mean over settings, `overall`; the interval of every setting, `each`; and the
        `largest` deviation of a setting's mean from 1.
    """
    each = [mean_and_interval(row) for row in ratios]
    return {
        "overall": mean_and_interval(ratios.mean(0)),
        "each": each,
        "largest": max(abs(span["mean"] - 1) for span in each),
    }


def agrees(found: dict[str, Any]) -> Literal["yes", "no", "undecided"]:
    """Whether measurement and theory agree: no if the overall interval or that of a setting lies outside the tolerance.

    Args:
        found: See `agreement`.
    """
    if any(_outside(span) for span in (found["overall"], *found["each"])):
        return "no"
    inside = abs(found["overall"]["low"] - 1) <= TOLERANCE and abs(found["overall"]["high"] - 1) <= TOLERANCE
    return "yes" if inside else "undecided"


def told(found: dict[str, Any]) -> str:
    """An agreement in words."""
    covered = sum(span["low"] <= 1 <= span["high"] for span in found["each"])
    return (
        f"measured over theory is {spelled(found['overall'])} over all {len(found['each'])} settings, and off by "
        f"{100 * found['largest']:.1f} % in the worst; {covered} of the {len(found['each'])} intervals hold 1"
    )


def sign(difference: Interval) -> Literal["below", "above", "undecided"]:
    """On which side of 0 an interval lies."""
    return "below" if difference["high"] < 0 else "above" if difference["low"] > 0 else "undecided"


def listed(words: Sequence[str]) -> str:
    """Words as a list: a, b and c; nothing if there are none."""
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"


def _outside(span: Interval) -> bool:
    return span["high"] < 1 - TOLERANCE or span["low"] > 1 + TOLERANCE
