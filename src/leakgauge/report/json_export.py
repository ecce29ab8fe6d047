"""The report as strict JSON: the verdict, the records, and a list of every picture on the page with what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leakgauge.audit.architecture import Architecture
from leakgauge.audit.folder import record_to_json, strict_json
from leakgauge.audit.record import Record
from leakgauge.report.files import write_text
from leakgauge.report.gallery import pictures_of
from leakgauge.report.page import Page, build_page
from leakgauge.report.spans import BUILT_IN, Patterns
from leakgauge.report.words import example_verdict, record_verdict


def to_json(
    records: Sequence[Record], redact: bool = False, architectures: Sequence[Architecture] = (), patterns: Patterns = BUILT_IN
) -> dict[str, Any]:
    """`{"verdict": ..., "records": [...]}` of the page that `render_html` would make.

    Pictures themselves are not in it. Each list entry has the SHA-256 of the PNG file that the page shows; `verdict.pictures`
    lists those of the first screen and of the sliders, each record's `pictures` those of its card.

    Args:
        records: what to report.
        redact: leave out what a redacted page leaves out.
        architectures: networks that were counted; they stand in `verdict.architectures`.
        patterns: of identifying spans in texts; the counts stand in `verdict.spans` and in each record's `spans`.
    """
    return page_to_json(build_page(records, redact, architectures, patterns))


def page_to_json(page: Page) -> dict[str, Any]:
    """A page that is already built, as strict JSON."""
    verdict = page.summary.to_json()
    if page.summary.worst is not None:
        verdict["worst"]["key"] = page.records[page.summary.worst.record].key
    verdict["redacted"] = page.redacted
    verdict["architectures"] = strict_json([asdict(one) for one in page.architectures])
    verdict["pictures"] = [{"record": page.records[number - 1].key} | picture.to_json() for number, picture in page.repeated]
    pictures = {card.number: [picture.to_json() for picture in pictures_of(card.examples)] for card in page.cards}
    records = []
    for number, record in enumerate(page.records, start=1):
        entry = record_to_json(record)
        for score, written in zip(record.scores, entry["scores"], strict=True):
            written["verdict"] = example_verdict(record, score)
        entry |= {"verdict": record_verdict(record), "pictures": pictures.get(number, [])}
        records.append(entry | {"spans": [asdict(count) for count in page.spans[number - 1]] if page.spans else []})
    return {"verdict": verdict, "records": records}


def write_json(
    records: Sequence[Record],
    path: str | Path,
    redact: bool = False,
    architectures: Sequence[Architecture] = (),
    patterns: Patterns = BUILT_IN,
) -> None:
    """Writes `to_json` to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    content = to_json(records, redact, architectures, patterns)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
