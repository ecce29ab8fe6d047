"""Tiny models, pictures and members for the tests of rounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.randomness import rng

SPEC = lg.ImageSpec((1, 6, 6), mean=0.5, std=0.5)
LOCAL = lg.LocalTraining(lr=0.1, steps=2, batch_size=2)


def mlp(seed: int = 0) -> nn.Module:
    return lg.load_model("mlp:hidden=12", num_classes=3, input_shape=SPEC.shape, seed=seed)


def normed(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Conv, BatchNorm, ReLU, dropout, Linear; weights drawn from the seed."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 3)]
    model, generator = nn.Sequential(*layers), rng(seed, "weights")
    for name, parameter in model.named_parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + (1.0 if name == "1.weight" else 0.0)
    return model


def batch(count: int, seed: int = 0, shift: float = 0.0) -> lg.Batch:
    pixels = (torch.rand((count, *SPEC.shape), generator=rng(seed, "batch")) + shift).clamp(0, 1)
    labels = torch.randint(3, (count,), generator=rng(seed, "labels"))
    return lg.Batch(SPEC.normalise(pixels), labels, SPEC)


def member(name: str, count: int = 2, training: lg.LocalTraining = LOCAL, seed: int = 0, **options: Any) -> lg.Member:
    return lg.Member(name, batch(count, seed=hash_free(name) + seed), training, **options)


def hash_free(name: str) -> int:
    return sum(map(ord, name))


def members(*counts: int, training: lg.LocalTraining = LOCAL, **options: Any) -> tuple[lg.Member, ...]:
    """Members 'a', 'b', ... with so many pictures each, all different."""
    return tuple(member(chr(97 + place), count, training, **options) for place, count in enumerate(counts))


def last(federation: lg.Federation, rounds: int = 1, seed: int = 0) -> lg.Round:
    return list(federation.run(rounds, seed=seed))[-1]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
