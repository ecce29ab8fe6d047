"""The sigmoid LeNet of DLG, and the family of small convolutional networks around it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from leakgauge.models.activation import activation, activation_option, slope_option
from leakgauge.models.entry import Network, Shape, option, require_picture
from leakgauge.models.initialise import draw_uniform

STRIDES = (2, 2, 1)


def conv_classifier(
    input_shape: tuple[int, int, int], num_classes: int, *, width: int, convolutions: int, kind: str, slope: float
) -> nn.Sequential:
    """Five-by-five convolutions of strides 2, 2, 1 and padding 2, an activation after each, then one linear layer.

    Args:
        input_shape: (C, H, W), any sides.
        num_classes: outputs of the linear layer.
        width: channels of every convolution.
        convolutions: how many of the three are used, 1 to 3.
        kind: name of the activation.
        slope: of 'leaky-relu'.
    """
    channels, height, width_in = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, stride in enumerate(STRIDES[:convolutions], start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, 5, stride=stride, padding=2)
        layers[f"activation{number}"] = activation(kind, slope)
        channels, height, width_in = width, -(-height // stride), -(-width_in // stride)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * width_in, num_classes)
    return nn.Sequential(layers)


@dataclass(frozen=True)
class LeNetDLG(Network):
    """Three convolutions 12-12-12 with sigmoid and a linear layer; all weights and biases from U(-0.5, 0.5)."""

    description: ClassVar[str] = "three 5x5 convolutions (strides 2, 2, 1), sigmoid, one linear layer, weights U(-0.5, 0.5)"
    source: ClassVar[str] = "Zhu, Liu, Han 2019, Deep Leakage from Gradients, released code"

    width: int = option(12, "channels of every convolution")
    activation: str = activation_option("sigmoid")
    slope: float = slope_option(0.01)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `conv_classifier`; 85,036 parameters for 100 classes on (3, 32, 32)."""
        picture = require_picture("lenet-dlg", input_shape)
        model = conv_classifier(picture, num_classes, width=self.width, convolutions=3, kind=self.activation, slope=self.slope)
        draw_uniform(model)
        return model
