"""Store: a run on disk. SQLite for what people read and tensors beside it, written so that a kill loses no ended cell."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.encoding import DAMAGED, Encoded, decode, encode
from leakgauge.audit.store.failures import damaged, told
from leakgauge.audit.store.lock import RunLock
from leakgauge.audit.store.opening import FILE, open_to_read, open_to_write
from leakgauge.audit.store.tensors import tensor_path, write_tensors
from leakgauge.errors import DataError

AXES = ("data", "model", "state", "protocol", "threat", "defence", "attack", "seed")
RESULT = "key, status, reason, record, line_ups, decoys, seconds, attempt, tensor_bytes"


@dataclass
class Store:
    """A folder with `run.sqlite`, `tensors/` and, while a run is at work, a lock. Made by `Store.open`.

    Args:
        folder: the run folder.
        connection: to the database.
        lock: held while writing; None for a reader.
    """

    folder: Path
    connection: sqlite3.Connection
    lock: RunLock | None

    @staticmethod
    def open(folder: str | Path, write: bool = True) -> Store:
        """Opens a store; for writing it is made where there is none, locked, and brought up to date.

        Raises:
            DataError: where there is none to read, another run writes it, it is of a newer version, damaged, or the folder
                cannot be used.
        """
        place = Path(folder).expanduser()
        with told(place):
            return Store(place, *open_to_write(place)) if write else Store(place, open_to_read(place), None)

    @staticmethod
    def is_one(folder: str | Path) -> bool:
        """Whether there is a store in a folder."""
        return (Path(folder).expanduser() / FILE).is_file()

    def close(self) -> None:
        """Lets go of database and lock."""
        with told(self.folder):
            self.connection.close()
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def plan(self) -> dict[str, Any]:
        """The plan of the latest run, as JSON."""
        try:
            found = json.loads(self._about("plan") or "{}")
        except ValueError as error:
            raise damaged(self.folder, f"its plan cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise damaged(self.folder, "its plan is no table")
        return found

    @property
    def plan_hash(self) -> str:
        """The hash of that plan; '' before the first run."""
        return self._about("plan_hash")

    @property
    def begun(self) -> str:
        """When the store was made, ISO 8601 in UTC."""
        return self._about("begun")

    @property
    def ended(self) -> str:
        """The day (UTC) on which the last cell of the plan ended, as 'YYYY-MM-DD'; '' before any has."""
        found = self._read("SELECT max(ended) FROM results JOIN cells USING (key) WHERE position NOT NULL")
        return str(found[0][0] or "")[:10]

    def set_plan(self, plan: Mapping[str, Any], plan_hash: str, cells: Sequence[Cell]) -> None:
        """Makes these cells the ones to play. Results of cells that are in the plan are kept and count; those of others stay in
        the store for the day when they are in it again."""
        rows = [(cell.key, place, *_axes(cell), _text(cell.to_json())) for place, cell in enumerate(cells)]
        with self._writing() as execute:
            execute("UPDATE cells SET position = NULL")
            for row in rows:
                names = ", ".join(("key", "position", *AXES, "cell"))
                marks = ", ".join("?" * len(row))
                execute(
                    f"INSERT INTO cells ({names}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET position = excluded.position",
                    row,
                )
            now = _now()
            for name, value in (("plan", _text(plan)), ("plan_hash", plan_hash)):
                execute("INSERT INTO about VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))
            execute("INSERT INTO about VALUES ('begun', ?) ON CONFLICT (name) DO NOTHING", (now,))

    def cells(self) -> list[Cell]:
        """The cells of the plan, in its order."""
        return [self._cell(row[0]) for row in self._read("SELECT cell FROM cells WHERE position NOT NULL ORDER BY position")]

    def pending(self) -> list[Cell]:
        """Cells of the plan without a result, in its order."""
        found = self._read(
            "SELECT cell FROM cells WHERE position NOT NULL AND key NOT IN (SELECT key FROM results) ORDER BY position"
        )
        return [self._cell(row[0]) for row in found]

    def begin(self, key: str, worker: str, attempt: int) -> None:
        """Notes that a worker has been given a cell."""
        with self._writing() as execute:
            row = (key, attempt, worker, _now())
            execute("INSERT INTO attempts (key, attempt, worker, started) VALUES (?, ?, ?, ?)", row)

    def finish(self, result: CellResult | Encoded) -> None:
        """Keeps the result of a cell, for good: afterwards it is not played again.

        Raises:
            DataError: if it cannot be written, or the cell has a result already.
        """
        done = encode(result) if isinstance(result, CellResult) else result
        with told(self.folder):
            if done.tensors:
                write_tensors(self.folder, done.key, done.tensors)
        begun = self._read("SELECT worker, started FROM attempts WHERE key = ? ORDER BY number DESC LIMIT 1", (done.key,))
        worker, started = begun[0] if begun else ("", _now())
        with self._writing() as execute:
            row = (done.key, done.status, done.reason, done.record, done.line_ups, done.decoys, done.seconds, done.attempt)
            execute(
                f"INSERT INTO results ({RESULT}, worker, started, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, len(done.tensors), worker, started, _now()),
            )

    def results(self, pictures: bool = False) -> list[CellResult]:
        """The ended cells of the plan, in its order.

        Args:
            pictures: read their tensors too.

        Raises:
            DataError: if a result is damaged.
        """
        return [self._result(row, pictures) for row in self._rows()]

    def keys(self) -> list[str]:
        """The keys of the ended cells, in the order of `results`."""
        return [row["key"] for row in self._rows()]

    def result(self, key: str, pictures: bool = True) -> CellResult:
        """One ended cell, by its key as it is now or as it was when the store was written.

        Raises:
            DataError: if there is none, or it is damaged.
        """
        for row in self._rows():
            if row["key"] == key or self._cell(row["cell"]).key == key:
                return self._result(row, pictures)
        raise DataError(f"The store in {str(self.folder)!r} holds no result of a cell {key!r}.")

    def counts(self) -> dict[str, int]:
        """How many cells of the plan have ended with each status; under 'pending' those that have not."""
        found = self._read(
            "SELECT coalesce(status, 'pending'), count(*) FROM cells LEFT JOIN results USING (key) "
            "WHERE position NOT NULL GROUP BY 1 ORDER BY 1"
        )
        return {str(status): int(count) for status, count in found}

    def forget(self, *statuses: str) -> int:
        """Drops the plan's results of these statuses, so that their cells are played again; how many there were."""
        keys = [row["key"] for row in self._rows() if row["status"] in statuses]
        self._drop(keys)
        return len(keys)

    def drop_damaged(self) -> list[str]:
        """Drops the plan's results that cannot be read, so that their cells are played again; their keys."""
        found = []
        for row in self._rows():
            try:
                self._result(row, pictures=False)
                self._check_tensors(row)
            except (DataError, *DAMAGED):
                found.append(str(row["key"]))
        self._drop(found)
        return found

    def _drop(self, keys: Sequence[str]) -> None:
        with self._writing() as execute:
            for key in keys:
                execute("DELETE FROM results WHERE key = ?", (key,))

    def _rows(self) -> list[sqlite3.Row]:
        names = RESULT.replace("key", "results.key")
        return self._read(f"SELECT cell, {names} FROM cells JOIN results USING (key) WHERE position NOT NULL ORDER BY position")

    def _result(self, row: sqlite3.Row, pictures: bool) -> CellResult:
        try:
            encoded = Encoded(
                key=row["key"],
                status=row["status"],
                reason=row["reason"],
                record=row["record"],
                line_ups=row["line_ups"],
                decoys=row["decoys"],
                seconds=float(row["seconds"]),
                attempt=int(row["attempt"]),
                tensors=self._tensors(row) if pictures else b"",
            )
            return decode(self._cell(row["cell"]), encoded)
        except DAMAGED as error:
            raise self._damaged_result(row["key"], error) from error

    def _tensors(self, row: sqlite3.Row) -> bytes:
        self._check_tensors(row)
        path = tensor_path(self.folder, row["key"])
        if row["tensor_bytes"] == 0 or not path.is_file():
            return b""
        with told(self.folder):
            return path.read_bytes()

    def _check_tensors(self, row: sqlite3.Row) -> None:
        expected, path = int(row["tensor_bytes"]), tensor_path(self.folder, row["key"])
        if expected > 0 and (not path.is_file() or path.stat().st_size != expected):
            raise self._damaged_result(row["key"], f"{path.name} is missing or cut short")

    def _damaged_result(self, key: str, what: object) -> DataError:
        reason = f"{what} is missing" if isinstance(what, KeyError) else " ".join(str(what).split())
        return DataError(
            f"The result of cell {key} in {str(self.folder)!r} is damaged ({reason}); the same audit, run again, makes it anew."
        )

    def _cell(self, text: str) -> Cell:
        try:
            return Cell.from_json(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(self.folder, f"a cell cannot be read: {error}") from error

    def _about(self, name: str) -> str:
        found = self._read("SELECT value FROM about WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with told(self.folder):
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., Any]]:
        """One transaction: all of the body, or nothing."""
        with told(self.folder):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection.execute
                self.connection.execute("COMMIT")
            except BaseException:
                self.connection.rollback()
                raise


def _axes(cell: Cell) -> tuple[Any, ...]:
    entries = cell.to_json()
    return tuple(_text(entries[name]) if isinstance(entries[name], dict) else entries[name] for name in AXES)


def _text(entries: Any) -> str:
    return json.dumps(entries, ensure_ascii=False, sort_keys=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
