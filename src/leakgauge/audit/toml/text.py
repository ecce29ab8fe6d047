"""TOML text into a table, with changes from outside (`--set`); every error is one sentence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leakgauge.audit.toml.lines import Place, lines_of
from leakgauge.errors import DataError, OptionError

LARGEST = 4 * 2**20  # bytes; a plan is written by a person
LONGEST_INTEGER = 40  # digits that are still shown


@dataclass(frozen=True)
class Source:
    """Where the keys of a plan stand, for its sentences.

    Args:
        name: of the file; '' where a plan is made in code.
        lines: place -> line.
        changed: place -> the --set text that put it there.
    """

    name: str = ""
    lines: dict[Place, int] = field(default_factory=dict)
    changed: dict[Place, str] = field(default_factory=dict)

    def at(self, place: Place) -> str:
        """'plan.toml, line 7: ', "--set 'budget=x': ", or '' where the place is not known."""
        for size in range(len(place), 0, -1):
            if place[:size] in self.changed:
                return f"--set {self.changed[place[:size]]!r}: "
            if place[:size] in self.lines:
                return f"{self.name}, line {self.lines[place[:size]]}: "
        return ""


def read_toml(path: str | Path) -> tuple[dict[str, Any], Source]:
    """The table in a file, and where its keys stand.

    Raises:
        DataError: if there is no such file, or it is no TOML.
    """
    file = Path(path)
    try:
        if file.is_file() and file.stat().st_size > LARGEST:
            raise DataError(f"The plan {file} has {file.stat().st_size} bytes; expected at most {LARGEST}.")
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"The plan {file} is not text in UTF-8 ({error.reason}).") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The plan {str(file)!r} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise DataError(f"The plan {file} is not TOML that can be read: its brackets are nested too deeply.") from error
    except ValueError as error:
        raise DataError(f"The plan {file} is not TOML: {_first(error)}.") from error
    return table, Source(file.name, lines_of(text))


def changed(table: dict[str, Any], source: Source, settings: Sequence[str]) -> Source:
    """Puts every 'a.b=1' or 'clients[0].lr=0.1' into the table; returns the source that knows of them.

    Raises:
        OptionError: for text that is no change, or leads nowhere.
    """
    found = dict(source.changed)
    for setting in settings:
        found[_change(table, setting)] = setting
    return Source(source.name, source.lines, found)


def _change(table: dict[str, Any], setting: str) -> Place:
    path, sign, text = setting.partition("=")
    parts = re.findall(r"[^.\[\]]+", path.strip())
    if not sign or not parts:
        raise OptionError(f"--set {setting!r} is no change; expected KEY=VALUE such as attack.budget=200.")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    place: Any = table
    steps: list[int | str] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(place, list):
            if not (part.isascii() and part.isdigit()) or len(part) > 9 or int(part) >= len(place):
                raise OptionError(f"--set {setting!r} names entry {part!r}; there are {len(place)}, from 0.")
            steps.append(int(part))
            if last:
                place[int(part)] = value
            else:
                place = place[int(part)]
        elif isinstance(place, dict):
            steps.append(part)
            if last:
                place[part] = value
            else:
                place = place.setdefault(part, {})
        else:
            raise OptionError(f"--set {setting!r} goes through {steps[-1]!r}, which is no table.")
    return tuple(steps)


def _first(error: Exception) -> str:
    """The first sentence of an error, without its full stop."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:200]}..").rstrip(".")
