"""Contents of a chart, for both ways to draw it: interactive on the HTML page, and as a PNG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.estimates import Estimate

Style = Literal["line", "dashed", "dotted", "points", "bars"]
MOST_COLUMNS = 20  # of a heat map whose numbers are written in its cells
MOST_NAMES = 24  # of rows, and of columns, that are written beside a heat map


@dataclass(frozen=True)
class Series:
    """A series of n points in a chart.

    Args:
        name: Name in the legend. Series of the same name share a legend entry, and have the same colour in all charts
            of a report.
        x: Positions on the horizontal axis: numbers, or names of categories.
        y: Values; NaN or None leaves a gap.
        style: How the points are drawn. Lines have a small mark at every point.
        low: Lower ends of intervals, drawn as a band around lines and as whiskers on points and bars.
        high: Upper ends of intervals.
        labels: A text for every point, shown when the mouse is over the point.
        written: Whether labels are also written next to their points.
        color: Name of the series whose colour is used; by default the series' own name.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float | None]
    style: Style = "line"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    labels: Sequence[str] | None = None
    written: bool = False
    color: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        x: Sequence[Any],
        estimates: Sequence[Estimate],
        style: Style = "line",
        **options: Any,
    ) -> "Series":
        """Return a series of estimates with their intervals.

        Args:
            name: Name in the legend.
            x: Positions on the horizontal axis.
            estimates: One estimate at every position.
            style: How the points are drawn.
            options: Further fields of the series.
        """
        y, low, high = ([getattr(one, end) for one in estimates] for end in ("mean", "low", "high"))
        return cls(name, list(x), y, style, low, high, **options)


@dataclass(frozen=True)
class Grid:
    """A heat map: numbers in rows and columns, drawn as shades of one colour.

    The numbers are written in the cells if there are at most 20 columns. Of more than 24 rows or columns, only every
    second, third, ... has its name beside the map.

    Args:
        columns: Names of the columns, from left to right.
        rows: Names of the rows, from top to bottom.
        values: Rows of numbers; NaN or None leaves a cell empty.
        label: What the numbers are, with units.
        darkest: Number from which on the shade is darkest; by default the largest number. The shade of 0 is white.
    """

    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float | None]]
    label: str = ""
    darkest: float | None = None

    def numbers(self) -> list[list[float | None]]:
        """Return the numbers, with None for cells that are empty."""
        return [[float(v) if v is not None and math.isfinite(v) else None for v in row] for row in self.values]

    def top(self) -> float:
        """Return the number from which on the shade is darkest."""
        if self.darkest is not None:
            return self.darkest
        return max((v for row in self.numbers() for v in row if v is not None and v > 0), default=1.0)

    def has_written_numbers(self) -> bool:
        """Return whether the numbers are written in the cells."""
        return len(self.columns) <= MOST_COLUMNS

    @staticmethod
    def named(names: Sequence[str]) -> range:
        """Return the indices of the rows or columns whose names are written beside the map."""
        return range(0, len(names), max(1, -(-len(names) // MOST_NAMES)))

    @staticmethod
    def written(value: float | None) -> str:
        """Return a number as it is written in its cell."""
        if value is None:
            return ""
        text = f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"
        return text.removeprefix("-") if float(text) == 0 else text


@dataclass(frozen=True)
class Chart:
    """A chart with one pair of axes.

    Args:
        name: Name of the PNG file without its ending; unique in a report.
        title: Title, in a few words.
        series: Series of points, drawn in this order, so that the last is in front.
        x_label: Label of the horizontal axis, with units.
        y_label: Label of the vertical axis, with units.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        map: Whether only the distances between points have a meaning, as on a UMAP. Both axes then have the same scale
            and no ticks.
        caption: Text below the chart that explains it.
        grid: A heat map; the chart then has no series.
    """

    name: str
    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    map: bool = False
    caption: str = ""
    grid: Grid | None = None
