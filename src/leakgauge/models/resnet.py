"""Residual networks for small pictures."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import gcd
from typing import ClassVar

from torch import Tensor, nn

from leakgauge.models.activation import activation, activation_option
from leakgauge.models.entry import Network, Shape, option, require_picture
from leakgauge.models.initialise import draw_kaiming

NORMS = ("batch", "group", "none")
HE = "He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition"


def normalisation(kind: str, channels: int) -> nn.Module:
    """BatchNorm; GroupNorm with 8 groups, fewer where 8 does not divide `channels`; or nothing."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(gcd(8, channels), channels) if kind == "group" else nn.Identity()


def convolution(inputs: int, outputs: int, side: int, stride: int, norm: str) -> nn.Conv2d:
    """A padded convolution; it has a bias only where no normalisation follows."""
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=norm == "none")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the identity, or a 1x1 projection where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, kind: str) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride, norm)
        self.norm1 = normalisation(norm, outputs)
        self.activation1 = activation(kind)
        self.conv2 = convolution(outputs, outputs, 3, 1, norm)
        self.norm2 = normalisation(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride, norm), normalisation(norm, outputs))
        self.activation2 = activation(kind)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        hidden = self.activation1(self.norm1(self.conv1(inputs)))
        sum_of_both: Tensor = self.norm2(self.conv2(hidden)) + self.shortcut(inputs)
        output: Tensor = self.activation2(sum_of_both)
        return output


def residual_network(
    channels: int, num_classes: int, *, widths: tuple[int, ...], blocks: int, norm: str, kind: str
) -> nn.Sequential:
    """A 3x3 stem, stages of basic blocks (every later stage halves the picture), average pooling, one linear layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=convolution(channels, widths[0], 3, 1, norm), norm=normalisation(norm, widths[0]), activation=activation(kind)
    )
    inputs = widths[0]
    for stage, width in enumerate(widths, start=1):
        row = []
        for block in range(blocks):
            row.append(BasicBlock(inputs, width, 2 if stage > 1 and block == 0 else 1, norm, kind))
            inputs = width
        layers[f"stage{stage}"] = nn.Sequential(*row)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(inputs, num_classes)}
    model = nn.Sequential(layers)
    draw_kaiming(model)
    return model


@dataclass(frozen=True)
class ResNet18(Network):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pooling, as customary on CIFAR."""

    description: ClassVar[str] = "ResNet-18 with a 3x3 stem and no max-pooling (11.2 million parameters)"
    source: ClassVar[str] = f"{HE}, table 1; stem as customary on CIFAR"

    norm: str = option("batch", "normalisation after every convolution", NORMS)
    activation: str = activation_option("relu")
    width: int = option(64, "channels of the first stage; later ones have 2, 4 and 8 times as many")

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `residual_network`; 11,173,962 parameters for 10 classes on colour pictures."""
        channels, _, _ = require_picture("resnet18-cifar", input_shape)
        widths = (self.width, 2 * self.width, 4 * self.width, 8 * self.width)
        return residual_network(channels, num_classes, widths=widths, blocks=2, norm=self.norm, kind=self.activation)


@dataclass(frozen=True)
class ResNet20(Network):
    """The 20-layer CIFAR network of the ResNet paper; projections (option B) instead of its zero padding (option A)."""

    description: ClassVar[str] = "ResNet-20 for CIFAR (0.27 million parameters), 1x1 projections as shortcuts"
    source: ClassVar[str] = f"{HE}, section 4.2"

    norm: str = option("batch", "normalisation after every convolution", NORMS)
    activation: str = activation_option("relu")
    width: int = option(16, "channels of the first stage; later ones have 2 and 4 times as many (64: 'ResNet20-4')")

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `residual_network`."""
        channels, _, _ = require_picture("resnet20", input_shape)
        widths = (self.width, 2 * self.width, 4 * self.width)
        return residual_network(channels, num_classes, widths=widths, blocks=3, norm=self.norm, kind=self.activation)


@dataclass(frozen=True)
class ShallowResNet(Network):
    """A stem of stride 2, one basic block, a flattened head: three normalisation layers in all."""

    description: ClassVar[str] = "small residual network with exactly three BatchNorm layers and a flattened head"
    source: ClassVar[str] = "our own, for attacks on clients whose BatchNorm is in training mode (Hatamizadeh et al. 2022)"
    default_classes: ClassVar[int] = 2

    norm: str = option("batch", "normalisation after every convolution", NORMS)
    activation: str = activation_option("relu")
    width: int = option(32, "channels of every convolution")

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """35,298 parameters for 2 classes on (1, 32, 32)."""
        channels, height, width = require_picture("shallow-resnet", input_shape)
        model = nn.Sequential(
            OrderedDict[str, nn.Module](
                stem=convolution(channels, self.width, 3, 2, self.norm),
                norm=normalisation(self.norm, self.width),
                activation=activation(self.activation),
                block=BasicBlock(self.width, self.width, 1, self.norm, self.activation),
                flatten=nn.Flatten(),
                linear=nn.Linear(self.width * (-(-height // 2)) * (-(-width // 2)), num_classes),
            )
        )
        draw_kaiming(model)
        return model
