"""Redaction of a grid: no original, nothing near one, no name, no place and no hash by which a private record could be found."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import PARTLY_DB, Pictures, Record
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import Texts, Tokens
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.audit.verdict.words import IDENTIFIED
from leakgauge.report.grid.findings import Findings, line_up_of, rank_of, record_key
from leakgauge.report.pictures import shrunk
from leakgauge.report.redaction import scrub_record, scrubber, strip_pixels
from leakgauge.report.spans import BUILT_IN, plain, spans_in
from leakgauge.report.text_redaction import near_any, strip_texts

EXPLANATION = (
    "This page is redacted: it leaves out originals, file names, names of patients, places, commands, every reconstruction of "
    f"{PARTLY_DB:.0f} dB or more, every one that ranks first among decoys for a record that is identified, and of texts "
    "every one that has half of a private text's tokens or a personally identifying span of it."
)
LEFT_OUT = "(left out)"
LIMIT = 10 ** (-PARTLY_DB / 10)  # mean squared error at 20 dB
SIDES = (128, 64, 48, 32)  # longer sides in pixels to which a page shrinks pictures
PLACED = ("data", "model", "state", "prior", "decoys", "attack", "defence")  # fields of a cell that may name a place
Clean = Callable[[str], str]


@dataclass(frozen=True)
class Private:
    """All that may not be shown: originals by shape, (N, C, H, W) each at its own size and at those of a page, and texts."""

    pictures: Mapping[tuple[int, ...], tuple[tuple[int, Tensor], ...]]
    texts: tuple[Tokens, ...]
    spans: frozenset[str]


def redacted(findings: Findings) -> Findings:
    """The findings without anything that shows, names or places a private record; numbers and verdicts stay."""
    records = {entry.record: f"record-{number}" for number, entry in enumerate(findings.judgement.records, start=1)}
    for result in findings.results:
        for key in _keys(result).values():
            records.setdefault(key, f"record-{len(records) + 1}")
    patients = _patients(findings)
    clean = _cleaner(findings, records, patients)
    cells = _Cells(clean)
    private = _private(findings.results)
    identified = {entry.record for entry in findings.judgement.records if entry.verdict == IDENTIFIED}
    results = tuple(
        _result(place, result, cells.of(result.cell), records, patients, clean, private, identified)
        for place, result in enumerate(findings.results)
    )
    keys = {old.cell.key: new.cell.key for old, new in zip(findings.results, results, strict=True)}
    exact = {**keys, **records, **{name: label for name, label in patients.items() if name}}
    judgement = _scrubbed(findings.judgement, exact, clean)
    plan = _scrubbed(dict(findings.plan), cells.labels, clean)
    expected = _scrubbed(findings.expected, cells.labels, clean)
    return replace(findings, results=results, judgement=judgement, plan=plan, expected=expected)


class _Cells:
    """Cells without places: different values stay different."""

    def __init__(self, clean: Clean) -> None:
        self.clean = clean
        self.labels: dict[str, str] = {}

    def of(self, cell: Cell) -> Cell:
        """The cell, with a label for every value that names a place."""
        changed = {name: self._label(name, str(getattr(cell, name))) for name in PLACED}
        return replace(cell, **changed, fingerprint="")  # type: ignore[arg-type]

    def _label(self, name: str, text: str) -> str:
        shown = self.clean(text)
        if shown == text:
            return text
        if text not in self.labels:
            number = 1 + sum(label.startswith(f"{name} ") for label in self.labels.values())
            self.labels[text] = (
                f"{name} {number} {LEFT_OUT}" if name in ("data", "state", "prior", "decoys") else f"{shown} [{number}]"
            )
        return self.labels[text]


def _result(
    place: int,
    result: CellResult,
    cell: Cell,
    records: Mapping[str, str],
    patients: Mapping[str, str],
    clean: Clean,
    private: Private,
    identified: set[str],
) -> CellResult:
    record = result.record
    if record is not None:
        told = {
            score.guess
            for score in record.scores
            if (entry := line_up_of(result, score.index)) and entry.record in identified and rank_of(entry) == 1
        }
        record = scrub_record(_stripped(record, private, told), place, clean)
        record = replace(record, measured=tuple(replace(one, name=clean(one.name)) for one in record.measured))
    named = {entry.example for entry in result.line_ups}
    bare = tuple(
        LineUp(place, records[key], "", "", "mse", math.inf, ()) for place, key in _keys(result).items() if place not in named
    )
    line_ups = bare + tuple(
        replace(entry, record=records[entry.record], name="", patient=patients.get(entry.patient, ""), others=())
        for entry in result.line_ups
    )
    return replace(result, cell=cell, reason=clean(result.reason), decoys=clean(result.decoys), record=record, line_ups=line_ups)


def _keys(result: CellResult) -> dict[int, str]:
    """The private records of a cell by their place."""
    places = {entry.example for entry in result.line_ups} | {
        score.index for score in (result.record.scores if result.record else ())
    }
    return {place: record_key(result, place) for place in sorted(places)}


def _stripped(record: Record, private: Private, told: set[int]) -> Record:
    """Without pictures and texts that come near any private one of the whole run, or that tell whose they are."""
    stripped = strip_texts(strip_pixels(record))
    if stripped.pictures is not None:
        pictures = stripped.pictures
        stripped = replace(
            stripped,
            pictures=Pictures(
                guess=_far(pictures.guess, private, told),
                truth=pictures.truth,
                control=None if pictures.control is None else _far(pictures.control, private, set()),
                frames=None,
            ),
        )
    if stripped.texts is not None:
        texts = stripped.texts
        guess = tuple(
            None if tokens is None or place in told or near_any(tokens, private.texts, private.spans) else tokens
            for place, tokens in enumerate(texts.guess)
        )
        control = tuple(
            None if tokens is None or near_any(tokens, private.texts, private.spans) else tokens for tokens in texts.control
        )
        stripped = replace(stripped, texts=Texts(guess, texts.truth, control, texts.bag_precision, texts.bag_recall))
    return stripped


def _far(pictures: Tensor, private: Private, told: set[int]) -> Tensor:
    """A copy (N, C, H, W) in which whatever is near an original, at its own or a shown size, is NaN."""
    kept = pictures.clone() if pictures.is_floating_point() else pictures.float()
    truths = private.pictures.get(tuple(pictures.shape[1:]))
    for place in range(len(kept)):
        if place in told or (truths is not None and _near(kept[place], truths)):
            kept[place] = torch.nan
    return kept


def _near(picture: Tensor, truths: Sequence[tuple[int, Tensor]]) -> bool:
    if not bool(picture.isfinite().all()):
        return bool(picture.isfinite().any())
    return any(bool((_errors(shrunk(picture, side), known) <= LIMIT).any()) for side, known in truths)


def _errors(picture: Tensor, truths: Tensor) -> Tensor:
    """(N,) mean squared errors."""
    return (truths.double() - picture.double()).flatten(1).square().mean(dim=1)


def _private(results: Sequence[CellResult]) -> Private:
    pictures: dict[tuple[int, ...], dict[bytes, Tensor]] = {}
    texts: dict[Tokens, None] = {}
    for result in results:
        record = result.record
        if record is not None and record.pictures is not None and record.pictures.truth is not None:
            for one in record.pictures.truth:
                content = one.detach().cpu().contiguous().float()
                pictures.setdefault(tuple(one.shape), {}).setdefault(content.numpy().tobytes(), content)
        if record is not None and record.texts is not None:
            texts |= dict.fromkeys(tokens for tokens in record.texts.truth if tokens is not None)
    spans = frozenset(span.lower() for tokens in texts for _, span in spans_in(plain(tokens), BUILT_IN))
    return Private({shape: _sizes(list(found.values())) for shape, found in pictures.items()}, tuple(texts), spans)


def _sizes(pictures: Sequence[Tensor]) -> tuple[tuple[int, Tensor], ...]:
    """Pictures of one shape by longer side: their own, and those to which a page shrinks them."""
    own = max(pictures[0].shape[-2:])
    sides = [own, *(side for side in SIDES if side < own)]
    return tuple((side, torch.stack([shrunk(one, side) for one in pictures])) for side in sides)


def _patients(findings: Findings) -> dict[str, str]:
    found = dict.fromkeys(entry.patient for result in findings.results for entry in result.line_ups if entry.patient)
    return {"": "", **{name: f"patient {number}" for number, name in enumerate(found, start=1)}}


def _cleaner(findings: Findings, records: Mapping[str, str], patients: Mapping[str, str]) -> Clean:
    """Rewrites names as numbers, then whatever else looks like a name or a place."""
    labels: dict[str, str] = {}
    for line_up in _line_ups(findings.results):
        for name in _forms(line_up.name):
            labels.setdefault(name, records[line_up.record].replace("-", " "))
    labels |= {name: label for name, label in patients.items() if name}
    labels |= records
    names = {score.name for result in findings.results if result.record for score in result.record.scores if score.name}
    rest = scrubber({*names, *(line_up.name for line_up in _line_ups(findings.results) if line_up.name)})
    long = sorted((name for name in labels if len(name) > 3 or not name.isdigit()), key=lambda name: (-len(name), name))
    short = [name for name in labels if len(name) <= 3 and name.isdigit()]
    parts = [rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in long]
    parts += [rf"(?:(?<=')|(?<=patient )){name}(?![A-Za-z0-9])" for name in short]
    pattern = re.compile("|".join(parts)) if parts else None

    def clean(text: str) -> str:
        return rest(pattern.sub(lambda match: labels[match[0]], text) if pattern else text)

    return clean


def _forms(name: str) -> Iterable[str]:
    """A name, its last part, and that without its ending."""
    last = re.split(r"[/\\]", name)[-1]
    return {form for form in (name, last, last.rsplit(".", 1)[0] if "." in last.strip(".") else last) if form}


def _line_ups(results: Sequence[CellResult]) -> Iterable[LineUp]:
    return (entry for result in results for entry in result.line_ups)


def _scrubbed(value: Any, exact: Mapping[str, str], clean: Clean) -> Any:
    """Any nesting of records, sequences, mappings and texts, rewritten; a field `name` beside a field `record` is emptied."""
    if isinstance(value, str):
        return exact[value] if value in exact else clean(value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {item.name: _scrubbed(getattr(value, item.name), exact, clean) for item in fields(value) if item.init}
        if "record" in own and "name" in own:
            own["name"] = ""
        return replace(value, **own)
    if isinstance(value, Mapping):
        return {_scrubbed(key, exact, clean): _scrubbed(entry, exact, clean) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_scrubbed(entry, exact, clean) for entry in value)
    return value
