"""Tensors beside the database: one safetensors file for each cell, there whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

from leakgauge.errors import DataError

FOLDER = "tensors"
KEY = re.compile(r"[0-9a-f]{8,64}")


def tensor_path(folder: Path, key: str) -> Path:
    """Where the tensors of a cell are kept."""
    if not KEY.fullmatch(key):
        raise DataError(f"The store in {str(folder)!r} is damaged (the key {key!r} is none).")
    return folder / FOLDER / f"{key}.safetensors"


def write_tensors(folder: Path, key: str, content: bytes) -> None:
    """Writes a file under another name, has it reach the disk, and only then gives it its name."""
    target = tensor_path(folder, key)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{key}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what a killed run left half written; only for the holder of the lock."""
    for path in (folder / FOLDER).glob(".*.new"):
        path.unlink(missing_ok=True)
