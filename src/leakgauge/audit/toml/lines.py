"""`lines_of`: on which line of a TOML file each key stands. `tomllib` itself keeps no places."""

from __future__ import annotations

import re
import tomllib

Place = tuple[int | str, ...]
BARE = re.compile(r"[A-Za-z0-9_-]+")
SPACE = re.compile(r"[ \t]*")
EMPTY = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
SCALAR = re.compile(r"[^,\]}#\n]*")
STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""{0,3}', re.DOTALL),
    re.compile(r"'''.*?'''{0,3}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\])*"'),
    re.compile(r"'[^']*'"),
)


def lines_of(text: str) -> dict[Place, int]:
    """The line, from 1, of every table, key and entry of a list, by its place such as ('clients', 0, 'lr').

    Args:
        text: TOML that `tomllib` has accepted.
    """
    return _Scanner(text).scan()


class _Scanner:
    """Walks over valid TOML; what it cannot follow ends the walk, and later keys have no line."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.lines: dict[Place, int] = {}
        self.counts: dict[Place, int] = {}  # tables of each [[array]] so far

    def scan(self) -> dict[Place, int]:
        table: Place = ()
        while True:
            start = self.at
            self._skip(EMPTY)
            if self.at >= len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            if self.at <= start:
                return self.lines

    def _header(self) -> Place:
        many = self.text.startswith("[[", self.at)
        line = self._line()
        self.at += 2 if many else 1
        keys = self._keys()
        self.at += 2 if many else 1
        place = self._resolved((), keys[:-1])
        place = (*place, keys[-1])
        if many:
            self.counts[place] = self.counts.get(place, -1) + 1
            self.lines.setdefault(place, line)
            place = (*place, self.counts[place])
        elif place in self.counts:
            place = (*place, self.counts[place])
        self.lines[place] = line
        return place

    def _resolved(self, base: Place, keys: tuple[str, ...]) -> Place:
        """The place of a table that keys lead to, through the last entry of each [[array]]."""
        for key in keys:
            base = (*base, key)
            if base in self.counts:
                base = (*base, self.counts[base])
        return base

    def _pair(self, table: Place) -> None:
        line, keys = self._line(), self._keys()
        place = table
        for key in keys:
            place = (*place, key)
            self.lines.setdefault(place, line)
        self._skip(SPACE)
        self.at += 1  # the sign
        self._skip(SPACE)
        self._value(place)

    def _value(self, place: Place) -> None:
        head = self.text[self.at : self.at + 1]
        if head == "[":
            self.at += 1
            index = 0
            while self._more("]"):
                self.lines[(*place, index)] = self._line()
                self._value((*place, index))
                index += 1
                self._comma()
        elif head == "{":
            self.at += 1
            while self._more("}"):
                self._pair(place)
                self._comma()
        elif head in ('"', "'") and head:
            self._string()
        else:
            self._skip(SCALAR)

    def _more(self, end: str) -> bool:
        self._skip(EMPTY)
        if self.at >= len(self.text):
            return False
        if self.text[self.at] == end:
            self.at += 1
            return False
        return True

    def _comma(self) -> None:
        self._skip(EMPTY)
        if self.text[self.at : self.at + 1] == ",":
            self.at += 1

    def _keys(self) -> tuple[str, ...]:
        keys = []
        while True:
            self._skip(SPACE)
            if self.text[self.at : self.at + 1] in ('"', "'"):
                start = self.at
                self._string()
                keys.append(_read(self.text[start : self.at]))
            else:
                found = BARE.match(self.text, self.at)
                keys.append(found.group() if found else "")
                self.at = found.end() if found else self.at
            self._skip(SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(keys)
            self.at += 1

    def _string(self) -> None:
        for pattern in STRINGS:
            found = pattern.match(self.text, self.at)
            if found:
                self.at = found.end()
                return
        self.at = len(self.text)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1


def _read(quoted: str) -> str:
    """A quoted key as it is meant."""
    return str(tomllib.loads(f"key = {quoted}")["key"])
