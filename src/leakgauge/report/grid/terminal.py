"""An audit on a terminal: the sentence, counts, and a line for each group and for each exposed record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakgauge.audit.verdict.words import NOT_FOUND, ORDER
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.front import coverage
from leakgauge.report.grid.groups import HEADINGS, group_rows
from leakgauge.report.grid.words import chance
from leakgauge.report.words import count, sentence

if TYPE_CHECKING:
    from rich.console import Console

MOST = 20


def print_findings(findings: Findings, console: Console) -> None:
    """Prints what the first page says, and tables."""
    from rich.table import Table
    from rich.text import Text

    judgement = findings.judgement
    console.print(Text(sentence(judgement.sentence), style="bold"))
    for line in coverage(findings):
        console.print(Text(line))
    counted = ", ".join(f"{judgement.counts[name]} {name}" for name in ORDER if judgement.counts.get(name))
    console.print(Text(f"Private records: {counted or 'none'}."))
    exposed = [
        (number, entry)
        for number, entry in enumerate(judgement.records, start=1)
        if entry.verdict not in (NOT_FOUND, "not attackable")
    ]
    exposed.sort(key=lambda pair: ORDER.index(pair[1].verdict))
    if exposed:
        table = Table(
            "Record", "Verdict", "Rank", "Corrected p", title="Private records, the most exposed first", title_justify="left"
        )
        for number, entry in exposed[:MOST]:
            verdict = entry.verdict if entry.realistic else f"{entry.verdict} (diagnostic)"
            rank = f"{entry.rank} of {entry.decoys + 1}" if entry.rank else "not tested"
            table.add_row(Text(f"{number} {entry.name}".strip()), verdict, rank, chance(entry.adjusted))
        console.print(table)
        if len(exposed) > MOST:
            console.print(Text(f"and {count(len(exposed) - MOST, 'more record')}"))
    rows = group_rows(findings)
    if rows:
        table = Table(*HEADINGS[:6], HEADINGS[-1], title="Attacks and defences", title_justify="left")
        for row in rows[:MOST]:
            table.add_row(*(Text(text) for text in (row.name, *row.cells[:5], row.cells[-1])))
        console.print(table)
    for line in judgement.not_testable:
        console.print(Text(sentence(line)))
