"""`record_of`: an observation, a reconstruction and, where it is at hand, the truth, as one record."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.attacks.control import control_pixels
from leakgauge.audit.conditions import conditions_of
from leakgauge.audit.measured import measured_by
from leakgauge.audit.record import Control, ExampleScore, Pictures, Record, Series
from leakgauge.audit.text_making import text_conditions, with_texts
from leakgauge.chain.counting import CountingBound, counting_bound_of
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats
from leakgauge.core.spec import ImageSpec
from leakgauge.core.text_spec import TextSpec
from leakgauge.data import public_pictures
from leakgauge.data.pictures import LUMA
from leakgauge.data.tokeniser import Tokeniser
from leakgauge.errors import LeakgaugeError
from leakgauge.measures.score import Scores, score_tensor
from leakgauge.truth import Batch

FRAMES = 12
FRAME_SIDE = 64
CURVE_POINTS = 240
PUBLIC = 16
Entry = TypeVar("Entry")


def record_of(
    seen: Observation,
    guess: Reconstruction,
    batch: Batch | None = None,
    *,
    model: str = "",
    model_state: str = "as given",
    budget: str | int = "fast",
    seeds: Mapping[str, int] | None = None,
    title: str = "",
    series: Series | None = None,
    reproduce: str = "",
    device: str = "cpu",
    identity: object = None,
    tokeniser: Tokeniser | None = None,
    measures: Sequence[str] = (),
) -> Record:
    """One attack on one observation as a record; without a batch its scores and its control stay empty.

    Args:
        seen: what the attacker held.
        guess: what the attack returned, before it or anybody saw the truth.
        batch: the private examples.
        model: the network's name; the observation's own by default.
        model_state: in words.
        budget: as the attack was called with.
        seeds: what was seeded with what.
        title: in plain words.
        series: membership in a sweep.
        reproduce: the command that makes the record again.
        device: where the attack computed.
        identity: anything printable that tells this record from others with the same conditions.
        tokeniser: of texts; without one tokens are shown as numbers.
        measures: more measures of pictures, 'NAME:k=v' each.
    """
    chosen = dict(seeds or {})
    conditions = conditions_of(
        seen,
        guess,
        model=model or seen.model_name or "unnamed network",
        model_state=model_state,
        budget=budget,
        seeds=chosen,
        device=device,
    )
    if isinstance(seen.spec, TextSpec):
        conditions = replace(conditions, text=text_conditions(seen, seen.spec, tokeniser))
    bound = bound_of(seen)
    stats = guess.stats
    frames, at = filmstrip(stats, seen.pictures)
    record = Record(
        key=key_of(guess.attack, (conditions, sorted(stats.options.items()), title, series, identity)),
        title=title or f"{guess.attack} on a batch of {seen.num_examples}",
        attack=guess.attack,
        outcome=guess.outcome.name,
        outcome_text=guess.outcome.value,
        explains=guess.explains,
        certified=int(guess.certified.sum()),
        evaluations=stats.evaluations,
        restarts=stats.restarts,
        objective=stats.objective,
        residual=stats.residual,
        curve=_thinned([(point.evaluations, point.objective) for point in stats.curve], CURVE_POINTS),
        frame_evaluations=at,
        cause=stats.cause,
        notes=stats.notes,
        seconds=guess.seconds,
        conditions=conditions,
        bound=bound.verdict if bound else "",
        determinable=bound.determinable if bound else True,
        series=series,
        reproduce=reproduce,
        layers=stats.layers,
        radius=stats.radius if math.isfinite(stats.radius) else math.nan,
    )
    if isinstance(seen.spec, TextSpec):
        return with_texts(record, seen, guess, batch, tokeniser)
    if batch is not None:
        record = replace(record, measured=measured_by(measures, batch, guess))
    return _with_pictures(record, seen.pictures, guess, batch, frames)


def unsupported(seen: Observation, attack: str, reason: LeakgaugeError) -> Reconstruction:
    """The empty result of a method that does not apply, so that a page shows it with its reason."""
    shape = seen.pictures.shape if seen.pictures else (seen.spec.length if isinstance(seen.spec, TextSpec) else 0,)
    nothing = torch.zeros(0)
    stats = Stats(evaluations=0, restarts=0, cause=str(reason))
    return Reconstruction(
        inputs=torch.zeros(0, *shape, dtype=torch.int64 if isinstance(seen.spec, TextSpec) else None),
        labels=None,
        outcome=Outcome.UNSUPPORTED,
        explains=False,
        certified=nothing.bool(),
        confidence=nothing,
        stats=stats,
        seconds=0.0,
        attack=attack,
    )


def key_of(attack: str, identity: object) -> str:
    """A key of letters, digits and '-', the same for the same conditions."""
    digest = hashlib.sha256(json.dumps(repr(identity)).encode()).hexdigest()[:10]
    return f"{re.sub('[^A-Za-z0-9]+', '-', attack).strip('-') or 'attack'}-{digest}"


def bound_of(seen: Observation) -> CountingBound | None:
    """The counting bound, or None where inputs are no pictures."""
    return counting_bound_of(seen) if seen.pictures is not None else None


def control_of(batch: Batch) -> tuple[Control, Tensor]:
    """The control's scores, by the same rule of assignment, and its pictures (N, C, H, W) in [0, 1]."""
    assert batch.pictures is not None
    rule, pixels = control_pixels(batch.pictures, "best", calibration(batch.pictures.shape))
    inputs = batch.pictures.normalise(pixels).expand(len(batch), *batch.pictures.shape)
    scores = score_tensor(batch, inputs)
    return Control(rule, example_scores(batch, scores, None, None)), pixels.expand(len(batch), *batch.pictures.shape)


