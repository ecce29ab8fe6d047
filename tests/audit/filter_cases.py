"""Filters with a fault planted in each, and the network that they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Filter = Callable[[Tensors, Tensors], Tensors]
STD, NORM = 0.01, 1.0


def network() -> nn.Module:
    """A small network with BatchNorm, so that there are buffers and a counter."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))


PARAMETERS = tuple(name for name, _ in network().named_parameters())


def changes(before: Tensors, after: Tensors) -> dict[str, Tensor]:
    return {name: after[name] - before[name] for name in PARAMETERS}


def weights(before: Tensors, after: Tensors, change: Tensors) -> dict[str, Tensor]:
    return {name: before[name] + change[name] if name in change else tensor.clone() for name, tensor in after.items()}


def clipped(change: Tensors, norm: float = NORM) -> dict[str, Tensor]:
    total = float(torch.cat([tensor.reshape(-1) for tensor in change.values()]).norm())
    return {name: tensor * min(1.0, norm / max(total, 1e-30)) for name, tensor in change.items()}


def noisy(change: Tensors, std: float = STD) -> dict[str, Tensor]:
    return {name: tensor + std * torch.randn(tensor.shape) for name, tensor in change.items()}


def passes_some_values(before: Tensors, after: Tensors) -> Tensors:
    """As a sparse vector technique once did: a few of the values are sent without noise."""
    sent = {}
    for name, tensor in changes(before, after).items():
        keep = torch.rand(tensor.shape) < 0.03
        sent[name] = torch.where(keep, tensor, tensor + STD * torch.randn(tensor.shape))
    return weights(before, after, sent)


def sparse_without_noise(before: Tensors, after: Tensors) -> Tensors:
    """A tenth of the values leave at random; noise that was drawn for all is added to half of them."""
    sent = {}
    for name, tensor in changes(before, after).items():
        chosen, covered = torch.rand(tensor.shape) < 0.1, torch.rand(tensor.shape) < 0.5
        sent[name] = torch.where(chosen, tensor + covered * STD * torch.randn(tensor.shape), torch.zeros(()))
    return weights(before, after, sent)


def noise_on_some_layers(before: Tensors, after: Tensors) -> Tensors:
    change = changes(before, after)
    return weights(
        before, after, {name: tensor if name == "4.bias" else noisy({name: tensor})[name] for name, tensor in change.items()}
    )


def reused_seed(before: Tensors, after: Tensors) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    change = changes(before, after)
    return weights(
        before, after, {name: tensor + STD * torch.randn(tensor.shape, generator=generator) for name, tensor in change.items()}
    )


