"""Writing a report to a file: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from leakgauge.errors import DataError


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text under a temporary name and renames it; makes the folder where there is none.

    What UTF-8 cannot hold, such as half of a character in a file's name, is written as its number.

    Raises:
        DataError: if the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"The report cannot be written to {str(target)!r}: {error.strerror or error}.") from error
