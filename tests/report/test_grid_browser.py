"""500 cells in Debian's chromium: size, first paint, keyboard, filter, sort, phone, print, and no violation by axe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grid_examples import findings, grid, large
from test_browser import CONTRAST, OVERFLOW

from leakgauge.report.comparison.match import compare
from leakgauge.report.comparison.page import write_comparison
from leakgauge.report.grid.html import render_annex, write_grid_html
from leakgauge.report.grid.page import GridPage

pytestmark = pytest.mark.browser

PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"
SHOWN = "bodies => bodies.filter(body => !body.hidden).map(body => Number(body.dataset.number))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("grid")
    return made


@pytest.fixture(scope="module")
def built(folder: Path) -> GridPage:
    return write_grid_html(findings(large()), folder / "large.html", date="2026-11-21")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    page = write_grid_html(findings(grid(seeds=1)), folder / "small.html", date="2026-11-21")
    (folder / "annex.html").write_text(render_annex(page), encoding="utf-8")
    write_grid_html(findings(grid(seeds=1)), folder / "redacted.html", redact=True, date="2026-11-21")
    write_comparison(compare(findings(grid(seeds=1)), findings(grid(seeds=1)[:9])), folder / "compared.html")
    return folder / "small.html"


@pytest.fixture
def page(browser: Any, built: GridPage, folder: Path) -> Iterator[Any]:
    """The open page of 500 cells; any message, dialog or request but the file itself fails the test."""
    address = (folder / "large.html").as_uri()
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, trouble = context.new_page(), []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda request: request.url == address or request.url.startswith("data:") or trouble.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert trouble == []


def test_500_cells_stay_below_10_mb_and_paint_within_2_s(browser: Any, built: GridPage, folder: Path) -> None:
    assert len(built.cells) == 504
    assert (folder / "large.html").stat().st_size < 10_000_000
    times = []
    for _ in range(3):
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        opened = context.new_page()
        opened.goto((folder / "large.html").as_uri())
        opened.wait_for_function(f"{PAINT} > 0")
        times.append(opened.evaluate(PAINT))
        context.close()
    assert sorted(times)[1] < 2000, times


def test_filters_say_how_many_cells_are_shown(page: Any, built: GridPage) -> None:
    count = page.locator("#count")
    assert count.inner_text() == "504 of 504 cells shown"
    page.locator("#controls select[name=status]").select_option("failed")
    failed = [view.number for view in built.cells if view.status == "failed"]
    assert page.eval_on_selector_all("#grid > tbody", SHOWN) == failed
    assert count.inner_text() == f"{len(failed)} of 504 cells shown"
    page.locator("#controls select[name=status]").select_option("")
    page.locator("#controls select[name=defence]").select_option("none")
    page.locator("#controls select[name=verdict]").select_option("rebuilt")
    wanted = [view.number for view in built.cells if view.axes["defence"] == "none" and view.verdict == "rebuilt"]
    assert page.eval_on_selector_all("#grid > tbody", SHOWN) == wanted
    page.get_by_label("Any text contains").fill("no such text")
    assert count.inner_text() == "0 of 504 cells shown"


def test_sorting_by_keyboard_and_back(page: Any, built: GridPage) -> None:
    head = page.locator("#grid thead").get_by_role("button", name="Nearest")
    head.focus()
    page.keyboard.press("Enter")
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.locator("..").get_attribute("aria-sort") == "descending"
    levels = [
        float(level) for level in page.eval_on_selector_all("#grid > tbody", "bodies => bodies.map(body => body.dataset.level)")
    ]
    assert levels == sorted(levels, reverse=True)
    page.locator("#grid thead").get_by_role("button", name="Cell").click()
    assert page.eval_on_selector_all("#grid > tbody", SHOWN) == list(range(1, 505))
    page.locator("#grid thead").get_by_role("button", name="Attack").click()
    names = page.eval_on_selector_all("#grid [data-axis=attack]", "cells => cells.map(cell => cell.textContent)")
    assert names == sorted(names)


def test_a_link_opens_its_cell_even_where_it_was_filtered_out(page: Any, built: GridPage) -> None:
    number = built.records[0].cell
    page.locator("#controls select[name=status]").select_option("failed")
    assert page.locator(f"#cell-{number}").is_hidden()
    page.locator(f'#records a[href="#cell-{number}"]').first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#cell-{number} details').open")
    assert page.locator(f"#cell-{number}").is_visible()
    assert page.evaluate("document.activeElement.id") == f"cell-{number}"
    pictures = page.locator(f"#cell-{number} img")
    pictures.first.scroll_into_view_if_needed()
    page.wait_for_function(f"[...document.querySelectorAll('#cell-{number} img')].every(image => image.naturalWidth > 0)")
    assert pictures.count() == 2


def test_details_open_by_keyboard_and_everything_shows_its_focus(page: Any) -> None:
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("[document.activeElement.tagName, document.activeElement.className, document.activeElement.hash]")
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[0][1] == "skip"
    assert ["A", "", "#annex"] in reached
    summary = page.locator("#cell-3 summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cell-3 details").get_attribute("open") is not None
    assert page.locator("#cell-3 dl.facts").is_visible()


def test_every_picture_loads(browser: Any, small: Path) -> None:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(small.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    opened.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    opened.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert opened.evaluate("document.images.length") > 40
    context.close()


@pytest.mark.parametrize("name", ["small", "redacted", "annex", "compared"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, small: Path, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(color_scheme=scheme)
    opened = context.new_page()
    opened.goto((small.parent / f"{name}.html").as_uri())
    opened.evaluate("[...document.querySelectorAll('details')].slice(0, 12).forEach(item => { item.open = true; })")
    found = axe.run(opened)
    assert found.violations_count == 0, found.generate_report()
    ratio, element = opened.evaluate(CONTRAST)
    assert ratio >= 4.5, element
    context.close()


@pytest.mark.slow
def test_axe_finds_no_violation_in_500_cells(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, small: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 700})
    opened = context.new_page()
    opened.goto(small.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    assert opened.evaluate(OVERFLOW) <= 0
    context.close()


def test_the_first_page_fits_on_one_sheet_and_has_room_to_sign(browser: Any, small: Path) -> None:
    context = browser.new_context(viewport={"width": 688, "height": 1001})  # A4 less its margins, in CSS pixels
    opened = context.new_page()
    opened.goto(small.as_uri())
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("document.querySelector('.front').getBoundingClientRect().bottom") <= 1001
    assert opened.evaluate("Math.min(...[...document.querySelectorAll('.sign div')].map(one => one.offsetHeight))") >= 30
    assert not opened.locator("#controls").is_visible()
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(opened.pdf(format="A4")) > 20_000
    context.close()


def test_without_javascript_everything_is_there(browser: Any, small: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(small.as_uri())
    assert opened.locator("#grid > tbody").count() == 18
    assert not opened.locator("#controls").is_visible()
    opened.locator("#cell-1 summary").click()
    assert opened.locator("#cell-1 dl.facts").is_visible()
    context.close()
