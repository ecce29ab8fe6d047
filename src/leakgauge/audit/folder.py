"""Records on disk: `DIR/records/<key>/record.json`, with `pictures.safetensors` beside it. Nothing is ever unpickled."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from leakgauge.audit.measured import Measured
from leakgauge.audit.record import Conditions, Control, ExampleScore, Pictures, Record, Score, Series, finite
from leakgauge.audit.text_record import TextConditions, Texts, TextScore, Tokens
from leakgauge.core.reconstruction import LayerReport
from leakgauge.errors import DataError

FORMAT = 1
RECORDS = "records"
RECORD_FILE = "record.json"
PICTURE_FILE = "pictures.safetensors"
LATER = {"layers": (), "radius": None, "texts": None, "measured": ()}  # entries that records written by earlier versions lack


def save_record(record: Record, directory: str | Path, *, order: int | None = None) -> Path:
    """Writes one record into a run folder, and returns the record's own folder.

    The record appears whole or not at all: it is written under a temporary name and renamed. A record of the same key is
    replaced and keeps its place in the order.

    Args:
        record: what to keep.
        directory: the run folder; made where it does not exist.
        order: place among the records; by default after those that are there.

    Raises:
        DataError: if the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", record.key):
        raise ValueError(f"Record.key must be made of letters, digits and '-'; got {record.key!r}.")
    root = Path(directory) / RECORDS
    target = root / record.key
    temporary = root / f".{record.key}.new-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        content = record_to_json(record)
        content["format"] = FORMAT
        content["order"] = _place(root, record.key) if order is None else order
        content["pictures"] = record.pictures is not None
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            if record.pictures is not None:
                tensors = {item.name: getattr(record.pictures, item.name) for item in fields(Pictures)}
                ready = {
                    name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items() if tensor is not None
                }
                save_file(ready, str(temporary / PICTURE_FILE))
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            (temporary / RECORD_FILE).write_text(text, encoding="utf-8")
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"The record {record.key!r} cannot be written to {str(directory)!r}: {reason}.") from error
    return target


def load_records(directory: str | Path) -> list[Record]:
    """All records of a run folder, in the order in which they were saved.

    Raises:
        DataError: if there is no such folder, no record in it, or a record is damaged.
    """
    root = Path(directory) / RECORDS
    if not Path(directory).is_dir():
        raise DataError(f"There is no folder {str(directory)!r}.")
    try:
        folders = (
            sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
            if root.is_dir()
            else []
        )
    except OSError as error:
        raise DataError(f"The folder {str(root)!r} cannot be read: {error.strerror or error}.") from error
    if not folders:
        raise DataError(
            f"There are no records in {str(directory)!r}; expected {RECORDS}/<key>/{RECORD_FILE}, as a run writes them."
        )
    placed = [_load(folder) for folder in folders]
    return [record for _, _, record in sorted(placed, key=lambda entry: entry[:2])]


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as strict JSON (no NaN, no infinity), without its pictures."""
    entries = {item.name: getattr(record, item.name) for item in fields(Record) if item.name != "pictures"}
    conditions = asdict(record.conditions)
    entries["conditions"] = (
        conditions if conditions["text"] else {name: conditions[name] for name in conditions if name != "text"}
    )
    entries["scores"] = [asdict(score) for score in record.scores]
    entries["control"] = asdict(record.control) if record.control else None
    entries["series"] = asdict(record.series) if record.series else None
    entries["layers"] = [asdict(layer) for layer in record.layers]
    entries["texts"] = asdict(record.texts) if record.texts else None
    entries["measured"] = [asdict(measured) for measured in record.measured]
    strict: dict[str, Any] = strict_json(entries)
    return strict


def record_from_json(entries: Mapping[str, Any], pictures: Pictures | None = None) -> Record:
    """The inverse of `record_to_json`; unknown entries are ignored.

    Raises:
        KeyError, TypeError, ValueError: if an entry is missing or of the wrong kind.
    """
    entries = LATER | dict(entries)
    given = {item.name: entries[item.name] for item in fields(Record) if item.name != "pictures"}
    control, series = given["control"], given["series"]
    given |= {
        "objective": _number(given["objective"]),
        "residual": _number(given["residual"]),
        "seconds": _number(given["seconds"]),
        "curve": tuple((int(evaluations), _number(objective)) for evaluations, objective in given["curve"]),
        "frame_evaluations": tuple(int(evaluations) for evaluations in given["frame_evaluations"]),
        "notes": tuple(str(note) for note in given["notes"]),
        "conditions": _conditions(given["conditions"]),
        "scores": tuple(_score(score) for score in given["scores"]),
        "control": control and Control(str(control["rule"]), tuple(_score(score) for score in control["scores"])),
        "series": series and Series(str(series["name"]), _number(series["value"]), str(series["text"])),
        "pictures": pictures,
        "layers": tuple(_layer(layer) for layer in given["layers"]),
        "radius": _number(given["radius"]),
        "texts": given["texts"] and _texts(given["texts"]),
        "measured": tuple(_measured(entry) for entry in given["measured"]),
    }
    for name in ("key", "title", "attack", "outcome", "outcome_text", "cause", "bound", "reproduce"):
        if not isinstance(given[name], str):
            raise TypeError(f"{name!r} is no text")
    return Record(**given)


def _place(root: Path, key: str) -> int:
    """The order a record already has, or the number of records that are there."""
    try:
        return int(json.loads((root / key / RECORD_FILE).read_text(encoding="utf-8"))["order"])
    except (OSError, ValueError, KeyError, TypeError):
        return sum(1 for entry in root.iterdir() if not entry.name.startswith(".") and entry.name != key)


def _swap(temporary: Path, target: Path) -> None:
    """Renames `temporary` to `target`; what stood there is put back if that fails."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    replaced = target.exists()
    if replaced:
        target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        if replaced and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _load(folder: Path) -> tuple[int, str, Record]:
    try:
        entries = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        if int(entries["format"]) > FORMAT:
            raise DataError(
                f"The record {folder.name!r} in {str(folder.parent)!r} was written by a newer leakgauge; upgrade to read it."
            )
        if entries["key"] != folder.name:
            raise ValueError(f"it calls itself {entries['key']!r}")
        pictures = Pictures(**load_file(str(folder / PICTURE_FILE))) if entries["pictures"] else None
        return int(entries["order"]), folder.name, record_from_json(entries, pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"The record {folder.name!r} in {str(folder.parent)!r} is damaged ({reason}); "
            "delete its folder and run again, and it will be made anew."
        ) from error


