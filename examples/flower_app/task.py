"""What the clients train, and on what: a small residual network with BatchNorm, and bundled faces, two per client."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import leakgauge as lg

NETWORK = "shallow-resnet"  # any module of yours, or 'package.module:callable', which `leakgauge attack --model` then takes too
SPEC = lg.ImageSpec((1, 32, 32))
PROTOCOL = lg.LocalTraining(optimiser="sgd", shuffle=False, mode="train")  # what the run's configuration does not say
PER_CLIENT = 2


def build() -> nn.Module:
    """The network with its initial weights."""
    return lg.load_model(NETWORK, num_classes=2, input_shape=SPEC.shape, seed=0)


def faces() -> Tensor:
    """All 100 bundled faces, (100, 1, 32, 32)."""
    inputs = lg.load_data("demo:faces?size=32").inputs
    assert isinstance(inputs, Tensor)
    return inputs


def partition(client: int) -> lg.Batch:
    """A client's private pictures, with the labels 0 and 1."""
    rows = slice(PER_CLIENT * client, PER_CLIENT * (client + 1))
    return lg.Batch(faces()[rows], torch.arange(PER_CLIENT) % 2, SPEC)


def others() -> Tensor:
    """Faces that no client has: decoys, and their mean as what anybody could guess."""
    return faces()[20:]


def train(model: nn.Module, batch: lg.Batch, *, lr: float, epochs: int, batch_size: int) -> float:
    """Plain SGD, in the order of the batch; the last loss."""
    assert isinstance(batch.inputs, Tensor)
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    loss = torch.zeros(())
    for _ in range(epochs):
        for inputs, labels in zip(batch.inputs.split(batch_size), batch.labels.split(batch_size), strict=True):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimiser.step()
    return float(loss.detach())
