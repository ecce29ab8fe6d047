"""A page of texts in Debian's chromium: marks without colour, contrast, a phone, no JavaScript, no request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_examples import one_rebuilt
from test_browser import CONTRAST, OVERFLOW
from text_examples import all_texts

from leakgauge.report.html import write_html

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("texts") / "leak.html"
    write_html([*all_texts(), one_rebuilt()], path)
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The open page; any console message, dialog or request other than the file itself and its data fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, trouble = context.new_page(), []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("dialog", lambda dialog: trouble.append(dialog.message))
    opened.on("request", lambda request: request.url == address or request.url.startswith("data:") or trouble.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert trouble == []


def test_what_differs_is_underlined_and_enclosed_in_signs(page: Any) -> None:
    marks = page.locator("#record-1 mark")
    assert marks.count() == 4
    assert all(text.startswith("‹") and text.endswith("›") for text in marks.all_inner_texts())
    style = marks.first.evaluate("mark => [getComputedStyle(mark).textDecorationLine, getComputedStyle(mark).fontWeight]")
    assert style == ["underline", "600"]
    row = page.locator("#record-1 .reconstruction dd").nth(1)
    assert row.inner_text() == "[CLS] the patient sleeps well and ‹gave two pills at that› morning [SEP]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out_in_light_and_dark(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ratio, element = page.evaluate(CONTRAST)
    assert ratio >= 4.5, element


def test_sort_filter_and_a_phone(page: Any) -> None:
    page.get_by_label("Sort by").select_option("psnr")
    order = page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.order)")
    assert order == ["1", "2", "4", "5", "3"], "exact, all but a word under the mask, four of five words, a picture, no original"
    page.get_by_role("radio", name="partly").check()
    assert page.locator(".card:visible").count() == 2
    page.set_viewport_size({"width": 320, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    assert page.evaluate(OVERFLOW) <= 0


def test_without_javascript_everything_is_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(address)
    assert opened.locator(".card").count() == 5
    assert opened.locator("#record-1 .original").count() == 3
    assert opened.locator("#record-1 .original:visible").count() == 3
    context.close()
