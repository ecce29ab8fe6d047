"""Small networks whose leakage differs, for 16x16 colour pictures and ten classes; traps for simple scores are among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import leakgauge as lg

SHAPE = (3, 16, 16)
CLASSES = 10
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky": lambda: nn.LeakyReLU(0.2),
}


@dataclass(frozen=True)
class Architecture:
    """One network.

    Args:
        layers: convolutions 'channels,kernel,stride,padding', 'pool' (2x2 means), 'global' (one mean), or 'hN' (linear
            layer of N units), each of the others followed by the activation; a linear layer to the classes comes last.
        activation: key of `ACTIVATIONS`.
        batch_norm: whether BatchNorm follows each convolution; its statistics are those of pictures drawn by seed.
        note: what it stands for.
    """

    layers: tuple[str, ...]
    activation: str
    note: str
    batch_norm: bool = False

    @property
    def name(self) -> str:
        """Layers, activation and BatchNorm in one line."""
        return "; ".join(self.layers) + f" {self.activation}" + (" BN" if self.batch_norm else "")

    @property
    def published(self) -> bool:
        """Whether c(M) was published for networks of this kind: convolutions, then one linear layer."""
        return not self.batch_norm and all(layer[0].isdigit() for layer in self.layers)


def _chain(text: str, activation: str, note: str, batch_norm: bool = False) -> Architecture:
    return Architecture(tuple(text.split()), activation, note, batch_norm)


ARCHITECTURES = (
    _chain("6,4,2,0", "tanh", "first layer loses 222"),
    _chain("1,3,1,0", "tanh", "first layer loses 546"),
    _chain("12,3,4,1", "tanh", "stride above kernel"),
    _chain("12,5,2,0", "tanh", "dead border, 93"),
    _chain("9,3,2,1", "tanh", "lost by redundancy only, 30"),
    _chain("16,3,1,1", "tanh", "wide"),
    _chain("24,3,2,1", "tanh", "wide, stride 2"),
    _chain("12,5,2,2", "sigmoid", "one layer of LeNet"),
    _chain("3,3,2,1", "leaky", "narrow"),
    _chain("16,3,1,1 16,3,2,1", "tanh", "trap: deeper layer deficient alone, not jointly"),
    _chain("6,3,1,0 3,4,2,0", "tanh", "deeper bottleneck"),
    _chain("6,4,2,0 3,3,2,0", "tanh", "two bottlenecks"),
    _chain("12,5,2,2 12,5,2,2", "sigmoid", "two layers of LeNet"),
    _chain("1,3,1,0 6,3,1,0", "tanh", "first layer is a cut"),
    _chain("12,5,2,0 12,3,1,1", "leaky", "dead border"),
    _chain("16,3,1,1 4,3,2,1", "leaky", "deeper bottleneck"),
    _chain("16,3,1,1 2,1,1,0", "tanh", "bottleneck of channels"),
    _chain("32,3,1,1 32,3,2,1", "leaky", "wide"),
    _chain("16,3,1,1 16,3,2,1 32,3,2,1", "tanh", "trap: very negative c(M), joint deficit 0"),
    _chain("12,5,2,2 12,5,2,2 12,5,1,2", "sigmoid", "LeNet"),
    _chain("12,5,2,2 12,5,2,2 12,5,1,2", "tanh", "LeNet"),
    _chain("6,3,1,0 5,4,2,0 3,4,1,0", "tanh", "narrowing"),
    _chain("16,5,1,0 6,5,2,0 32,5,1,2", "tanh", "dead border behind the first layer"),
    _chain("4,3,2,1 8,3,2,1 16,3,2,1", "leaky", "narrow"),
    _chain("8,3,1,1 8,3,2,1 8,3,2,1", "sigmoid", "narrow"),
    _chain("h256 h64", "tanh", "fully connected"),
    _chain("h32", "sigmoid", "fully connected, narrow"),
    _chain("16,3,1,1 pool 12,3,1,1", "tanh", "average pooling"),
    _chain("pool 16,3,1,1", "tanh", "average pooling first, 576"),
    _chain("16,3,1,1 global", "tanh", "global average pooling"),
    _chain("12,5,2,2 12,5,2,2", "tanh", "BatchNorm in eval mode", batch_norm=True),
)


def build(architecture: Architecture, seed: int = 0) -> nn.Sequential:
    """The network with PyTorch's default initial weights, drawn by `seed`; in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 31, (), generator=lg.rng(seed, architecture.name))))
        shape: tuple[int, ...] = SHAPE
        parts: list[nn.Module] = []
        for layer in architecture.layers:
            added = _layer(layer, shape)
            if architecture.batch_norm and isinstance(added[-1], nn.Conv2d):
                added.append(nn.BatchNorm2d(added[-1].out_channels))
            if isinstance(added[-1], nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                added.append(ACTIVATIONS[architecture.activation]())
            parts += added
            with torch.no_grad():
                shape = tuple(nn.Sequential(*added).eval()(torch.zeros(1, *shape)).shape[1:])
        if len(shape) > 1:
            parts.append(nn.Flatten())
        model = nn.Sequential(*parts, nn.Linear(torch.Size(shape).numel(), CLASSES))
        if architecture.batch_norm:
            with torch.no_grad():
                for _ in range(50):
                    model.train()(torch.rand(16, *SHAPE))
    return model.eval()


def _layer(layer: str, shape: tuple[int, ...]) -> list[nn.Module]:
    if layer == "pool":
        return [nn.AvgPool2d(2)]
    if layer == "global":
        return [nn.AdaptiveAvgPool2d(1)]
    if layer.startswith("h"):
        flat: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
        return [*flat, nn.Linear(torch.Size(shape).numel(), int(layer[1:]))]
    channels, kernel, stride, padding = (int(number) for number in layer.split(","))
    return [nn.Conv2d(shape[0], channels, kernel, stride, padding)]
