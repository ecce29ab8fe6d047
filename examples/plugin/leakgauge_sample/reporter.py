"""A reporter: records as a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from leakgauge.audit.record import Record


def markdown(redact: bool = False) -> Callable[[Sequence[Record], str | Path], None]:
    """A Markdown table of the records, one line each."""

    def write(records: Sequence[Record], path: str | Path) -> None:
        lines = ["| attack | outcome | best PSNR |", "| --- | --- | --- |"]
        for record in records:
            best = max((score.psnr for score in record.picture_scores), default=float("nan"))
            title = record.attack if redact else f"{record.attack}: {record.title}"
            lines.append(f"| {title.replace('|', '/')} | {record.outcome.lower()} | {best:.1f} dB |")
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return write
