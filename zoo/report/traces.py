"""Converts a chart to the plain JSON that plotly.js draws."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.report.chart import Chart, Grid
from zoo.report.colors import color_name
from zoo.report.labels import hover, label, lines, number
from zoo.report.points import Points, categories, points, ranges, sides

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DASHES = {"line": "solid", "dashed": "dash", "dotted": "dot"}
GRID_COLORS = [[0, "#f7fbff"], [0.25, "#c6dbef"], [0.5, "#6baed6"], [0.75, "#2171b5"], [1, "#08306b"]]
POSITIONS = ({-1: "bottom", 0: "middle", 1: "top"}, {-1: "left", 0: "center", 1: "right"})


def figure(chart: Chart, colors: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of `Plotly.newPlot` for a chart.

    Args:
        chart: The chart.
        colors: Colour of every name.

    Returns:
        `data`, a list of traces whose `legendgroup` is the index of their name in `legend(chart)`, and `layout`.

    Raises:
        ZooError: If the fields of a series have different lengths.
    """
    if chart.grid is not None:
        return _grid_figure(chart, chart.grid)
    drawn = points(chart)
    names, groups = categories(chart), legend(chart)
    traces = []
    for one in drawn:
        color, group = colors[color_name(one.series)], str(groups.index(one.series.name))
        parts = [*_intervals(one, color, behind=True), _trace(chart, one, drawn, color, names)]
        parts += _intervals(one, color, behind=False)
        traces += [{**part, "legendgroup": group} for part in parts]
    return {"data": traces, "layout": _layout(chart, drawn, names)}


def _grid_figure(chart: Chart, grid: Grid) -> dict[str, Any]:
    values = grid.numbers()
    columns, rows = [escaped(name) for name in grid.columns], [escaped(name) for name in grid.rows]
    hover = [
        [
            f"{escaped(chart.y_label)}: {row}<br>{escaped(chart.x_label)}: {column}<br>"
            f"{escaped(grid.label)}: {number(value) if value is not None else '-'}"
            for column, value in zip(columns, line, strict=True)
        ]
        for row, line in zip(rows, values, strict=True)
    ]
    trace: dict[str, Any] = {"type": "heatmap", "z": values, "zmin": 0, "zmax": grid.top(), "colorscale": GRID_COLORS}
    trace |= {"x": list(range(len(columns))), "y": list(range(len(rows))), "hoverinfo": "text", "hovertext": hover}
    trace |= {"xgap": 1, "ygap": 1, "hoverongaps": False, "showscale": True}
    title = grid.label if grid.darkest is None else f"{grid.label}; darkest from {number(grid.darkest)} on"
    trace["colorbar"] = {"title": {"text": _lines(title, 36), "side": "right"}, "thickness": 14, "outlinewidth": 0}
    if grid.has_written_numbers():
        trace |= {"text": [[grid.written(value) for value in row] for row in values], "texttemplate": "%{text}"}
    layout = _layout(chart, [], [])
    for axis, names in (("xaxis", columns), ("yaxis", rows)):
        named = grid.named(names)
        layout[axis] |= {"tickvals": [*named], "ticktext": [names[i] for i in named]}
        layout[axis] |= {"showgrid": False, "zeroline": False}
    layout["yaxis"]["autorange"] = "reversed"
    return {"data": [trace], "layout": layout}


def legend(chart: Chart) -> list[str]:
    """Return the names of the series, each once."""
    return list(dict.fromkeys(series.name for series in chart.series))


def escaped(text: str) -> str:
    """Return a label with escaped HTML, because plotly interprets tags and entities."""
    return _plain(label(text))


def _plain(text: str) -> str:
    return html.escape(text, quote=False)


def _trace(chart: Chart, one: Points, drawn: Sequence[Points], color: str, names: Sequence[str]) -> dict[str, Any]:
    series, many = one.series, sum(len(p.x) for p in drawn)
    trace: dict[str, Any] = {"type": "scatter", "x": one.x, "y": one.y, "hoverinfo": "text", "showlegend": False}
    trace["hovertext"] = [_hover(chart, one, index, names) for index in range(len(one.x))]
    if chart.map and series.labels is None and any(other.labels is not None for other in chart.series):
        trace["hoverinfo"] = "skip"  # otherwise the line's text would appear instead of the tokens'
    written = series.written and series.labels is not None
    if series.written and series.labels is not None:
        trace["text"] = [escaped(text) for text in series.labels]
    if series.style == "bars":
        trace |= {"type": "bar", "width": one.width, "marker": {"color": color}}
        return trace | ({"textposition": "outside", "cliponaxis": False} if written else {"textposition": "none"})
    trace |= {"cliponaxis": not written, "connectgaps": False}
    trace["mode"] = ("markers" if series.style == "points" else "lines+markers") + ("+text" if written else "")
    trace["marker"] = {"color": color, "size": _size(many, series.style)}
    if series.style == "points":
        trace["marker"] |= {"opacity": 0.9 if many <= 200 else 0.65}
    else:
        trace["line"] = {"color": color, "width": 2, "dash": DASHES[series.style]}
    if written:
        trace["textposition"] = [f"{POSITIONS[0][up]} {POSITIONS[1][right]}" for right, up in sides(chart, one, drawn)]
    return trace


