import io
import itertools
import warnings

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.colors import to_hex
from PIL import Image
from small_report import WEEK, charts

from zoo.report import Chart, Grid, Series
from zoo.report.drawing import draw
from zoo.report.points import points, ranges

COLORS = dict.fromkeys(
    ["learned", "random", "dots", "order", "days", "</script>tokens", *(f"class {i}" for i in range(10))], "#0072b2"
)


def pixels(figure):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file)
    return np.asarray(Image.open(file).convert("RGB"), dtype=int)  # (H, W, 3)


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: chart.name)
def test_every_chart_is_drawn_in_its_colour_without_a_warning(chart):
    image = pixels(draw(chart, COLORS))
    assert image.shape[1] == 960
    assert image.shape[0] >= 660
    near = np.abs(image - [0x00, 0x72, 0xB2]).sum(-1) < 60
    assert near.sum() > 100


def test_names_are_written_letter_by_letter():
    names = ["_hidden", "$x_1$", "日本", r"a\$"]
    chart = Chart("c", "$t$", [Series(name, [0, 1], [1, 2]) for name in names], "$x_", "$y$")
    figure = draw(chart, dict.fromkeys(names, "#0072b2"))
    pixels(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["_hidden", "$x_1$", "□□", r"a\$"]
    axes = figure.axes[0]
    texts = [*legend.get_texts(), axes.xaxis.label, axes.yaxis.label]
    assert not any(text.get_parse_math() for text in texts)


def test_axes_of_a_map_are_alike_and_have_no_ticks():
    chart = Chart("c", "", [Series("days", [0, 1], [0, 5], "points")], map=True)
    figure = draw(chart, COLORS)
    axes = figure.axes[0]
    assert axes.get_aspect() == 1
    across, up = ranges(chart, points(chart))
    assert (axes.get_xlim(), axes.get_ylim()) == (tuple(across), tuple(up))
    assert all(spine.get_visible() for spine in axes.spines.values())
    assert not [*axes.get_xticks(), *axes.get_yticks()]


RED, BLUE, GREEN = "#d55e00", "#0072b2", "#009e73"
SHADES = {"a": RED, "b": BLUE, "c": GREEN}


def drawn(series, **options):
    """The figure of a chart, and its axes."""
    figure = draw(Chart("c", "Title", series, "step", "loss [nats]", **options), SHADES)
    return figure, figure.axes[0]


def curves(axes):
    """Lines with marks, without whiskers, which have none."""
    return [line for line in axes.lines if line.get_marker() == "o"]


def whiskers(axes):
    return [line for line in axes.lines if line.get_marker() != "o"]


def test_title_and_labels_are_those_of_the_chart_and_axes_are_linear_unless_it_says_otherwise():
    series = [Series("a", [1, 10, 100_000], [1, 2, 10_000])]
    for log_x in (False, True):
        for log_y in (False, True):
            _, axes = drawn(series, log_x=log_x, log_y=log_y)
            assert axes.get_title(loc="left") == "Title"
            assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss [nats]")
            assert axes.get_xscale() == ("log" if log_x else "linear")
            assert axes.get_yscale() == ("log" if log_y else "linear")


@pytest.mark.parametrize(("style", "dash"), [("line", "-"), ("dashed", "--"), ("dotted", ":")])
def test_a_line_goes_through_its_points_in_its_colour_and_breaks_where_there_is_none(style, dash):
    _, axes = drawn([Series("a", [0, 1, 2, 3], [1.0, None, 3.0, 2.5], style), Series("b", [0, 3], [5, 6])])
    a, b = curves(axes)
    assert a.get_xdata().tolist() == [0, 1, 2, 3]
    assert np.array_equal(a.get_ydata(), [1, np.nan, 3, 2.5], equal_nan=True)
    assert b.get_xydata().tolist() == [[0, 5], [3, 6]]
    assert (a.get_color(), a.get_linestyle()) == (RED, dash)
    assert b.get_color() == BLUE
    assert b.get_zorder() > a.get_zorder()
    assert not axes.collections


def test_the_interval_of_a_line_is_a_band_of_its_colour_that_breaks_with_it():
    x, y = [0, 1, 2, 3, 4], [1.0, 2.0, None, 3.0, 4.0]
    _, axes = drawn([Series("a", x, y, low=[0.5, 1.5, 0, 2, 3], high=[1.5, 2.5, 9, 5, 6])])
    bands = [band for band in axes.collections if isinstance(band, FillBetweenPolyCollection)]
    corners = [{tuple(corner) for corner in band.get_paths()[0].vertices.tolist()} for band in bands]
    assert corners == [{(0, 0.5), (0, 1.5), (1, 1.5), (1, 2.5)}, {(3, 2), (3, 5), (4, 3), (4, 6)}]
    assert [to_hex(band.get_facecolor()[0]) for band in bands] == [RED, RED]
    assert not whiskers(axes)


def test_points_are_dots_and_their_intervals_whiskers_of_their_colour():
    _, axes = drawn([Series("b", [1, 2], [3.0, 4.0], "points", low=[2, 3.5], high=[5, 4.5])])
    (dots,) = axes.collections
    assert isinstance(dots, PathCollection)
    assert dots.get_offsets().tolist() == [[1, 3], [2, 4]]
    assert to_hex(dots.get_facecolor()[0]) == BLUE
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 2], [1, 5]], [[2, 3.5], [2, 4.5]]]
    assert [line.get_color() for line in axes.lines] == [BLUE] * 2


