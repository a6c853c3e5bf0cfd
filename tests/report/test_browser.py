"""The page in a browser that has no network."""

import shutil

import pytest
from small_report import WEEK, charts, small_report

from zoo.report import write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SIZES = {"phone": (390, 844), "laptop": (1366, 768)}


@pytest.fixture(scope="module")
def browser():
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
