"""Positions of points, bars, labels and axes in a chart, shared by the HTML page and the PNG files."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError
from zoo.report.chart import Chart, Series
from zoo.report.labels import label

BARS_SHARE = 0.8  # of the distance between two names on the axis, for all bars of a name
POINTS_SHARE = 0.5  # of the same distance, for all points of a name


@dataclass(frozen=True)
class Points:
    """A series of n points in the units of the axes; values that cannot be drawn are None.

    Args:
        series: The series of the chart.
        x: Positions (n). Names have the positions 0, 1, ... in the order of `categories`; bars and points of several
            series are shifted so that they stand side by side.
        y: Values (n).
        low: Lower ends of intervals (n), or empty.
        high: Upper ends of intervals (n), or empty.
        width: Width of a bar.
    """

    series: Series
    x: list[float | None]
    y: list[float | None]
    low: list[float | None]
    high: list[float | None]
    width: float = BARS_SHARE

    def runs(self) -> list[list[int]]:
        """Return the runs of points with complete intervals, as indices: each is an unbroken piece of the band."""
        found: list[list[int]] = [[]]
        for index, ends in enumerate(zip(self.x, self.low, self.high, strict=True)):
            if None in ends:
                found.append([])
            else:
                found[-1].append(index)
        return [run for run in found if run]

    def whiskers(self) -> list[tuple[float, float, float]]:
        """Return position, lower and upper end of every complete interval."""
        ends = zip(self.x, self.low, self.high, strict=True)
        return [(x, low, high) for x, low, high in ends if x is not None and low is not None and high is not None]


def categories(chart: Chart) -> list[str]:
    """Return the names on the horizontal axis, in order of appearance; empty if the axis has numbers."""
    return list(dict.fromkeys(str(x) for series in chart.series for x in series.x if isinstance(x, str)))


def points(chart: Chart) -> list[Points]:
    """Return every series of a chart in the units of the axes.

    Raises:
        ZooError: If the fields of a series have different lengths, or the horizontal axis has both names and numbers.
    """
    for series in chart.series:
        _check(chart, series)
    names = {name: float(index) for index, name in enumerate(categories(chart))}
    if names and any(not isinstance(x, str) for series in chart.series for x in series.x):
        raise ZooError(f"chart {chart.name}: x has both names and numbers; it must have only one of them")
    floor = _smallest(v for s in chart.series for v in (*s.y, *_list(s.low), *_list(s.high))) if chart.log_y else None
    step = 1.0 if names else _step(chart)
    found = []
    for series in chart.series:
        shift, width = _slot(chart, series, step, bool(names))
        x: list[float | None]
        if names:
            x = [names[str(value)] + shift for value in series.x]
        else:
            x = [None if v is None else v + shift for v in _numbers(series.x, chart.log_x)]
        y = [None if a is None else b for a, b in zip(x, _numbers(series.y, chart.log_y), strict=True)]
        low, high = (_ends(values, y, floor) for values in (series.low, series.high))
        found.append(Points(series, x, y, low, high, width))
    return found


def ranges(chart: Chart, drawn: Sequence[Points]) -> tuple[list[float], list[float]]:
    """Return the ends of both axes of a map (2 each), with room for the labels next to the outermost points."""
    labels = [series.labels for series in chart.series if series.written and series.labels is not None]
    written = [len(label(text)) for texts in labels for text in texts]
    beside, above = (min(0.1 + 0.018 * max(written), 0.5), 0.12) if written else (0.05, 0.05)
    (left, right), (bottom, top) = _extent(drawn)
    size = max(right - left, top - bottom) or 1.0
    return [left - beside * size, right + beside * size], [bottom - above * size, top + above * size]


def sides(chart: Chart, one: Points, drawn: Sequence[Points]) -> list[tuple[int, int]]:
    """Return the side of every point (n) on which its label is written: -1, 0, 1 for left to right and bottom to top.

    Labels are written above their points. On a map they are written away from the centre, because the labels of points
    on a circle would otherwise cover the circle.
    """
    if not chart.map:
        return [(0, 1)] * len(one.x)
    across, up = _extent(drawn)
    middle, half = (sum(across) / 2, sum(up) / 2), max(across[1] - across[0], up[1] - up[0]) / 2
    found = []
    for x, y in zip(one.x, one.y, strict=True):
        right, above = (x or 0.0) - middle[0], (y or 0.0) - middle[1]
        far = math.hypot(right, above)
        found.append((round(right / far), round(above / far)) if far > half / 2 else (0, 1))
    return found


def _extent(drawn: Sequence[Points]) -> tuple[tuple[float, float], tuple[float, float]]:
    x = [value for one in drawn for value in one.x if value is not None]
    y = [value for one in drawn for value in one.y if value is not None]
    return (min(x, default=0.0), max(x, default=0.0)), (min(y, default=0.0), max(y, default=0.0))


def _check(chart: Chart, series: Series) -> None:
    parts = {"x": series.x, "y": series.y, "low": series.low, "high": series.high, "labels": series.labels}
    sizes = {name: len(part) for name, part in parts.items() if part is not None}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ZooError(f"chart {chart.name}: the fields of series {series.name!r} differ in length: {told}")
    if (series.low is None) != (series.high is None):
        raise ZooError(f"chart {chart.name}: series {series.name!r} has only one of low and high")


def _list(values: Sequence[float] | None) -> Sequence[float]:
    return () if values is None else values


def _numbers(values: Iterable[Any], log: bool) -> list[float | None]:
    found = [math.nan if value is None else float(value) for value in values]
    return [v if math.isfinite(v) and (v > 0 or not log) else None for v in found]


def _smallest(values: Iterable[Any]) -> float | None:
    return min((v for v in _numbers(values, True) if v is not None), default=None)


def _ends(values: Sequence[float] | None, y: Sequence[float | None], floor: float | None) -> list[float | None]:
    """Return the ends of the intervals of all drawn points, raised to the start of a logarithmic axis if below it."""
    found = []
    for value, point in zip(_numbers(_list(values), False), y, strict=False):
        lifted = value if value is None or floor is None else max(value, floor)
        found.append(None if point is None else lifted)
    return found


def _step(chart: Chart) -> float:
    values = sorted({v for s in chart.series if s.style == "bars" for v in _numbers(s.x, chart.log_x) if v is not None})
    return min((b - a for a, b in itertools.pairwise(values)), default=1.0)


def _slot(chart: Chart, series: Series, step: float, named: bool) -> tuple[float, float]:
    """Return the shift of a series from its x, and the width of its bars."""
    if series.style != "bars" and not (series.style == "points" and named):
        return 0.0, BARS_SHARE
    own = set(series.x)
    beside = list(dict.fromkeys(s.name for s in chart.series if s.style == series.style and own & set(s.x)))
    width = step * (BARS_SHARE if series.style == "bars" else POINTS_SHARE) / len(beside)
    return (beside.index(series.name) - (len(beside) - 1) / 2) * width, width
