"""Places to write to: made and tried before any long work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from leakgauge.errors import DataError


def output_folder(path: str | Path) -> Path:
    """The folder, made where it does not exist and tried for writing.

    Raises:
        DataError: if it cannot be made or written to.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"The folder {str(path)!r} cannot be written to ({error.strerror or error}).") from error
    return folder


def output_file(path: str | Path) -> Path:
    """The file's path, with its folder made and tried for writing.

    Raises:
        DataError: if the folder cannot be written to, or the path is a folder itself.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError(f"{str(path)!r} is a folder; expected the name of a file to write.")
    output_folder(file.parent)
    return file
