"""`leakgauge list`: what there is, by name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from leakgauge.cli.options import Json


class Catalogue(StrEnum):
    """What can be listed."""

    attacks = "attacks"
    defences = "defences"
    measures = "measures"
    models = "models"
    data = "data"


def list_command(
    kind: Annotated[Catalogue, typer.Argument(help="What to list.", show_default=False)],
    as_json: Json = False,
) -> None:
    """List attacks, defences, measures, models or data: name, what it does, what it needs, its options, its source."""
    from leakgauge.cli.console import print_json, result_console

    lines = lines_of(kind.value)
    if as_json:
        print_json({kind.value: lines})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False, box=None, padding=(0, 2, 1, 0))
    for heading in ("name", "what it is", "options", "source"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        what = Text(line["summary"]).append(f"\nNeeds: {line['needs']}." if line["needs"] else "", style="dim")
        table.add_row(Text(line["name"], style="bold"), what, Text(", ".join(line["options"])), Text(line["source"], style="dim"))
    result_console().print(table)


def lines_of(kind: str) -> list[dict[str, Any]]:
    """Entries with name, summary, needs, source and options."""
    if kind == "models":
        from leakgauge.models import names as models

        return [
            _line(entry.name, entry.description, entry.source, options=[f"{it.name}={it.default}" for it in entry.options])
            for entry in models()
        ]
    if kind == "data":
        from leakgauge.data.catalogue import names as sources

        return [_line(entry.name, entry.description, entry.source, options=list(entry.options)) for entry in sources()]
    from leakgauge.registry import catalogue

    return [_line(entry.name, entry.summary, entry.source, entry.needs, list(entry.options)) for entry in catalogue(kind)]


def _line(name: str, summary: str, source: str, needs: str = "", options: list[str] | None = None) -> dict[str, Any]:
    return {"name": name, "summary": summary, "needs": needs, "source": source, "options": options or []}
