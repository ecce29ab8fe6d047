"""What is matched: the observed update as one gradient where the protocol allows it, else as a weight change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError
from leakgauge.local.network import Network, Tensors, cast


@dataclass(frozen=True)
class Target:
    """The observed update in the attack's arithmetic.

    Args:
        network: the public network in the assumed mode, on the attack's device.
        parameters, buffers: its state.
        tensors: parameter name -> observed gradient or weight change.
        training: the protocol to replay; without a learning rate where one gradient is matched.
        exact_order: False where the client shuffled its mini-batches and the attack replays another order.
    """

    network: Network
    parameters: Tensors
    buffers: Tensors
    tensors: Tensors
    training: LocalTraining
    exact_order: bool


def target_of(seen: Observation, mode: str, dtype: torch.dtype, device: str) -> Target:
    """Prepares the target.

    Args:
        seen: what the attacker holds.
        mode: 'eval', 'train', or 'observed' for the protocol's own.
        dtype: arithmetic of the attack.
        device: where it computes.

    Raises:
        OptionError: for an unknown mode.
    """
    if mode not in ("eval", "train", "observed"):
        raise OptionError(f"The mode is {mode!r}; expected eval, train or observed.")
    training = replace(seen.training, mode=seen.training.mode if mode == "observed" else mode, amp=False, dtype="float64")
    network = Network(seen.model, training.mode)
    network.module.to(device)
    tensors = {name: tensor.to(device=device, dtype=torch.float64) for name, tensor in seen.tensors.items()}
    whole = training.batch_size is not None and training.batch_size >= seen.num_examples
    if whole:
        training = replace(training, batch_size=None)
    if training.is_one_gradient and training.lr is not None:
        factor = 1.0 if training.schedule is None else training.schedule[0]
        boost = 1.0 + training.momentum if training.nesterov else 1.0
        tensors = {name: tensor / (-training.lr * factor * boost) for name, tensor in tensors.items()}
        training = replace(training, lr=None, steps=1, epochs=None, schedule=None, momentum=0.0, nesterov=False, proximal=0.0)
    several = training.batch_size is not None
    return Target(
        network=network,
        parameters=cast(network.parameters(), dtype),
        buffers=cast(network.buffers(), dtype),
        tensors=cast(tensors, dtype),
        training=training,
        exact_order=not (several and training.shuffle),
    )


def in_dtype(target: Target, dtype: torch.dtype) -> Target:
    """The same target in another arithmetic. A float32 update stays as exact as it was."""
    return replace(
        target,
        parameters=cast(target.parameters, dtype),
        buffers=cast(target.buffers, dtype),
        tensors=cast(target.tensors, dtype),
    )


def size_of(tensors: Tensors) -> Tensor:
    """2-norm over all tensors."""
    return torch.stack([tensor.double().square().sum() for tensor in tensors.values()]).sum().sqrt()
