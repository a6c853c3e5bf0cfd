"""What a picture shows, apart from what draws it: a page that answers the mouse, or a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.estimates import Estimate

Style = Literal["line", "dashed", "dotted", "points", "bars"]


@dataclass(frozen=True)
class Series:
    """Points (n) that belong together.

    Args:
        name: In the legend; series of one name share its entry and its colour, wherever in a report they are.
        x: Positions; of bars also their names.
        y: Values; NaN or None leaves a gap.
        style: Lines have a small mark at every point.
        low: Lower ends of intervals, drawn as a band around lines and as whiskers on points and bars.
        high: Upper ends.
        labels: A text for every point, shown when it is pointed at.
        written: Whether labels are also written beside their points.
        color: Name of the series whose colour it takes, its own by default.
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
        """Estimates with their intervals.

        Args:
            name: See above, as for `x`, `style` and the options.
            x: Positions.
            estimates: One at every position.
            style: How they are drawn.
            options: Other fields.
        """
        y, low, high = ([getattr(one, end) for one in estimates] for end in ("mean", "low", "high"))
        return cls(name, list(x), y, style, low, high, **options)


@dataclass(frozen=True)
class Chart:
    """One pair of axes.

    Args:
        name: Of the file; unique in a report.
        title: What is seen, in a few words.
        series: What is drawn, from back to front.
        x_label: Of the horizontal axis, with units.
        y_label: Of the vertical axis, with units.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is.
        map: Whether the axes have no meaning but distances, in which case they are alike and have no ticks.
        caption: What to see in it, beneath.
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