def calibration(shape: tuple[int, int, int], count: int = PUBLIC) -> Tensor:
    """Public pictures of any number of channels: those beyond grey and colour repeat the colours."""
    channels, height, width = shape
    if channels in (1, 3):
        return public_pictures(shape, count)
    return with_any_channels(public_pictures((3, height, width), count), channels)


def with_any_channels(pixels: Tensor, channels: int) -> Tensor:
    """(N, 3, H, W) as (N, channels, H, W): grey for one, else the colours in turn."""
    if channels == 1:
        return (pixels * torch.tensor(LUMA).reshape(3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    return pixels[:, [index % pixels.shape[1] for index in range(channels)]]


def example_scores(batch: Batch, scores: Scores, guessed: Tensor | None, certified: Tensor | None) -> tuple[ExampleScore, ...]:
    """One entry per private example."""
    truth = _classes(batch.labels)
    named = None if guessed is None else _classes(guessed)
    lines = []
    for index in range(len(batch)):
        place = int(scores.order[index])
        lines.append(
            ExampleScore(
                index=index,
                name=batch.names[index] if batch.names else f"example {index + 1}",
                mse=float(scores.mse[index]),
                psnr=float(scores.psnr[index]),
                ssim=float(scores.ssim[index]),
                mse_unclamped=float(scores.mse_unclamped[index]),
                label=None if truth is None else truth[index],
                label_guess=None if named is None or place < 0 else named[place],
                guess=place,
                certified=place >= 0 and certified is not None and bool(certified[place]),
            )
        )
    return tuple(lines)


def filmstrip(stats: Stats, spec: ImageSpec | None) -> tuple[Tensor | None, tuple[int, ...]]:
    """At most 12 small frames (T, N, C, H, W) in [0, 1], and the evaluations at each; None where there are none."""
    if spec is None or not stats.frames:
        return None, ()
    chosen = _thinned(list(stats.frames), FRAMES)
    frames = torch.stack([spec.denormalise(frame.inputs.detach().cpu().float()) for frame in chosen])
    frames = frames.nan_to_num(0.0).clamp(0, 1)
    side = FRAME_SIDE if frames.shape[1] <= 8 else FRAME_SIDE // 2
    height, width = frames.shape[-2:]
    if max(height, width) > side:
        scale = side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frames = functional.interpolate(frames.flatten(0, 1), size=size, mode="area").reshape(*frames.shape[:3], *size)
    return frames, tuple(frame.evaluations for frame in chosen)


def _with_pictures(
    record: Record, spec: ImageSpec | None, guess: Reconstruction, batch: Batch | None, frames: Tensor | None
) -> Record:
    if spec is None:
        return record
    shown = spec.denormalise(guess.inputs.detach().cpu().float()).clamp(0, 1)
    pictures = Pictures(guess=shown, frames=frames)
    if batch is None or batch.pictures is None or not isinstance(batch.inputs, Tensor):
        return replace(record, pictures=pictures)
    scores = score_tensor(batch, guess.inputs, guess.labels)
    control, control_pictures = control_of(batch)
    truth = batch.pictures.denormalise(batch.inputs.detach().cpu().float()).clamp(0, 1)
    return replace(
        record,
        scores=example_scores(batch, scores, guess.labels, guess.certified),
        control=control,
        pictures=replace(pictures, truth=truth, control=control_pictures.clone()),
    )


def _classes(labels: Tensor) -> list[int] | None:
    """Class indices; None where labels are nothing of the kind."""
    if labels.ndim == 2 and labels.is_floating_point() and labels.shape[1] > 1:
        labels = labels.argmax(1)
    labels = labels.reshape(len(labels), -1)
    return [int(value) for value in labels[:, 0].tolist()] if labels.shape[1] == 1 else None


def _thinned(entries: list[Entry], most: int) -> tuple[Entry, ...]:
    """At most `most` entries, first and last included, evenly spread."""
    if len(entries) <= most:
        return tuple(entries)
    chosen = sorted({round(step * (len(entries) - 1) / (most - 1)) for step in range(most)})
    return tuple(entries[index] for index in chosen)
