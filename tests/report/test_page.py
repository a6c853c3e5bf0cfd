import json
import re
from html.parser import HTMLParser

import pytest
from small_report import HOSTILE, charts, hostile_chart, small_report

from zoo.report import Chart, Report, Section, Series, Verdict
from zoo.report.colors import PALETTE, colors
from zoo.report.page import html
from zoo.report.traces import figure


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the text of every script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append((self.tags[-1][1], data))
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return html(small_report(folder), folder)


@pytest.fixture(scope="module")
def ours(page):
    """The page without plotly's source."""
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def test_every_chart_is_in_the_page_as_strict_json(ours, tmp_path):
    shown = [json.loads(text) for kind, text in Tags(ours).scripts if kind.get("type") == "application/json"]
    shades = colors(small_report(tmp_path))
    first, *others = charts()  # the first is also beside the answer
    assert shown == [json.loads(json.dumps(figure(chart, shades))) for chart in (first, first, *others)]
    assert "NaN" not in ours
    assert "Infinity" not in ours


def test_a_chart_has_its_title_above_and_its_legend_and_caption_beneath_it(ours, tmp_path):
    (loss,) = re.findall(r'<figure class="chart" id="chart-loss">.*?</figure>', ours, re.DOTALL)
    parts = [
        "<h3>Loss</h3>",
        'aria-label="Loss"',
        "application/json",
        'class="legend"',
        "<figcaption>Bands: 95 % intervals.",
    ]
    assert sorted(parts, key=loss.index) == parts
    entries = re.findall(r'data-group="(\d)"><svg.*?</svg>(.*?)</button>', loss)
    assert entries == [("0", "learned"), ("1", "random"), ("2", "third")]
    shades = colors(small_report(tmp_path))
    strokes = re.findall(r'stroke="(#\w+)" stroke-width="2.5" stroke-dasharray="([\d. ]*)"', loss)
    assert strokes[0][0] == strokes[2][0] == shades["learned"] != strokes[1][0] == shades["random"]
    assert len({dash for _, dash in strokes}) == 3
    (cloud,) = re.findall(r'<figure class="[^"]*" id="chart-cloud">.*?</figure>', ours, re.DOTALL)
    assert cloud.count("<circle") == 10
    assert "<figcaption>" not in cloud


def test_nothing_is_loaded_from_elsewhere(ours):
    for tag, attributes in Tags(ours).tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), tag
    assert not re.search(r"@import|url\(|<link|<iframe", ours)
    assert "connect-src" not in ours
    assert "default-src 'none'" in ours


def test_html_in_markdown_and_labels_is_text(ours):
    tags = Tags(ours)
    assert len([tag for tag, _ in tags.tags if tag == "script"]) == 1 + len(charts()) + 2
    assert not {"i", "b"} & {tag for tag, _ in tags.tags}
    assert tags.text.count("<script>bad()</script>") >= 3
    assert "![x](https://example.com/x.png)" in tags.text


def test_labels_that_plotly_would_read_as_html_are_escaped():
    trace = figure(hostile_chart(), {"</script>tokens": "#000000"})["data"][0]
    assert trace["hovertext"] == trace["text"]
    assert trace["text"] == [
        "&lt;/script&gt;&lt;script&gt;bad()&lt;/script&gt;",
        "&lt;b&gt;&amp;amp;\"'",
        r"a\nb\x00",
        r"\ud800",
        "' '",
        "$x_1$",
        "_日本",
        "%{x}&lt;br&gt;",
    ]
    assert len(HOSTILE) == len(trace["text"])


def test_the_verdict_comes_first_and_the_commands_last(ours):
    text = Tags(ours).text
    order = ["Is there <more>?", "Yes, it does.", "Experiments", "Null models and baselines"]
    order += ["What this experiment does not show", "Command that repeats this experiment"]
    order += ["How this report was made", "Settings", "Versions", "Command that repeats the whole study"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_of_what_was_not_tested_only_the_reason_is_told(ours):
    (section,) = re.findall(r'<section class="experiment" id="A3">.*?</section>', ours, re.DOTALL)
    assert "It needs 6 GB." in section
    assert not re.search(r"<table|<pre|<h3|<figure", section)
    assert "never shown" not in ours


def test_experiments_are_linked_to_their_sections(ours):
    tags = Tags(ours).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == ["#A1", "#A2", "#A3"]
    assert {link[1:] for link in links} <= ids


def test_a_missing_picture_is_named(tmp_path, refused):
    report = Report("", Verdict("", ""), [Section("A", "", "", pictures=[tmp_path / "no.png"])])
    with refused("picture .*no.png does not exist"):
        html(report, tmp_path)


def test_a_name_has_one_colour_in_the_whole_report(tmp_path):
    shades = colors(small_report(tmp_path))
    loss, shares, *_ = charts()
    drawn = {(t["legendgroup"], t["line"]["color"]) for t in figure(loss, shades)["data"] if "marker" in t}
    assert drawn == {("0", shades["learned"]), ("1", shades["random"]), ("2", shades["learned"])}
    bars = [t["marker"]["color"] for t in figure(shares, shades)["data"] if t["type"] == "bar"]
    assert bars == [shades["random"], shades["learned"]]


def test_names_of_one_chart_differ_in_colour_when_there_are_more_names_than_colours():
    parts = [[f"{i}.{j}" for j in range(len(PALETTE) - 1)] for i in range(3)]
    drawn = [Chart(f"c{i}", "", [Series(name, [0], [0]) for name in names]) for i, names in enumerate(parts)]
    shades = colors(Report("", Verdict("", ""), [Section("A", "", "", charts=drawn)]))
    assert all(len({shades[name] for name in names}) == len(names) for names in parts)


def test_where_there_are_more_names_than_colours_those_of_one_chart_still_differ():
    first = Chart("one", "", [Series(f"name {i}", [0], [1]) for i in range(len(PALETTE))])
    second = Chart("two", "", [Series(name, [0], [1]) for name in ("name 0", "name 1", "new")])
    found = colors(Report("", Verdict("", ""), [Section("A", "", "", charts=[first, second])]))
    assert sorted(found[f"name {i}"] for i in range(len(PALETTE))) == sorted(PALETTE)
    assert found["new"] not in (found["name 0"], found["name 1"])
