"""A CellResult as texts and bytes: what a worker sends, and what the store keeps. Nothing is ever unpickled from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load, save

from leakgauge.audit.folder import record_from_json, record_to_json, strict_json
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Pictures, Record
from leakgauge.audit.run.result import STATUSES, CellResult, Status
from leakgauge.audit.verdict.lineup import LineUp


@dataclass(frozen=True)
class Encoded:
    """One ended cell.

    Args:
        key: of the cell.
        status, reason, decoys, seconds, attempt: as in `CellResult`.
        record: JSON, or None.
        line_ups: JSON.
        tensors: the record's pictures as a safetensors file; b'' where there are none.
    """

    key: str
    status: str
    reason: str
    record: str | None
    line_ups: str
    decoys: str
    seconds: float
    attempt: int
    tensors: bytes = b""


def encode(result: CellResult) -> Encoded:
    """What `decode` turns back into the same result."""
    record = None if result.record is None else _text(record_to_json(result.record))
    return Encoded(
        key=result.cell.key,
        status=result.status,
        reason=result.reason,
        record=record,
        line_ups=_text([asdict(line_up) for line_up in result.line_ups]),
        decoys=result.decoys,
        seconds=result.seconds,
        attempt=result.attempt,
        tensors=_tensors(result.record),
    )


def decode(cell: Cell, encoded: Encoded) -> CellResult:
    """The result that was encoded.

    Raises:
        KeyError, TypeError, ValueError: if something is missing or of the wrong kind.
        SafetensorError: if the tensors are damaged.
    """
    if encoded.status not in STATUSES:
        raise ValueError(f"the status {encoded.status!r} is none")
    record = None if encoded.record is None else record_from_json(json.loads(encoded.record))
    if record is not None and encoded.tensors:
        record = replace(record, pictures=Pictures(**load(encoded.tensors)))
    return CellResult(
        cell=cell,
        status=cast(Status, encoded.status),
        reason=encoded.reason,
        record=record,
        line_ups=tuple(_line_up(entries) for entries in json.loads(encoded.line_ups)),
        decoys=encoded.decoys,
        seconds=encoded.seconds,
        attempt=encoded.attempt,
    )


DAMAGED = (KeyError, TypeError, ValueError, AttributeError, SafetensorError)  # what `decode` may raise


def _tensors(record: Record | None) -> bytes:
    if record is None or record.pictures is None:
        return b""
    held = {item.name: getattr(record.pictures, item.name) for item in fields(Pictures)}
    ready = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in held.items() if tensor is not None}
    return bytes(save(ready))


def _line_up(entries: Mapping[str, Any]) -> LineUp:
    return LineUp(
        example=int(entries["example"]),
        record=str(entries["record"]),
        name=str(entries["name"]),
        patient=str(entries["patient"]),
        distance=str(entries["distance"]),
        truth=_number(entries["truth"]),
        decoys=tuple(_number(value) for value in entries["decoys"]),
        others=tuple(str(value) for value in entries.get("others", ())),
    )


def _number(value: Any) -> float:
    """A number as `strict_json` wrote it: 'inf', '-inf', and None for NaN."""
    return float("nan") if value is None else float(value)


def _text(entries: Any) -> str:
    return json.dumps(strict_json(entries), ensure_ascii=False, allow_nan=False)
