"""The tables of a run store, and the steps that bring an older store up to date."""

from __future__ import annotations

import sqlite3

VERSION = 1

TABLES = """
CREATE TABLE about (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE cells (
    key TEXT PRIMARY KEY,
    position INTEGER UNIQUE,
    data TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    protocol TEXT NOT NULL,
    threat TEXT NOT NULL,
    defence TEXT NOT NULL,
    attack TEXT NOT NULL,
    seed INTEGER NOT NULL,
    cell TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL REFERENCES cells (key),
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started TEXT NOT NULL
);
CREATE TABLE results (
    key TEXT PRIMARY KEY REFERENCES cells (key),
    status TEXT NOT NULL CHECK (status IN ('ok', 'underdetermined', 'unsupported', 'failed', 'timeout')),
    reason TEXT NOT NULL,
    record TEXT,
    line_ups TEXT NOT NULL,
    decoys TEXT NOT NULL,
    tensor_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started TEXT NOT NULL,
    ended TEXT NOT NULL
) WITHOUT ROWID;
"""


STEPS = {
    # Version 0 kept no attempts, and told neither who played a cell, nor where its decoys came from, nor how long the file of
    # its tensors has to be (-1: not known).
    0: """
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL REFERENCES cells (key),
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started TEXT NOT NULL
);
ALTER TABLE results ADD COLUMN decoys TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN worker TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN tensor_bytes INTEGER NOT NULL DEFAULT -1;
""",
}


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty database."""
    _in_one(connection, TABLES, VERSION)


def version_of(connection: sqlite3.Connection) -> int | None:
    """The version of the tables; None where there are none."""
    if not connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]:
        return None
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Brings older tables up to date, step by step."""
    for old in range(version, VERSION):
        _in_one(connection, STEPS[old], old + 1)


def _in_one(connection: sqlite3.Connection, statements: str, version: int) -> None:
    """Runs statements and notes the version in one transaction: killed in between, nothing has happened."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in filter(None, (part.strip() for part in statements.split(";"))):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.rollback()
        raise
