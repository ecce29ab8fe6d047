"""Grids made of structured pictures and noise: results as an audit would keep them, with line-ups worked out here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from report_examples import conditions, noisy, record, scene
from torch import Tensor

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Record
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.report.grid.findings import Findings, findings_of

PLAN: dict[str, Any] = {"name": "ward 7", "verdict": {"resamples": 500}}
DECOYS = 24
NOISE = {"none": 0.01, "gaussian-noise:std=0.001": 0.09, "gaussian-noise:std=0.1": 0.6}
HARDER = {"inverting-gradients": 1.0, "dlg": 2.5, "bn-matching": 6.0}


def digest(picture: Tensor) -> str:
    return hashlib.sha256(picture.contiguous().numpy().tobytes()).hexdigest()[:32]


def line_ups(truth: Tensor, guess: Tensor, names: Sequence[str], patients: Sequence[str]) -> tuple[LineUp, ...]:
    """Distances to the nearest reconstruction, as an audit measures them."""
    decoys = [scene(7000 + place, side=truth.shape[-1]) for place in range(DECOYS)]

    def near(picture: Tensor) -> float:
        return float((guess - picture).square().flatten(1).mean(1).min())

    return tuple(
        LineUp(place, digest(one), names[place], patients[place], "mse", near(one), tuple(map(near, decoys)))
        for place, one in enumerate(truth)
    )


def played(
    cell: Cell,
    truth: Tensor,
    error: float,
    *,
    start: Tensor | None = None,
    names: Sequence[str],
    patients: Sequence[str],
    **changes: Any,
) -> CellResult:
    """A cell whose reconstructions are the originals, or what they start from, with noise of that standard deviation."""
    salt = int(hashlib.sha256(repr(cell).encode()).hexdigest()[:6], 16)
    guess = torch.stack([noisy(one, error, salt + place) for place, one in enumerate(truth if start is None else start)])
    settings: dict[str, Any] = {
        "model": cell.model,
        "defence": cell.defence,
        "batch_size": len(truth),
        "seeds": {"attack": cell.seed},
    }
    settings["shape"] = tuple(truth.shape[1:])
    made: Record = record(cell.key, truth, guess, attack=cell.attack, title="", conditions=conditions(**settings), **changes)
    made = replace(made, scores=tuple(replace(score, name=names[score.index]) for score in made.scores))
    found = line_ups(truth, guess, names, patients)
    return CellResult(cell, "ok", "", made, found, f"{DECOYS} other pictures of the same class", 1.5)


def batch(first: int, size: int, side: int) -> tuple[Tensor, list[str], list[str]]:
    """(size, 3, side, side) in float64, with names and patients."""
    truth = torch.stack([scene(first + place, side=side) for place in range(size)])
    return (
        truth,
        [f"scan-{first + place:03d}.png" for place in range(size)],
        [f"P{(first + place) // 2}" for place in range(size)],
    )


def grid(
    seeds: int = 2, size: int = 2, side: int = 16, batches: int = 2, models: Sequence[str] = ("lenet-dlg",)
) -> list[CellResult]:
    """batches x models x 3 defences x 3 attacks x seeds cells, of which some did not end well."""
    results = []
    known = [batch(100 * (place + 1), size, side) for place in range(batches)]
    places = product(range(batches), models, NOISE, HARDER, range(seeds))
    for number, (place, model, defence, attack, seed) in enumerate(places):
        truth, names, patients = known[place]
        cell = Cell(f"folder:/clinic/ward7?indices={place}", model, attack, seed, defence=defence)
        error = min(0.7, NOISE[defence] * HARDER[attack])
        result = played(cell, truth, error, names=names, patients=patients)
        if attack == "bn-matching" and seed == 0:
            result = CellResult(cell, "unsupported", "The network has no BatchNorm.", None, (), "", 0.1)
        elif number % 17 == 5:
            result = CellResult(cell, "failed", "The worker ran out of memory twice.", None, (), "", 9.0, 2)
        elif number % 23 == 7:
            result = replace(result, status="timeout", reason="Stopped after 60 s.")
        results.append(result)
    return results


def findings(results: Sequence[CellResult] | None = None, **changes: Any) -> Findings:
    given = grid() if results is None else results
    settings: dict[str, Any] = {"plan_hash": "0123456789abcdef", "planned": len(given) + 2, "ended": "2026-11-21", **changes}
    return findings_of(given, PLAN, **settings)


def large() -> list[CellResult]:
    """500 and some cells with 4 pictures of 32 x 32 each."""
    return grid(seeds=14, size=4, side=32, batches=2, models=("lenet-dlg", "mu-cnn"))


def nothing_found() -> list[CellResult]:
    """One picture, and reconstructions that have nothing to do with it: noise on a look-alike."""
    truth, names, patients = batch(300, 1, 16)
    elsewhere = scene(7003)[None]
    cells = [Cell("demo:cat", "lenet-dlg", attack, 0) for attack in HARDER]
    return [played(cell, truth, 0.2, start=elsewhere, names=names, patients=patients) for cell in cells]
