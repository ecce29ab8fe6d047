"""Tables of the judgement beside the private records: by conditions, by patient, and over the states of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from leakgauge.audit.verdict.judge import GroupVerdict, PatientVerdict, RoundVerdict
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.words import chance
from leakgauge.report.page import DIAGNOSTIC, REALISTIC
from leakgauge.report.words import count, decibels

HEADINGS = (
    "Attack", "Under", "Median, 95 % interval", "Control", "First among decoys", "By chance", "p, corrected p",
    "Identified", "Cells", "Kind",
)  # fmt: skip
PATIENT_HEADINGS = ("Patient or state", "Verdict", "Private records", "Identified", "Smallest corrected p")
CONDITIONS = {"defence": "none", "model": "", "state": "untrained", "protocol": "", "threat": "", "budget": "fast"}


@dataclass(frozen=True)
class GroupRow:
    """A row of a table: its heading and cells."""

    name: str
    cells: tuple[str, ...]


def group_rows(findings: Findings) -> tuple[GroupRow, ...]:
    """One row per group of the judgement."""
    groups = findings.judgement.groups
    differing = [name for name in CONDITIONS if len({getattr(group, name) for group in groups}) > 1]
    return tuple(_row(group, differing) for group in groups)


def patient_rows(findings: Findings) -> tuple[GroupRow, ...]:
    """Patients, worst first as the judgement has them; then states of the network, where there are several; then everything."""
    judgement = findings.judgement
    rows = [_patient(entry) for entry in judgement.patients]
    if len(judgement.rounds) > 1:
        rows += [_state(entry) for entry in judgement.rounds]
    if not rows:
        return ()
    smallest = min((entry.adjusted for entry in judgement.records if not math.isnan(entry.adjusted)), default=math.nan)
    known = judgement.counts
    together = (_tally(known), str(len(judgement.records)), str(known.get("identified", 0)), chance(smallest))
    return (*rows, GroupRow("All together", together))


def conditions_text(group: GroupVerdict, differing: list[str]) -> str:
    """What tells a group from the others, beside its attack."""
    texts = []
    for name in differing:
        value = getattr(group, name)
        plain = "one gradient" if name == "protocol" else "the minimum granted"
        texts.append("no defence" if name == "defence" and value == "none" else str(value) or plain)
    return ", ".join(texts) or "the same for all"


def figure(value: float, measure: str) -> str:
    """'24.1 dB', '82 %', or 'none'."""
    if math.isnan(value):
        return "none"
    return decibels(value) if measure == "psnr" else f"{100 * value:.0f} %"


def _row(group: GroupVerdict, differing: list[str]) -> GroupRow:
    between = ""
    if not math.isnan(group.low):
        between = f" ({figure(group.low, group.measure)} to {figure(group.high, group.measure)})"
    ends = ", ".join(f"{number} {status}" for status, number in group.statuses.items() if number)
    share = "none" if math.isnan(group.identified) else f"{100 * group.identified:.0f} % of {group.records}"
    return GroupRow(
        group.attack,
        (
            conditions_text(group, differing),
            f"{figure(group.median, group.measure)}{between}",
            figure(group.control, group.measure),
            f"{group.first} of {group.line_ups}" if group.line_ups else "not tested",
            f"{group.expected:.1f}" if group.line_ups else "none",
            f"{chance(group.p)}, {chance(group.adjusted)}" + (": identifying" if group.identifying else ""),
            share,
            ends or count(group.cells, "cell"),
            REALISTIC if group.realistic else DIAGNOSTIC,
        ),
    )


def _patient(entry: PatientVerdict) -> GroupRow:
    name = entry.patient if entry.patient.startswith("patient") else f"Patient {entry.patient}"
    cells = (entry.verdict, str(len(entry.records)), str(entry.identified), chance(entry.adjusted))
    return GroupRow(name[:1].upper() + name[1:], cells)


def _state(entry: RoundVerdict) -> GroupRow:
    cells = (_tally(entry.counts), str(entry.records), str(entry.counts.get("identified", 0)), "not tested alone")
    return GroupRow(f"State {entry.state}", cells)


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number) or "none"
