"""The records as a table in the terminal, and the verdict in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leakgauge.audit.architecture import Architecture
from leakgauge.audit.record import ExampleScore, Record
from leakgauge.report.by_attack import median
from leakgauge.report.layers import COUNTED, HEADINGS, architecture_rows, layer_rows
from leakgauge.report.spans import BUILT_IN, Patterns
from leakgauge.report.summary import summarise
from leakgauge.report.text_attacks import texts_table
from leakgauge.report.text_words import is_text
from leakgauge.report.words import decibels, record_verdict, similarity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"rebuilt": "bold red", "partly": "yellow", "not found": "blue"}


def framed(title: str, caption: str) -> Table:
    """An empty table in the manner of this package: title above and caption below on the left, taken as they are."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )


def records_table(records: Sequence[Record]) -> Table:
    """One line per record of pictures: attack, verdict, outcome, scores, control and labels."""
    from rich.text import Text

    table = framed("Records", "PSNR: the example that leaked most, and the median")
    table.add_column("record", overflow="fold", min_width=20)
    table.add_column("verdict", overflow="fold", min_width=9, max_width=15)
    for heading in ("worst", "median", "SSIM", "control", "labels\nright"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        verdict, worst = record_verdict(record), record.worst
        scores = record.picture_scores
        control = [score.psnr for score in record.control.scores if isinstance(score, ExampleScore)] if record.control else []
        defence = "" if record.conditions.defence == "none" else f", {record.conditions.defence}"
        table.add_row(
            Text(record.title).append(f"\n{record.attack}{defence}", style="dim"),
            Text(verdict, style=STYLES.get(verdict, "")).append(f"\n{record.outcome.lower().replace('_', ' ')}", style="dim"),
            decibels(worst.psnr) if isinstance(worst, ExampleScore) else "-",
            decibels(median([score.psnr for score in scores])) if scores else "-",
            similarity(max(score.ssim for score in scores)) if scores else "-",
            decibels(median(control)) if control else "-",
            labels_right(record),
        )
    return table


def record_tables(records: Sequence[Record]) -> list[Table]:
    """`records_table` of those about pictures, and `texts_table` of those about texts, as far as there are any."""
    pictures, texts = [one for one in records if not is_text(one)], [one for one in records if is_text(one)]
    return [*([records_table(pictures)] if pictures or not texts else []), *([texts_table(texts)] if texts else [])]


def layers_table(record: Record) -> Table:
    """How a closed form solved the network, output side first."""
    how = [(row.name, *row.cells) for row in layer_rows(record)]
    return _plain(
        HEADINGS, how, f"Layer by layer: {record.attack}", "output side first; expected error of a value of the layer's input"
    )


def architecture_table(architecture: Architecture) -> Table:
    """What a network's layers determine by counting, input side first."""
    counted = [(row.name, *row.cells[:-1]) for row in architecture_rows(architecture)]
    shape = " x ".join(map(str, architecture.shape))
    return _plain(COUNTED[:-1], counted, f"Equations of {architecture.model} on {shape}", "one picture, one gradient, no data")


def _plain(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str, caption: str) -> Table:
    """A table whose first two columns are text and whose others are numbers."""
    from rich.text import Text

    table = framed(title, caption)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="left" if place < 2 else "right", min_width=8)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def verdict_lines(records: Sequence[Record], patterns: Patterns = BUILT_IN) -> list[str]:
    """The verdict in sentences, as on the page."""
    return list(summarise(records, patterns).sentences())


def print_report(records: Sequence[Record], console: Console | None = None, patterns: Patterns = BUILT_IN) -> None:
    """Prints tables and verdict."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    for table in record_tables(records):
        console.print(table)
    for line in verdict_lines(records, patterns):
        console.print(Text(line), soft_wrap=False)


def labels_right(record: Record) -> str:
    """'3/4', or '-' where no labels were compared."""
    compared = [score for score in record.scores if score.label is not None and score.label_guess is not None]
    return f"{sum(score.label == score.label_guess for score in compared)}/{len(compared)}" if compared else "-"
