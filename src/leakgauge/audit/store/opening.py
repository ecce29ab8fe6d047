"""Opening a store's database: one writer at a time, any number of readers, and layouts older or newer than this one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from leakgauge.audit.store.failures import damaged
from leakgauge.audit.store.lock import RunLock
from leakgauge.audit.store.schema import VERSION, create, migrate, version_of
from leakgauge.audit.store.tensors import sweep
from leakgauge.errors import DataError

FILE = "run.sqlite"
PATIENCE = 30.0  # seconds to wait for a reader that holds the database


def open_to_write(folder: Path) -> tuple[sqlite3.Connection, RunLock]:
    """The database of a folder for its one writer, made or brought up to date, and the lock on it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        connection = _connected(sqlite3.connect(folder / FILE, timeout=PATIENCE, isolation_level=None))
        try:
            version = _version(folder, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if version is None:
                create(connection)
            elif version < VERSION:
                migrate(connection, version)
            sweep(folder)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.release()
        raise
    return connection, lock


def open_to_read(folder: Path) -> sqlite3.Connection:
    """The database of a folder for one of any number of readers, who change nothing."""
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"There is no run in {str(folder)!r}; expected {FILE}, as `leakgauge audit` writes it.")
    try:
        return _reader(folder, "mode=ro")
    except sqlite3.OperationalError:
        # In a folder that may not be written to SQLite can make no files beside the database. Without a journal there is
        # nothing in them either; with one, reading past it would leave out the latest results.
        journal = file.with_name(f"{FILE}-wal")
        if journal.is_file() and journal.stat().st_size:
            raise
        return _reader(folder, "mode=ro&immutable=1")


def _reader(folder: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(str((folder / FILE).resolve()))}?{options}"
    connection = _connected(sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None))
    try:
        version = _version(folder, connection)
        if version is None:
            raise damaged(folder, "it holds no tables")
        if version < VERSION:  # an older layout is read through a copy in memory, and its file left as it is
            copy = _connected(sqlite3.connect(":memory:", isolation_level=None))
            connection.backup(copy)
            connection.close()
            connection = copy
            migrate(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _version(folder: Path, connection: sqlite3.Connection) -> int | None:
    version = version_of(connection)
    if version is not None and version > VERSION:
        raise DataError(
            f"The store in {str(folder)!r} was written by a newer leakgauge (its layout is {version}, and this one knows "
            f"{VERSION}); upgrade leakgauge, or give another folder."
        )
    return version
