"""Leakage per round and client in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from leakgauge.audit.recordings import Leakage
from leakgauge.report.terminal import STYLES, framed
from leakgauge.report.text_words import percent
from leakgauge.report.words import decibels

if TYPE_CHECKING:
    from rich.table import Table


UNSCORED = (
    "no truth was given: what the attack itself can say. Off by: relative distance between the recorded update and the one "
    "recomputed from the reconstruction"
)


def leakage_table(lines: Sequence[Leakage]) -> Table:
    """Clients as rows, rounds as columns; in each field the example that leaked most."""
    scored = any(line.verdict for line in lines)
    meaning = "PSNR, SSIM and RDLV (where a prior is known) of the example that leaked most"
    table = framed("Leakage per round and client", meaning if scored else UNSCORED)
    rounds = sorted({line.round for line in lines}, key=lambda number: (number is None, number or 0))
    table.add_column("client", overflow="fold")
    for number in rounds:
        table.add_column("round ?" if number is None else f"round {number}", overflow="fold", min_width=10)
    for client in dict.fromkeys(line.client for line in lines):
        cells = []
        for number in rounds:
            cell = Text("\n").join(_field(line) for line in lines if line.client == client and line.round == number)
            cells.append(cell if cell.plain else Text("-"))
        table.add_row(Text(client or "?"), *cells)
    return table


def _field(line: Leakage) -> Text:
    if not line.verdict:
        certified = f"{line.certified} certified" if line.certified else ("explains it" if line.explains else "")
        words = line.outcome.lower().replace("_", " ")
        away = "" if math.isnan(line.residual) else f"off by {line.residual:.1e}"
        return Text(", ".join(filter(None, (words, certified, away))))
    if not math.isnan(line.token_accuracy):
        return Text(f"{line.verdict}, {percent(line.token_accuracy)} of the tokens", style=STYLES.get(line.verdict, ""))
    values = [line.verdict, decibels(line.psnr)]
    values += [] if math.isnan(line.ssim) else [f"SSIM {line.ssim:.2f}"]
    values += [] if math.isnan(line.rdlv) else [f"RDLV {line.rdlv:.2f}"]
    return Text(", ".join(values), style=STYLES.get(line.verdict, ""))
