"""Small multiples: one private record as every attack saw it under every condition, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakgauge.report.gallery import ORIGINAL, RECONSTRUCTION, Picture
from leakgauge.report.grid.axes import axis_name, axis_text
from leakgauge.report.grid.cells import level_of
from leakgauge.report.grid.records import RecordView, Sighting, best_sighting, pictures_of_sighting

DOWN = ("defence", "protocol", "state", "threat", "model", "seed")
ACROSS = ("attack", "seed", "threat", "state", "model")
MOST_DOWN, MOST_ACROSS = 12, 8


@dataclass(frozen=True)
class Place:
    """One place of a matrix: a picture, its figure, and the number of its cell; 0 where none has a result."""

    picture: Picture | None
    level: str
    cell: int


@dataclass(frozen=True)
class Matrix:
    """One private record side by side.

    Args:
        title: of the record.
        down, across: names of the two axes; `across` is '' where there is one column.
        columns: headings.
        rows: heading and places of each row.
        original: its picture, or None.
        left_out: what did not fit, in a sentence; '' where all is shown.
    """

    title: str
    down: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Place, ...]], ...]
    original: Picture | None
    left_out: str

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures that are really shown."""
        places = [place.picture for _, row in self.rows for place in row]
        return tuple(picture for picture in (self.original, *places) if picture is not None and picture.uri)

    def size(self) -> int:
        """Estimated bytes on the page."""
        return 1500 + sum(len(picture.uri) + 500 for picture in self.pictures) + 250 * len(self.rows) * len(self.columns)


def matrices(
    views: Sequence[RecordView],
    sightings: Mapping[str, Sequence[Sighting]],
    differing: Sequence[str],
    *,
    most: int,
    pixels: int,
    redacted: bool,
) -> tuple[Matrix, ...]:
    """Matrices of the first records that were seen more than once."""
    made: list[Matrix] = []
    for view in views:
        if len(made) == most:
            break
        found = sightings.get(view.key, ())
        if len(found) > 1 and (one := _matrix(view, found, differing, pixels, redacted)) is not None:
            made.append(one)
    return tuple(made)


def _matrix(view: RecordView, found: Sequence[Sighting], differing: Sequence[str], pixels: int, redacted: bool) -> Matrix | None:
    here = [name for name in differing if len({_at(one, name) for one in found}) > 1]
    across = next((name for name in ACROSS if name in here), "")
    down = next((name for name in DOWN if name in here and name != across), "")
    if not across and not down:
        return None
    columns = _values(found, across)
    names = _values(found, down)
    rows, original = [], None
    for name in names[:MOST_DOWN]:
        places = []
        for column in columns[:MOST_ACROSS]:
            members = [one for one in found if _at(one, down) == name and _at(one, across) == column]
            best = best_sighting(members)
            if best is None:
                places.append(Place(None, "no result", 0))
                continue
            shown = pictures_of_sighting(best, pixels, redacted)
            original = original or next((picture for picture in shown if picture.what == ORIGINAL and picture.uri), None)
            picture = next((picture for picture in shown if picture.what == RECONSTRUCTION), None)
            places.append(Place(picture, _level(best), best.number))
        rows.append((name, tuple(places)))
    cut = max(0, len(names) - MOST_DOWN), max(0, len(columns) - MOST_ACROSS)
    left_out = f"{cut[0]} rows and {cut[1]} columns are left out here; the table of cells has all." if any(cut) else ""
    heading, top = (axis_name(axis) if axis else "" for axis in (down, across))
    return Matrix(view.title, heading, top, tuple(columns[:MOST_ACROSS]), tuple(rows), original, left_out)


def _level(sighting: Sighting) -> str:
    diagnostic = "" if sighting.record.conditions.realistic else " (diagnostic)"
    return f"{level_of(sighting.score)}{diagnostic}"


def _values(found: Sequence[Sighting], axis: str) -> list[str]:
    """The texts of an axis in the order of the plan."""
    ordered = sorted(found, key=lambda one: one.number)
    return list(dict.fromkeys(_at(one, axis) for one in ordered))


def _at(sighting: Sighting, axis: str) -> str:
    if not axis:
        return ""
    text = axis_text(sighting.result.cell, axis)
    return "no defence" if (axis, text) == ("defence", "none") else text
