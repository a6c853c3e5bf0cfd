import dataclasses
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from small_report import charts, small_report

from zoo.estimates import Estimate
from zoo.report import Report, Section, Table, Verdict, read, write
from zoo.report.colors import colors
from zoo.report.drawing import draw


@pytest.fixture
def written(tmp_path):
    report = small_report(tmp_path)
    write(report, tmp_path / "out")
    return tmp_path / "out"


def pixels(file):
    return Image.open(file).convert("RGB").tobytes()


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_a_report_is_a_page_its_data_and_its_pictures(written, tmp_path):
    files = ["figures", "report.html", "report.json", "table.md", "tables"]
    assert sorted(path.name for path in written.iterdir()) == files
    names = sorted(path.name for path in (written / "figures").iterdir())
    assert names == sorted([*(f"{chart.name}.png" for chart in charts()), "panels.png"])
    assert (written / "figures" / "panels.png").read_bytes() == (tmp_path / "panels.png").read_bytes()


def test_the_file_of_a_chart_is_its_drawing_in_the_colours_of_the_report(written, tmp_path):
    shades = colors(small_report(tmp_path))
    for chart in charts():
        file = io.BytesIO()
        draw(chart, shades).savefig(file)
        assert pixels(written / "figures" / f"{chart.name}.png") == pixels(file), chart.name


def test_the_json_is_strict_and_holds_what_was_measured(written):
    content = strict((written / "report.json").read_text("ascii"))
    assert content == read(written / "report.json") == read(written)
    assert (content["schema"], content["schema_version"]) == ("superposition-zoo/report", 2)
    first, second, third = content["sections"]
    assert first["numbers"] == {"mean": 0.5, "all": [1.0, None], "n": 3, "4": {"inf": None}}
    assert first["charts"][0]["series"][0]["y"] == [2.0, 1.0, None, 0.5, 0.25]
    assert first["charts"][0]["series"][1]["y"] == [3, 2, None, 1, None]
    assert first["tables"][0] == {
        "columns": ["class", "residual"],
        "rows": [["days", 0.12], ["`<script>bad()</script>`", 0.61]],
        "digits": 2,
        "note": "",
    }
    assert first["tables"][1] == "Some words."
    assert first["tables"][2]["rows"] == [["x", {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3}], ["y", None]]
    assert content["costs"]["rows"] == [["Learn", 1.0]]
    assert first["pictures"] == ["figures/panels.png"]
    assert [chart["name"] for chart in second["charts"]] == ["shares", "week", "cloud", "hostile", "grid"]
    assert second["charts"][3]["series"][0]["labels"][3] == "\ud800"
    assert not third["tested"]
    assert content["settings"]["seeds"] == [0, 1, 2]
    assert {"python", "torch"} <= content["versions"].keys()


def test_tables_in_markdown_stand_under_their_questions(written):
    text = (written / "table.md").read_text("utf-8")
    order = ["# Is there <more>?", "## Is it slower?", "Some words.", "## Circles?"]
    assert sorted(order, key=text.index) == order
    assert "| a \\| b | mean |\n|---|---|\n| x | 0.500 [0.250, 0.750] |\n| y | - |\n\nOver 3 seeds." in text


def test_a_report_of_version_1_is_still_read():
    content = read(Path(__file__).parent / "report_of_version_1.json")
    assert content["sections"][0]["tables"].startswith("| class |")
    assert content["costs"] == "1 minute"


def test_a_report_is_written_over_an_older_one_and_its_own_pictures_stay(written):
    old = (written / "figures" / "panels.png").read_bytes()
    report = small_report(written / "figures")
    (written / "figures" / "panels.png").write_bytes(old)
    write(dataclasses.replace(report, title="Later"), written)
    assert read(written)["title"] == "Later"
    assert (written / "figures" / "panels.png").read_bytes() == old
    assert not list(written.rglob("*.partial"))


def test_nothing_is_written_of_a_report_that_cannot_be(tmp_path, refused):
    report = small_report(tmp_path)
    with refused("no.png does not exist"):
        write(
            dataclasses.replace(report, sections=[Section("A", "", "", pictures=[tmp_path / "no.png"])]),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [s[0], s[0]], "two sections of a report have the same name A1"),
        (lambda s: [s[0], dataclasses.replace(s[1], charts=s[0].charts)], "two figures .* loss.png"),
        (
            lambda s: [dataclasses.replace(s[0], charts=[dataclasses.replace(s[0].charts[0], name="../x")])],
            "letters, digits",
        ),
    ],
)
def test_names_that_are_no_names_of_files_or_come_twice_are_refused(change, message, tmp_path, refused):
    report = small_report(tmp_path)
    with refused(message):
        write(dataclasses.replace(report, sections=change(report.sections)), tmp_path / "out")


def test_a_table_as_csv_has_the_ends_of_intervals(tmp_path):
    table = Table(["a", "b"], [["x, y", Estimate(1 / 3, 0.25, 0.5, 3)], [2, None]])
    written = f'a,b,"b, low","b, high"\n"x, y",{1 / 3},0.25,0.5\n2,,,\n'
    assert table.csv() == written
    section = Section("the part, one", "A question?", "An answer.", tables=["words", table])
    write(Report("", Verdict("An answer.", ""), [section]), tmp_path)
    assert (tmp_path / "tables" / "the-part-one.csv").read_text("utf-8") == written


GOOD = {"schema": "superposition-zoo/report", "schema_version": 1, "verdict": {}, "sections": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "not a report"),
        ('{"schema": "other"}', "not a report"),
        (json.dumps(GOOD | {"schema_version": 3}), "schema_version 3, but this zoo reads up to 2; update it"),
        (json.dumps(GOOD | {"schema_version": "1"}), "is damaged"),
        (json.dumps(GOOD | {"schema_version": True}), "is damaged"),
        (json.dumps(GOOD | {"sections": 3}), "no verdict or no sections"),
    ],
)
def test_what_is_no_report_of_a_known_version_is_refused(content, message, tmp_path, refused):
    file = tmp_path / "report.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(message):
        read(file)


def test_a_report_that_is_not_there_is_refused(tmp_path, refused):
    with refused("cannot be read"):
        read(tmp_path)


def test_the_answer_has_a_chart_of_its_own_and_says_what_was_not_tested(tmp_path):
    own = dataclasses.replace(charts()[1], name="answer")
    report = small_report(tmp_path)
    verdict = dataclasses.replace(report.verdict, chart=own, recognised="A circle.", not_tested="Spheres.")
    write(dataclasses.replace(report, verdict=verdict), tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "answer.png").is_file()
    told = read(tmp_path / "out")["verdict"]
    assert (told["recognised"], told["not_tested"], told["chart"]["name"]) == ("A circle.", "Spheres.", "answer")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.index('id="chart-of-the-answer"') < page.index("A circle.") < page.index("Spheres.")
    assert "Nothing about others." in page[page.index("Spheres.") :]
