"""Small networks, batches and observations for the tests of attacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.distance import Distance, SquaredL2
from leakgauge.attacks.matching.priors import Context, GroupConsistency, Prior
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.target import target_of
from leakgauge.core import ImageSpec, LocalTraining, Observation, ThreatModel
from leakgauge.federated.client import Client
from leakgauge.models import load_model
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SHAPE = (1, 8, 8)
CLASSES = 4


def lenet(seed: int = 0, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> nn.Module:
    """DLG's sigmoid network, small."""
    return load_model("lenet-dlg", num_classes=classes, input_shape=shape, seed=seed)


def pictures(count: int = 1, seed: int = 0, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> Batch:
    """Smooth random pictures with labels 1, 2, ..."""
    coarse = torch.rand((count, shape[0], 3, 3), generator=rng(seed, "pictures"))
    pixels = nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=True)
    return Batch(pixels, (torch.arange(count) + 1) % classes, ImageSpec(shape))


def observe(
    model: nn.Module,
    batch: Batch,
    *,
    labels: bool = False,
    defences: tuple[Any, ...] = (),
    withhold: tuple[str, ...] = (),
    loss: str = "cross_entropy",
    seed: int = 0,
    **training: Any,
) -> Observation:
    """What an honest-but-curious server sees of one client."""
    client = Client(model, loss=loss, training=LocalTraining(**training), defences=defences, withhold=withhold)
    return ThreatModel.honest_but_curious(labels=labels).observe(client.train(batch, seed=seed), model, batch.spec)


def problem_for(
    seen: Observation,
    labels: Tensor | None,
    *,
    distance: Distance | None = None,
    priors: tuple[Prior, ...] = (),
    group: GroupConsistency | None = None,
    classes: int = CLASSES,
    form: str = "linear",
    mode: str = "observed",
    chunk: int = 16,
) -> Problem:
    """The matching problem in float64."""
    assert seen.spec is not None
    target = target_of(seen, mode, torch.float64, "cpu")
    context = Context(target.network, seen.spec, seen.batch_norm)
    shape = (seen.num_examples, *seen.spec.shape)
    return Problem(
        target, seen.loss, distance or SquaredL2(), priors, group, context, shape, labels,
        0 if labels is not None else classes, form, chunk,
    )  # fmt: skip


def psnr(truth: Tensor, guess: Tensor) -> float:
    """Over the whole batch, pixels clamped to [0, 1]; written out here, apart from the package's own measure."""
    error = float((truth.double() - guess.double().clamp(0, 1)).square().mean())
    return float("inf") if error == 0 else -10 * torch.log10(torch.tensor(error, dtype=torch.float64)).item()


def limits(budget: int | str = "fast", **more: Any) -> Limits:
    return Limits(budget, **more)
