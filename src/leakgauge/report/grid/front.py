"""The first page in values: the answer, who attacks with what, what leaked most, what helps, and what to sign."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.audit.record import Record
from leakgauge.audit.verdict.words import ORDER
from leakgauge.report.advice import untested
from leakgauge.report.grid.axes import cell_title
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.records import RecordView
from leakgauge.report.grid.words import SIGNS, verdict_meaning
from leakgauge.report.summary import ALWAYS_HELD, THREATS
from leakgauge.report.text_words import noun_of
from leakgauge.report.words import CONTROL, count, listed, sentence

TITLE = "What can be rebuilt from what clients share"
MOST_GAPS = 6
UNVERSIONED = ("threads",)
ELSEWHERE = ("What helped most", "The worst is")
SIGNATURES = ("Name", "Function", "Place and date", "Signature")


@dataclass(frozen=True)
class Tile:
    """How many private records came out one way."""

    sign: str
    verdict: str
    number: int
    meaning: str


@dataclass(frozen=True)
class Front:
    """The first page.

    Args:
        verdict: the worst verdict on any private record.
        headline: the judgement's first sentence.
        lead: the others, but for what stands elsewhere on the page.
        tiles: counts by verdict.
        coverage: how much was tried and what of it did not end as planned, in sentences.
        who, holds: who attacks, and what they hold.
        worst: the record that leaked most, or None.
        worst_text: about it, in sentences.
        helps: the change that helps most, in sentences.
        untested: phrases.
        certainty: how sure this is: false-alarm rate, corrections, what could not be tested.
        facts: date, plan, hash, versions and counts.
        signatures: headings of the lines to sign.
    """

    verdict: str
    headline: str
    lead: tuple[str, ...]
    tiles: tuple[Tile, ...]
    coverage: tuple[str, ...]
    who: tuple[str, ...]
    holds: tuple[str, ...]
    worst: RecordView | None
    worst_text: tuple[str, ...]
    helps: tuple[str, ...]
    untested: tuple[str, ...]
    certainty: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    signatures: tuple[str, ...] = SIGNATURES


def front_of(findings: Findings, views: Sequence[RecordView], differing: Sequence[str], date: str) -> Front:
    """The first page of these findings; `views` are private records, worst first, `differing` the axes of the cells."""
    judgement = findings.judgement
    told = re.split(r"(?<=[.]) (?=[A-Z])", judgement.sentence) or [""]
    records = [result.record for result in findings.results if result.record is not None and result.record.attack != CONTROL]
    verdicts = [entry.verdict for entry in judgement.records]
    tiles = tuple(Tile(SIGNS[name], name, verdicts.count(name), sentence(verdict_meaning(name))) for name in ORDER)
    worst = views[0] if views else None
    gaps = untested(records)
    more = [f"and {len(gaps) - MOST_GAPS} more, named in the annex"] if len(gaps) > MOST_GAPS + 1 else list(gaps[MOST_GAPS:])
    return Front(
        verdict=next((name for name in ORDER if name in verdicts), "not judged"),
        headline=sentence(told[0]),
        lead=tuple(text for text in told[1:] if not text.startswith(ELSEWHERE)),
        tiles=tiles,
        coverage=coverage(findings),
        who=tuple(sentence(THREATS.get(name, name)) for name in dict.fromkeys(record.conditions.threat for record in records)),
        holds=_holds(records),
        worst=worst,
        worst_text=_worst(findings, worst, differing),
        helps=_helps(findings),
        untested=(*gaps[:MOST_GAPS], *more),
        certainty=certainty(findings),
        facts=_facts(findings, records, date),
    )


def coverage(findings: Findings) -> tuple[str, ...]:
    """What was tried, in sentences; nothing that went wrong is left out."""
    counts, total = findings.counts(), len(findings.results)
    played = counts["ok"] + counts["underdetermined"]
    lines = [
        f"{count(len(findings.judgement.records), 'private record')} {'was' if len(findings.judgement.records) == 1 else 'were'} "
        f"attacked in {count(total, 'cell')}; a cell is one attack on one update under one set of conditions. "
        f"{played} of {total} cells were played out."
    ]
    others = [
        (counts["unsupported"], "did not apply"),
        (counts["timeout"], "ran out of time"),
        (counts["failed"], "failed with an error"),
        (findings.missing, "of the plan have not been played yet"),
    ]
    named = [f"{number} {words}" for number, words in others if number]
    if named:
        late = " What ran out of time counts as far as it came." if counts["timeout"] else ""
        lines.append(f"{sentence(listed(named))} They are listed with their reasons; none counts as a score of zero.{late}")
    diagnostic = sum(result.record is not None and not result.record.conditions.realistic for result in findings.results)
    if diagnostic:
        lines.append(
            f"{count(diagnostic, 'cell')} {'is' if diagnostic == 1 else 'are'} diagnostic: the attacker was given more than a "
            "real server has. They are marked wherever they appear."
        )
    return tuple(lines)


def certainty(findings: Findings) -> tuple[str, ...]:
    """How sure the verdicts are: the false-alarm rate, and what could not be tested."""
    judgement = findings.judgement
    rate = f"{100 * judgement.false_alarm:g} %"
    return (
        f"False-alarm rate {rate}: the chance that any record about which nothing leaks is called identified by its rank, over "
        "the whole audit.",
        *map(sentence, judgement.not_testable),
    )


def _holds(records: Sequence[Record]) -> tuple[str, ...]:
    granted: dict[str, int] = {}
    for record in records:
        for fact in record.conditions.knowledge:
            granted[fact] = granted.get(fact, 0) + 1
    extra = [
        f"{fact} ({'in all cells' if number == len(records) else f'in {number} of {len(records)} cells'})"
        for fact, number in granted.items()
    ]
    return (ALWAYS_HELD, *([f"Also {listed(extra)}."] if extra else []))


def conditions_in_short(record: Record) -> str:
    """What a single number most depends on, in one phrase."""
    conditions = record.conditions
    parts = [
        conditions.model,
        conditions.model_state,
        f"batch of {conditions.batch_size}",
        conditions.training,
        f"{conditions.mode} mode",
        f"labels {conditions.labels}",
        f"defence {conditions.defence}",
    ]
    if conditions.batch_norm != "none in the network":
        parts.append(f"BatchNorm {conditions.batch_norm}")
    return ", ".join(parts)


def _worst(findings: Findings, view: RecordView | None, differing: Sequence[str]) -> tuple[str, ...]:
    if view is None:
        return ("No private record could be compared.",)
    if view.cell == 0:
        return (f"{view.title}: {view.meaning}.",)
    how = cell_title(findings.results[view.cell - 1].cell, differing)
    lines = [f"{view.title}, by {how}. A fixed rule without the update reaches {view.control}."]
    if view.rank != "not tested":
        lines.append(f"It ranks {view.rank} among its decoys (p {view.chance}; {view.adjusted} corrected for all records).")
    record = findings.results[view.cell - 1].record
    if record is not None:
        lines.append(f"Conditions: {conditions_in_short(record)}.")
    if view.kind == "diagnostic":
        lines.append("Diagnostic: the attacker was given more than a real server has.")
    return tuple(lines)


def _helps(findings: Findings) -> tuple[str, ...]:
    change = findings.judgement.change
    return ((sentence(change),) if change else ()) or (
        "No two cells differ by a defence or a protocol alone, or none of these differences helped: nothing follows about what "
        "to change. Add defences to the plan and run it again.",
    )


def _facts(findings: Findings, records: Sequence[Record], date: str) -> tuple[tuple[str, str], ...]:
    versions: dict[str, list[str]] = {}
    for record in records:
        for name, text in record.conditions.versions.items():
            if name not in UNVERSIONED and text not in versions.setdefault(name, []):
                versions[name].append(text)
    counts = ", ".join(f"{number} {status}" for status, number in findings.counts().items() if number)
    rows = [
        ("Plan", findings.name or "without a name"),
        ("Hash of plan and cells", findings.plan_hash or "not kept"),
        ("Run ended", findings.ended or "not kept"),
        ("Report made", date),
        ("Versions", "; ".join(f"{name} {' and '.join(texts)}" for name, texts in versions.items()) or "not kept"),
        ("Cells", f"{len(findings.results)}: {counts}" if findings.results else "none"),
        ("What was attacked", f"{noun_of(records)}s" if records else "nothing"),
    ]
    return tuple((name, text) for name, text in rows if text)
