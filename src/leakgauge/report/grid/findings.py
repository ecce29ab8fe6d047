"""What a report over a grid is made from: results, what they say, and the plan behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leakgauge.audit.plan.expectations import Held
from leakgauge.audit.run.result import STATUSES, CellResult
from leakgauge.audit.verdict.judge import Judgement, judge
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.audit.verdict.sightings import unnamed


@dataclass(frozen=True)
class Findings:
    """An audit that has ended, or as far as it got.

    Args:
        results: one per cell that has ended, in the order of the plan.
        judgement: what they say.
        plan: the plan as JSON; its `name` is shown.
        plan_hash: over the plan and its cells.
        planned: how many cells the plan has; 0 for as many as there are results.
        ended: when the last cell ended, as 'YYYY-MM-DD'; '' where nobody knows.
        expected: the plan's own expectations, checked.
    """

    results: tuple[CellResult, ...]
    judgement: Judgement
    plan: Mapping[str, Any] = field(default_factory=dict)
    plan_hash: str = ""
    planned: int = 0
    ended: str = ""
    expected: tuple[Held, ...] = ()

    @property
    def name(self) -> str:
        """The plan's name."""
        return str(self.plan.get("name") or "")

    @property
    def missing(self) -> int:
        """Cells of the plan without a result."""
        return max(0, self.planned - len(self.results))

    def counts(self) -> dict[str, int]:
        """How many cells have each status; statuses that do not occur are 0."""
        return {status: sum(result.status == status for result in self.results) for status in STATUSES}


def findings_of(
    results: Sequence[CellResult],
    plan: Mapping[str, Any] | None = None,
    *,
    plan_hash: str = "",
    planned: int = 0,
    ended: str = "",
) -> Findings:
    """Findings with the judgement that the plan's `[verdict]` table asks for."""
    asked = dict((plan or {}).get("verdict") or {})
    settings = {name: asked[name] for name in ("false_alarm", "resamples", "seed") if name in asked}
    return Findings(tuple(results), judge(results, **settings), dict(plan or {}), plan_hash, planned, ended)


def findings_of_report(report: Any) -> Findings:
    """Findings of an audit's report, or of anything else with `results` and a `verdict`."""
    names = ("plan", "plan_hash", "planned", "ended", "expected")
    others = {name: getattr(report, name) for name in names if hasattr(report, name)}
    return Findings(tuple(report.results), report.verdict, **others)


def line_up_of(result: CellResult, example: int) -> LineUp | None:
    """The line-up of one private example, or None."""
    return next((entry for entry in result.line_ups if entry.example == example), None)


def record_key(result: CellResult, example: int) -> str:
    """By what the same private record is known in all cells, as the judgement names it."""
    line_up = line_up_of(result, example)
    return line_up.record if line_up and line_up.record else unnamed(result.cell.data, example)


def rank_of(line_up: LineUp) -> int:
    """Place of the private example among its decoys by distance, 1 = nearest; equals count against it."""
    if math.isinf(line_up.truth) or math.isnan(line_up.truth):
        return len(line_up.decoys) + 1
    return 1 + sum(not distance > line_up.truth for distance in line_up.decoys)


def rank_text(line_up: LineUp | None) -> str:
    """'1 of 20', or 'not tested'."""
    return f"{rank_of(line_up)} of {len(line_up.decoys) + 1}" if line_up and line_up.decoys else "not tested"
