"""The page in a real browser: it renders, sorts, filters and prints, and no name is run."""

from __future__ import annotations

import base64
import functools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gelkit.report.contents import read_contents
from gelkit.report.page import render_page, write_report

if TYPE_CHECKING:
    from conftest import Comparison

selenium = pytest.importorskip("selenium", reason="needs selenium, of the extra 'test'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.exhaustive("browser"),
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None, reason="needs Chromium and its chromedriver"
    ),
]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, NARROW_DESK, DESK = 390, 1200, 1280
HEADING = "#results thead th:nth-child({})"
ROWS = "return [...document.querySelectorAll('#results tbody tr')]"


@pytest.fixture(scope="module")
def report(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report that is written as users have it written."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(comparison.out, comparison.cache, destination=folder / "report.html")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a running browser with a profile of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=str(CHROMEDRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium: Any, report: Path) -> Any:
    """Return a browser that shows the report at a desk's width, in light colours."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    _show(chromium, report, DESK)
    return chromium


def _show(chromium: Any, report: Path, width: int, **media: Any) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.get(report.as_uri())


def _shown_ids(opened: Any) -> list[int]:
    return list(
        map(
            int,
            opened.execute_script(
                f"{ROWS}.filter(row => !row.hidden).map(row => row.cells[0].dataset.value)"
            ),
        )
    )


def _values(opened: Any, column: int) -> list[str]:
    script = f"{ROWS}.map(row => row.cells[{column}].dataset.value)"
    return list(opened.execute_script(script))


def _find(opened: Any, selector: str) -> Any:
    return opened.find_element("css selector", selector)


def test_it_renders_without_errors_or_requests_and_no_name_is_run(
    opened: Any, report: Path
) -> None:
    """The report would be broken, call home, or run what somebody called a file."""
    assert opened.get_log("browser") == []
    messages = [json.loads(its["message"])["message"] for its in opened.get_log("performance")]
    sent = [its["params"] for its in messages if its["method"] == "Network.requestWillBeSent"]
    first_tab = "chrome://"  # the browser's own, before the report is opened in it
    wanted = {its["request"]["url"] for its in sent if not its["documentURL"].startswith(first_tab)}
    assert report.as_uri() in wanted
    assert [url for url in wanted if not url.startswith((report.as_uri(), "data:image"))] == []
    assert opened.execute_script("return window.pwned === undefined")
    text = opened.execute_script("return document.body.innerText")
    assert "<img src=x onerror=window.pwned=1>" in text
    assert opened.execute_script(
        "return [...document.images].every(its => its.src.startsWith('data:') && its.naturalWidth)"
    )
    assert opened.execute_script("return document.querySelectorAll('.plot svg').length") == 10


def test_the_policy_stops_a_script_that_got_in(chromium: Any, report: Path, tmp_path: Path) -> None:
    """One forgotten escape would be enough to run foreign code."""
    planted = "<img src=x onerror='window.pwned=1'><script>window.pwned = 2</script></main>"
    page = report.read_text().replace("</main>", planted)
    (tmp_path / "planted.html").write_text(page)
    _show(chromium, tmp_path / "planted.html", DESK)
    assert chromium.execute_script("return window.pwned === undefined")
    assert any("Content Security Policy" in its["message"] for its in chromium.get_log("browser"))


def test_a_click_on_a_heading_sorts_and_says_so(opened: Any) -> None:
    """A user could not find the fastest, or not tell by what the table is sorted."""
    before = list(map(float, _values(opened, 5)))
    assert before == sorted(before, reverse=True)
    heading = _find(opened, HEADING.format(1))
    button = _find(opened, f"{HEADING.format(1)} button")
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert _shown_ids(opened) == [15, 13, 3, 1]
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert _shown_ids(opened) == [1, 3, 13, 15]
    assert len(opened.find_elements("css selector", "#results [aria-sort]")) == 1
    _find(opened, f"{HEADING.format(4)} button").click()
    assert _values(opened, 3) == ["multi", "multi", "single", "single"]


def test_the_keyboard_reaches_and_operates_sorting(opened: Any) -> None:
    """Someone without a mouse could not sort."""
    from selenium.webdriver.common.keys import Keys

    _find(opened, HEADING.format(2)).find_element("css selector", "button")
    _find(opened, "#filters input").send_keys(Keys.TAB)
    for _ in range(20):
        focused = opened.switch_to.active_element
        if focused.tag_name == "button" and "Hardware" in focused.text:
            break
        focused.send_keys(Keys.TAB)
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert opened.execute_script(outline) == "solid"
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert _values(opened, 1) == ["cpu", "cpu", "tpu", "tpu"]
    opened.switch_to.active_element.send_keys(Keys.SPACE)
    assert _values(opened, 1) == ["tpu", "tpu", "cpu", "cpu"]


def test_the_skip_link_is_first_and_leads_to_the_report(opened: Any) -> None:
    """A keyboard user would walk through all links on each visit."""
    from selenium.webdriver.common.keys import Keys

    _find(opened, "body").send_keys(Keys.TAB)
    focused = opened.switch_to.active_element
    assert focused.text == "Skip to the report"
    focused.send_keys(Keys.ENTER)
    assert opened.execute_script("return document.activeElement.id") == "main"


def test_filters_hide_what_was_not_asked_for_and_count(opened: Any) -> None:
    """A user could not look at one backbone or head alone."""
    select = _find(opened, "#filters select[name=classifier-head]")
    select.send_keys("multi")
    assert sorted(_shown_ids(opened)) == [3, 15]
    assert _find(opened, "#count").text == "2 of 4 shown"
    _find(opened, "#filters input").send_keys("TPU")
    assert _shown_ids(opened) == [15]
    assert _find(opened, "#count").text == "1 of 4 shown"
    _find(opened, "#filters input").send_keys(" nonsense")
    assert _shown_ids(opened) == []


def test_the_whole_table_is_seen_at_once_on_a_desk(
    chromium: Any, comparison: Comparison, tmp_path: Path
) -> None:
    """The last columns would be cut, beside paragraphs that leave half of the width empty."""
    contents = read_contents(comparison.out, comparison.cache)
    tested = contents.results.assign(test_accuracy=0.875, test_difference_p=0.0421)
    page = render_page(replace(contents, results=tested), (), thumbnails=False)
    (tmp_path / "tested.html").write_bytes(page.encode(errors="replace"))
    _show(chromium, tmp_path / "tested.html", NARROW_DESK)
    table = "const its = document.getElementById('results'); return "
    assert chromium.execute_script(f"{table} its.rows[0].cells.length") == 14
    assert chromium.execute_script(f"{table} its.scrollWidth <= its.parentElement.clientWidth")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_text_can_be_read(
    chromium: Any, report: Path, width: int, scheme: str
) -> None:
    """On a phone one would scroll sideways to read a line; in the dark, grey on grey."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    _show(chromium, report, width, features=features)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    faint = chromium.execute_script(CONTRASTS)
    assert faint == []


CONTRASTS = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (its) => {
  for (let e = its; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
};
const faint = [];
for (const its of document.querySelectorAll('body *')) {
  if (its.closest('svg') || its.closest('.skip') || !its.innerText || its.children.length) continue;
  const tones = [light(parse(getComputedStyle(its).color)), light(behind(its))].sort();
  const ratio = (Math.max(...tones) + 0.05) / (Math.min(...tones) + 0.05);
  if (ratio < 4.5) faint.push([its.innerText, ratio]);
}
return faint;
"""
"""Names text whose contrast is below 4.5 (WCAG 2.2, 1.4.3)."""


def test_print_leaves_out_what_paper_cannot_do(opened: Any) -> None:
    """Paper would show buttons and filters, or white text on white."""
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    style = functools.partial(
        opened.execute_script,
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
    )
    assert style("nav", "display") == style("#filters", "display") == "none"
    assert style("body", "color") == "rgb(0, 0, 0)"
    assert style(".scroll", "overflow") == "visible"
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_what_belongs_to_the_report_lies_beside_it(report: Path) -> None:
    """A user could not put a plot into a paper, or open the images to recheck."""
    assert report.with_name("recheck.csv").is_file()
    plots = {path.suffix for path in (report.parent / "plots").iterdir()}
    assert plots == {".svg", ".png"}
    assert report.stat().st_size < 5_000_000