def test_bars_stand_beside_each_other_over_their_names_with_grey_whiskers():
    names = ["days", "months"]
    one = Series("a", names, [0.5, None], "bars", low=[0.4, 0.1], high=[0.7, 0.2])
    _, axes = drawn([one, Series("b", names, [0.25, 0.75], "bars")])
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height(), to_hex(bar.get_facecolor())) for bar in axes.patches]
    assert bars == [
        (pytest.approx(-0.2), 0.5, RED),
        (pytest.approx(0.2), 0.25, BLUE),
        (pytest.approx(1.2), 0.75, BLUE),
    ]
    assert [bar.get_width() for bar in axes.patches] == [pytest.approx(0.4)] * 3
    (whisker,) = axes.lines
    assert whisker.get_xydata().tolist() == [[pytest.approx(-0.2), 0.4], [pytest.approx(-0.2), 0.7]]
    assert whisker.get_color() == "#333333"
    assert axes.get_xticks().tolist() == [0, 1]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == names
    assert axes.get_xlim() == pytest.approx((-0.6, 1.6))


def test_names_that_are_long_together_are_turned():
    def turned(names):
        _, axes = drawn([Series("a", names, [1.0] * len(names), "bars")])
        return {tick.get_rotation() for tick in axes.get_xticklabels()}

    assert turned(["short", "names"]) == {0}
    assert turned([f"a name of class {i}" for i in range(9)]) == {35}


def test_labels_are_written_at_their_points_if_the_series_says_so():
    options = {"labels": ["one", "two", "three"]}
    for written in (False, True):
        _, axes = drawn([Series("a", [1, 2, 3], [4, None, 6], "points", written=written, **options)])
        found = [(text.get_text(), text.xy) for text in axes.texts]
        assert found == ([("one", (1, 4)), ("three", (3, 6))] if written else [])


def test_labels_of_a_circle_are_written_away_from_its_middle():
    (week,) = [chart for chart in charts() if chart.name == "week"]
    texts = draw(week, COLORS).axes[0].texts
    assert [text.get_text() for text in texts] == WEEK
    assert (texts[0].get_ha(), texts[0].get_va()) == ("left", "center")
    assert texts[0].xyann == (5, 0)
    assert (texts[3].get_ha(), texts[3].xyann) == ("right", (-5, 0))


def test_the_legend_has_every_name_once_with_the_mark_and_colour_of_its_first_series():
    series = [
        Series("a", [0], [1], "dashed"),
        Series("a", [0], [2], "points"),
        Series("", [0], [2], "line", color="a"),
        Series("b", [0], [2], "points"),
        Series("c", [0], [2], "bars"),
    ]
    figure, _ = drawn(series)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    dashed, dots, bars = legend.legend_handles
    assert (dashed.get_color(), dashed.get_linestyle()) == (RED, "--")
    assert (dots.get_color(), dots.get_linestyle(), dots.get_marker()) == (BLUE, "None", "o")
    assert to_hex(bars.get_facecolor()) == GREEN


def test_without_names_there_is_no_legend_and_with_many_the_figure_is_higher():
    assert not drawn([Series("", [0], [1], color="a")])[0].legends
    few, _ = drawn([Series(name, [0], [1]) for name in "abc"])
    names = [f"a class with a name as long as this one is, number {i}" for i in range(5)]
    many = draw(Chart("c", "", [Series(n, [0], [1]) for n in names]), dict.fromkeys(names, RED))
    assert few.get_figheight() == pytest.approx(4.4)
    assert many.get_figheight() == pytest.approx(4.4 + 0.19 * 2)


def test_a_logarithmic_axis_over_few_decades_has_its_numbers_in_full():
    _, axes = drawn([Series("a", [1, 10, 90], [0.1, 0.2, 0.5])], log_x=True, log_y=True)
    for axis, expected in ((axes.xaxis, {1: "1", 2: "2", 20: "20"}), (axes.yaxis, {0.1: "0.1", 0.5: "0.5"})):
        shown = {round(float(tick), 9): axis.get_major_formatter()(tick) for tick in axis.get_majorticklocs()}
        assert expected.items() <= shown.items()
        assert {axis.get_minor_formatter()(tick) for tick in axis.get_minorticklocs()} <= {""}
    _, axes = drawn([Series("a", [1, 1e6], [1, 2])], log_x=True)
    assert axes.xaxis.get_major_formatter()(1e6) != "1000000"


def test_a_heat_map_is_darker_for_larger_numbers_and_writes_them():
    grid = Grid(["a", "b", "c"], ["first", "second"], [[0.0, 0.5, 2.0], [None, 12.4, -1.0]], "change", darkest=1.0)
    figure = draw(Chart("c", "Title", [], "x", "y", grid=grid), {})
    pixels(figure)
    axes, bar = figure.axes
    (image,) = axes.images
    shade = image.to_rgba(image.get_array())[..., :3].sum(-1)  # of rows from top to bottom
    assert shade[0, 0] > shade[0, 1] > shade[0, 2] == shade[1, 1]
    assert shade[1, 2] == shade[0, 0]
    assert [text.get_text() for text in axes.texts] == ["0.00", "0.50", "2.00", "", "12", "-1.00"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    assert bar.get_ylabel() == "change"


def test_a_heat_map_of_many_cells_has_no_numbers_and_names_only_some_of_its_rows_and_columns():
    names = [f"output {i}" for i in range(61)]
    cells = [[0.5] * 61 for _ in names]
    figure = draw(Chart("c", "Title", [], "x", "y", grid=Grid(names, names, cells, "change", darkest=1.0)), {})
    pixels(figure)
    axes, _ = figure.axes
    assert not axes.texts
    for labels, ticks in (
        (axes.get_xticklabels(), axes.get_xticks()),
        (axes.get_yticklabels(), axes.get_yticks()),
    ):
        assert [tick.get_text() for tick in labels] == names[::3]
        assert [*ticks] == [*range(0, 61, 3)]
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
