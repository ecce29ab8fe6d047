"""Sightings: each private example in each cell that attacks it, and what a set of them identifies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leakgauge.audit.record import ABOVE_CONTROL_DB, Score, nearness, verdict_of
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import TextScore
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.audit.verdict.look_alikes import text_hash
from leakgauge.audit.verdict.stepdown import adjusted
from leakgauge.audit.verdict.suspects import Suspect, Table, suspects_of, tables_of
from leakgauge.measures.identification import FEWEST_DECOYS

CONTROL = "control"
PLAYED = ("ok", "underdetermined")


@dataclass(frozen=True)
class Sighting:
    """One private example in one cell.

    Args:
        record: its hash.
        key: of the cell.
        result: the cell's.
        line_up, score, control: of this example; None where the cell has none.
    """

    record: str
    key: str
    result: CellResult
    line_up: LineUp | None = None
    score: Score | None = None
    control: Score | None = None

    @property
    def realistic(self) -> bool:
        """Whether the attacker had no more than a real server has."""
        held = self.result.record
        return held.conditions.realistic if held else not dict(self.result.cell.threat).get("labels")

    @property
    def pictorial(self) -> str:
        """'exact', 'rebuilt', 'partly' or 'not found', by the rules for one record, and not where the control does as well."""
        score, control = self.score, self.control
        if score is None or math.isnan(nearness(score)):
            return "not found"
        found = verdict_of(score, control)
        if isinstance(score, TextScore):
            same = found == "rebuilt" and not (isinstance(control, TextScore) and control.whole)
            return "exact" if same else found if found == "partly" else "not found"
        if score.psnr == math.inf:
            return "exact"
        near = control is not None and not isinstance(control, TextScore) and score.psnr < control.psnr + ABOVE_CONTROL_DB
        return "not found" if near else found


def is_control(result: CellResult) -> bool:
    """Whether a cell's 'attack' looks at no update."""
    return result.cell.attack.partition(":")[0] == CONTROL


def sightings_of(results: Iterable[CellResult]) -> dict[str, list[Sighting]]:
    """All private examples by hash, in the order in which they appear.

    Cells that failed before their data were read count for every example that other cells found in the same data; where there
    are none, the data stand for one example.
    """
    found: dict[str, list[Sighting]] = {}
    of_data: dict[str, dict[str, None]] = {}
    bare = []
    for result in results:
        seen = _in_cell(result)
        for sighting in seen:
            found.setdefault(sighting.record, []).append(sighting)
            of_data.setdefault(result.cell.data, {})[sighting.record] = None
        if not seen:
            bare.append(result)
    for result in bare:
        for record in of_data.get(result.cell.data, {unnamed(result.cell.data, 0): None}):
            found.setdefault(record, []).append(Sighting(record, result.cell.key, result))
    return found


@dataclass(frozen=True)
class Evidence:
    """What a set of cells says about ranks.

    Args:
        tables: line-ups by private example, those with enough decoys.
        suspects: how far ahead each is.
        adjusted: p corrected for all of them.
        false_alarm: the stated rate.
    """

    tables: Mapping[str, Table]
    suspects: Mapping[str, Suspect]
    adjusted: Mapping[str, float]
    false_alarm: float

    def ranks_as_leaked(self, record: str) -> bool:
        """Whether the rank alone identifies a private example."""
        return self.adjusted.get(record, 1.0) <= self.false_alarm

    def stands_out(self, record: str) -> bool:
        """Whether its rank is unlikely before any correction."""
        return record in self.adjusted and self.suspects[record].p <= self.false_alarm

    def identifies(self, record: str, sightings: Iterable[Sighting]) -> bool:
        """Whether rank, or a reconstruction that shows the private example as it is, identifies it.

        30 dB count only where no decoy comes as near, as far as that can be tested: else it is the look of the class.
        """
        shown = {sighting.pictorial for sighting in sightings}
        alone = record not in self.adjusted or self.stands_out(record)
        return self.ranks_as_leaked(record) or "exact" in shown or ("rebuilt" in shown and alone)


def evidence_of(sightings: Iterable[Sighting], false_alarm: float) -> Evidence:
    """The evidence of these sightings alone."""
    cells: dict[str, list[LineUp]] = {}
    for sighting in sightings:
        if sighting.line_up is not None:
            cells.setdefault(sighting.key, []).append(sighting.line_up)
    fewest = fewest_decoys(false_alarm)
    tables = tables_of(list(cells.items()), fewest)
    suspects = suspects_of(tables)
    return Evidence(tables, suspects, adjusted(suspects, fewest), false_alarm)


def fewest_decoys(false_alarm: float) -> int:
    """With fewer, no rank is unlikely enough."""
    return max(FEWEST_DECOYS, math.ceil(round(1 / false_alarm, 9)) - 1)


def flat(found: Mapping[str, Sequence[Sighting]]) -> list[Sighting]:
    """All sightings."""
    return [sighting for seen in found.values() for sighting in seen]


def unnamed(data: str, place: int) -> str:
    """Stands for the hash of an example whose content no cell read."""
    return text_hash(f"{data}#{place}")


def _in_cell(result: CellResult) -> list[Sighting]:
    record = result.record
    scores = {score.index: score for score in record.scores} if record else {}
    controls = {score.index: score for score in record.control.scores} if record and record.control else {}
    line_ups = {line_up.example: line_up for line_up in result.line_ups}
    seen, key = [], result.cell.key
    for place in sorted({*scores, *line_ups}):
        line_up = line_ups.get(place)
        name = line_up.record if line_up and line_up.record else unnamed(result.cell.data, place)
        seen.append(Sighting(name, key, result, line_up, scores.get(place), controls.get(place)))
    return seen
