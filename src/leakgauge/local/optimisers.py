"""torch.optim's update rules as pure functions, differentiable in the gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leakgauge.core.training import LocalTraining
from leakgauge.local.network import Tensors

EPSILON = 1e-8  # Adam's, as torch.optim sets it


def clipped(gradients: Mapping[str, Tensor], norm: float) -> Tensors:
    """The gradients scaled so that their joint 2-norm is at most `norm`, as torch.nn.utils.clip_grad_norm_ does."""
    total = torch.stack([tensor.square().sum() for tensor in gradients.values()]).sum().sqrt()
    factor = (norm / (total + 1e-6)).clamp(max=1.0)
    return {name: tensor * factor for name, tensor in gradients.items()}


class Optimiser(ABC):
    """One update rule with its state; made fresh for each replay.

    Args:
        training: the protocol.
        decays: whether weight decay acts on a weight; on all of them by default.
    """

    def __init__(self, training: LocalTraining, decays: Callable[[Tensor], bool] | None = None) -> None:
        self.training = training
        self.decays = decays

    def decay(self, weight: Tensor) -> float:
        """Weight decay of one weight."""
        return self.training.weight_decay if self.decays is None or self.decays(weight) else 0.0

    @abstractmethod
    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float) -> Tensors:
        """The weights after one step."""


class SGD(Optimiser):
    """torch.optim.SGD."""

    def __init__(
        self, training: LocalTraining, decays: Callable[[Tensor], bool] | None = None, *, dampening: float = 0.0
    ) -> None:
        super().__init__(training, decays)
        self.dampening = dampening
        self.velocity: Tensors = {}

    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float) -> Tensors:
        momentum, after = self.training.momentum, {}
        for name, weight in weights.items():
            decay = self.decay(weight)
            direction = gradients[name] + decay * weight if decay else gradients[name]
            if momentum:
                fresh = direction if self.dampening == 0 else (1 - self.dampening) * direction
                velocity = momentum * self.velocity[name] + fresh if name in self.velocity else direction
                self.velocity[name] = velocity
                direction = direction + momentum * velocity if self.training.nesterov else velocity
            after[name] = weight - lr * direction
        return after


class Adam(Optimiser):
    """torch.optim.Adam, and AdamW where the protocol says so."""

    def __init__(
        self,
        training: LocalTraining,
        decays: Callable[[Tensor], bool] | None = None,
        *,
        epsilon: float = EPSILON,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(training, decays)
        self.epsilon, self.amsgrad = epsilon, amsgrad
        self.first: Tensors = {}
        self.second: Tensors = {}
        self.largest: Tensors = {}
        self.count = 0

    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float) -> Tensors:
        self.count += 1
        beta1, beta2 = self.training.betas
        after = {}
        for name, weight in weights.items():
            slope, decay = gradients[name], self.decay(weight)
            kept = weight
            if decay and self.training.optimiser == "adamw":
                kept = weight * (1 - lr * decay)
            elif decay:
                slope = slope + decay * weight
            zero = torch.zeros_like(slope)
            self.first[name] = beta1 * self.first.get(name, zero) + (1 - beta1) * slope
            self.second[name] = beta2 * self.second.get(name, zero) + (1 - beta2) * slope.square()
            second = self.second[name]
            if self.amsgrad:
                second = self.largest[name] = torch.maximum(self.largest.get(name, second), second)
            root = _root(second) / (1 - beta2**self.count) ** 0.5
            after[name] = kept - lr / (1 - beta1**self.count) * self.first[name] / (root + self.epsilon)
        return after


def _root(values: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero instead of infinite."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, torch.ones_like(values)).sqrt(), torch.zeros_like(values))


def optimiser_for(training: LocalTraining) -> Optimiser:
    """A fresh optimiser with the protocol's rule."""
    return SGD(training) if training.optimiser == "sgd" else Adam(training)
