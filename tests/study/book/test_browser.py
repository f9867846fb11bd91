"""The built pages as a reader sees them: in a browser, from disk, without a network."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHARTS_EACH = 2  # in each chapter of the small book


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver here: install both to test pages in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    arguments = (
        "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage "
        "--no-first-run --disable-background-networking --disable-component-update --disable-sync "
        "--proxy-server=127.0.0.1:9 --window-size=1300,1000"
    )
    for argument in (
        *arguments.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver))
    driver.get("data:,")
    driver.get_log("performance")
    yield driver
    driver.quit()


@pytest.fixture
def phone(browser):
    """The browser with a window 390 pixels wide."""
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def visit(browser, page):
    """Open ``page`` and wait until each of its charts has been drawn or has failed."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    settled = "return document.querySelectorAll('.chart:not([data-drawn])').length === 0"
    loaded = "return document.readyState === 'complete'"
    wait = WebDriverWait(browser, 20, poll_frequency=0.05)
    wait.until(lambda b: b.execute_script(loaded) and b.execute_script(settled))


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def fetched(browser):
    """Return the addresses that the page loaded, other than files of the book."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses = [a["request"]["url"] for a in asked if a.get("documentURL", "").startswith("file")]
    return [a for a in addresses if not a.startswith(("file:", "data:", "blob:"))]


def charts(browser):
    return browser.execute_script(
        """return [...document.querySelectorAll('.chart')].map(box => ({
             drawn: box.dataset.drawn,
             marks: box.querySelectorAll('svg.marks path').length,
             pictures: [...box.querySelectorAll('img')].map(i => i.naturalWidth * i.height),
             overflow: box.scrollWidth - box.clientWidth,
           }))"""
    )


def pages_of(html):
    found = [*html.glob("*.html"), *html.glob("book/**/*.html")]
    assert len(found) >= 9
    return sorted(found)


def test_every_page_draws_without_network_or_console_errors(browser, html):
    seen = 0
    for page in pages_of(html):
        visit(browser, page)
        assert complaints(browser) == [], page
        assert fetched(browser) == [], page
        for chart in charts(browser):
            seen += 1
            assert chart["drawn"] == "true", page
            assert chart["marks"] > 3, page
            assert chart["pictures"] == [], page
        broken = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
        assert browser.execute_script(broken) == [], page
    assert seen == 3 * CHARTS_EACH


def test_a_wide_chart_fills_the_page_without_overflow(browser, html):
    try:
        for width in (1300, 500):
            browser.set_window_size(width, 1000)
            visit(browser, html / "book" / "results" / "corpus.html")
            assert charts(browser)[1]["overflow"] <= 1
            spill = "return document.documentElement.scrollWidth - innerWidth"
            assert browser.execute_script(spill) <= 0
    finally:
        browser.set_window_size(1300, 1000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_page_shows_its_figures_on_a_phone(phone, html, theme):
    """At 390 pixels: no sideways scroll, and every mark is inside the page and visible."""
    visit(phone, html / "book" / "index.html")
    phone.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    root = "document.documentElement"
    assert phone.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    figures = phone.execute_script(
        """const ground = getComputedStyle(document.body).backgroundColor;
           return [...document.querySelectorAll('.forest')].map(figure => ({
             rows: [...figure.querySelectorAll('svg[role=img]')].map(svg => {
               const mark = svg.querySelector('.mark'), box = mark.getBoundingClientRect();
               const strip = svg.getBoundingClientRect();
               return {width: strip.width, left: box.left, right: box.right,
                       high: box.top >= strip.top && box.bottom <= strip.bottom,
                       seen: getComputedStyle(mark).fill !== ground};
             }),
             texts: [...figure.querySelectorAll('text, span')]
               .map(text => text.getBoundingClientRect())
               .every(box => box.left >= 0 && box.right <= 390),
           }))"""
    )
    assert [len(figure["rows"]) for figure in figures] == [2, 2, 2, 2]
    for figure in figures:
        assert figure["texts"]
        for row in figure["rows"]:
            assert row["width"] > 200
            assert 0 <= row["left"] < row["right"] <= 390
            assert row["high"]
            assert row["seen"]


@pytest.mark.parametrize("page", ["method", "reference/index", "reference/losses"])
def test_a_page_of_code_and_equations_fits_a_phone(phone, html, page):
    """No sideways scroll; a part wider than the page shows its beginning, not its end."""
    visit(phone, html / "book" / f"{page}.html")
    root = "document.documentElement"
    assert phone.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    starts = phone.execute_script(
        """return [...document.querySelectorAll('div.math > math, dt.sig')]
             .map(part => part.getBoundingClientRect().left)"""
    )
    assert all(start >= 0 for start in starts)
    assert starts or page == "reference/index"


def test_equations_use_the_font_in_the_book(browser, html):
    visit(browser, html / "book" / "method.html")
    ready = "return document.fonts.check('16px \"STIX Two Math\"', '∑')"
    WebDriverWait(browser, 10).until(lambda b: b.execute_script(ready))
    assert complaints(browser) == []


@pytest.fixture
def broken(html, tmp_path):
    """A copy of the pages, which a test may break."""
    return shutil.copytree(html, tmp_path / "broken")


@pytest.mark.parametrize("script", ["charts.js", "vega-lite-*.js"])
def test_without_a_script_a_page_shows_the_static_pictures(browser, broken, script):
    for path in (broken / "_static").glob(script):
        path.unlink()
    browser.get((broken / "book" / "results" / "corpus.html").as_uri())
    loaded = "return [...document.images].every(i => i.complete)"
    WebDriverWait(browser, 10).until(lambda b: b.execute_script(loaded))
    assert complaints(browser) != []
    found = charts(browser)
    assert len(found) == CHARTS_EACH
    for chart in found:
        assert chart["drawn"] != "true"
        assert len(chart["pictures"]) == 1
        assert chart["pictures"][0] > 10_000


def test_a_chart_that_cannot_be_drawn_keeps_its_picture_and_reports_it(browser, broken):
    page = broken / "book" / "results" / "corpus.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace('"mark": {"type": "bar"}', '"mark": {"type": "no mark"}', 1))
    visit(browser, page)
    failed, drawn = charts(browser)
    assert failed["drawn"] == "false"
    assert failed["pictures"][0] > 10_000
    assert drawn["drawn"] == "true"
    assert any("could not be drawn" in message for message in complaints(browser))
