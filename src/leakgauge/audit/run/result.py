"""CellResult: what a cell came to. A failure is a status with its reason, never a zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Record
from leakgauge.audit.verdict.lineup import LineUp

Status = Literal["ok", "underdetermined", "unsupported", "failed", "timeout"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class CellResult:
    """One cell, played.

    Args:
        cell: what was played.
        status: 'ok'; 'underdetermined' (the update leaves more than one solution); 'unsupported' (the attack does not apply);
            'failed' (an error, or a worker that died twice); 'timeout'.
        reason: why it is not ok, in a sentence; '' where it is.
        record: conditions, scores and pictures; None where nothing came back ('failed').
        line_ups: one per private example; empty where there are no decoys.
        decoys: where the decoys come from, in words, or why there are none.
        seconds: wall-clock time in the worker.
        attempt: 1, or 2 where the first worker died.
    """

    cell: Cell
    status: Status
    reason: str = ""
    record: Record | None = None
    line_ups: tuple[LineUp, ...] = ()
    decoys: str = ""
    seconds: float = 0.0
    attempt: int = 1
