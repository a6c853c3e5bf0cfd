import numpy as np
import pytest

from zoo.report import Chart, Series
from zoo.report.points import BARS_SHARE, points, ranges, sides
from zoo.report.traces import figure

BLACK = {"a": "#000000", "b": "#000000"}


def test_what_cannot_be_drawn_is_a_gap_and_breaks_the_band():
    x, y = [0, 1, 2, 3, 4, 5], np.array([1, 1, np.nan, 1, 1, -1.0])
    chart = Chart("c", "", [Series("a", x, y, low=y - 2, high=y + 1)], log_x=True, log_y=True)
    (one,) = points(chart)
    assert one.x == [None, 1, 2, 3, 4, 5]
    assert one.y == [None, 1, None, 1, 1, None]
    assert one.runs() == [[1], [3, 4]]
    assert one.low[1] == 1  # the smallest number there is: no logarithmic axis shows -1


def test_bars_and_points_of_several_series_stand_beside_each_other():
    names = ["p", "q"]
    chart = Chart("c", "", [Series(n, names, [1, 2], style) for style in ("bars", "points") for n in "ab"])
    found = points(chart)
    assert [one.x for one in found] == [
        pytest.approx(x) for x in ([-0.2, 0.8], [0.2, 1.2], [-0.125, 0.875], [0.125, 1.125])
    ]
    assert found[0].width == pytest.approx(0.4)


def test_labels_of_a_circle_are_written_outside_it():
    angles = np.arange(8) * np.pi / 4
    chart = Chart("c", "", [Series("a", np.cos(angles), np.sin(angles), labels=["x"] * 8, written=True)], map=True)
    drawn = points(chart)
    assert sides(chart, drawn[0], drawn) == [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]


def test_a_map_of_one_point_or_of_none_has_an_extent():
    for values in ([1.0], [], [None]):
        chart = Chart("c", "", [Series("a", values, values, "points", labels=["x"] * len(values))], map=True)
        for start, end in ranges(chart, points(chart)):
            assert start < end
        figure(chart, BLACK)


def test_an_interval_is_told_where_it_is_pointed_at():
    chart = Chart("c", "", [Series("a", [1, 2], [10000, 0.12345], low=[9000, 0], high=[np.nan, 1])], "step", "loss")
    hover = figure(chart, BLACK)["data"][1]["hovertext"]
    assert hover == ["<b>a</b><br>step: 1<br>loss: 10,000", "<b>a</b><br>step: 2<br>loss: 0.1235 (0 to 1)"]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([Series("a", [1, 2], [1])], "chart c: the fields of series 'a' differ in length: 2 x, 1 y"),
        ([Series("a", [1], [1], low=[1])], "only one of low and high"),
        ([Series("a", ["p"], [1]), Series("b", [1], [1])], "both names and numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(series, message, refused):
    with refused(message):
        points(Chart("c", "", series))


def test_bars_of_series_that_share_no_category_stand_above_their_names():
    chart = Chart("c", "", [Series("a", ["p"], [1], "bars"), Series("b", ["q", "r"], [1, 2], "bars")])
    assert [one.x for one in points(chart)] == [[0], [1, 2]]
    assert {one.width for one in points(chart)} == {BARS_SHARE}
