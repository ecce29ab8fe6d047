"""The page over a grid as one self-contained HTML file, and its annex as another."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from leakgauge.audit.run.result import STATUSES
from leakgauge.report import text_words, words
from leakgauge.report.files import write_text
from leakgauge.report.grid.annex import NO_CONCLUSION, write_annex
from leakgauge.report.grid.cells import NO_RESULT
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.groups import HEADINGS, PATIENT_HEADINGS
from leakgauge.report.grid.page import GridPage, build_grid_page
from leakgauge.report.grid.redaction import EXPLANATION
from leakgauge.report.html import render_template

ANNEX_TITLE = "Annex: technical facts for a data-protection impact assessment"


def today() -> str:
    """The date in UTC, as 'YYYY-MM-DD'."""
    return datetime.now(UTC).date().isoformat()


def render_grid_page(page: GridPage, *, date: str = "") -> str:
    """A page that is already built, as text."""
    verdicts = dict.fromkeys(view.verdict for view in page.cells)
    statuses = {view.status for view in page.cells}
    known = (words.REBUILT, words.PARTLY, words.NOT_FOUND, words.UNKNOWN, words.CONTROL, NO_RESULT)
    texts, pictures = _kinds(page)
    return render_template(
        "grid.html.j2",
        page=page,
        date=date,
        redaction=EXPLANATION if page.redacted else "",
        verdicts=[name for name in known if name in verdicts],
        statuses=[name for name in STATUSES if name in statuses],
        group_headings=HEADINGS,
        patient_headings=PATIENT_HEADINGS,
        no_conclusion=NO_CONCLUSION,
        scales=[
            *([words.RULE, words.SCALE] if pictures or not texts else []),
            *([f"{text_words.TEXT_RULE}.", text_words.TEXT_SCALE] if texts else []),
        ],
    )


def write_grid_html(
    findings: Findings, path: str | Path, *, redact: bool = False, date: str | None = None, title: str = ""
) -> GridPage:
    """Writes the page to a file, and returns what it shows.

    Args:
        findings: results and what they say.
        path: where to.
        redact: leave out originals, names, places and what comes near an original.
        date: when the report is made; today by default.
        title: heading; made from the plan's name by default.

    Raises:
        DataError: if the file cannot be written.
    """
    made = today() if date is None else date
    page = build_grid_page(findings, redact=redact, date=made, title=title)
    write_text(path, render_grid_page(page, date=made))
    return page


def render_annex(page: GridPage, *, date: str = "") -> str:
    """The annex alone, as a page of its own."""
    return render_template(
        "grid_annex.html.j2", annex_parts=page.annex, no_conclusion=NO_CONCLUSION, date=date, title=ANNEX_TITLE
    )


def write_page_annex(page: GridPage, path: str | Path, *, date: str = "") -> None:
    """Writes the annex: Markdown where the name ends in .md, else HTML.

    Raises:
        DataError: if the file cannot be written.
    """
    write_annex(page.annex, path, ANNEX_TITLE, lambda: render_annex(page, date=date))


def _kinds(page: GridPage) -> tuple[bool, bool]:
    """Whether there are texts, and whether there are pictures."""
    records = [result.record for result in page.findings.results if result.record is not None]
    return any(map(text_words.is_text, records)), any(not text_words.is_text(record) for record in records)
