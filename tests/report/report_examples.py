"""Records made of structured pictures and noise, with scores worked out here and not by the package."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leakgauge.audit.record import Conditions, Control, ExampleScore, Pictures, Record, Series
from leakgauge.core.reconstruction import LayerReport, Outcome

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
SEEN, UNSEEN = "statistics seen", "statistics not seen"


def layers(missing: int = 0) -> tuple[LayerReport, ...]:
    """Two layers of a closed form; the first one, which comes last, lacks so many equations."""
    error = math.inf if missing else 6.7e-7
    return (
        LayerReport("conv2", "gradient equations", 1600, 73728, 1600, 1.8, 9e-8, 1.8e-10),
        LayerReport("conv1", "gradient and weight equations", 3072, 4044, 3072 - missing, 60.0, 5e-7, error),
    )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(seed: int, channels: int = 3, side: int = 16) -> Tensor:
    """A gradient with a disc and a bar: (C, side, side) in [0, 1], different for each seed."""
    axis = torch.linspace(0, 1, side, dtype=torch.float64)
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    centre = torch.rand(2, generator=generator(seed), dtype=torch.float64)
    tints = torch.rand(channels, 3, generator=generator(seed + 1000), dtype=torch.float64)
    disc = (((row - centre[0]) ** 2 + (column - centre[1]) ** 2) < 0.08).double()
    bar = ((row > 0.7) & (column < 0.6)).double()
    return torch.stack([tint[0] * row + tint[1] * disc * 0.5 + tint[2] * bar * 0.5 for tint in tints]).clamp(0, 1)


def noisy(pictures: Tensor, std: float, seed: int = 0) -> Tensor:
    noise = torch.randn(pictures.shape, generator=generator(seed), dtype=torch.float64)
    return (pictures + std * noise).clamp(0, 1)


def score(truth: Tensor, guess: Tensor, index: int, /, **extra: Any) -> ExampleScore:
    mse = float((truth - guess).square().mean())
    psnr = math.inf if mse == 0 else -10 * math.log10(mse)
    extra = {"name": f"private-{index}.png", "label": index, "label_guess": index, "guess": index, **extra}
    return ExampleScore(index=index, mse=mse, psnr=psnr, ssim=max(0.0, 1 - 8 * mse), mse_unclamped=mse * 1.1, **extra)


def conditions(**changes: Any) -> Conditions:
    settings: dict[str, Any] = {
        "model": "lenet-dlg",
        "model_state": "untrained",
        "shape": (3, 16, 16),
        "input_range": "[0, 1]",
        "batch_size": 1,
        "training": "one gradient",
        "mode": "eval",
        "batch_norm": "none in the network",
        "labels": "optimised jointly",
        "defence": "none",
        "dtype": "float32",
        "threat": "honest-but-curious server",
        "knowledge": (),
        "realistic": True,
        "budget": "fast",
        "seeds": {"client": 0, "attack": 0},
        "versions": {"torch": "2.8.0"},
    }
    return Conditions(**{**settings, **changes})


def record(key: str, truth: Tensor, guess: Tensor, *, frames: int = 0, swap: bool = False, **changes: Any) -> Record:
    """A record with scores, a mid-grey control, and a filmstrip from grey to the guess."""
    guess = guess.flip(0) if swap else guess
    places = list(range(len(truth)))
    assigned = places[::-1] if swap else places
    grey = torch.full_like(truth, 0.5)
    steps = (
        [torch.lerp(torch.full_like(guess, 0.5), guess, share) for share in torch.linspace(0, 1, frames).tolist()]
        if frames
        else []
    )
    settings: dict[str, Any] = {
        "title": f"Record {key}",
        "attack": "dlg",
        "outcome": Outcome.CONVERGED.name,
        "outcome_text": Outcome.CONVERGED.value,
        "explains": False,
        "certified": 0,
        "evaluations": 300,
        "restarts": 1,
        "objective": 1.5e-7,
        "residual": 2e-4,
        "curve": tuple((step * 10, 3.0 * 0.6**step) for step in range(1, 31)),
        "frame_evaluations": tuple(step * 50 for step in range(frames)),
        "cause": "",
        "notes": ("labels optimised jointly with the pictures",),
        "seconds": 2.5,
        "conditions": conditions(batch_size=len(truth)),
        "scores": tuple(score(truth[i], guess[g], i, guess=g) for i, g in zip(places, assigned, strict=True)),
        "control": Control("mid-grey", tuple(score(truth[i], grey[i], i) for i in places)),
        "reproduce": f"leakgauge attack {key}.safetensors --model lenet-dlg --with dlg",
        "pictures": Pictures(guess, truth, grey, torch.stack(steps) if steps else None),
    }
    return Record(key=key, **{**settings, **changes})


def one_rebuilt() -> Record:
    truth = scene(1)[None]
    return record("one", truth, noisy(truth, 0.01), frames=6, title="One picture, gradient matching", seconds=9.0)


def four_pictures() -> Record:
    """Guesses in another order than the truth: exact, rebuilt, partly, not found."""
    truth = torch.stack([scene(seed) for seed in (2, 3, 4, 5)])
    guess = torch.stack([noisy(truth[i], std, i) if std else truth[i] for i, std in enumerate((0.0, 0.02, 0.07, 0.6))])
    four = record(
        "four", truth, guess, frames=3, swap=True, title="Batch of four", attack="inverting-gradients", certified=1, explains=True
    )
    return replace(four, scores=(replace(four.scores[0], certified=True), *four.scores[1:]))


def undeterminable() -> Record:
    truth = torch.stack([scene(seed) for seed in range(6, 14)])
    return record(
        "eight",
        truth,
        torch.rand(truth.shape, generator=generator(0), dtype=torch.float64),
        title="Batch of eight",
        determinable=False,
        bound="6144 unknowns against 5000 equations: at least 1144 remain open",
        conditions=conditions(batch_size=8, realistic=False, knowledge=("the labels of the batch",), labels="known"),
        seconds=31.0,
    )


def sweep() -> list[Record]:
    """Five noise levels on one picture; the last two are not found."""
    truth = scene(1)[None]
    return [
        record(
            f"noise-{step}",
            truth,
            noisy(truth, error, step),
            title=f"One picture, noise {std:g}",
            conditions=conditions(defence="none" if not std else f"gaussian noise, std {std:g}"),
            series=Series("Noise on the shared gradient", std, f"standard deviation {std:g}"),
            seconds=float(step),
        )
        for step, (std, error) in enumerate([(0.0, 0.005), (1e-4, 0.015), (1e-3, 0.05), (1e-2, 0.4), (1e-1, 0.7)])
    ]


def without_truth() -> Record:
    guess = torch.stack([scene(20, channels=1), scene(21, channels=1)])
    blind = record("blind", guess, guess, frames=3, title="Update from a file", attack="recursive", explains=True, certified=2)
    blind = replace(blind, layers=layers(), radius=2e-6)
    return replace(
        blind, scores=(), control=None, pictures=Pictures(guess, None, None, blind.pictures.frames if blind.pictures else None)
    )


def control() -> Record:
    truth = scene(1)[None]
    return record("control", truth, torch.full_like(truth, 0.5), title="Control", attack="control", curve=())


def hostile() -> Record:
    truth = scene(30)[None]
    one = record(
        "hostile", truth, noisy(truth, 0.3), title=HOSTILE, notes=(HOSTILE,), cause=HOSTILE, attack=HOSTILE, bound=HOSTILE
    )
    return replace(
        one,
        scores=(replace(one.scores[0], name=HOSTILE),),
        reproduce=f"leakgauge attack '{HOSTILE}'",
        outcome_text=HOSTILE,
        control=replace(one.control, rule=HOSTILE) if one.control else None,
        conditions=conditions(model=HOSTILE, defence=HOSTILE, threat=HOSTILE, knowledge=(HOSTILE,), versions={HOSTILE: HOSTILE}),
        series=Series(HOSTILE, 1.0, HOSTILE),
        layers=tuple(replace(layer, name=HOSTILE, method=HOSTILE) for layer in layers(missing=300)),
    )


def everything() -> list[Record]:
    return [one_rebuilt(), four_pictures(), undeterminable(), *sweep(), without_truth(), control(), hostile()]
