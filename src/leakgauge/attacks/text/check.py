"""Does a recovered text explain the update? And what of the update is a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.target import Target, target_of
from leakgauge.attacks.verify import ROUNDING, recomputed
from leakgauge.core.observation import Observation
from leakgauge.errors import UnsupportedError

UNIT = {"float64": 1.2e-16, "float32": 6.0e-8}  # unit roundoff
LOOSEST = 1e-3  # a wrong token or label changes the update by more


def gradients_of(seen: Observation, name: str) -> dict[str, Tensor]:
    """The update as gradients, up to one positive factor: for several steps of SGD the sum of their gradients.

    Weight decay, which pulls at known weights, is taken off.

    Raises:
        UnsupportedError: for an optimiser that rescales each number, since that ends the low rank, and for FedProx.
    """
    training = seen.training
    if training.lr is None:
        return {key: tensor.double() for key, tensor in seen.tensors.items()}
    reasons = []
    if training.optimiser != "sgd":
        reasons.append(f"the optimiser {training.optimiser} divides every number by its own size, which ends the low rank")
    if training.proximal:
        reasons.append("FedProx adds a term that depends on the path")
    if reasons:
        raise UnsupportedError(f"{name} needs gradients that add up: {'; '.join(reasons)}.")
    steps = training.steps_for(seen.num_examples)
    factors = [training.schedule[min(step, len(training.schedule) - 1)] if training.schedule else 1.0 for step in range(steps)]
    pull = training.weight_decay * sum(factors) / factors[0]
    scale = -training.lr * factors[0]
    weights = dict(seen.model.named_parameters())
    return {
        key: tensor.double() / scale - pull * weights[key].detach().double().to(tensor.device)
        for key, tensor in seen.tensors.items()
    }


def arithmetic_of(seen: Observation) -> str:
    """The coarsest arithmetic that the update went through: the client's, or that which every shared number fits into."""
    client = "bfloat16" if seen.training.amp else seen.training.dtype
    if client in ("float16", "bfloat16"):
        return client
    for name in ("bfloat16", "float16"):
        kind = getattr(torch, name)
        if all(torch.equal(tensor, tensor.to(kind).to(tensor.dtype)) for tensor in seen.tensors.values()):
            return name
    return client


def text_target(seen: Observation, limits: Limits) -> Target:
    """What a recomputed update is compared with, in the client's arithmetic (at least single precision)."""
    dtype = torch.float64 if seen.training.dtype == "float64" else torch.float32
    return target_of(seen, "observed", dtype, limits.device)


def explained(seen: Observation, target: Target, ids: Tensor, mask: Tensor, labels: Tensor) -> float:
    """Relative residual of the update recomputed from token ids (N, L) and labels (N,) or (N, L)."""
    device = next(iter(target.parameters.values())).device
    return recomputed(seen, target, {"input_ids": ids.to(device), "attention_mask": mask.to(device)}, labels)


def tolerance(seen: Observation) -> float:
    """Largest relative residual of an update that is recomputed to rounding.

    Where weights after minus before were shared, each number carries the rounding of the stored weight, u |w| per step; its share
    of the change grows as the learning rate falls.
    """
    client = seen.training.dtype
    rounding = ROUNDING["bfloat16" if seen.training.amp else client]
    if seen.kind != "delta" or client not in UNIT:
        return rounding
    moved = {name: tensor.double() for name, tensor in seen.tensors.items()}
    weights = dict(seen.model.named_parameters())
    held = sum(float((weights[name].detach().double() * (tensor != 0)).square().sum()) for name, tensor in moved.items())
    size = sum(float(tensor.square().sum()) for tensor in moved.values())
    steps = seen.training.steps_for(seen.num_examples)
    return max(rounding, min(UNIT[client] * math.sqrt(steps * held / max(size, 1e-300)), LOOSEST))


def padded(sequences: list[Tensor], length: int, padding: int | None) -> tuple[Tensor, Tensor]:
    """Token ids (M, L) filled up with the padding token (0 where there is none), and the attention mask (M, L)."""
    ids = torch.full((len(sequences), length), padding or 0, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        kept = sequence[:length]
        ids[row, : len(kept)], mask[row, : len(kept)] = kept.cpu(), 1
    return ids, mask
