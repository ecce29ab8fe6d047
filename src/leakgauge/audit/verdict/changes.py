"""The change that helped most: cells that differ in the defence or the protocol alone, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from statistics import median

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.groupings import table_text, verdicts_of
from leakgauge.audit.verdict.judgement import RecordVerdict
from leakgauge.audit.verdict.sightings import PLAYED, is_control
from leakgauge.audit.verdict.words import IDENTIFIED, PARTLY

LEAST_DB = 3.0  # as much as the record rule asks for above the control
LEAST_SHARE = 0.2  # of the tokens, likewise


@dataclass(frozen=True)
class Change:
    """Two values of one axis, over the same private examples and attacks.

    Args:
        axis: 'defence' or 'protocol'.
        before, after: in words.
        records: private examples compared.
        identified, partly: how many are, before and after.
        level: median of the best PSNR, or token accuracy, before and after.
        texts: whether that is token accuracy.
        plain: whether the value before is no defence, or one gradient: of changes that help alike, these are named.
    """

    axis: str
    before: str
    after: str
    records: int
    identified: tuple[int, int]
    partly: tuple[int, int]
    level: tuple[float, float]
    texts: bool
    plain: bool

    @property
    def gain(self) -> tuple[float, float, float]:
        """Share no longer identified, share no longer partly rebuilt, fall of the level; compared in this order."""
        fewer = (self.identified[0] - self.identified[1]) / self.records
        less = (self.identified[0] + self.partly[0] - self.identified[1] - self.partly[1]) / self.records
        fall = 0.0 if self.level[0] == self.level[1] else self.level[0] - self.level[1]
        return fewer, less, 0.0 if math.isnan(fall) else fall

    @property
    def helps(self) -> bool:
        """Whether it does; a level that falls by less than the record rule's margin does not count."""
        fewer, less, fall = self.gain
        if fewer < 0 or (fewer == 0 and less < 0):
            return False
        return fewer > 0 or less > 0 or fall >= (LEAST_SHARE if self.texts else LEAST_DB)

    @property
    def text(self) -> str:
        """In a sentence."""
        unit = "of the tokens" if self.texts else "dB"
        before, after = (_level(value, self.texts) for value in self.level)
        are = "is" if self.identified[1] == 1 else "are"
        return (
            f"With {self.after} in place of {self.before}, {self.identified[1]} instead of {self.identified[0]} of "
            f"{self.records} private records {are} identified, by the same attacks (median of the best reconstructions "
            f"{after} instead of {before} {unit})."
        )


def best_change(results: Sequence[CellResult], false_alarm: float) -> Change | None:
    """The change of defence or protocol that helped most, or None where none did.

    Only pairs of cells count that are equal in everything else and were both played out; every change is measured over its own
    pairs.

    Args:
        results: of all cells.
        false_alarm: rate for each side of a comparison by itself.
    """
    played = [result for result in results if result.status in PLAYED and not is_control(result)]
    found = []
    for axis in ("defence", "protocol"):
        sides: dict[Cell, dict[object, CellResult]] = {}
        for result in played:
            sides.setdefault(_without(result.cell, axis), {})[getattr(result.cell, axis)] = result
        values = dict.fromkeys(value for side in sides.values() for value in side)
        judged: dict[tuple[object, tuple[Cell, ...]], dict[str, RecordVerdict]] = {}
        for pair in permutations(values, 2):
            both = tuple(rest for rest, side in sides.items() if pair[0] in side and pair[1] in side)
            for value in pair:
                if both and (value, both) not in judged:
                    judged[value, both] = verdicts_of([sides[rest][value] for rest in both], false_alarm)
            change = _compared(axis, pair, [judged[value, both] for value in pair]) if both else None
            if change is not None and change.helps:
                found.append(change)
    return max(found, key=lambda change: (*change.gain[:2], change.plain, change.gain[2]), default=None)


def _without(cell: Cell, axis: str) -> Cell:
    return replace(cell, defence="none") if axis == "defence" else replace(cell, protocol=())


def _compared(axis: str, pair: Sequence[object], verdicts: Sequence[Mapping[str, RecordVerdict]]) -> Change | None:
    records = [record for record in verdicts[0] if record in verdicts[1]]
    if not records:
        return None
    sides = [[found[record] for record in records] for found in verdicts]
    texts = any(not math.isnan(entry.token_accuracy) for entry in sides[0])

    def count(verdict: str) -> tuple[int, int]:
        return sum(entry.verdict == verdict for entry in sides[0]), sum(entry.verdict == verdict for entry in sides[1])

    return Change(
        axis,
        _named(axis, pair[0]),
        _named(axis, pair[1]),
        len(records),
        count(IDENTIFIED),
        count(PARTLY),
        (_median(sides[0], texts), _median(sides[1], texts)),
        texts,
        pair[0] in ("none", ()),
    )


def _named(axis: str, value: object) -> str:
    if axis == "defence":
        return "no defence" if value == "none" else f"the defence '{value}'"
    assert isinstance(value, tuple)
    return f"the protocol '{table_text(value)}'" if value else "the plain protocol (one gradient)"


def _median(entries: Sequence[RecordVerdict], texts: bool) -> float:
    values = [entry.token_accuracy if texts else entry.psnr for entry in entries]
    known = sorted(value for value in values if not math.isnan(value))
    return median(known) if known else math.nan


def _level(value: float, texts: bool) -> str:
    if math.isnan(value):
        return "unknown"
    return f"{100 * value:.0f} %" if texts else "infinite" if value == math.inf else f"{value:.1f}"