class SeedOfThree:
    """Draws its noise from three seeds in turn."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, before: Tensors, after: Tensors) -> Tensors:
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls % 3)
        change = changes(before, after)
        return weights(
            before,
            after,
            {name: tensor + STD * torch.randn(tensor.shape, generator=generator) for name, tensor in change.items()},
        )


def same_noise_in_each_tensor(before: Tensors, after: Tensors) -> Tensors:
    seed = int(torch.randint(1 << 30, ()))
    change = changes(before, after)
    return weights(
        before,
        after,
        {
            name: tensor + STD * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
            for name, tensor in change.items()
        },
    )


def one_draw_per_tensor(before: Tensors, after: Tensors) -> Tensors:
    return weights(before, after, {name: tensor + STD * torch.randn(()) for name, tensor in changes(before, after).items()})


def clip_per_tensor(before: Tensors, after: Tensors) -> Tensors:
    change = changes(before, after)
    return weights(before, after, noisy({name: clipped({name: tensor})[name] for name, tensor in change.items()}))


def noise_before_clip(before: Tensors, after: Tensors) -> Tensors:
    return weights(before, after, clipped(noisy(changes(before, after))))


def clips_the_weights(before: Tensors, after: Tensors) -> Tensors:
    whole = clipped({name: after[name] for name in PARAMETERS})
    return {name: whole.get(name, tensor) for name, tensor in after.items()}


def no_negative_values(before: Tensors, after: Tensors) -> Tensors:
    return weights(before, after, {name: tensor.clamp(min=0) for name, tensor in noisy(changes(before, after)).items()})


def half_the_noise(before: Tensors, after: Tensors) -> Tensors:
    return weights(before, after, noisy(changes(before, after), STD / 2))


def laplacian(before: Tensors, after: Tensors) -> Tensors:
    draw = torch.distributions.Laplace(0.0, STD / 2**0.5).sample
    return weights(before, after, {name: tensor + draw(tensor.shape) for name, tensor in changes(before, after).items()})


def noise_by_size(before: Tensors, after: Tensors) -> Tensors:
    change = changes(before, after)
    largest = max(float(tensor.abs().max()) for tensor in change.values())
    return weights(before, after, noisy(change, 0.3 * largest))


def noise_where_it_changed(before: Tensors, after: Tensors) -> Tensors:
    change = changes(before, after)
    return weights(
        before, after, {name: tensor + (tensor != 0) * STD * torch.randn(tensor.shape) for name, tensor in change.items()}
    )


def writes_in_place(before: Tensors, after: Tensors) -> Tensors:
    for name in PARAMETERS:
        after[name].add_(STD * torch.randn(after[name].shape))
    return after


def correct(before: Tensors, after: Tensors) -> Tensors:
    return weights(before, after, noisy(clipped(changes(before, after))))


GAUSSIAN = ("gaussian-noise:std=0.01",)
PRIVATE = ("clip:norm=1", *GAUSSIAN)
FAULTY: dict[str, tuple[Callable[[], Filter], tuple[str, ...], str]] = {
    "passes some values": (lambda: passes_some_values, GAUSSIAN, "un-noised"),
    "passes some values, no claim": (lambda: passes_some_values, (), "un-noised"),
    "sparse, half without noise": (lambda: sparse_without_noise, (), "un-noised"),
    "noise on some layers": (lambda: noise_on_some_layers, GAUSSIAN, "layers-without-noise"),
    "noise on some layers, no claim": (lambda: noise_on_some_layers, (), "layers-without-noise"),
    "reused seed": (lambda: reused_seed, GAUSSIAN, "noise-repeats"),
    "reused seed, no claim": (lambda: reused_seed, (), "noise-repeats"),
    "three seeds in turn": (SeedOfThree, GAUSSIAN, "noise-repeats"),
    "same noise in each tensor": (lambda: same_noise_in_each_tensor, GAUSSIAN, "noise-shared"),
    "one draw per tensor": (lambda: one_draw_per_tensor, GAUSSIAN, "noise-shared"),
    "clip per tensor": (lambda: clip_per_tensor, PRIVATE, "clip-too-wide"),
    "noise before the clip": (lambda: noise_before_clip, PRIVATE, "noise-before-clip"),
    "clips the weights": (lambda: clips_the_weights, ("clip:norm=1",), "clips-weights"),
    "no negative values": (lambda: no_negative_values, GAUSSIAN, "one-sided"),
    "half the noise": (lambda: half_the_noise, GAUSSIAN, "noise-too-small"),
    "another distribution": (lambda: laplacian, GAUSSIAN, "noise-distribution"),
    "noise by size": (lambda: noise_by_size, GAUSSIAN, "noise-follows-size"),
    "noise where it changed": (lambda: noise_where_it_changed, GAUSSIAN, "noise-follows-update"),
    "no noise": (lambda: lambda before, after: dict(after), GAUSSIAN, "no-noise"),
    "no clip": (lambda: lambda before, after: weights(before, after, noisy(changes(before, after))), PRIVATE, "no-clip"),
    "no noise on statistics": (lambda: correct, ("gaussian-noise:std=0.01,buffers=true",), "buffers-un-noised"),
}
