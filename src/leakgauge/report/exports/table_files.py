"""CSV and Parquet: every line, every column."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leakgauge.errors import DataError, MissingExtraError
from leakgauge.report.exports.lines import COLUMNS, NUMBER, TEXT, TRUTH, WHOLE, Line, plain
from leakgauge.report.files import write_text

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(lines: Sequence[Line]) -> str:
    """The lines as CSV with a heading; a text that a spreadsheet would read as a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow([_written(line[name]) for name in COLUMNS])
    return out.getvalue()


def write_csv(lines: Sequence[Line], path: str | Path) -> None:
    """Writes `csv_text` to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, csv_text(lines))


def write_parquet(lines: Sequence[Line], path: str | Path) -> None:
    """Writes the lines as one Parquet table, typed; whole or not at all.

    Raises:
        MissingExtraError: without pyarrow.
        DataError: if the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Writing Parquet") from error
    kinds = {TEXT: pyarrow.string(), WHOLE: pyarrow.int64(), NUMBER: pyarrow.float64(), TRUTH: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    table = pyarrow.Table.from_pydict({name: [plain(line[name]) for line in lines] for name in COLUMNS}, schema=schema)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            parquet.write_table(table, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"The table cannot be written to {str(target)!r}: {error.strerror or error}.") from error


def _written(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value
