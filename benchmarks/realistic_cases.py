"""Pictures, clients and rows of `benchmarks.realistic`."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import leakgauge as lg
from benchmarks.common import Clock, data_root, say

GREY = lg.ImageSpec((1, 32, 32))
ATTACKS = ("bn-matching", "bn-matching-no-statistics", "bn-matching-eval-mode")
VEHICLES = torch.tensor([0, 1, 8, 9])
HEADER = ("setting", "attack", "pictures", "PSNR dB median", "lowest", "SSIM median", "lowest", "evaluations median",
          "highest", "CPU s median", "highest", "explain the update")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One attack on one batch: means over its pictures."""

    psnr: float
    ssim: float
    seconds: float
    evaluations: int
    explains: bool
    pixels: Tensor = dataclasses.field(repr=False, compare=False)


def grey(batch: lg.Batch, classes: int) -> lg.Batch:
    """The mean of the channels, and labels modulo the number of classes."""
    assert isinstance(batch.inputs, Tensor)
    inputs = batch.inputs.mean(1, keepdim=True)
    side = (1, int(inputs.shape[2]), int(inputs.shape[3]))
    return lg.Batch(inputs, batch.labels % classes, lg.ImageSpec(side))


def cifar(places: Iterable[int], classes: int = 10, colour: bool = False) -> lg.Batch:
    """Pictures of the shared CIFAR-10 folder: 20 of each class, in the order of the class names."""
    listed = ",".join(str(place) for place in places)
    batch = lg.load_data(f"folder:{data_root() / 'cifar10'}?indices={listed}&size=32")
    return batch if colour else grey(batch, classes)


def spread(count: int, total: int = 200, first: int = 0) -> list[int]:
    """`count` places out of `total`, evenly spread and so over the classes."""
    return [(first + total * place // count) % total for place in range(count)]


def auxiliary(part: str, count: int) -> lg.Batch:
    """Grey CIFAR-10 pictures outside the folder, animals (1) against vehicles (0)."""
    with np.load(data_root() / "cifar10" / "aux.npz", allow_pickle=False) as file:
        pictures, labels = file[f"x_{part}"], file[f"y_{part}"]
    chosen = lg.rng(0, "auxiliary", part)
    places = torch.randperm(len(labels), generator=chosen)[:count].numpy()
    inputs = torch.from_numpy(pictures[places]).float().mean(3)[:, None] / 255.0
    return lg.Batch(inputs, living(torch.from_numpy(labels[places].astype(np.int64))), GREY)


def living(labels: Tensor) -> Tensor:
    """1 for an animal, 0 for a vehicle."""
    return (~torch.isin(labels, VEHICLES)).long()


def network(batch: lg.Batch, classes: int, seed: int = 0, name: str = "shallow-resnet") -> nn.Module:
    """An untrained network for these pictures."""
    assert batch.spec is not None
    return lg.load_model(name, num_classes=classes, input_shape=batch.spec.shape, seed=seed)


def observed(
    model: nn.Module, batch: lg.Batch, seed: int = 0, defences: Sequence[lg.Defence] = (), **training: Any
) -> lg.Observation:
    """The update of a client in training mode; labels granted."""
    protocol = lg.LocalTraining(**{"lr": 0.01, "mode": "train", **training})
    update = lg.Client(model, training=protocol, defences=tuple(defences)).train(batch, seed=seed)
    return lg.ThreatModel.honest_but_curious(labels=True).observe(update, model, batch.spec)


def run(batch: lg.Batch, seen: lg.Observation, attack: str, setting: str, seed: int = 0, **options: Any) -> Row:
    """Attacks one observation and scores it; the attack sees nothing of the batch."""
    assert batch.spec is not None
    clock = Clock.start()
    guess = lg.attack(seen, attack, seed=seed, device="cpu", **options)
    seconds = clock.seconds
    scores = lg.score(batch, guess)
    row = Row(
        float(scores.psnr.mean()), float(scores.ssim.mean()), seconds, guess.stats.evaluations, guess.explains,
        batch.spec.denormalise(guess.inputs).clamp(0, 1),
    )  # fmt: skip
    say({"setting": setting, "attack": attack, "psnr": row.psnr, "ssim": row.ssim, "cpu": seconds,
         "evaluations": row.evaluations, "residual": guess.stats.residual, "outcome": guess.outcome.name})  # fmt: skip
    return row


def summary(setting: str, attack: str, rows: Sequence[Row]) -> list[str]:
    """A line of a table."""
    psnrs, ssims, spent, work = ([getattr(row, name) for row in rows] for name in ("psnr", "ssim", "seconds", "evaluations"))
    return [
        setting, attack, str(len(rows)), decibels(statistics.median(psnrs)), decibels(min(psnrs)),
        f"{statistics.median(ssims):.3f}", f"{min(ssims):.3f}", f"{statistics.median(work):.0f}", str(max(work)),
        f"{statistics.median(spent):.1f}", f"{max(spent):.1f}", f"{sum(row.explains for row in rows)}/{len(rows)}",
    ]  # fmt: skip


def middle(rows: Sequence[Row], name: str) -> float:
    """Median of one column."""
    return float(statistics.median(getattr(row, name) for row in rows))


def decibels(value: float) -> str:
    """'exact' for identical pictures."""
    return "exact" if math.isinf(value) else f"{value:.1f}"


def gate(text: str, value: float, least: float | None = None, most: float | None = None) -> str:
    """One line: a figure, what was asked of it, and whether it holds."""
    held = (least is None or value >= least) and (most is None or value <= most)
    asked = f">= {least:g}" if least is not None else f"<= {most:g}"
    return f"- {text}: {value:.4g} (asked {asked}): {'holds' if held else 'MISSED'}"
