"""Draws a chart with matplotlib, for PNG files."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from zoo.report.chart import Chart, Grid
from zoo.report.colors import color_name
from zoo.report.labels import label, lines
from zoo.report.points import Points, categories, points, ranges, sides

WIDTH, HEIGHT, DPI = 6.4, 4.4, 150
GRID_COLORS = "Blues"  # from white to dark blue
FEW_DECADES = 1000  # ratio of the ends of a logarithmic axis, below which numbers are written in full
DASHES: dict[str, Any] = {"line": "-", "dashed": "--", "dotted": ":"}
ALIGN = ({-1: "right", 0: "center", 1: "left"}, {-1: "top", 0: "center", 1: "bottom"})


def draw(chart: Chart, colors: Mapping[str, str]) -> Figure:
    """Draw a chart, 6.4 inches wide and 4.4 inches high; it is higher if the legend is long.

    Args:
        chart: The chart.
        colors: Colour of every name.

    Raises:
        ZooError: If the fields of a series have different lengths.
    """
    if chart.grid is not None:
        return _draw_grid(chart, chart.grid)
    drawn, names = points(chart), categories(chart)
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    many = sum(len(one.x) for one in drawn)
    for order, one in enumerate(drawn):
        _series(axes, one, colors[color_name(one.series)], many, 2 + 0.01 * order)
        _write(axes, chart, one, drawn)
    _axes(axes, chart, drawn, names)
    _legend(figure, chart, colors)
    return figure


def _draw_grid(chart: Chart, grid: Grid) -> Figure:
    """Draw a heat map; the figure is higher if many names of rows are written."""
    n_columns, rows, columns = len(grid.columns), grid.named(grid.rows), grid.named(grid.columns)
    figure = Figure(figsize=(WIDTH, max(HEIGHT, 1.2 + 0.22 * len(rows))), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    values, top = grid.numbers(), grid.top()
    shades = [_floats(row) for row in values]
    image = axes.imshow(shades, GRID_COLORS, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    small = 8 if n_columns <= 10 else 6.5 if n_columns <= 16 else 4.5
    for i, row in enumerate(values if grid.has_written_numbers() else []):
        for j, value in enumerate(row):
            color = "#ffffff" if value is not None and value > 0.6 * top else "#222222"
            axes.text(j, i, grid.written(value), ha="center", va="center", fontsize=small, color=color)
    axes.set_title(_lines(chart.title, 70), loc="left", fontsize=10.5, parse_math=False)
    axes.set_xlabel(_lines(chart.x_label, 75), fontsize=9, parse_math=False)
    axes.set_ylabel(_lines(chart.y_label, 50), fontsize=9, parse_math=False)
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    across = [_seen(label(grid.columns[i])) for i in columns]
    long = max(map(len, across), default=0) * len(across) > 75
    axes.set_xticks(columns, across, fontsize=8, **(turned if long else {}))
    axes.set_yticks(rows, [_seen(label(grid.rows[i])) for i in rows], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, extend="max" if grid.darkest is not None else "neither", shrink=0.9)
    bar.set_label(_lines(grid.label, 50), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _series(axes: Axes, one: Points, color: str, many: int, order: float) -> None:
    x, y = _floats(one.x), _floats(one.y)
    style = one.series.style
    if style == "bars":
        shown = [(a, b) for a, b in zip(one.x, one.y, strict=True) if a is not None and b is not None]
        axes.bar([a for a, _ in shown], [b for _, b in shown], one.width, color=color, zorder=order)
    elif style == "points":
        size, alpha = (30.0, 0.9) if many <= 200 else (10.0, 0.65) if many <= 1000 else (5.0, 0.65)
        axes.scatter(x, y, size, color=color, alpha=alpha, linewidths=0, zorder=order)
    else:
        mark = 3.5 if many <= 300 else 1.5
        axes.plot(x, y, DASHES[style], color=color, marker="o", markersize=mark, linewidth=1.6, zorder=order)
    if one.low and style in DASHES:
        for run in one.runs():
            band_x, low, high = (_floats([ends[i] for i in run]) for ends in (one.x, one.low, one.high))
            axes.fill_between(band_x, low, high, color=color, alpha=0.18, linewidth=0, zorder=order - 1)
    elif one.low:
        shade = "#333333" if style == "bars" else color
        for position, bottom, top in one.whiskers():
            axes.plot([position] * 2, [bottom, top], color=shade, linewidth=1.3, zorder=order + 0.005)


def _write(axes: Axes, chart: Chart, one: Points, drawn: Sequence[Points]) -> None:
    if not one.series.written or one.series.labels is None:
        return
    for x, y, text, (right, up) in zip(one.x, one.y, one.series.labels, sides(chart, one, drawn), strict=True):
        if x is not None and y is not None:
            aligned: dict[str, Any] = {"ha": ALIGN[0][right], "va": ALIGN[1][up]}
            axes.annotate(
                _seen(label(text)), (x, y), (5 * right, 5 * up), textcoords="offset points",
                fontsize=8, parse_math=False, zorder=4, **aligned,
            )  # fmt: skip


def _axes(axes: Axes, chart: Chart, drawn: Sequence[Points], names: Sequence[str]) -> None:
    axes.set_title(_lines(chart.title, 70), loc="left", fontsize=10.5, parse_math=False)
    axes.set_xlabel(_lines(chart.x_label, 75), fontsize=9, parse_math=False)
    axes.set_ylabel(_lines(chart.y_label, 50), fontsize=9, parse_math=False)
    axes.tick_params(which="both", labelsize=8, color="#999999")
    axes.spines[["top", "right"]].set_visible(chart.map)
    for spine in axes.spines.values():
        spine.set_color("#dddddd" if chart.map else "#999999")
    if chart.log_x:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    if chart.log_y:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    if chart.map:
        across, up = ranges(chart, drawn)
        axes.set(xlim=across, ylim=up, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="box")
        return
    axes.grid(axis="y" if names else "both", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    if names:
        long = sum(max(map(len, lines(name, 16)), default=0) for name in names) > 75
        turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
        seen = [_lines(name, 16) for name in names]
        axes.set_xticks(range(len(names)), seen, parse_math=False, **turned)
        axes.set_xlim(-0.6, len(names) - 0.4)


def _plain_ticks(axis: Axis) -> None:
    """Write numbers in full on a logarithmic axis over few decades: 0.1, 0.2, 0.5, 1, ..."""
    low, high = axis.get_view_interval()
    if low > 0 and high / low < FEW_DECADES:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low > 10 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, chart: Chart, colors: Mapping[str, str]) -> None:
    first = {series.name: series for series in reversed(chart.series) if series.name}
    handles: list[Artist] = []
    names = [name for name in dict.fromkeys(series.name for series in chart.series) if name]
    for name in names:
        color, style = colors[color_name(first[name])], first[name].style
        if style == "bars":
            handles.append(Patch(color=color))
        elif style == "points":
            handles.append(Line2D([], [], color=color, marker="o", linestyle="", markersize=5))
        else:
            handles.append(Line2D([], [], color=color, linestyle=DASHES[style], linewidth=1.6))
    if not names:
        return
    columns = max(1, min(len(names), 88 // (8 + max(len(label(name)) for name in names))))
    rows = -(-len(names) // columns)
    figure.set_figheight(HEIGHT + 0.19 * max(0, rows - 3))
    made = figure.legend(
        handles, ["-"] * len(names), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    for text, name in zip(made.get_texts(), names, strict=True):  # matplotlib would drop names like "_a" above
        text.set_parse_math(False)
        text.set_text(_seen(label(name)))


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _lines(text: str, width: int) -> str:
    return _seen("\n".join(lines(text, width)))


def _seen(text: str) -> str:
    """Replace every character that the font does not have by a box."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else "\N{WHITE SQUARE}" for c in text)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
