"""What is matched: the observed update as one gradient where the protocol allows it, else as a weight change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.labels.recover import unit_displacement
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
        example_clip: largest 2-norm of one example's gradient, where a known training-stage defence clips; None otherwise.
        drift: the observed weight change, where one gradient at a point on the way stands for all local steps; None otherwise.
    """

    network: Network
    parameters: Tensors
    buffers: Tensors
    tensors: Tensors
    training: LocalTraining
    exact_order: bool
    example_clip: float | None = None
    drift: Tensors | None = None

    @property
    def several(self) -> bool:
        """Whether the observed change is of more than one gradient."""
        return self.drift is not None or self.training.lr is not None

    def at(self, place: Tensor) -> Tensors:
        """Parameters at the surrogate point w + alpha (w' - w), alpha = 1/2 + place / 10 in [0, 1].

        Source: Zhu, Yao & Blaschko 2023 (SME), equation 5.
        """
        assert self.drift is not None
        alpha = (0.5 + 0.1 * place).clamp(0.0, 1.0)
        return {name: p + alpha * self.drift[name] if name in self.drift else p for name, p in self.parameters.items()}


def target_of(
    seen: Observation, mode: str, dtype: torch.dtype, device: str, *, surrogate: bool = False, adaptive: bool = True
) -> Target:
    """Prepares the target.

    Args:
        seen: what the attacker holds.
        mode: 'eval', 'train', or 'observed' for the protocol's own.
        dtype: arithmetic of the attack.
        device: where it computes.
        surrogate: replace several local steps by one gradient at a point between the two models.
        adaptive: replay the clipping of a known training-stage defence.

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
    drift = None
    if surrogate and training.lr is not None:
        network = grouped_network(seen, training.mode)
        network.module.to(device)
        drift = cast(tensors, dtype)
        moved = unit_displacement(training, seen.num_examples) / (seen.num_examples if training.reduction == "sum" else 1)
        tensors = {name: tensor / moved for name, tensor in tensors.items()}
        training = LocalTraining(
            mode=training.mode,
            dtype=training.dtype,
            reduction=training.reduction,
            label_smoothing=training.label_smoothing,
            class_weights=training.class_weights,
        )
    several = training.batch_size is not None
    clips = [record.parameters["clip_norm"] for record in seen.defences if adaptive and record.name == "dp-sgd"]
    return Target(
        network=network,
        parameters=cast(network.parameters(), dtype),
        buffers=cast(network.buffers(), dtype),
        tensors=cast(tensors, dtype),
        training=training,
        exact_order=not (several and training.shuffle),
        example_clip=clips[0] if clips else None,
        drift=drift,
    )


def grouped_network(seen: Observation, mode: str) -> Network:
    """The network for one pass over all examples that keeps the client's mini-batches apart in BatchNorm.

    Mini-batches that are not all of one size, or that do not take every example equally often, are not kept apart.
    """
    count = seen.num_examples
    size = min(seen.training.batch_size or count, count)
    steps = seen.training.steps_for(count) * seen.training.accumulation
    groups = count // size
    apart = mode == "train" and count % size == 0 and steps % groups == 0
    return Network(seen.model, mode, groups=groups if apart else 1, rounds=steps // groups if apart else steps)


def in_dtype(target: Target, dtype: torch.dtype) -> Target:
    """The same target in another arithmetic. A float32 update stays as exact as it was."""
    return replace(
        target,
        parameters=cast(target.parameters, dtype),
        buffers=cast(target.buffers, dtype),
        tensors=cast(target.tensors, dtype),
        drift=None if target.drift is None else cast(target.drift, dtype),
    )


def size_of(tensors: Tensors) -> Tensor:
    """2-norm over all tensors."""
    return torch.stack([tensor.double().square().sum() for tensor in tensors.values()]).sum().sqrt()
