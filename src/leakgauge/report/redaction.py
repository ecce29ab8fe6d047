"""Redaction: what may not leave the house is removed from the records before anything is rendered.

Removed pixels become NaN, so that no renderer can show them by mistake; a page shows a labelled empty box in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leakgauge.analysis.rank_profile import LayerRank
from leakgauge.audit.architecture import Architecture
from leakgauge.audit.record import PARTLY_DB, Pictures, Record, Score
from leakgauge.audit.text_record import TextScore

LEFT_OUT = "(left out: redacted)"
NAME_LEFT_OUT = "(name left out)"
PATH_LEFT_OUT = "(path left out)"
EXPLANATION = (
    "This page is redacted: it leaves out originals, differences, file names, commands and every reconstruction of "
    f"{PARTLY_DB:.0f} dB or more (all reconstructions where no original is known), with their filmstrips."
)
PLACES = re.compile(
    r"(?<![\w/.~])(?:[A-Za-z]:[\\/]|\\\\|~/|\.{0,2}/)[^\s'\"<>|]+"  # absolute, home and relative paths
    r"|(?<!\w)(?:folder|file|csv|text|npz|dicom|cifar10|cifar100|mnist|medmnist):[^\s'\"<>|]+"  # data specs
    r"|[^\s'\"<>|/]+\.(?:png|jpe?g|gif|bmp|tiff?|webp|dcm|npz|npy|csv|tsv|txt|safetensors)(?!\w)",  # file names
    re.IGNORECASE,
)


def scrub_text(records: Sequence[Record]) -> list[Record]:
    """The records without file names, commands and places in any text; keys become numbers. Pixels stay."""
    clean = scrubber(_names(records))
    return [scrub_record(record, position, clean) for position, record in enumerate(records)]


def scrub_architectures(architectures: Sequence[Architecture], records: Sequence[Record]) -> tuple[Architecture, ...]:
    """The counts without file names (those of the records) and places; no picture can be read off a count."""
    clean = scrubber(_names(records))

    def row(layer: LayerRank) -> LayerRank:
        words = {name: clean(getattr(layer, name)) for name in ("name", "type", "method", "reason", "verdict")}
        return replace(layer, **words)  # type: ignore[arg-type]

    return tuple(
        replace(
            one,
            model=clean(one.model),
            layers=tuple(row(layer) for layer in one.layers),
            verdict=clean(one.verdict),
            reasons=tuple(clean(reason) for reason in one.reasons),
        )
        for one in architectures
    )


def strip_pixels(record: Record) -> Record:
    """The record without originals, and without every picture that comes near one; what is removed is NaN."""
    if record.pictures is None:
        return record
    pictures, truth = record.pictures, record.pictures.truth
    shown = [_far(picture, truth) and index in _poor(record.scores) for index, picture in enumerate(pictures.guess)]
    control, frames = pictures.control, pictures.frames
    if control is not None:
        rule_scores = record.control.scores if record.control else ()
        control = _keep(control, [_far(picture, truth) and index in _poor(rule_scores) for index, picture in enumerate(control)])
    if frames is not None:
        known = truth is not None
        rows = [[known and ok and _far(picture, truth) for ok, picture in zip(shown, step, strict=False)] for step in frames]
        frames = torch.stack([_keep(step, row) for step, row in zip(frames, rows, strict=True)]) if rows else frames
    truth = None if truth is None else _keep(truth, [])
    return replace(record, pictures=Pictures(guess=_keep(pictures.guess, shown), truth=truth, control=control, frames=frames))


def _poor(scores: Sequence[Score]) -> set[int]:
    """Positions of the reconstructions that stay below 20 dB wherever they are assigned."""
    return {score.guess for score in scores} - {
        score.guess for score in scores if isinstance(score, TextScore) or not score.psnr < PARTLY_DB
    }


def _far(picture: Tensor, truth: Tensor | None) -> bool:
    """Whether a picture (C, H, W) stays below 20 dB against every original (N, C, H, W), as far as originals are known."""
    if truth is None:
        return True
    if picture.shape != truth.shape[1:]:
        return False
    errors = (truth.double() - picture.double()).flatten(1).square().mean(dim=1)
    return bool((errors > 10 ** (-PARTLY_DB / 10)).all())


def _keep(pictures: Tensor, shown: Sequence[bool]) -> Tensor:
    """A copy (N, C, H, W) in which all but those to be shown are NaN."""
    kept = torch.full_like(pictures, torch.nan, dtype=pictures.dtype if pictures.is_floating_point() else torch.float32)
    for index, show in enumerate(shown[: len(pictures)]):
        if show:
            kept[index] = pictures[index]
    return kept


def _names(records: Sequence[Record]) -> set[str]:
    return {score.name for record in records for score in record.scores if score.name}


def scrubber(names: set[str]) -> Callable[[str], str]:
    """Replaces every name (with or without its ending) that stands by itself, and everything that looks like a place."""
    bases = names | {re.split(r"[/\\]", name)[-1] for name in names}
    stems = {name.rsplit(".", 1)[0] for name in bases if "." in name.strip(".")}
    wanted = sorted(
        (name for name in {*bases, *stems} - {""} if not name.isdigit() or len(name) > 3), key=lambda name: (-len(name), name)
    )
    pattern = re.compile("|".join(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in wanted)) if wanted else None

    def clean(text: str) -> str:
        marked = pattern.sub("\0", text) if pattern else text
        return PLACES.sub(PATH_LEFT_OUT, marked).replace("\0", NAME_LEFT_OUT)

    return clean


def scrub_record(record: Record, position: int, clean: Callable[[str], str]) -> Record:
    """One record without names, commands and places; `clean` rewrites each text, and `position` becomes its key."""
    conditions = record.conditions
    words: dict[str, Any] = {
        name: clean(getattr(conditions, name))
        for name in (
            "model",
            "model_state",
            "input_range",
            "training",
            "mode",
            "batch_norm",
            "labels",
            "defence",
            "threat",
            "budget",
        )
    }
    text = conditions.text
    if text is not None:
        text = replace(text, tokeniser=clean(text.tokeniser))
    control = record.control
    if control is not None:
        scores = tuple(replace(score, name="") for score in control.scores)
        control = replace(control, rule=clean(control.rule), scores=scores)
    series = record.series
    if series is not None:
        series = replace(series, name=clean(series.name), text=clean(series.text))
    return replace(
        record,
        key=f"record-{position + 1}",
        title=clean(record.title),
        outcome_text=clean(record.outcome_text),
        cause=clean(record.cause),
        notes=tuple(clean(note) for note in record.notes),
        bound=clean(record.bound),
        conditions=replace(conditions, **words, text=text, knowledge=tuple(clean(fact) for fact in conditions.knowledge)),
        scores=tuple(replace(score, name="") for score in record.scores),
        control=control,
        series=series,
        reproduce=LEFT_OUT if record.reproduce else "",
        layers=tuple(replace(layer, name=clean(layer.name), method=clean(layer.method)) for layer in record.layers),
    )
