"""The fingerprint of a federation's plan: what has to be the same for a run to be continued."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.federated.state import state_of
from leakgauge.truth.batch import Batch

if TYPE_CHECKING:
    from leakgauge.federated.federation import Federation


def fingerprint(federation: Federation, seed: int) -> dict[str, str]:
    """SHA-256 of each part of a plan, by the words in which a difference is told."""
    parts = {
        "the model": _model(federation.model),
        "the loss": _digest(_named(federation.loss)),
        "the validation batch": "none" if federation.validation is None else _batch(federation.validation),
        "the rules of the rounds": _digest(
            federation.fraction,
            federation.server_lr,
            federation.secure_aggregation,
            repr(federation.server_defence),
            repr(federation.topology),
            federation.dropout,
        ),
        "the seed": _digest(seed),
        "the list of members": _digest([member.name for member in federation.members]),
    }
    for member in federation.members:
        parts[f"member {member.name!r}"] = _digest(
            _batch(member.batch),
            member.training.to_json(),
            member.batch_norm,
            [repr(defence) for defence in member.defences],
            member.share,
        )
    return parts


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The parts in which two fingerprints differ, in order."""
    return [part for part in dict.fromkeys([*first, *second]) if first.get(part) != second.get(part)]


def _model(model: nn.Module) -> str:
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return _digest(re.sub(r" at 0x[0-9a-f]+", "", repr(model)), trained, _tensors(state_of(model)))


def _batch(batch: Batch) -> str:
    inputs = {"inputs": batch.inputs} if isinstance(batch.inputs, Tensor) else batch.inputs
    return _digest(_tensors({**inputs, "labels": batch.labels}), batch.spec.to_json() if batch.spec else None)


def _tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _named(loss: Loss) -> str:
    return loss if isinstance(loss, str) else f"{getattr(loss, '__module__', '')}:{getattr(loss, '__qualname__', '')}"
