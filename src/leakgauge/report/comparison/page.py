"""A comparison as a page, as JSON and as lines of text."""

from __future__ import annotations

import json
from pathlib import Path

from leakgauge.report.comparison.match import BETTER, CHANGED, WORSE, Comparison
from leakgauge.report.files import write_text
from leakgauge.report.grid.axes import axis_name
from leakgauge.report.html import render_template
from leakgauge.report.words import count, sentence

TITLE = "Two audits compared"
HEADINGS = ("What", "Measure", "Before", "Now")
MOST = 2000
PARTS = ((WORSE, "More leaks now"), (CHANGED, "Ended differently"), (BETTER, "Less leaks now"))


def headline(comparison: Comparison) -> str:
    """The result in one sentence."""
    numbers = {kind: len(comparison.of(kind)) for kind, _ in PARTS}
    if comparison.empty:
        return f"No difference in {count(comparison.matched, 'matched cell')}."
    words = [f"{numbers[WORSE]} worse", f"{numbers[BETTER]} better"]
    words += [f"{numbers[CHANGED]} ended differently"] if numbers[CHANGED] else []
    for side, titles in ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after)):
        words += [f"{count(len(titles), 'cell')} only in {side}"] if titles else []
    return f"{count(comparison.matched, 'matched cell')}: {', '.join(words)}."


def swaps(comparison: Comparison) -> tuple[str, ...]:
    """What was changed between the runs, in sentences."""
    return tuple(sentence(f"{axis_name(axis)}: {old} before, {new} now") for axis, old, new in comparison.axes)


def lines(comparison: Comparison, most: int = 20) -> list[str]:
    """The comparison as lines of text, at most so many of each kind."""
    told = [headline(comparison), *swaps(comparison)]
    for kind, _ in PARTS:
        changes = comparison.of(kind)
        told += [f"{kind}: {change.text}" for change in changes[:most]]
        if len(changes) > most:
            told.append(f"{kind}: and {len(changes) - most} more")
    for side, titles in ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after)):
        told += [f"only in {side}: {title}" for title in titles[:most]]
        if len(titles) > most:
            told.append(f"only in {side}: and {len(titles) - most} more")
    return told


def render_comparison(comparison: Comparison, *, date: str = "") -> str:
    """The comparison as a self-contained page."""
    return render_template(
        "comparison.html.j2",
        comparison=comparison,
        title=TITLE,
        date=date,
        headline=headline(comparison),
        swaps=swaps(comparison),
        parts=[(title, comparison.of(kind)[:MOST], max(0, len(comparison.of(kind)) - MOST)) for kind, title in PARTS],
        headings=HEADINGS,
    )


def write_comparison(comparison: Comparison, path: str | Path, *, date: str = "") -> None:
    """Writes the page to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, render_comparison(comparison, date=date))


def write_comparison_json(comparison: Comparison, path: str | Path) -> None:
    """Writes the comparison as strict JSON.

    Raises:
        DataError: if the file cannot be written.
    """
    entries = comparison.to_json() | {"headline": headline(comparison), "empty": comparison.empty}
    write_text(path, json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
