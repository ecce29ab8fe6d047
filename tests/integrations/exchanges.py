"""A small network with BatchNorm, pictures, and clients' messages as any engine hands them over."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leakgauge.audit.guard.probe import Private
from leakgauge.core.spec import ImageSpec
from leakgauge.data import public_pictures
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.models import load_model
from leakgauge.truth import Batch

MODEL = "shallow-resnet:width=8"
SPEC = ImageSpec((1, 8, 8))
LR = 0.01


def network() -> nn.Module:
    return load_model(MODEL, 10, SPEC.shape)


def pictures(count: int) -> Tensor:
    return public_pictures(SPEC.shape, count)


def private(index: int = 0, count: int = 1, decoys: int = 0) -> Private:
    """`count` pictures from `index` on, and `decoys` others (repeats where there are not so many)."""
    shown = pictures(count + index + 12)
    batch = Batch(SPEC.normalise(shown[index : index + count]), torch.arange(index, index + count) % 10, SPEC)
    others = torch.cat([shown[index + count :]] * 3)[:decoys] if decoys else None
    return Private(batch, decoys=None if others is None else SPEC.normalise(others))


def state(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.detach().clone().numpy() for name, tensor in model.state_dict().items()}


def exchange(index: int = 0, count: int = 1, *, round_index: int | None = 1, client: str = "site-1", **changes: Any) -> Exchange:
    """One SGD step in training mode on the pictures of `private(index, count)`, as a message with all facts stated."""
    model = copy.deepcopy(network()).train()
    before = state(model)
    batch = private(index, count).batch
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
    optimiser.step()
    facts: dict[str, Any] = {
        "before": before,
        "sent": state(model),
        "num_examples": count,
        "config": {"lr": LR, "local-epochs": 1, "batch-size": count, "optimizer": "sgd", "mode": "train"},
        "engine": "test",
        "round": round_index,
        "client": client,
    }
    return Exchange(**{**facts, **changes})
