"""Private records one by one: how much of each came out, by which cell, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from leakgauge.audit.record import Record, Score, nearness
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.judge import RecordVerdict
from leakgauge.audit.verdict.saying import severity
from leakgauge.report.gallery import ORIGINAL, RECONSTRUCTION, Detail, Picture, examples_of
from leakgauge.report.grid.cells import level_of, level_value
from leakgauge.report.grid.findings import Findings, record_key
from leakgauge.report.grid.words import chance, record_name, verdict_meaning
from leakgauge.report.page import DIAGNOSTIC, REALISTIC
from leakgauge.report.texts import TextRow, text_examples
from leakgauge.report.words import CONTROL, control_score, sentence


@dataclass(frozen=True)
class Sighting:
    """One private record, by its key, in the cell of that number."""

    key: str
    number: int
    result: CellResult
    record: Record
    score: Score


@dataclass(frozen=True)
class RecordView:
    """One private record on the page.

    Args:
        number: among the private records, from 1.
        name, patient: as the data say; '' where they do not, or where they are left out.
        verdict, meaning: the calibrated verdict, and what it means.
        level, control: figure of the best reconstruction, and of the control for it.
        level_value: to sort by.
        rank, chance, adjusted: place among decoys; how often chance alone does as well; that corrected for many looks.
        kind: realistic or diagnostic.
        cell: number of the best cell, 0 for none.
        cells: how many cells attacked it.
        remarks: sentences of the judgement.
        pictures: original and best reconstruction.
        texts: the same for texts.
    """

    number: int
    key: str
    title: str
    name: str
    patient: str
    verdict: str
    meaning: str
    level: str
    level_value: float
    control: str
    rank: str
    chance: str
    adjusted: str
    kind: str
    cell: int
    cells: int
    remarks: tuple[str, ...]
    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    texts: tuple[TextRow, ...] = field(default=(), repr=False)

    @property
    def sort_level(self) -> float:
        """A finite number to sort by."""
        return min(max(self.level_value, -1e9), 1e9)

    def size(self) -> int:
        """Estimated bytes on the page."""
        pictures = sum(len(picture.uri) + 400 for picture in self.pictures)
        return 1500 + pictures + sum(len(run.text) + 60 for row in self.texts for run in row.runs)


def sightings_of(findings: Findings) -> dict[str, list[Sighting]]:
    """Every private record (by its hash) in every cell that attacked it and has scores; controls are left out."""
    found: dict[str, list[Sighting]] = {}
    for number, result in enumerate(findings.results, start=1):
        record = result.record
        if record is None or record.attack == CONTROL or result.status in ("failed", "unsupported"):
            continue
        for score in record.scores:
            key = record_key(result, score.index)
            found.setdefault(key, []).append(Sighting(key, number, result, record, score))
    return found


def record_views(
    findings: Findings, sightings: Mapping[str, Sequence[Sighting]], detail: Detail, redacted: bool
) -> tuple[RecordView, ...]:
    """The records, the most exposed first as the judgement has it; the first `detail.examples` with pictures."""
    numbered = list(enumerate(findings.judgement.records, start=1))
    ordered = sorted(numbered, key=lambda pair: (severity(pair[1]), pair[0]))
    views = [_view(number, entry, sightings.get(entry.record, ())) for number, entry in ordered]
    shown = []
    for place, view in enumerate(views):
        best = best_sighting(sightings.get(view.key, ()), view.cell)
        shown.append(with_pictures(view, best, detail, redacted) if best and place < detail.examples else view)
    return tuple(shown)


def best_sighting(found: Sequence[Sighting], number: int = 0) -> Sighting | None:
    """The sighting in the cell of that number, else the one that came nearest."""
    named = next((sighting for sighting in found if sighting.number == number), None)
    near = [sighting for sighting in found if not math.isnan(nearness(sighting.score))]
    return named or max(near, key=lambda sighting: nearness(sighting.score), default=None)


def pictures_of_sighting(sighting: Sighting, pixels: int, redacted: bool) -> tuple[Picture, ...]:
    """Original and reconstruction of one private record in one cell."""
    record, score = sighting.record, sighting.score
    if record.pictures is None:
        return ()
    alone = Detail(frames=0, examples=len(record.scores), pixels=pixels, rows=len(record.scores), cards=1)
    only = replace(record, scores=tuple(one for one in record.scores if one.index == score.index))
    shown = [picture for example in examples_of(only, alone, redacted) for picture in example.pictures]
    return tuple(picture for picture in shown if picture.what in (ORIGINAL, RECONSTRUCTION))


def with_pictures(view: RecordView, sighting: Sighting, detail: Detail, redacted: bool) -> RecordView:
    """The view with the pictures, or texts, of one sighting."""
    texts: tuple[TextRow, ...] = ()
    if sighting.record.texts is not None:
        examples = text_examples(sighting.record, len(sighting.record.scores))
        found = next((entry for entry in examples if entry.number == sighting.score.index + 1), None)
        texts = tuple(row for row in found.rows if row.what in (ORIGINAL, RECONSTRUCTION)) if found else ()
    return replace(view, pictures=pictures_of_sighting(sighting, detail.pixels, redacted), texts=texts)


def _view(number: int, entry: RecordVerdict, found: Sequence[Sighting]) -> RecordView:
    named = next((sighting.number for sighting in found if sighting.result.cell.key == entry.best), 0)
    best = best_sighting(found, named)
    control = control_score(best.record, best.score.index) if best else None
    return RecordView(
        number=number,
        key=entry.record,
        title=record_name(entry, number),
        name=entry.name,
        patient=entry.patient,
        verdict=entry.verdict,
        meaning=verdict_meaning(entry.verdict),
        level=level_of(best.score) if best else "no score",
        level_value=level_value(best.score) if best else -math.inf,
        control=level_of(control) if control is not None else "none",
        rank=f"{entry.rank} of {entry.decoys + 1}" if entry.rank else "not tested",
        chance=chance(entry.p),
        adjusted=chance(entry.adjusted),
        kind="" if best is None else REALISTIC if best.record.conditions.realistic else DIAGNOSTIC,
        cell=best.number if best else 0,
        cells=len(found),
        remarks=tuple(sentence(text) for text in entry.sentences),
    )
