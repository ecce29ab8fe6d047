"""Expectations: statements of a plan about its results, checked after the run. What was not measured is not judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.expand import grid_of
from leakgauge.audit.plan.selector import matches
from leakgauge.audit.plan.tables import SHARES, AuditPlan, ExpectTable, Selector
from leakgauge.audit.record import ExampleScore, Score, finite, verdict_of
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import TextScore

UNITS = {"psnr": " dB", "above_control": " dB"}
NAMES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "mse": "mean squared error",
    "above_control": "PSNR above the control's",
    "tokens": "token accuracy",
    "rougeL": "ROUGE-L",
    "rebuilt": "rebuilt",
    "certified": "certified",
    "explained": "explaining the update",
    "label": "with the right label",
    "exact": "exact",
    "underdetermined": "underdetermined",
    "unsupported": "unsupported",
}
OF_CELLS = ("underdetermined", "unsupported")  # said of cells, not of examples


@dataclass(frozen=True)
class Held:
    """One expectation, checked.

    Args:
        what: the statement.
        source: where it comes from.
        held: None where it could not be judged.
        measured: the group's statistic; NaN where there is none.
        wanted: what it was compared with.
        sentence: the whole in words.
    """

    what: str
    source: str
    held: bool | None
    measured: float
    wanted: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        numbers = {"measured": finite(self.measured), "wanted": finite(self.wanted)}
        return {"what": self.what, "source": self.source, "held": self.held, **numbers, "sentence": self.sentence}


@dataclass(frozen=True)
class _Group:
    """A group's values, and why some are missing."""

    values: tuple[float, ...]
    cells: int
    missing: tuple[str, ...]


def check_expectations(plan: AuditPlan, results: Sequence[CellResult]) -> tuple[Held, ...]:
    """Every [[expect]] of a plan, in order.

    A cell that failed, timed out, did not apply or has not been played is no zero: a group that holds one is not judged.

    Args:
        plan: as read.
        results: of the cells that have ended.
    """
    ended = {dataclasses.replace(result.cell, fingerprint="") for result in results}
    waiting = [cell for cell in grid_of(plan) if cell not in ended]
    return tuple(_checked(entry, results, waiting) for entry in plan.expect)


def _checked(entry: ExpectTable, results: Sequence[CellResult], waiting: Sequence[Cell]) -> Held:
    group = _group(entry, entry.where, results, waiting)
    other = None if entry.versus is None else _group(entry, entry.versus, results, waiting)
    for each in filter(None, (group, other)):
        problem = _unjudged(each)
        if problem:
            return Held(entry.what, entry.source, None, math.nan, math.nan, _sentence(entry, "Not judged", problem))
    measured = _statistic(entry, group.values)
    base = 0.0 if other is None else _statistic(entry, other.values)
    wanted = base + (entry.value or 0.0)
    held = _compare(entry, measured, wanted)
    unit = UNITS.get(entry.measure, "")
    told = f"{_subject(entry, group)} is {_number(measured)}{unit}; expected {entry.relation} {_number(wanted)}{unit}"
    if entry.relation == "about":
        told += f" within {_number(entry.tolerance or 0.0)}{unit}"
    if other is not None:
        rest = f" and {_number(entry.value)}{unit} more" if entry.value else ""
        told += f", that of the {len(other.values)} compared with{rest}"
    return Held(entry.what, entry.source, held, measured, wanted, _sentence(entry, "Held" if held else "Not held", told))


def _group(entry: ExpectTable, selector: Selector, results: Sequence[CellResult], waiting: Sequence[Cell]) -> _Group:
    values: list[float] = []
    missing = ["not played" for cell in waiting if matches(selector, cell)]
    chosen = [result for result in results if matches(selector, result.cell)]
    for result in chosen:
        found = _values(entry.measure, result)
        values += found
        if not found:
            missing.append(result.status if result.status in ("failed", "timeout", "unsupported") else "without a score")
    return _Group(tuple(values), len(chosen) + missing.count("not played"), tuple(missing))


def _values(measure: str, result: CellResult) -> list[float]:
    """One value per example, or one per cell; none where the cell came to nothing that can be measured."""
    if measure in OF_CELLS:
        return [] if result.status in ("failed", "timeout") else [float(result.status == measure)]
    record = result.record
    if record is None or result.status in ("failed", "timeout", "unsupported"):
        return []
    controls: list[Score | None] = [None] * len(record.scores)
    if record.control is not None and len(record.control.scores) == len(record.scores):
        controls = list(record.control.scores)
    found = [_value(measure, score, control) for score, control in zip(record.scores, controls, strict=True)]
    if measure == "explained":
        found = [float(record.explains)] * len(record.scores)
    return [] if any(math.isnan(value) for value in found) else found


def _value(measure: str, score: Score, control: Score | None) -> float:
    """NaN where the measure does not fit the kind of example, or nothing was assigned to it."""
    if measure == "rebuilt":
        return float(verdict_of(score, control) == "rebuilt")
    if measure == "certified":
        return float(score.certified)
    if measure == "label":
        return math.nan if score.label is None or score.label_guess is None else float(score.label == score.label_guess)
    if isinstance(score, TextScore):
        held = {"tokens": score.in_place, "rougeL": score.rougeL, "exact": float(score.whole)}
        return held.get(measure, math.nan if measure != "explained" else 0.0)
    held = {"psnr": score.psnr, "ssim": score.ssim, "mse": score.mse, "exact": float(score.psnr == math.inf), "explained": 0.0}
    if measure == "above_control" and isinstance(control, ExampleScore):
        return math.inf if score.psnr == math.inf else score.psnr - control.psnr
    return held.get(measure, math.nan)


def _unjudged(group: _Group) -> str:
    """Why a group has no statistic; '' where it has one."""
    if group.cells == 0:
        return "the plan has no cell of this group"
    if not group.missing:
        return ""
    counts = ", ".join(f"{group.missing.count(kind)} {kind}" for kind in sorted(set(group.missing)))
    return f"of {group.cells} cell{'s' * (group.cells != 1)} {counts}"


def _statistic(entry: ExpectTable, values: Sequence[float]) -> float:
    if entry.statistic == "median":
        return float(median(values))
    if entry.statistic in ("min", "max"):
        return min(values) if entry.statistic == "min" else max(values)
    return sum(values) / len(values)


def _compare(entry: ExpectTable, measured: float, wanted: float) -> bool:
    if entry.relation == "about":
        return measured == wanted or abs(measured - wanted) <= (entry.tolerance or 0.0)
    return {
        "at least": measured >= wanted,
        "at most": measured <= wanted,
        "above": measured > wanted,
        "below": measured < wanted,
    }[entry.relation]


def _subject(entry: ExpectTable, group: _Group) -> str:
    things = "cell" if entry.measure in OF_CELLS else "example"
    count = f"{len(group.values)} {things}{'s' * (len(group.values) != 1)}"
    if entry.measure in SHARES:
        return f"the share of {count} {NAMES[entry.measure]}"
    return f"the {entry.statistic} {NAMES[entry.measure]} of {count}"


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None else "0"


def _sentence(entry: ExpectTable, verdict: str, told: str) -> str:
    source = f" ({entry.source})" if entry.source else ""
    return f"{verdict}: {entry.what.rstrip('.')}{source}: {told}."
