"""What can go wrong with a store on disk, in one sentence each."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leakgauge.errors import DataError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class StoreError(DataError):
    """The store itself cannot be written or read: a run ends, whatever it was doing."""


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turns failures of disk and database in the body into a StoreError.

    Raises:
        StoreError: with what happened, and what to do about it.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_of_database(folder, error)) from error
    except OSError as error:
        raise StoreError(_of_disk(folder, error)) from error


def damaged(folder: Path, what: object) -> DataError:
    """The error for a store whose content was changed by another hand."""
    reason = f"{what} is missing" if isinstance(what, KeyError) else " ".join(str(what).split())
    return DataError(f"The store in {str(folder)!r} is damaged ({reason}); the same audit in another folder makes it anew.")


def _of_database(folder: Path, error: sqlite3.Error) -> str:
    text = " ".join(str(error).split())
    if "full" in text or "disk I/O error" in text:
        return _full(folder, text)
    if "readonly" in text or "unable to open" in text:
        return _read_only(folder, text)
    if "locked" in text:
        return f"The store in {str(folder)!r} is held by another program ({text}); close it, and the same command continues."
    return str(damaged(folder, text))


def _of_disk(folder: Path, error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno in FULL:
        return _full(folder, text)
    if error.errno in READ_ONLY:
        return _read_only(folder, text)
    return f"The store in {str(folder)!r} cannot be used ({text})."


def _full(folder: Path, text: str) -> str:
    return (
        f"The store in {str(folder)!r} cannot be written ({text}); is the disk full? "
        "What is done is kept: make room, and the same command continues."
    )


def _read_only(folder: Path, text: str) -> str:
    return f"The store in {str(folder)!r} cannot be written or opened ({text}); give a folder that you may write to."
