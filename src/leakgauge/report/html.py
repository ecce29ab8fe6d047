"""One self-contained HTML page for people: no outside address, no need for JavaScript, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakgauge.audit.architecture import Architecture
from leakgauge.audit.record import Record
from leakgauge.report import layers, redaction, text_attacks, text_redaction, text_words, words
from leakgauge.report.files import write_text
from leakgauge.report.page import Page, build_page
from leakgauge.report.spans import BUILT_IN, Patterns

if TYPE_CHECKING:
    from jinja2 import Environment

TITLE = "What could be rebuilt from what a client shares"
INVISIBLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127, *range(8203, 8208), *range(8234, 8239), *range(8294, 8298)))


def render_html(
    records: Sequence[Record],
    *,
    title: str = TITLE,
    redact: bool = False,
    date: str | None = None,
    architectures: Sequence[Architecture] = (),
    patterns: Patterns = BUILT_IN,
) -> str:
    """The page as text.

    Args:
        records: what to report, in the order of the cards.
        title: heading of the page.
        redact: leave out originals and what comes near them (see `redaction`).
        date: shown beneath the title where given; the page is the same bytes for the same arguments.
        architectures: networks that were counted.
        patterns: of identifying spans in texts.
    """
    return render_page(build_page(records, redact, architectures, patterns), title=title, date=date)


def render_page(page: Page, *, title: str = TITLE, date: str | None = None) -> str:
    """A page that is already built, as text."""
    texts, pictures = (any(text_words.is_text(record) is kind for record in page.records) for kind in (True, False))
    explained = " ".join(filter(None, (redaction.EXPLANATION, text_redaction.EXPLANATION if texts else "")))
    return render_template(
        "page.html.j2",
        page=page,
        summary=page.summary,
        title=title,
        date=date,
        layers=layers,
        redaction=explained if page.redacted else "",
        scales=[*([words.SCALE] if pictures or not texts else []), *([text_words.TEXT_SCALE] if texts else [])],
        texts=texts,
        text_headings=text_attacks.HEADINGS,
    )


def render_template(name: str, **values: Any) -> str:
    """One of our templates as text, everything escaped."""
    return _environment().get_template(name).render(words=words, **values)


def write_html(
    records: Sequence[Record],
    path: str | Path,
    redact: bool = False,
    *,
    title: str = TITLE,
    date: str | None = None,
    architectures: Sequence[Architecture] = (),
    patterns: Patterns = BUILT_IN,
) -> None:
    """Writes the page to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, render_html(records, title=title, redact=redact, date=date, architectures=architectures, patterns=patterns))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: Any) -> Any:
        """Drops control characters and those that turn the direction of text around."""
        return value.translate(INVISIBLE) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("leakgauge.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = Markup  # for our own SVG only; everything else is escaped
    environment.filters["sentence"] = words.sentence
    environment.filters["number"] = words.number
    return environment
