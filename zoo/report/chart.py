"""Contents of a chart, for both ways to draw it: interactive on the HTML page, and as a PNG file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.estimates import Estimate

Style = Literal["line", "dashed", "dotted", "points", "bars"]


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
