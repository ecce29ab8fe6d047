"""The recorder's log: one line of JSON per event in a file, and the same through Python's logging."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("leakgauge.recorder")
LOG_FILE = "log.jsonl"


@dataclass
class Log:
    """Events of one recorder, in order; a file that cannot be written costs nothing but the file.

    Args:
        folder: where `log.jsonl` is appended to.
    """

    folder: Path
    entries: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def write(self, event: str, words: str, *, warning: bool = False, **facts: Any) -> None:
        """Adds an event: its name, a sentence for people, and facts for programs."""
        entry = {"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "words": words, **facts}
        LOGGER.log(logging.WARNING if warning else logging.INFO, "%s", words)
        with self._lock:
            self.entries.append(entry)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / LOG_FILE).open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry) + "\n")
            except OSError as error:
                LOGGER.warning("The log %s cannot be written (%s).", self.folder / LOG_FILE, error.strerror or error)

    def __getstate__(self) -> Mapping[str, Any]:
        return {"folder": self.folder, "entries": list(self.entries)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.folder, self.entries, self._lock = state["folder"], state["entries"], threading.Lock()


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """All whole lines of a folder's log; none where there is no log."""
    path = Path(folder) / LOG_FILE
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
