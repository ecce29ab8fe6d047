"""The annex for a data-protection impact assessment: technical facts of a run, and no legal conclusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakgauge.audit.record import Record
from leakgauge.report.advice import untested
from leakgauge.report.files import write_text
from leakgauge.report.grid.axes import axis_text
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.front import Front
from leakgauge.report.grid.records import RecordView
from leakgauge.report.grid.words import COUNT_SENTENCE
from leakgauge.report.words import CONTROL, count, sentence

NO_CONCLUSION = (
    "This annex states what was measured, under which conditions, and what was not measured. Whether the measures are adequate, "
    "and what follows in law, is for the controller to decide."
)
MOST = 40


@dataclass(frozen=True)
class AnnexPart:
    """One numbered part: sentences, then facts.

    Args:
        title: heading.
        lines: sentences.
        facts: names with values.
    """

    title: str
    lines: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def annex_of(findings: Findings, front: Front, views: Sequence[RecordView], shown: Sequence[Record]) -> tuple[AnnexPart, ...]:
    """The parts, in the order in which an assessment asks for them.

    Args:
        findings: redacted where the page is.
        front: the first page.
        views: private records, worst first.
        shown: the records behind the cells, without controls.
    """
    return (
        AnnexPart("Object of the test", (COUNT_SENTENCE, *front.coverage), front.facts),
        AnnexPart("What leaves a client", (), _processing(findings, shown)),
        AnnexPart("Who could attack, and what they hold", (*front.who, *front.holds), _granted(findings)),
        AnnexPart("Attacks and effort", (), _attacks(findings, shown)),
        AnnexPart("Results for each private record", (front.headline, *front.lead), _results(front, views)),
        AnnexPart("Protective measures that were tested", _measures(findings) + front.helps),
        AnnexPart("How sure the verdicts are", (*front.certainty, *map(sentence, findings.judgement.rules))),
        AnnexPart("What was not tested", tuple(sentence(phrase) for phrase in untested(list(shown)))),
        AnnexPart("To repeat this test", (_repeat(findings),)),
    )


def annex_markdown(parts: Sequence[AnnexPart], title: str) -> str:
    """The parts as Markdown."""
    lines = [f"# {_flat(title)}", "", NO_CONCLUSION, ""]
    for number, part in enumerate(parts, start=1):
        lines += [f"## {number}. {part.title}", ""]
        for text in part.lines:
            lines += [_flat(text), ""]
        if part.facts:
            lines += ["| | |", "| --- | --- |", *(f"| {_flat(name)} | {_flat(text)} |" for name, text in part.facts), ""]
    return "\n".join(lines)


def write_annex(parts: Sequence[AnnexPart], path: str | Path, title: str, render: Callable[[], str]) -> None:
    """Writes the annex: Markdown where the name ends in .md, else what `render` makes, a page of its own.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, annex_markdown(parts, title) if Path(path).suffix.lower() == ".md" else render())


def _processing(findings: Findings, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    conditions = [record.conditions for record in records]
    cells = [result.cell for result in findings.results]
    return (
        ("Data", _several(cell.data for cell in cells)),
        ("Networks", _several(item.model for item in conditions)),
        ("State of the model", _several(item.model_state for item in conditions)),
        ("Size of one input", _several(" x ".join(map(str, item.shape)) for item in conditions)),
        ("Examples in a batch", _several(str(item.batch_size) for item in conditions)),
        ("Local training", _several(item.training for item in conditions)),
        ("Mode of the client", _several(item.mode for item in conditions)),
        ("BatchNorm", _several(item.batch_norm for item in conditions)),
        ("Defences", _several(item.defence for item in conditions)),
    )


def _granted(findings: Findings) -> tuple[tuple[str, str], ...]:
    return (("Threat models of the plan", _several(axis_text(result.cell, "threat") for result in findings.results)),)


def _attacks(findings: Findings, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    rows = []
    for name in dict.fromkeys(result.cell.attack for result in findings.results):
        members = [result for result in findings.results if result.cell.attack == name]
        effort = [result.record.evaluations for result in members if result.record is not None]
        ends = ", ".join(
            f"{sum(result.status == status for result in members)} {status}"
            for status in dict.fromkeys(result.status for result in members)
        )
        most = max(effort, default=0)
        least = min(effort, default=0)
        work = f"; {least if least == most else f'{least} to {most}'} gradient evaluations each" if most else ""
        rows.append((name, f"{count(len(members), 'cell')}: {ends}{work}"))
    return (*rows, ("Budgets", _several(record.conditions.budget for record in records)))


def _results(front: Front, views: Sequence[RecordView]) -> tuple[tuple[str, str], ...]:
    rows = [(tile.verdict, f"{count(tile.number, 'private record')}. {tile.meaning}") for tile in front.tiles]
    for view in views[:MOST]:
        rank = "" if view.rank == "not tested" else f"; {view.rank} among decoys, corrected p {view.adjusted}"
        kind = f"; {view.kind}" if view.kind else ""
        rows.append((view.title, f"{view.verdict}; best {view.level}, control {view.control}{rank}{kind}"))
    if len(views) > MOST:
        rows.append(
            ("Further records", f"{len(views) - MOST} more, less exposed than these; all are in the CSV and JSON exports")
        )
    return tuple(rows)


def _measures(findings: Findings) -> tuple[str, ...]:
    names = dict.fromkeys(result.cell.defence for result in findings.results)
    tested = [name for name in names if name != "none"]
    if not tested:
        return ("No protective measure was tested.",)
    return (f"Tested: {'; '.join(tested)}{'; and no measure' if 'none' in names else ''}.",)


def _repeat(findings: Findings) -> str:
    name = findings.name or "the plan"
    return (
        f"'leakgauge audit' with {name} (hash {findings.plan_hash or 'not kept'}) and the versions above plays the same cells "
        "with the same seeds; equal cells give equal results on the same kind of processor and number of threads."
    )


def _several(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    return "; ".join(found[:12]) + (f"; and {len(found) - 12} more" if len(found) > 12 else "") if found else "none"


def _flat(text: str) -> str:
    """One line, without what Markdown or a browser would read as markup."""
    cleaned = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        cleaned = cleaned.replace(sign, f"\\{sign}")
    return cleaned


def attacked(findings: Findings) -> list[Record]:
    """The records of the cells, controls left out."""
    return [result.record for result in findings.results if result.record is not None and result.record.attack != CONTROL]
