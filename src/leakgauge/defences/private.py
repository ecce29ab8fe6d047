"""Differential privacy: DP-SGD inside local training, and clipped clients with noise at the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import Defence, Mechanism, ServerDefence, Tensors, TrainingDefence, check, copied, is_number
from leakgauge.defences.selection import clipped_to
from leakgauge.errors import ShapeError, UpdateError
from leakgauge.registry import described


@described(
    needs="a client that trains (no BatchNorm in train mode); package opacus for its epsilon",
    source="Abadi et al. 2016, algorithm 1",
)
@dataclass(frozen=True)
class DPSGD(TrainingDefence):
    """DP-SGD: each example's gradient is clipped, Gaussian noise is added to their sum, in every optimiser step.

    The gradient of one step is (sum_i g_i min(1, C / ||g_i||) + N(0, (sigma C)^2)) / B, with B the nominal mini-batch size
    (not divided where the loss adds examples up). See `leakgauge.local.private`.

    Args:
        noise_multiplier: sigma >= 0; 0 clips only.
        clip_norm: C > 0, bound on the 2-norm of one example's gradient over all trained parameters.
    """

    noise_multiplier: float
    clip_norm: float
    name: ClassVar[str] = "dp-sgd"
    adaptive: ClassVar[str] = "The attack clips each of its candidates as the client does, and minimises squared L2."

    def __post_init__(self) -> None:
        _check_strengths(self)

    @property
    def example_clip(self) -> float:
        """Largest 2-norm of one example's gradient."""
        return self.clip_norm

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the sum over examples."""
        return self.noise_multiplier * self.clip_norm

    def mechanism(self) -> Mechanism:
        return Mechanism("dp-sgd", clip_norm=self.clip_norm, std=self.noise_std)


@described(needs="a federation with a server that is trusted", source="McMahan et al. 2018, DP-FedAvg")
@dataclass(frozen=True)
class CentralDP(ServerDefence):
    """Central differential privacy: the server clips each client's change, averages them equally and adds Gaussian noise.

    It protects clients against those who see the aggregate or a later model, never against the server itself.

    Args:
        noise_multiplier: sigma >= 0.
        clip_norm: C > 0, bound on the 2-norm of one client's change.
    """

    noise_multiplier: float
    clip_norm: float
    name: ClassVar[str] = "central-dp"
    adaptive: ClassVar[str] = (
        "The server sees each update before any noise; an attacker who sees the aggregate only compares directions."
    )

    def __post_init__(self) -> None:
        _check_strengths(self)

    def aggregate(self, updates: Sequence[Mapping[str, Tensor]], *, generator: torch.Generator) -> Tensors:
        """The mean of the clipped updates plus N(0, (sigma C / n)^2) on every number; n clients count alike.

        Weights by number of examples would let one client count for more than 1/n, which the noise is not made for.

        Args:
            updates: one dict of shared tensors per client, with the same names and shapes.
            generator: source of the noise.

        Raises:
            UpdateError: without any update, or where the names differ.
            ShapeError: where shapes differ.
        """
        if not updates:
            raise UpdateError("CentralDP.aggregate was given no update; expected at least one client's.")
        first = updates[0]
        for index, update in enumerate(updates[1:], start=2):
            if set(update) != set(first):
                names = sorted(set(update) ^ set(first))
                raise UpdateError(f"Update {index} and update 1 differ in {names[0]!r}; clients are averaged tensor by tensor.")
            for name, tensor in first.items():
                if update[name].shape != tensor.shape:
                    raise ShapeError(
                        f"Tensor {name!r}: shape {tuple(update[name].shape)} in update {index}, {tuple(tensor.shape)} in 1."
                    )
        total: Tensors = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in first.items()}
        for update in updates:
            for name, tensor in clipped_to(copied(update), self.clip_norm).items():
                total[name] += tensor.double()
        std = self.noise_multiplier * self.clip_norm
        after = {}
        for name, tensor in total.items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device) if std else 0.0
            after[name] = ((tensor + std * noise) / len(updates)).to(first[name].dtype)
        return after

    def mechanism(self) -> Mechanism:
        return Mechanism("central", clip_norm=self.clip_norm, std=self.noise_multiplier * self.clip_norm)


def _check_strengths(defence: Defence) -> None:
    for field, least, words in (("noise_multiplier", True, "a number >= 0"), ("clip_norm", False, "a number > 0")):
        value = getattr(defence, field)
        check(defence, field, is_number(value) and (value >= 0 if least else value > 0), words)