def strict_json(value: Any) -> Any:
    """Nested mappings, sequences and numbers with everything that JSON cannot hold replaced (see `finite`)."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): strict_json(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [strict_json(entry) for entry in value]
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _measured(entries: Mapping[str, Any]) -> Measured:
    values = tuple(_number(value) for value in entries["values"])
    return Measured(str(entries["name"]), str(entries["unit"]), bool(entries["higher_is_better"]), values)


def _layer(entries: Mapping[str, Any]) -> LayerReport:
    return LayerReport(
        name=str(entries["name"]),
        method=str(entries["method"]),
        unknowns=int(entries["unknowns"]),
        equations=int(entries["equations"]),
        rank=int(entries["rank"]),
        condition=_number(entries["condition"]),
        residual=_number(entries["residual"]),
        predicted_error=_number(entries["predicted_error"]),
    )


def _score(entries: Mapping[str, Any]) -> Score:
    names = ("mse", "psnr", "ssim", "mse_unclamped")
    of_texts = ("token_accuracy", "rouge1", "rouge2", "rougeL", "unmasked_accuracy", "masked_accuracy")
    if "token_accuracy" in entries:
        return TextScore(**{**entries, **{name: _number(entries[name]) for name in of_texts}, "exact": bool(entries["exact"])})
    return ExampleScore(**{**entries, **{name: _number(entries[name]) for name in names}})


def _texts(entries: Mapping[str, Any]) -> Texts:
    def tokens(rows: Sequence[Any]) -> tuple[Tokens | None, ...]:
        return tuple(None if row is None else tuple(map(str, row)) for row in rows)

    rows = {name: tokens(entries[name]) for name in ("guess", "truth", "control")}
    return Texts(**rows, bag_precision=_number(entries["bag_precision"]), bag_recall=_number(entries["bag_recall"]))


def _conditions(entries: Mapping[str, Any]) -> Conditions:
    text = entries.get("text")
    shape, knowledge = tuple(entries["shape"]), tuple(entries["knowledge"])
    return Conditions(**{**entries, "shape": shape, "knowledge": knowledge, "text": text and TextConditions(**text)})
