"""The page in a browser that has no network."""

import os
import shutil

import pytest
from small_report import WEEK, charts, small_report
from wide_report import MANY, QUESTIONS, wide_report

from zoo.report import write

if os.environ.get("BROWSER_TESTS") == "required":  # in continuous integration, where no test may be skipped
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SIZES = {"phone": (390, 844), "laptop": (1366, 768)}
WIDTHS = (360, 390, 768, 1366, 1920)
# Fonts as wide as Verdana and as narrow as Arial Narrow (system fonts of all systems are in between), and larger text.
# The first two are not installed everywhere, so the letters' widths are forced too.
LETTERS = {
    "own font": "",
    "wide font": "* { font-family: 'DejaVu Sans', Verdana, sans-serif !important; letter-spacing: .03em }",
    "narrow font": "* { font-family: 'Liberation Sans Narrow', 'Arial Narrow', sans-serif !important; "
    "letter-spacing: -.02em }",
    "large text": "html { font-size: 125% }",
    "large wide text": "html { font-size: 125% } * { font-family: 'DejaVu Sans', Verdana, sans-serif !important }",
}
# For every table: whether it is in the verdict, whether its scrolling box has a hint that is seen, the number of cells,
# and how far cells, and what is written in them, extend over the visible part of the table's box and over the window.
MEASURE = """() => [...document.querySelectorAll("table")].map((table) => {
  const scroll = table.parentElement, box = scroll.getBoundingClientRect(), hint = scroll.previousElementSibling;
  const cells = [...table.querySelectorAll("td")].filter((cell) => cell.textContent);
  const right = Math.min(box.left + scroll.clientWidth, document.documentElement.clientWidth);
  const over = (cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    const boxes = [cell.getBoundingClientRect(), range.getBoundingClientRect()];
    return Math.max(...boxes.map((b) => Math.max(b.right - right, box.left - b.left)));
  };
  return {
    verdict: scroll.closest(".verdict") !== null, hint: hint.offsetHeight > 0, cells: cells.length,
    smallest: Math.min(...cells.map((cell) => Math.min(cell.offsetWidth, cell.offsetHeight))),
    over: Math.max(...cells.map(over)), wide: scroll.scrollWidth - scroll.clientWidth,
  };
})"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        missing = pytest.fail if os.environ.get("BROWSER_TESTS") == "required" else pytest.skip
        missing("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write(small_report(folder), folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module", params=SIZES)
def page(browser, address, request):
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    opened = context.new_page()
    opened.complaints, opened.asked = [], []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda sent: opened.asked.append(sent.url))
    opened.goto(address)
    opened.locator("html[data-drawn]").wait_for(timeout=60_000)
    yield opened
    context.close()


def test_the_page_complains_of_nothing_and_asks_for_nothing_else(page, address):
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]


def test_every_chart_is_drawn(page):
    for chart in charts():
        plot = page.locator(f"#chart-{chart.name} .plot")
        assert plot.locator(".main-svg").count() > 0
        marks = plot.locator(".scatterlayer path, .barlayer path")
        assert marks.count() >= len(chart.series)
        box = plot.locator(".main-svg").first.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 200


def test_tables_are_filled_and_tokens_are_text(page):
    cells = ["days", "0.12", "<script>bad()</script>", "0.61", "x", "0.500 [0.250, 0.750]", "y", "-"]
    assert page.locator(".experiment td").all_text_contents() == cells
    assert page.locator("#chart-hostile .textpoint text").first.text_content() == "</script><script>bad()</script>"
    assert page.locator("#chart-hostile .legend").text_content() == "</script>tokens"


def test_pointing_at_a_token_of_a_map_shows_it(page):
    plot = page.locator("#chart-week .plot")
    plot.scroll_into_view_if_needed()
    for index in (0, 3):
        box = plot.locator(".trace").last.locator(".points path").nth(index).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        playwright.expect(plot.locator(".hoverlayer")).to_have_text(WEEK[index])


def test_the_page_never_scrolls_sideways(page):
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= seen


def test_a_name_in_the_legend_hides_and_shows_its_series(page):
    chart = page.locator("#chart-loss")
    traces, button = chart.locator(".scatterlayer .trace"), chart.locator(".legend button").first
    before = traces.count()
    button.click()
    playwright.expect(button).to_have_attribute("aria-pressed", "false")
    playwright.expect(traces).to_have_count(before - 2)  # the line and its band
    button.click()
    playwright.expect(traces).to_have_count(before)


def test_no_button_sends_a_chart_away(page):
    titles = page.locator("#chart-loss .modebar-btn").evaluate_all("all => all.map(b => b.dataset.title)")
    assert titles == ["Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]


@pytest.fixture(scope="module")
def wide_page(browser, tmp_path_factory):
    """The report with wide tables, with all charts drawn."""
    folder = tmp_path_factory.mktemp("wide")
    write(wide_report(), folder)
    opened = browser.new_page(viewport={"width": 1366, "height": 768})
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto((folder / "report.html").as_uri())
    opened.locator("html[data-drawn]").wait_for(timeout=60_000)
    yield opened
    opened.close()


@pytest.fixture
def shown(wide_page):
    """Shows the report with wide tables in a window of some width, with some style added."""

    def show(width, style=""):
        wide_page.set_viewport_size({"width": width, "height": 768})
        wide_page.evaluate("text => { document.querySelector('#added').textContent = text }", style)
        wide_page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        wide_page.wait_for_timeout(50)
        return wide_page

    wide_page.evaluate("document.head.insertAdjacentHTML('beforeend', '<style id=added></style>')")
    yield show
    wide_page.evaluate("document.querySelector('#added').remove()")


@pytest.mark.parametrize("letters", LETTERS)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_column_of_the_verdict_is_cut_and_no_other_is_hidden_without_a_hint(shown, width, letters):
    page = shown(width, LETTERS[letters])
    tables = page.evaluate(MEASURE)
    assert [table["verdict"] for table in tables] == [True, True, False, False]
    for table in tables:
        assert table["smallest"] > 5
        if table["verdict"] or not table["hint"]:
            assert table["over"] <= 0.5
            assert table["wide"] <= 0
    assert tables[0]["cells"] == sum(cell != "" for row in QUESTIONS for cell in row)
    assert tables[2]["hint"] == (tables[2]["wide"] > 0) == True  # noqa: E712 - 14 intervals are wider than any window
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.complaints == []


def test_in_a_narrow_window_every_value_of_the_verdict_stands_under_the_name_of_its_column(shown):
    page = shown(360)
    named = page.locator(".verdict table").first.evaluate(
        "table => [...table.querySelectorAll('tr:nth-child(1) td')].map(c => getComputedStyle(c, '::before').content)"
    )
    assert named == ["none", '"result, with 95 % interval"', '"it is a yes if"', '"answer"']
    tops = (
        page.locator(".verdict table")
        .first.locator("tr:nth-child(1) td")
        .evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().top)")
    )
    assert tops == sorted(set(tops))
    assert shown(1366).locator(".verdict thead").first.is_visible()


def test_a_wide_table_scrolls_to_its_last_column_beside_the_names_of_its_rows(shown):
    page = shown(390)
    box = page.locator(".experiment .box").first
    assert box.locator(".hint").text_content() == "More columns: scroll the table sideways →"
    assert "more" in box.get_attribute("class")
    left, right = box.locator("tr").nth(1).locator("td").first, box.locator("tr").nth(1).locator("td").nth(MANY)
    before = left.bounding_box()["x"]
    box.locator(".scroll").evaluate("box => { box.scrollLeft = box.scrollWidth }")
    playwright.expect(box).not_to_have_class("more")
    place, within = right.bounding_box(), box.bounding_box()
    assert place["x"] + place["width"] <= within["x"] + within["width"]
    assert abs(left.bounding_box()["x"] - before) < 2
    assert left.text_content() == "0"


def test_the_first_screen_has_the_five_answers_in_order_and_a_chart(shown):
    page = shown(1366)
    text = page.locator("main").inner_text()
    parts = [
        "What does a token embedding contain that superposition does not explain?",
        "The embedding is not explained by superposition",
        "Brackets are 95 % intervals over 3 seeds.",
        "Sums of up to 4 atoms with 5 % noise would have been recognised.",
        "Other methods of sparse coding were not tested.",
        "Does training need the embedding?",
    ]
    assert sorted(parts, key=text.index) == parts
    ends = {
        part: page.get_by_text(part).first.evaluate("part => part.getBoundingClientRect().bottom") for part in parts[:5]
    }
    assert max(ends.values()) < 768
    chart = page.locator(".verdict .plot").bounding_box()
    assert chart["y"] + chart["height"] < 768
    assert chart["width"] > 350
    phone = shown(390)
    answer = phone.locator(".headline").bounding_box()
    assert answer["y"] + answer["height"] < 768


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_stay_inside_the_window_and_keep_room_for_their_data(wide_page, width):
    wide_page.set_viewport_size({"width": width, "height": 768})
    wide_page.reload()
    wide_page.locator("html[data-drawn]").wait_for(timeout=60_000)
    assert wide_page.locator(".plot").count() == 4
    for plot in wide_page.locator(".plot").all():
        box, area = plot.bounding_box(), plot.locator(".nsewdrag").first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert area["width"] > 0.5 * box["width"]
        assert area["height"] > 0.35 * box["height"]
