"""One flat line per cell and private example: what every table file is made of. A failed cell has a line without scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from leakgauge.audit.record import Control, ExampleScore, Record, Score
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import TextScore
from leakgauge.report.grid.findings import Findings, line_up_of, rank_of
from leakgauge.report.grid.why import reasons
from leakgauge.report.words import example_verdict, is_attack

Line = dict[str, Any]
TEXT, WHOLE, NUMBER, TRUTH = "text", "whole number", "number", "truth value"
COLUMNS = {
    "cell": WHOLE, "key": TEXT, "data": TEXT, "model": TEXT, "state": TEXT, "protocol": TEXT, "threat": TEXT, "defence": TEXT,
    "attack": TEXT, "seed": WHOLE, "budget": TEXT, "loss": TEXT, "status": TEXT, "reason": TEXT, "example": WHOLE, "record": TEXT,
    "name": TEXT, "patient": TEXT, "verdict": TEXT, "record_verdict": TEXT, "psnr": NUMBER, "ssim": NUMBER, "mse": NUMBER,
    "mse_unclamped": NUMBER, "token_accuracy": NUMBER, "rouge_l": NUMBER, "control_psnr": NUMBER, "control_ssim": NUMBER,
    "control_token_accuracy": NUMBER, "label": WHOLE, "label_guess": WHOLE, "rank": WHOLE, "decoys": WHOLE, "certified": TRUTH,
    "explains": TRUTH, "outcome": TEXT, "realistic": TRUTH, "evaluations": WHOLE, "restarts": WHOLE, "objective": NUMBER,
    "residual": NUMBER, "determinable": TRUTH, "batch_size": WHOLE, "model_state": TEXT, "training": TEXT, "mode": TEXT,
    "batch_norm": TEXT, "labels": TEXT, "dtype": TEXT, "input_range": TEXT, "shape": TEXT, "knowledge": TEXT, "device": TEXT,
    "why": TEXT, "measured": TEXT, "seconds": NUMBER, "attempt": WHOLE, "versions": TEXT,
}  # fmt: skip
"""Every column with its kind. An infinite PSNR (an identical picture) is 'inf' in CSV; what is not there is empty."""


def lines_of(findings: Findings) -> list[Line]:
    """All lines, in the order of the plan and of the batch; every line has every column."""
    verdicts = {entry.record: entry.verdict for entry in findings.judgement.records}
    lines = []
    for number, result in enumerate(findings.results, start=1):
        for line in _of_result(number, result, verdicts):
            lines.append({name: line.get(name) for name in COLUMNS})
    return lines


def lines_of_records(records: Sequence[Record]) -> list[Line]:
    """The same for records that no plan made: axes as the conditions state them."""
    lines = []
    for number, record in enumerate(records, start=1):
        conditions = record.conditions
        start: Line = {
            "cell": number, "key": record.key, "model": conditions.model, "state": conditions.model_state,
            "protocol": conditions.training, "threat": conditions.threat, "defence": conditions.defence, "attack": record.attack,
            "seed": conditions.seeds.get("attack"), "status": _status(record), "reason": record.cause,
        }  # fmt: skip
        for line in _of_record(start | _about(record), record, None, {}):
            lines.append({name: line.get(name) for name in COLUMNS})
    return lines


def _of_result(number: int, result: CellResult, verdicts: dict[str, str]) -> Iterator[Line]:
    cell, record = result.cell, result.record
    start: Line = {
        "cell": number, "key": cell.key, "data": cell.data, "model": cell.model, "state": cell.state,
        "protocol": json.dumps(dict(cell.protocol), sort_keys=True), "threat": json.dumps(dict(cell.threat), sort_keys=True),
        "defence": cell.defence, "attack": cell.attack, "seed": cell.seed, "budget": str(cell.budget), "loss": cell.loss,
        "status": result.status, "reason": result.reason, "why": " ".join(f"[{one.kind}] {one.text}" for one in reasons(result)),
        "seconds": result.seconds, "attempt": result.attempt,
    }  # fmt: skip
    if record is None:
        yield start
        return
    yield from _of_record(start | _about(record) | {"seconds": result.seconds}, record, result, verdicts)


def _about(record: Record) -> Line:
    """What holds for all examples of a record."""
    conditions = record.conditions
    return {
        "certified": bool(record.certified), "explains": record.explains, "outcome": record.outcome,
        "realistic": conditions.realistic, "evaluations": record.evaluations, "restarts": record.restarts,
        "objective": record.objective, "residual": record.residual, "determinable": record.determinable,
        "batch_size": conditions.batch_size, "model_state": conditions.model_state, "training": conditions.training,
        "mode": conditions.mode, "batch_norm": conditions.batch_norm, "labels": conditions.labels, "dtype": conditions.dtype,
        "input_range": conditions.input_range, "shape": "x".join(map(str, conditions.shape)),
        "knowledge": "; ".join(conditions.knowledge), "device": conditions.device, "budget": conditions.budget,
        "seconds": record.seconds, "versions": json.dumps(conditions.versions, sort_keys=True),
    }  # fmt: skip


def _of_record(start: Line, record: Record, result: CellResult | None, verdicts: dict[str, str]) -> Iterator[Line]:
    if not record.scores:
        yield start
    for score in record.scores:
        line_up = line_up_of(result, score.index) if result else None
        entry: Line = {
            "example": score.index + 1, "name": score.name, "label": score.label, "label_guess": score.label_guess,
            "certified": score.certified, "verdict": example_verdict(record, score) if is_attack(record) else "control",
        }  # fmt: skip
        if line_up is not None:
            entry |= {"record": line_up.record, "patient": line_up.patient, "record_verdict": verdicts.get(line_up.record)}
            entry |= {"rank": rank_of(line_up), "decoys": len(line_up.decoys)} if line_up.decoys else {}
        asked = {one.name: one.values[score.index] for one in record.measured if score.index < len(one.values)}
        entry["measured"] = "; ".join(f"{name}={value:g}" for name, value in asked.items())
        yield start | entry | _numbers(score) | _control(record.control, score.index)


def _numbers(score: Score) -> Line:
    if isinstance(score, TextScore):
        return {"token_accuracy": score.token_accuracy, "rouge_l": score.rougeL}
    return {"psnr": score.psnr, "ssim": score.ssim, "mse": score.mse, "mse_unclamped": score.mse_unclamped}


def _control(control: Control | None, index: int) -> Line:
    score = next((score for score in control.scores if score.index == index), None) if control else None
    if isinstance(score, ExampleScore):
        return {"control_psnr": score.psnr, "control_ssim": score.ssim}
    return {"control_token_accuracy": score.token_accuracy} if score is not None else {}


def _status(record: Record) -> str:
    known = {"UNDERDETERMINED": "underdetermined", "UNSUPPORTED": "unsupported", "TIMEOUT": "timeout", "NONFINITE": "failed"}
    return known.get(record.outcome, "ok")


def plain(value: Any) -> Any:
    """None for NaN; anything else as it is."""
    return None if isinstance(value, float) and math.isnan(value) else value
