"""One run at a time in a folder: an advisory lock that the system lets go when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import IO

from leakgauge.errors import DataError

FILE = "run.lock"


class RunLock:
    """The lock on a run folder, from construction until `release`.

    Args:
        folder: where the file of the lock is.

    Raises:
        DataError: if another run holds it; the sentence names process and machine.
        OSError: if the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise DataError("An audit's store needs a system with file locks (Linux, macOS).") from error
        self._file: IO[str] | None = (folder / FILE).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = " ".join(self._file.read(200).split()) or "another process"
            self._file.close()
            raise DataError(
                f"Another run is at work in {str(folder)!r} ({holder}); wait for its end, or give another folder."
            ) from error
        except OSError:
            self._file.close()
            raise
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()

    def release(self) -> None:
        """Lets go. The file stays: removing it would let two runs lock two files of one name."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
