"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar

from torch import nn

from leakgauge.models.activation import activation, activation_option, slope_option
from leakgauge.models.entry import Network, Shape, option


def dense_classifier(
    widths: tuple[int, ...], kind: str, slope: float, *, hidden_bias: bool = True, last_bias: bool = True
) -> nn.Sequential:
    """Flatten, then linear layers from width to width with an activation between them, none after the last."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    last = len(widths) - 1
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"linear{number}"] = nn.Linear(inputs, outputs, bias=last_bias if number == last else hidden_bias)
        if number < last:
            layers[f"activation{number}"] = activation(kind, slope)
    return nn.Sequential(layers)


@dataclass(frozen=True)
class MLP(Network):
    """A multilayer perceptron; takes any input shape, a table's row (1, 1, D) too."""

    description: ClassVar[str] = "multilayer perceptron"
    source: ClassVar[str] = "general"

    hidden: tuple[int, ...] = option((256, 256), "units of the hidden layers")
    activation: str = activation_option("relu")
    slope: float = slope_option(0.01)

    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """See `dense_classifier`; PyTorch's own initial weights."""
        return dense_classifier((prod(input_shape), *self.hidden, num_classes), self.activation, self.slope)
