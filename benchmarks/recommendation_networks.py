"""The networks of `benchmarks.recommendation`, and each of them rebuilt as a recommendation says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import nn

import leakgauge as lg

SHAPE, CLASSES = (3, 32, 32), 10
THRESHOLDS = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Network:
    """A chain of convolutions 'channels, kernel, stride, padding', each with the activation, and a linear layer."""

    name: str
    layers: tuple[tuple[int, int, int, int], ...]
    activation: str
    bias: bool = True
    pool: int = 1

    def build(self, seed: int = 0) -> nn.Sequential:
        """With PyTorch's default initial weights, in eval mode."""
        parts: list[nn.Module] = [nn.AvgPool2d(self.pool)] if self.pool > 1 else []
        channels, side = SHAPE[0], SHAPE[1] // self.pool
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for width, kernel, stride, padding in self.layers:
                parts.append(nn.Conv2d(channels, width, kernel, stride, padding, bias=self.bias))
                parts.append(nn.Tanh() if self.activation == "tanh" else nn.LeakyReLU(0.2))
                channels, side = width, (side + 2 * padding - kernel) // stride + 1
            return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels * side * side, CLASSES)).eval()

    def changed(self, advice: lg.Recommendation) -> Network:
        """As the recommendation says; the count of the result has to be the count that was promised."""
        width, kernel, stride, padding = self.layers[0]
        pool, channels, step = (
            int(found[1]) if (found := re.search(pattern, advice.change)) else None
            for pattern in (r"average pooling by (\d+)", r"(\d+) instead of \d+ channels", r"stride (\d+) instead")
        )
        if advice.kind == "kernel":
            kernel = max(kernel, step or kernel)
        first = (channels or width, kernel, step or stride, padding)
        result = replace(self, layers=(first, *self.layers[1:]), pool=pool or 1)
        again = lg.recommendations(result.build(), SHAPE, threshold=advice.share)[0]
        assert (again.kind, again.undetermined) == ("none", advice.undetermined), (advice.change, again)
        return result


NETWORKS = (
    Network(
        "cnn6:bias=last",
        ((12, 4, 2, 2), (36, 3, 2, 1), (36, 3, 1, 1), (36, 3, 1, 1), (64, 3, 2, 1), (128, 3, 1, 1)),
        "leaky",
        bias=False,
    ),
    Network("LeNet 12-12-12 leaky", ((12, 5, 2, 2), (12, 5, 2, 2), (12, 5, 1, 2)), "leaky"),
    Network("16,3,1,1; 16,3,2,1 tanh", ((16, 3, 1, 1), (16, 3, 2, 1)), "tanh"),
)


@dataclass(frozen=True)
class Version:
    """A network as it is ('now') or as one recommendation changes it."""

    number: int
    change: str
    share: float
    network: Network

    @property
    def file(self) -> str:
        return f"{self.number}-{re.sub('[^a-z0-9]+', '-', self.change)}.safetensors"


def versions(ladder: bool) -> list[Version]:
    """Every network as it is and after its first sufficient recommendation, or after all of those of all thresholds."""
    found: dict[tuple[int, str], Version] = {}
    for number, network in enumerate(NETWORKS):
        found[number, "now"] = Version(number, "now", 0.0, network)
        for threshold in THRESHOLDS if ladder else THRESHOLDS[:1]:
            advice = [one for one in lg.recommendations(network.build(), SHAPE, threshold=threshold) if one.sufficient]
            for one in advice if ladder else advice[:1]:
                found[number, one.change] = Version(number, one.change, one.share, network.changed(one))
    return list(found.values())
