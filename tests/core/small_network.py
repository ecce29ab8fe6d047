"""A small network with BatchNorm, a batch and a trained client, for the tests of core."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leakgauge.core import ImageSpec, LocalTraining, Observation, ThreatModel
from leakgauge.core.update import Update
from leakgauge.federated.client import Client
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((2, 6, 6), mean=0.4, std=0.3)


def network(seed: int = 0, *, norm: bool = True) -> nn.Module:
    """Conv, BatchNorm (or none), Tanh, Linear to 3 classes; parameters and running statistics drawn from the seed."""
    layers: list[nn.Module] = [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)]
    if norm:
        layers.insert(1, nn.BatchNorm2d(3))
    model, generator = nn.Sequential(*layers), rng(seed, "weights")
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + (0.5 if parameter.ndim == 1 else 0.0)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator) if "var" in name else buffer + 0.1)
    return model


def batch(count: int = 4, seed: int = 0) -> Batch:
    pixels = torch.rand((count, *SPEC.shape), generator=rng(seed, "batch"))
    return Batch(SPEC.normalise(pixels), torch.arange(count) % 3, SPEC)


def client_update(model: nn.Module, count: int = 4, *, seed: int = 0, **training: Any) -> Update:
    return Client(model, training=LocalTraining(**training)).train(batch(count), seed=seed)


def observed(model: nn.Module | None = None, *, labels: bool = False, batch_norm: bool = True, **training: Any) -> Observation:
    model = network() if model is None else model
    threat = ThreatModel.honest_but_curious(labels=labels, batch_norm=batch_norm)
    return threat.observe(client_update(model, **training), model, SPEC, model_name="small")
