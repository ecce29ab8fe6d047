"""CNN6, CNN6-d and FCN3, the networks of R-GAP.

Published bias-free, with LeakyReLU of slope 0.2 after every hidden layer and one output (logistic loss). Nothing follows the last
layer here; the released FCN3 has one more LeakyReLU on the logit, which its attack then ignores. Give `num_classes=1` for
the published output.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import nn

from leakgauge.models.activation import activation, activation_option, slope_option
from leakgauge.models.entry import Network, Shape, option, require_picture
from leakgauge.models.mlp import dense_classifier

SOURCE = "Zhu, Blaschko 2021, R-GAP: recursive gradient attack on privacy, ICLR, released code"
BIASES = ("none", "last", "all")
KERNELS = ((4, 2, 2), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1))  # kernel side, stride, padding


def cnn6(
    name: str, num_classes: int, input_shape: Shape, *, widths: tuple[int, ...], kind: str, slope: float, bias: str
) -> nn.Sequential:
    """Six convolutions with the given output channels (kernels in `KERNELS`) and one linear layer.

    On (3, 32, 32) the linear layer has 3,200 inputs.
    """
    channels, height, width = require_picture(name, input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (outputs, (side, stride, padding)) in enumerate(zip(widths, KERNELS, strict=True), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, outputs, side, stride=stride, padding=padding, bias=bias == "all")
        layers[f"activation{number}"] = activation(kind, slope)
        channels = outputs
        height, width = ((length + 2 * padding - side) // stride + 1 for length in (height, width))
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * width, num_classes, bias=bias != "none")
    return nn.Sequential(layers)


@dataclass(frozen=True)
class CNN6(Network):
    """12-36-36-36-64-128 channels; every layer solvable on (3, 32, 32)."""

    description: ClassVar[str] = "six convolutions without bias, LeakyReLU 0.2, one linear layer; rank-complete at 32x32"
    source: ClassVar[str] = SOURCE

    activation: str = activation_option("leaky-relu")
    slope: float = slope_option(0.2)
    bias: str = option("none", "which layers have a bias: none as published, the last linear one, or all", BIASES)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `cnn6`."""
        widths = (12, 36, 36, 36, 64, 128)
        return cnn6("cnn6", num_classes, input_shape, widths=widths, kind=self.activation, slope=self.slope, bias=self.bias)


@dataclass(frozen=True)
class CNN6Deficient(Network):
    """As CNN6 with 20 channels in the second layer, whose equations are 280 short on (3, 32, 32)."""

    description: ClassVar[str] = "CNN6 with 20 channels in its second convolution, which makes that layer rank-deficient"
    source: ClassVar[str] = SOURCE

    activation: str = activation_option("leaky-relu")
    slope: float = slope_option(0.2)
    bias: str = option("none", "which layers have a bias: none as published, the last linear one, or all", BIASES)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `cnn6`."""
        widths = (12, 20, 36, 36, 64, 128)
        return cnn6("cnn6-d", num_classes, input_shape, widths=widths, kind=self.activation, slope=self.slope, bias=self.bias)


@dataclass(frozen=True)
class FCN3(Network):
    """D-1000-100-K, fully connected; published on MNIST with one output."""

    description: ClassVar[str] = "fully connected 1000-100 without bias, LeakyReLU 0.2"
    source: ClassVar[str] = SOURCE
    default_shape: ClassVar[Shape] = (1, 28, 28)

    hidden: tuple[int, ...] = option((1000, 100), "units of the hidden layers")
    activation: str = activation_option("leaky-relu")
    slope: float = slope_option(0.2)
    bias: str = option("none", "which layers have a bias: none as published, the last one, or all", BIASES)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `dense_classifier`."""
        widths = (prod(input_shape), *self.hidden, num_classes)
        return dense_classifier(
            widths, self.activation, self.slope, hidden_bias=self.bias == "all", last_bias=self.bias != "none"
        )
