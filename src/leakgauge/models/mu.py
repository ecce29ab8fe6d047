"""The two networks of Mu 2022 (cats and dogs), as far as they are known.

Only the abstract of the paper was available: a fully connected network first, then a convolutional one, trained
federatedly on the Kaggle cat and dog pictures, with virtual pictures and labels matched to real gradients. It gives
neither widths nor activations nor resolution. What stands here is our choice: the shapes of DLG's LeNet with all of them
as options, and two classes by default.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import nn

from leakgauge.models.activation import activation, activation_option, slope_option
from leakgauge.models.entry import Network, Shape, option, require_picture
from leakgauge.models.initialise import draw_uniform
from leakgauge.models.lenet import conv_classifier

SOURCE = "after Mu 2022, Deep leakage from gradients (full text not available; sizes are our choice)"
INITS = ("uniform", "default")


@dataclass(frozen=True)
class MuFC(Network):
    """Flatten, one hidden layer, an activation, one linear layer."""

    description: ClassVar[str] = "fully connected network with one hidden layer"
    source: ClassVar[str] = SOURCE
    default_classes: ClassVar[int] = 2

    hidden: int = option(256, "units of the hidden layer")
    activation: str = activation_option("sigmoid")
    slope: float = slope_option(0.01)
    init: str = option("default", "PyTorch's own weights, or U(-0.5, 0.5), which saturates a sigmoid on large inputs", INITS)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """hidden * D + hidden + num_classes * (hidden + 1) parameters for D input values."""
        model = nn.Sequential(
            OrderedDict[str, nn.Module](
                flatten=nn.Flatten(),
                linear1=nn.Linear(prod(input_shape), self.hidden),
                activation1=activation(self.activation, self.slope),
                linear2=nn.Linear(self.hidden, num_classes),
            )
        )
        if self.init == "uniform":
            draw_uniform(model)
        return model


@dataclass(frozen=True)
class MuCNN(Network):
    """One to three 5x5 convolutions and one linear layer."""

    description: ClassVar[str] = "one to three 5x5 convolutions (strides 2, 2, 1) and one linear layer"
    source: ClassVar[str] = SOURCE
    default_classes: ClassVar[int] = 2

    width: int = option(12, "channels of every convolution")
    activation: str = activation_option("sigmoid")
    slope: float = slope_option(0.01)
    convolutions: int = option(3, "how many convolutions", ("1", "2", "3"))
    init: str = option("default", "PyTorch's own weights, or U(-0.5, 0.5) as in DLG, which saturates wide networks", INITS)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `conv_classifier`."""
        picture = require_picture("mu-cnn", input_shape)
        model = conv_classifier(
            picture, num_classes, width=self.width, convolutions=self.convolutions, kind=self.activation, slope=self.slope
        )
        if self.init == "uniform":
            draw_uniform(model)
        return model
