"""What the page over a grid holds, as values; template, JSON and annex read the same page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leakgauge.report.charts import Chart
from leakgauge.report.gallery import Detail, Picture
from leakgauge.report.grid.annex import AnnexPart, annex_of, attacked
from leakgauge.report.grid.axes import axis_name, varying
from leakgauge.report.grid.cells import CellView, Pairs, shared_conditions, views_of
from leakgauge.report.grid.charts import grid_charts, tradeoff_charts
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.front import Front, front_of
from leakgauge.report.grid.groups import GroupRow, group_rows, patient_rows
from leakgauge.report.grid.multiples import Matrix, matrices
from leakgauge.report.grid.records import RecordView, Sighting, record_views, sightings_of
from leakgauge.report.grid.redaction import redacted
from leakgauge.report.grid.why import KINDS
from leakgauge.report.words import count

LIMIT = 8_500_000  # bytes, by estimate: a page stays below 10 MB


@dataclass(frozen=True)
class Level:
    """How much a page shows: pixels of a picture, cells with pictures, records with pictures, matrices, lines of scores per cell,
    rows of the table."""

    pixels: int
    cells: int
    records: int
    matrices: int
    scores: int
    rows: int


LEVELS = (
    Level(pixels=128, cells=1000, records=100, matrices=4, scores=64, rows=2000),
    Level(pixels=64, cells=600, records=60, matrices=3, scores=32, rows=2000),
    Level(pixels=48, cells=200, records=40, matrices=3, scores=16, rows=2000),
    Level(pixels=32, cells=60, records=30, matrices=2, scores=8, rows=2000),
    Level(pixels=32, cells=0, records=20, matrices=1, scores=4, rows=1500),
)


@dataclass(frozen=True)
class Why:
    """One kind of failure with the cells that show it."""

    kind: str
    meaning: str
    cells: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class GridPage:
    """Everything that the page shows.

    Args:
        title: heading.
        front: the first page.
        records: private records, worst first.
        patients: the same by patient, where the data name any; and all rounds together.
        matrices: private records side by side.
        charts, tradeoffs: figures.
        groups: attacks under one set of conditions.
        why: kinds of failure.
        cells: rows of the table.
        left_out: cells without a row.
        axes: (name, heading, texts) of the axes on which cells differ; the texts are the choices of a filter.
        shared: conditions that hold for all cells.
        annex: parts of the annex.
        shortened: what was left out to keep the page small, or ''.
        redacted: whether originals and what comes near them are left out.
        findings: behind the page, redacted where it is.
    """

    title: str
    front: Front
    records: tuple[RecordView, ...]
    patients: tuple[GroupRow, ...]
    matrices: tuple[Matrix, ...]
    charts: tuple[Chart, ...]
    tradeoffs: tuple[Chart, ...]
    groups: tuple[GroupRow, ...]
    why: tuple[Why, ...]
    cells: tuple[CellView, ...]
    left_out: int
    axes: tuple[tuple[str, str, tuple[str, ...]], ...]
    shared: Pairs
    annex: tuple[AnnexPart, ...]
    shortened: str
    redacted: bool
    findings: Findings = field(repr=False)

    @property
    def worst(self) -> tuple[Picture, ...]:
        """The pictures of the first page."""
        return self.front.worst.pictures if self.front.worst else ()

    def size(self) -> int:
        """Estimated bytes of the page."""
        figures = sum(4 * len(chart.svg) // 3 + len(chart.alt) for chart in (*self.charts, *self.tradeoffs))
        front = sum(len(picture.uri) for picture in self.worst)
        parts = sum(part.size() for part in self.records) + sum(part.size() for part in self.matrices)
        return 80_000 + figures + front + parts + sum(part.size() for part in self.cells) + 700 * len(self.groups)


def build_grid_page(findings: Findings, *, redact: bool = False, date: str = "", title: str = "") -> GridPage:
    """The page at the finest level of detail that stays below 10 MB.

    Args:
        findings: results and what they say.
        redact: leave out originals, names, places and what comes near an original.
        date: when the report is made.
        title: heading; made from the plan's name by default.
    """
    shown = redacted(findings) if redact else findings
    sightings = sightings_of(shown)
    differing = varying([result.cell for result in shown.results])
    parts = _Parts(
        sightings=sightings,
        differing=differing,
        shared=shared_conditions(shown.results),
        charts=grid_charts(sightings, differing),
        tradeoffs=tradeoff_charts(sightings),
    )
    for level in LEVELS:
        page = _page(shown, parts, level, redact, date, title)
        if page.size() <= LIMIT:
            break
    return page


@dataclass(frozen=True)
class _Parts:
    """What does not depend on the level of detail."""

    sightings: dict[str, list[Sighting]]
    differing: tuple[str, ...]
    shared: Pairs
    charts: tuple[Chart, ...]
    tradeoffs: tuple[Chart, ...]


def _page(findings: Findings, parts: _Parts, level: Level, redact: bool, date: str, title: str) -> GridPage:
    detail = Detail(frames=0, examples=level.records, pixels=level.pixels, rows=level.scores, cards=level.cells)
    records = record_views(findings, parts.sightings, detail, redact)
    views = views_of(findings.results, parts.differing, [name for name, _ in parts.shared], detail, redact)
    front = front_of(findings, records, parts.differing, date)
    name = findings.name
    axes = [(axis, axis_name(axis), tuple(dict.fromkeys(view.axes[axis] for view in views))) for axis in parts.differing]
    return GridPage(
        title=title or (f"Audit: {name}" if name else "Audit of what clients share"),
        front=front,
        records=records,
        patients=patient_rows(findings),
        matrices=matrices(records, parts.sightings, parts.differing, most=level.matrices, pixels=level.pixels, redacted=redact),
        charts=parts.charts,
        tradeoffs=parts.tradeoffs,
        groups=group_rows(findings),
        why=_why(views),
        cells=views[: level.rows],
        left_out=max(0, len(views) - level.rows),
        axes=tuple(axes),
        shared=parts.shared,
        annex=annex_of(findings, front, records, attacked(findings)),
        shortened=_shortened(level, views, records),
        redacted=redact,
        findings=findings,
    )


def _why(views: Sequence[CellView]) -> tuple[Why, ...]:
    found = []
    for kind, meaning in KINDS.items():
        members = [(view, reason) for view in views for reason in view.reasons if reason.kind == kind]
        if members:
            view, reason = members[0]
            found.append(Why(kind, meaning, tuple(one.number for one, _ in members), f"Cell {view.number}: {reason.text}"))
    return tuple(found)


def _shortened(level: Level, views: Sequence[CellView], records: Sequence[RecordView]) -> str:
    """What was left out, in a sentence."""
    parts = []
    if level is not LEVELS[0]:
        parts.append(f"pictures are at most {level.pixels} pixels wide or high")
    pictured = sum(bool(view.verdict) and view.level != "" for view in views)
    if pictured > level.cells:
        parts.append(f"of {pictured} cells with scores the {level.cells} that leaked most have pictures")
    if len(records) > level.records:
        parts.append(f"of {count(len(records), 'private record')} the first {level.records} have pictures")
    if len(views) > level.rows:
        parts.append(f"the table holds the first {level.rows} of {len(views)} cells")
    if not parts:
        return ""
    return f"To keep this page below 10 MB, {'; '.join(parts)}. JSON and CSV hold every cell."