def _size(many: int, style: str) -> float:
    if style != "points":
        return 4.5 if many <= 300 else 2
    return 7 if many <= 200 else 5 if many <= 1000 else 3.5


def _intervals(one: Points, color: str, behind: bool) -> list[dict[str, Any]]:
    """Return traces of the intervals: a band behind a line, whiskers behind points or in front of bars."""
    style = one.series.style
    if not one.low or behind == (style == "bars"):
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    base = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, "connectgaps": False}
    if style in DASHES:
        for run in one.runs():
            x += [*(one.x[i] for i in run), *(one.x[i] for i in reversed(run)), None]
            y += [*(one.high[i] for i in run), *(one.low[i] for i in reversed(run)), None]
        fill = "rgba({}, {}, {}, 0.18)".format(*(int(color[i : i + 2], 16) for i in (1, 3, 5)))
        return [base | {"x": x, "y": y, "fill": "toself", "fillcolor": fill, "line": {"width": 0}}]
    for position, low, high in one.whiskers():
        x += [position, position, None]
        y += [low, high, None]
    return [base | {"x": x, "y": y, "line": {"width": 1.5, "color": "#333333" if style == "bars" else color}}]


def _hover(chart: Chart, one: Points, index: int, names: Sequence[str]) -> str:
    series, y = one.series, one.y[index]
    text = None if series.labels is None else "<br>".join(map(_plain, hover(series.labels[index])))
    if chart.map:
        return text if text is not None else escaped(series.name)
    told = [f"<b>{escaped(series.name)}</b>"] if series.name else []
    told += [] if text is None else [text]
    x = escaped(str(series.x[index])) if names else "" if one.x[index] is None else number(float(series.x[index]))
    told.append(f"{escaped(chart.x_label)}: {x}" if chart.x_label else x)
    value = "" if y is None else number(y)
    if series.low is not None and series.high is not None and None not in (one.low[index], one.high[index]):
        value += f" ({number(float(series.low[index]))} to {number(float(series.high[index]))})"
    told.append(f"{escaped(chart.y_label)}: {value}" if chart.y_label else value)
    return "<br>".join(told)


def _layout(chart: Chart, drawn: Sequence[Points], names: Sequence[str]) -> dict[str, Any]:
    x, y = _axis(chart.x_label, chart.log_x, 60), _axis(chart.y_label, chart.log_y, 36)
    if names:
        x |= {"tickvals": list(range(len(names))), "ticktext": [_lines(name, 16) for name in names]}
        x |= {"showgrid": False, "zeroline": False}
        x["range"] = [-0.6, len(names) - 0.4]
    if chart.map:
        plain = {
            "showgrid": False,
            "zeroline": False,
            "showticklabels": False,
            "ticks": "",
            "showline": False,
            "automargin": False,
        }
        across, up = ranges(chart, drawn)
        x |= plain | {"range": across}
        y |= plain | {"range": up, "scaleanchor": "x", "scaleratio": 1}
    return {
        "xaxis": x,
        "yaxis": y,
        "autosize": True,
        "barmode": "overlay",
        "hovermode": "closest",
        "showlegend": False,
        "font": {"family": FONT, "size": 12, "color": "#333333"},
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"family": FONT, "size": 12, "color": "#1a1a1a"}},
        "modebar": {"bgcolor": "rgba(255, 255, 255, 0.8)", "color": "#777777", "activecolor": "#222222"},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "#fafafa" if chart.map else "rgba(0, 0, 0, 0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8} if chart.map else {"l": 52, "r": 14, "t": 14, "b": 44},
    }


def _axis(title: str, log: bool, width: int) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "log" if log else "linear", "automargin": True}
    axis |= {"title": {"text": _lines(title, width)}} if title else {}
    axis |= {"gridcolor": "#e8e8e8", "zerolinecolor": "#cccccc", "linecolor": "#999999", "showline": True}
    if log:
        axis |= {"exponentformat": "power", "minor": {"showgrid": False}}
    return axis


def _lines(text: str, width: int) -> str:
    return "<br>".join(html.escape(line, quote=False) for line in lines(text, width))
