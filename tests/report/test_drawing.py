import io
import warnings

import numpy as np
import pytest
from PIL import Image
from small_report import charts

from zoo.report import Chart, Series
from zoo.report.drawing import draw

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
    figure = draw(Chart("c", "", [Series("days", [0, 1], [0, 5], "points")], map=True), COLORS)
    axes = figure.axes[0]
    assert axes.get_aspect() == 1
    assert not [*axes.get_xticks(), *axes.get_yticks()]
