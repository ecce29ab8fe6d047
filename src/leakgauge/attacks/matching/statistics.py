"""Statistics: matches the BatchNorm statistics that the client's local training left behind with those of a replay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.local.network import Tensors

TRUST = 0.1  # a noise of this many standard deviations of a channel halves the weight of its statistics
FLOOR = 0.01  # of a layer's mean variance: channels that hardly vary count no more than this


@dataclass(frozen=True)
class LayerTarget:
    """What one BatchNorm layer's input had: (C,) mean and variance over the client's mini-batches, and the channel's scale."""

    mean: Tensor
    var: Tensor
    scale: Tensor

    def off(self, mean: Tensor, var: Tensor) -> Tensor:
        """(2 C,) differences in standard deviations, divided by sqrt(C)."""
        both = torch.cat([(mean - self.mean) / self.scale, (var - self.var) / self.scale.square()])
        rows: Tensor = both / len(self.mean) ** 0.5
        return rows


@dataclass(frozen=True)
class Statistics:
    """The term of Hatamizadeh et al. 2023 that matches batch statistics, from the replay's own bookkeeping.

    A replay of K local steps leaves the same weighted average of its steps' statistics in its running buffers as the client
    did, so that buffers are compared with buffers, divided by 1 - (1 - m)^K; nothing is assumed about single steps.

    Args:
        weight: of the mean over layers of squared differences, in standard deviations of the channel.
        layers: targets by layer name; variances unbiased, as running buffers hold them.
        keep: (1 - m)^K by layer name: what the running statistics kept of their value before local training.
    """

    weight: float
    layers: Mapping[str, LayerTarget]
    keep: Mapping[str, float]

    def residual(self, before: Tensors, after: Tensors) -> Tensor:
        """(m,) vector whose squared length is weight times the term.

        Args:
            before: buffers before local training.
            after: buffers that the replay of a candidate left.
        """
        parts = [target.off(*_moved(before, after, name, self.keep[name])) for name, target in self.layers.items()]
        vector: Tensor = torch.cat(parts) * (self.weight / len(self.layers)) ** 0.5
        return vector


def layer_target(mean: Tensor, var: Tensor, like: Tensor, noise: float = 0.0) -> LayerTarget:
    """A target in the type of `like`, with the scale by which its differences are measured.

    Args:
        mean, var: (C,).
        like: gives type and device.
        noise: standard deviation of the defence's noise on mean and variance; differences below it count little.
    """
    positive = var.double().clamp(min=0)
    scale = (positive + FLOOR * positive.mean() + noise**2 / TRUST**2 + noise / TRUST + 1e-12).sqrt()
    return LayerTarget(mean.to(like), var.to(like), scale.to(like))


def noise_on_statistics(seen: Observation) -> dict[str, float]:
    """Standard deviation of declared noise on each layer's recovered statistics: that on the buffers times the amplification.

    For percentile noise, whose strength the client takes from its own update, it is estimated from the noisy one as if that
    were normally distributed.
    """
    std = 0.0
    for record in seen.defences:
        strength = record.parameters
        if not strength.get("buffers", record.name == "percentile-noise"):  # a record leaves out switches at their default
            continue
        if record.name == "gaussian-noise":
            std = math.hypot(std, strength["std"])
        elif record.name == "laplacian-noise":
            std = math.hypot(std, strength["scale"] * 2**0.5)
        elif record.name == "percentile-noise":
            values = torch.cat([tensor.detach().reshape(-1).double().abs().cpu() for tensor in seen.tensors.values()])
            rank = max(1, min(len(values), round(strength["percentile"] / 100 * len(values))))
            quantile = float(values.kthvalue(rank).values)
            inside = min(strength["percentile"] / 100, 1.0 - 0.5 / len(values))  # the largest of many is no infinity
            normal = float(torch.special.ndtri(torch.tensor(0.5 + inside / 2, dtype=torch.float64)))
            std = math.hypot(std, strength["sigma0"] * quantile / math.hypot(1.0, normal * strength["sigma0"]))
    return {name: std * layer.amplification for name, layer in seen.batch_norm.items()}


def statistics_of(seen: Observation, weight: float, like: Tensor, adaptive: bool = True) -> Statistics | None:
    """The term for an observation; None where it is off, or no BatchNorm layer's statistics were granted or moved.

    Args:
        seen: what the attacker holds.
        weight: of the term.
        like: gives type and device.
        adaptive: weigh the term by the declared noise on the buffers.
    """
    if weight <= 0 or not seen.batch_norm:
        return None
    before = {name: buffer.detach().double().cpu() for name, buffer in seen.model.named_buffers()}
    after = {name: buffer.detach().double().cpu() for name, buffer in seen.buffers.items()}
    keep = {name: 1.0 - 1.0 / layer.amplification for name, layer in seen.batch_norm.items()}
    noise = noise_on_statistics(seen) if adaptive else {}
    layers = {
        name: layer_target(*_moved(before, after, name, keep[name]), like, noise.get(name, 0.0)) for name in seen.batch_norm
    }
    return Statistics(weight, layers, keep)


def _moved(before: Tensors, after: Tensors, layer: str, keep: float) -> tuple[Tensor, Tensor]:
    """The average mean and unbiased variance that moved a layer's running buffers."""
    prefix = f"{layer}." if layer else ""
    mean, var = ((after[prefix + part] - keep * before[prefix + part]) / (1.0 - keep) for part in ("running_mean", "running_var"))
    return mean, var
