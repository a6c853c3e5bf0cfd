"""What the page's charts show, read from what plotly is given."""

import pytest

from zoo.report import Chart, Grid, Series
from zoo.report.traces import figure, legend

SHADES = {"a": "#d55e00", "b": "#0072b2", "c": "#009e73"}


def shown(*series, **options):
    found = figure(Chart("c", "Title", series, "step", "loss", **options), SHADES)
    return found["data"], found["layout"]


def xy(trace):
    return list(zip(trace["x"], trace["y"], strict=True))


@pytest.mark.parametrize(("style", "dash"), [("line", "solid"), ("dashed", "dash"), ("dotted", "dot")])
def test_a_line_has_its_points_colour_and_dash_and_breaks_where_there_is_none(style, dash):
    (trace,), _ = shown(Series("a", [0, 1, 2], [1.0, None, 3.0], style))
    assert xy(trace) == [(0, 1), (1, None), (2, 3)]
    assert (trace["type"], trace["mode"], trace["connectgaps"]) == ("scatter", "lines+markers", False)
    assert (trace["line"]["color"], trace["line"]["dash"], trace["marker"]["color"]) == ("#d55e00", dash, "#d55e00")


def test_the_interval_of_a_line_is_a_filled_band_behind_it_that_breaks_with_it():
    series = Series("a", [0, 1, 2, 3], [1.0, 2.0, None, 3.0], low=[0, 1, 1, 2], high=[4, 5, 5, 6])
    (band, _), _ = shown(series)
    assert xy(band) == [(0, 4), (1, 5), (1, 1), (0, 0), (None, None), (3, 6), (3, 2), (None, None)]
    assert (band["fill"], band["fillcolor"]) == ("toself", "rgba(213, 94, 0, 0.18)")


def test_points_have_whiskers_of_their_colour_behind_them_and_bars_grey_ones_before_them():
    interval = {"low": [1], "high": [3]}
    (behind, dots), _ = shown(Series("b", [7], [2], "points", **interval))
    (bars, before), _ = shown(Series("c", [7], [2], "bars", **interval))
    assert xy(behind) == xy(before) == [(7, 1), (7, 3), (None, None)]
    assert (behind["line"]["color"], before["line"]["color"]) == ("#0072b2", "#333333")
    assert (dots["type"], dots["mode"], dots["marker"]["color"], xy(dots)) == (
        "scatter",
        "markers",
        "#0072b2",
        [(7, 2)],
    )
    assert (bars["type"], bars["marker"]["color"], xy(bars)) == ("bar", "#009e73", [(7, 2)])


def test_every_trace_belongs_to_the_legends_entry_of_its_name():
    series = [Series("a", [0], [1], low=[0], high=[2]), Series("b", [0], [1], "points"), Series("a", [0], [1])]
    traces, _ = shown(*series)
    assert legend(Chart("c", "", series)) == ["a", "b"]
    assert [trace["legendgroup"] for trace in traces] == ["0", "0", "1", "0"]


def test_axes_have_their_labels_scales_and_names():
    _, plain = shown(Series("a", [1], [1]))
    _, log = shown(Series("a", [1], [1]), log_x=True, log_y=True)
    assert [plain[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["step", "loss"]
    assert [plain[axis]["type"] for axis in ("xaxis", "yaxis")] == ["linear", "linear"]
    assert [log[axis]["type"] for axis in ("xaxis", "yaxis")] == ["log", "log"]
    _, named = shown(Series("a", ["days", "months"], [1, 2], "bars"))
    assert named["xaxis"]["tickvals"] == [0, 1]
    assert named["xaxis"]["ticktext"] == ["days", "months"]
    assert named["xaxis"]["range"] == [-0.6, 1.6]


def test_axes_of_a_map_are_alike_and_hold_all_points():
    _, layout = shown(Series("a", [0, 4], [0, 1], "points"), map=True)
    assert (layout["yaxis"]["scaleanchor"], layout["yaxis"]["scaleratio"]) == ("x", 1)
    for axis, top in (("xaxis", 4), ("yaxis", 1)):
        assert not layout[axis]["showticklabels"]
        assert layout[axis]["range"][0] < 0 < top < layout[axis]["range"][1]


def test_labels_are_written_where_the_series_says_so_and_otherwise_seen_when_pointed_at():
    labels = ["one", "two"]
    (hidden,), _ = shown(Series("a", [1, 2], [3, 4], "points", labels=labels))
    (written,), _ = shown(Series("a", [1, 2], [3, 4], "points", labels=labels, written=True))
    assert "text" not in hidden
    assert hidden["hovertext"] == [
        f"<b>a</b><br>{text}<br>step: {x}<br>loss: {x + 2}" for x, text in ((1, "one"), (2, "two"))
    ]
    assert (written["text"], written["mode"]) == (labels, "markers+text")


def test_a_line_through_the_tokens_of_a_map_does_not_answer_in_their_place():
    tokens = Series("a", [0, 1], [0, 1], "points", labels=["x", "y"])
    dots, line = shown(tokens, Series("b", [0, 1], [0, 1], "dotted"), map=True)[0]
    assert (dots["hoverinfo"], dots["hovertext"], line["hoverinfo"]) == ("text", ["x", "y"], "skip")


def test_a_heat_map_has_its_numbers_from_top_to_bottom_and_empty_cells():
    grid = Grid(["a", "<b>"], ["first", "second"], [[0.25, float("nan")], [None, 2.0]], "change")
    found = figure(Chart("c", "Title", [], "x", "y", grid=grid), SHADES)
    (trace,) = found["data"]
    assert (trace["type"], trace["z"], trace["zmin"], trace["zmax"]) == ("heatmap", [[0.25, None], [None, 2.0]], 0, 2.0)
    assert trace["text"] == [["0.25", ""], ["", "2.00"]]
    assert trace["hovertext"][0] == ["y: first<br>x: a<br>change: 0.25", "y: first<br>x: &lt;b&gt;<br>change: -"]
    assert found["layout"]["yaxis"]["ticktext"] == ["first", "second"]
    assert found["layout"]["yaxis"]["autorange"] == "reversed"
    assert trace["colorbar"]["title"]["text"] == "change"


def test_a_heat_map_of_many_cells_has_no_numbers_and_says_from_which_number_on_it_is_darkest():
    names = [f"output {i}" for i in range(61)]
    grid = Grid(names, names, [[322.0] * 61 for _ in names], "change", darkest=1.0)
    found = figure(Chart("c", "Title", [], "x", "y", grid=grid), SHADES)
    (trace,) = found["data"]
    assert "text" not in trace
    assert (trace["zmax"], trace["colorbar"]["title"]["text"]) == (1.0, "change; darkest from 1 on")
    assert trace["hovertext"][0][60].endswith("change: 322")
    for axis in ("xaxis", "yaxis"):
        assert found["layout"][axis]["ticktext"] == names[::3]
        assert found["layout"][axis]["tickvals"] == [*range(0, 61, 3)]
