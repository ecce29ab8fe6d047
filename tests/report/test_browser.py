"""The page in Debian's chromium: pictures, filter, sort, slider, keyboard, phone, dark, print, and no request at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leakgauge.audit.record import Record
from leakgauge.report.html import write_html

pytestmark = pytest.mark.browser

CONTRAST = """() => {
  const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => channels(colour).slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const alpha = channels(colour)[3];
      if (alpha === undefined || alpha > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let worst = [100, ""];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest("svg")) continue;
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.className + " " + element.textContent.slice(0, 40)];
  }
  return worst;
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def address(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "leak.html"
    write_html(records, path)
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The open page; any console message, dialog or request other than the file itself and its data fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, trouble = context.new_page(), []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("dialog", lambda dialog: trouble.append(dialog.message))
    opened.on(
        "request", lambda request: request.url in (address,) or request.url.startswith("data:") or trouble.append(request.url)
    )
    opened.goto(address)
    yield opened
    context.close()
    assert trouble == []


def shown(page: Any) -> list[str]:
    titles: list[str] = page.eval_on_selector_all(".card:not([hidden])", "cards => cards.map(card => card.dataset.order)")
    return titles


def test_every_picture_loads(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) > 50
    assert min(widths) > 0


def test_filter_by_verdict_and_by_attack_and_say_how_many(page: Any, records: list[Record]) -> None:
    assert page.locator("#controls").is_visible()
    page.get_by_role("radio", name="partly").check()
    assert shown(page) == ["6"]
    assert page.locator("#count").inner_text() == f"1 of {len(records)} records shown"
    page.get_by_role("radio", name="all").check()
    page.get_by_label("Attack contains").fill("INVERTING")
    assert shown(page) == ["2"]
    page.get_by_label("Attack contains").fill("no such attack")
    assert page.locator("#count").inner_text() == f"0 of {len(records)} records shown"


def test_sort_and_back(page: Any, records: list[Record]) -> None:
    order = [str(place) for place in range(1, len(records) + 1)]
    assert shown(page) == order
    page.get_by_label("Sort by").select_option("psnr")
    assert shown(page)[0] == "2"
    assert sorted(shown(page), key=int) == order
    page.get_by_label("Sort by").select_option("seconds")
    assert shown(page)[0] == "3"
    page.get_by_label("Sort by").select_option("order")
    assert shown(page) == order


def test_the_slider_changes_picture_and_text_by_keyboard(page: Any) -> None:
    slider = page.get_by_role("slider", name="Strength")
    current = page.locator(".step.current")
    assert current.count() == 1
    before, text = current.locator("img").get_attribute("src"), page.locator(".slider output").inner_text()
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert current.locator("img").get_attribute("src") != before
    assert page.locator(".slider output").inner_text() != text
    assert "standard deviation 0.1" in slider.get_attribute("aria-valuetext")
    assert "not found" in slider.get_attribute("aria-valuetext")
    page.keyboard.press("Home")
    assert current.locator("img").get_attribute("src") == before


def test_everything_that_works_can_be_reached_by_tabulator_and_shows_focus(page: Any) -> None:
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("[document.activeElement.tagName, document.activeElement.id || document.activeElement.className]")
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    names = [name for _, name in reached]
    assert names[0] == "skip"
    assert names.index("sweep-1-range") < names.index("attack-filter") < names.index("sort")
    assert ["SUMMARY", ""] in reached
    page.locator("#record-1 summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#record-1 details").first.get_attribute("open") is not None


def test_a_link_to_a_filtered_record_shows_it_again(page: Any) -> None:
    page.get_by_role("radio", name="partly").check()
    page.get_by_role("link", name="See record 2").click()
    page.wait_for_function("!document.getElementById('record-2').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ratio, element = page.evaluate(CONTRAST)
    assert ratio >= 4.5, element
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 25)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 360, 768])
def test_a_phone_needs_no_sideways_scrolling(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    assert page.evaluate(OVERFLOW) <= 0


def test_print_shows_every_strength_and_no_controls(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 700, "height": 900})
    assert not page.locator("#controls").is_visible()
    assert not page.get_by_role("slider").is_visible()
    assert page.locator(".step:visible").count() == 5
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.evaluate(OVERFLOW) <= 0
    assert len(page.pdf()) > 10_000


def test_without_javascript_everything_is_there(browser: Any, address: str, records: list[Record]) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(address)
    assert opened.locator(".card").count() == len(records)
    assert opened.locator(".step:visible").count() == 5
    assert not opened.locator("#controls").is_visible()
    assert not opened.locator(".slider").is_visible()
    context.close()
