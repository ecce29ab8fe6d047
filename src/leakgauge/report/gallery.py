"""The pictures of one record as values: what each shows, its alternative text, its data URI or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from leakgauge.audit.record import ExampleScore, Record
from leakgauge.report.pictures import DIFFERENCE_GAIN, data_uri, difference, is_picture, shrunk, uri_digest
from leakgauge.report.words import UNKNOWN, control_score, decibels, example_verdict, label_text, number, similarity

ORIGINAL, RECONSTRUCTION, DIFFERENCE, CONTROL, FRAME = "original", "reconstruction", "difference", "control", "filmstrip frame"


@dataclass(frozen=True)
class Detail:
    """How much of a record is shown, so that a page stays small.

    Args:
        frames: pictures in a filmstrip at most.
        examples: private examples with pictures per record at most; those that leaked most come first.
        pixels: longer side of a picture at most.
        rows: private examples with scores per record at most.
        cards: records with a card of their own at most.
    """

    frames: int
    examples: int
    pixels: int
    rows: int
    cards: int


@dataclass(frozen=True)
class Picture:
    """One picture on a page, or the empty box in its place.

    Args:
        what: 'original', 'reconstruction', 'difference', 'control' or 'filmstrip frame'.
        caption: shown beneath it.
        alt: for those who do not see it.
        example: number of the private example, from 1.
        uri: PNG data URI, or '' for an empty box.
        width, height: in pixels of the picture itself.
        missing: why the box is empty.
        evaluations: for a filmstrip frame.
    """

    what: str
    caption: str
    alt: str
    example: int
    uri: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""
    evaluations: int | None = None

    def to_json(self) -> dict[str, object]:
        """What a list of pictures says about this one."""
        entry: dict[str, object] = {"what": self.what, "example": self.example, "alt": self.alt}
        if self.evaluations is not None:
            entry["evaluations"] = self.evaluations
        return entry | {"width": self.width, "height": self.height, "sha256": uri_digest(self.uri)}


@dataclass(frozen=True)
class Example:
    """One private example (or, without originals, one reconstruction) with its scores in words."""

    number: int
    name: str
    verdict: str
    psnr: str
    ssim: str
    mse: str
    mse_unclamped: str
    control_psnr: str
    label: str
    certified: bool
    pictures: tuple[Picture, ...] = ()
    frames: tuple[Picture, ...] = ()


def examples_of(record: Record, detail: Detail, redacted: bool) -> tuple[Example, ...]:
    """The examples of a record in the order of the batch, as many and with pictures for as many as `detail` allows."""
    pictures = record.pictures
    if not record.scores:
        blind = len(pictures.guess) if pictures is not None else 0
        return tuple(_blind(record, index, detail, redacted) for index in range(blind))
    leaked = sorted(record.picture_scores, key=lambda score: -math.inf if math.isnan(score.psnr) else score.psnr, reverse=True)
    shown = {score.index for score in leaked[: detail.examples]}
    kept = {score.index for score in leaked[: detail.rows]}
    return tuple(
        _scored(record, score, detail, redacted, score.index in shown) for score in record.picture_scores if score.index in kept
    )


def _scored(record: Record, score: ExampleScore, detail: Detail, redacted: bool, shown: bool) -> Example:
    control = control_score(record, score.index)
    show = shown and record.pictures is not None
    return Example(
        number=score.index + 1,
        name=score.name,
        verdict=example_verdict(record, score),
        psnr=decibels(score.psnr),
        ssim=similarity(score.ssim),
        mse=number(score.mse),
        mse_unclamped=number(score.mse_unclamped),
        control_psnr=decibels(control.psnr) if isinstance(control, ExampleScore) else "none",
        label=label_text(score),
        certified=score.certified,
        pictures=_row(record, score, detail, redacted) if show else (),
        frames=_strip(record, score.index + 1, score.guess, detail) if show else (),
    )


def _blind(record: Record, index: int, detail: Detail, redacted: bool) -> Example:
    pictures: tuple[Picture, ...] = ()
    if record.pictures is not None and index < detail.examples:
        pictures = (
            _picture(
                RECONSTRUCTION,
                _at(record.pictures.guess, index),
                index + 1,
                "no original to compare with",
                detail=detail,
                redacted=redacted,
            ),
        )
    frames = _strip(record, index + 1, index, detail) if pictures else ()
    return Example(index + 1, "", UNKNOWN, "", "", "", "", "", "", False, pictures, frames)


def _row(record: Record, score: ExampleScore, detail: Detail, redacted: bool) -> tuple[Picture, ...]:
    """Original, reconstruction, difference and control of one example."""
    pictures = record.pictures
    assert pictures is not None
    place = score.index + 1
    control = control_score(record, score.index)
    truth, guess = _at(pictures.truth, score.index), _at(pictures.guess, score.guess)
    apart = difference(truth, guess) if truth is not None and guess is not None and truth.shape == guess.shape else None
    row = []
    if pictures.truth is not None:
        row.append(_picture(ORIGINAL, truth, place, score.name, detail=detail, redacted=redacted))
    row.append(_picture(RECONSTRUCTION, guess, place, decibels(score.psnr), detail=detail, redacted=redacted))
    if pictures.truth is not None:
        row.append(_picture(DIFFERENCE, apart, place, f"{DIFFERENCE_GAIN} times amplified", detail=detail, redacted=redacted))
    if isinstance(control, ExampleScore) and pictures.control is not None:
        row.append(
            _picture(
                CONTROL, _at(pictures.control, control.guess), place, decibels(control.psnr), detail=detail, redacted=redacted
            )
        )
    return tuple(row)


def _strip(record: Record, place: int, guess: int, detail: Detail) -> tuple[Picture, ...]:
    """The filmstrip of one reconstruction, thinned evenly; empty where any of it was left out."""
    frames = record.pictures.frames if record.pictures else None
    if frames is None or detail.frames < 2 or guess < 0 or guess >= frames.shape[1] or not len(frames):
        return ()
    total = min(len(frames), len(record.frame_evaluations))
    chosen = sorted({round(step * (total - 1) / (detail.frames - 1)) for step in range(detail.frames)}) if total else []
    strip = []
    for step in chosen:
        candidate, evaluations = frames[step, guess], record.frame_evaluations[step]
        if not is_picture(candidate):
            continue
        small = shrunk(candidate, min(detail.pixels, 128))
        alt = f"Reconstruction of example {place} after {evaluations} evaluations"
        height, width = small.shape[-2:]
        strip.append(Picture(FRAME, f"{evaluations}", alt, place, data_uri(small), width, height, evaluations=evaluations))
    return tuple(strip)


def _picture(what: str, pixels: Tensor | None, place: int, remark: str, *, detail: Detail, redacted: bool) -> Picture:
    alt = f"{what.capitalize()} of example {place}" + (f", {remark}" if remark else "")
    caption = f"{what.capitalize()}" + (f" ({remark})" if what == DIFFERENCE else "")
    if pixels is None or not is_picture(pixels):
        missing = "left out: redacted" if redacted else "no picture"
        return Picture(what, caption, f"{alt}: {missing}", place, missing=missing)
    small = shrunk(pixels, detail.pixels)
    height, width = small.shape[-2:]
    return Picture(what, caption, alt, place, data_uri(small), width, height)


def _at(pictures: Tensor | None, index: int) -> Tensor | None:
    return pictures[index] if pictures is not None and 0 <= index < len(pictures) else None


def pictures_of(examples: tuple[Example, ...]) -> list[Picture]:
    """All pictures that are really shown (no empty boxes)."""
    return [picture for example in examples for picture in (*example.pictures, *example.frames) if picture.uri]
