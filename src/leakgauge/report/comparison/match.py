"""Two runs cell by cell: matched by everything that the plan says about a cell, whatever the versions that played it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leakgauge.audit.folder import strict_json
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.report.grid.axes import cell_title, varying
from leakgauge.report.grid.cells import level_of, level_value
from leakgauge.report.grid.findings import Findings, line_up_of, rank_of
from leakgauge.report.words import NOT_FOUND, SEVERITY, example_verdict

NOTICE_DB, NOTICE_SHARE = 0.5, 2.0  # smaller differences of PSNR, or of the per cent of tokens, are not reported
OVERALL = "verdict over all cells"
WORSE, BETTER, CHANGED = "worse", "better", "changed"
SEVERE = {"identified": 3, "partly": 2, "incomplete": 1, NOT_FOUND: 0, "not attackable": 0}
AXES = (
    "defence",
    "protocol",
    "threat",
    "state",
    "model",
    "attack",
    "seed",
    "budget",
    "time_limit",
    "data",
    "loss",
    "num_classes",
)


@dataclass(frozen=True)
class Change:
    """One difference: 'worse' means that more leaks in the second run.

    Args:
        kind: 'worse', 'better' or 'changed'.
        what: which cell or private record, in words.
        measure: 'psnr', 'token accuracy', 'verdict', 'status', 'rank' or 'verdict over all cells'.
        before, after: in words.
        difference: after - before as a number; NaN where it is none.
    """

    kind: str
    what: str
    measure: str
    before: str
    after: str
    difference: float = math.nan

    @property
    def text(self) -> str:
        """The change in one sentence."""
        return f"{self.what}: {self.measure} was {self.before}, now {self.after}"


@dataclass(frozen=True)
class Pairing:
    """Cells of two runs: (title, before, after) of each pair, the values that took one another's place, what has no partner."""

    pairs: tuple[tuple[str, CellResult, CellResult], ...]
    swapped: tuple[tuple[str, str, str], ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Args:
        before, after: names of the runs.
        matched: how many cells are in both.
        axes: (axis, before, after) of values that took one another's place.
        changes: differences, worse first.
        only_before, only_after: cells that are in one run only.
    """

    before: str
    after: str
    matched: int
    axes: tuple[tuple[str, str, str], ...]
    changes: tuple[Change, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the runs agree in everything that is compared."""
        return not (self.changes or self.only_before or self.only_after or self.axes)

    def of(self, kind: str) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        entries: dict[str, Any] = strict_json(asdict(self))
        return entries


def compare(before: Findings, after: Findings, names: tuple[str, str] = ("before", "after")) -> Comparison:
    """What differs between two runs.

    Cells are matched by all that determines them but versions and the hash of files. Where a value of an axis is in one run only
    and another one in the other only, that is what was changed between the runs: it is named, and such cells are matched.
    """
    found = pairing(before, after)
    changes: list[Change] = []
    for title, old, new in found.pairs:
        changes += _of_cell(old, new, title)
    changes += _of_records(before, after)
    order = {WORSE: 0, CHANGED: 1, BETTER: 2}
    return Comparison(
        before=names[0],
        after=names[1],
        matched=len(found.pairs),
        axes=found.swapped,
        changes=tuple(sorted(changes, key=lambda change: order[change.kind])),
        only_before=found.only_before,
        only_after=found.only_after,
    )


def pairing(before: Findings, after: Findings) -> Pairing:
    """The cells of two runs, matched."""
    swapped = swapped_values(before, after)
    ours = _by_identity(before.results, ())
    theirs = _by_identity(after.results, swapped)
    differing = varying([result.cell for result in (*before.results, *after.results)])
    kept = [axis for axis in differing if axis not in {name for name, _, _ in swapped}]
    several = {name for name, _, _ in swapped if len({_plain(result.cell, name) for result in before.results}) > 1}
    named = [axis for axis in differing if axis in kept or axis in several]
    return Pairing(
        pairs=tuple((cell_title(old.cell, named), old, theirs[key]) for key, old in ours.items() if key in theirs),
        swapped=swapped,
        only_before=tuple(cell_title(result.cell, differing) for key, result in ours.items() if key not in theirs),
        only_after=tuple(cell_title(result.cell, differing) for key, result in theirs.items() if key not in ours),
    )


def swapped_values(before: Findings, after: Findings) -> tuple[tuple[str, str, str], ...]:
    """(axis, value before, value after): values that are in one run only, paired in order; several pairs for defences only."""
    found = []
    for axis in AXES:
        ours, theirs = (list(dict.fromkeys(_plain(result.cell, axis) for result in run.results)) for run in (before, after))
        gone = [value for value in ours if value not in theirs]
        new = [value for value in theirs if value not in ours]
        if len(gone) == len(new) and (len(gone) == 1 or axis == "defence"):
            found += [(axis, old, now) for old, now in zip(gone, new, strict=True)]
    return tuple(found)


def _plain(cell: Cell, axis: str) -> str:
    value = cell.to_json()[axis]
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _by_identity(results: Sequence[CellResult], swapped: Sequence[tuple[str, str, str]]) -> dict[str, CellResult]:
    """Results by what their cells say, values of the second run written as those of the first."""
    back = {(axis, now): old for axis, old, now in swapped}
    found = {}
    for result in results:
        names = [name for name in result.cell.to_json() if name != "fingerprint"]
        texts = {name: _plain(result.cell, name) for name in names}
        found[json.dumps({name: back.get((name, text), text) for name, text in texts.items()}, sort_keys=True)] = result
    return found


def _of_cell(old: CellResult, new: CellResult, title: str) -> list[Change]:
    if old.status != new.status:
        return [Change(CHANGED, title, "status", _ending(old), _ending(new))]
    if old.record is None or new.record is None:
        return []
    changes: list[Change] = []
    mine = {score.index: score for score in old.record.scores}
    for score in new.record.scores:
        if score.index not in mine:
            continue
        what = f"{title}, example {score.index + 1}"
        was, now = level_value(mine[score.index]), level_value(score)
        measure = "psnr" if hasattr(score, "psnr") else "token accuracy"
        least = NOTICE_DB if measure == "psnr" else NOTICE_SHARE
        if was != now and not abs(now - was) < least and not (math.isnan(was) and math.isnan(now)):
            kind = WORSE if now > was or math.isnan(was) else BETTER
            changes.append(Change(kind, what, measure, level_of(mine[score.index]), level_of(score), now - was))
        words = example_verdict(old.record, mine[score.index]), example_verdict(new.record, score)
        if words[0] != words[1]:
            kind = WORSE if SEVERITY[words[1]] > SEVERITY[words[0]] else BETTER
            changes.append(Change(kind, what, "verdict", *words, float(SEVERITY[words[1]] - SEVERITY[words[0]])))
        changes += _of_rank(old, new, score.index, what)
    return changes


def _of_rank(old: CellResult, new: CellResult, index: int, what: str) -> list[Change]:
    """A private record that begins, or ceases, to lead its decoys."""
    pair = line_up_of(old, index), line_up_of(new, index)
    if pair[0] is None or pair[1] is None or not pair[0].decoys or not pair[1].decoys:
        return []
    ranks = rank_of(pair[0]), rank_of(pair[1])
    if (ranks[0] == 1) == (ranks[1] == 1):
        return []
    words = tuple(f"{rank} of {len(entry.decoys) + 1}" for rank, entry in zip(ranks, pair, strict=True) if entry)
    return [Change(WORSE if ranks[1] == 1 else BETTER, what, "rank", words[0], words[1], float(ranks[1] - ranks[0]))]


def _of_records(before: Findings, after: Findings) -> list[Change]:
    """Calibrated verdicts on the private records that both runs attacked."""
    mine = {entry.record: entry for entry in before.judgement.records}
    changes = []
    for number, entry in enumerate(after.judgement.records, start=1):
        old = mine.get(entry.record)
        if old is not None and old.verdict != entry.verdict:
            step = SEVERE.get(entry.verdict, 0) - SEVERE.get(old.verdict, 0)
            kind = WORSE if step > 0 else BETTER if step < 0 else CHANGED
            name = entry.name or f"{number}"
            changes.append(Change(kind, f"Private record {name}", OVERALL, old.verdict, entry.verdict, float(step)))
    return changes


def _ending(result: CellResult) -> str:
    return f"{result.status} ({result.reason})" if result.reason else result.status
