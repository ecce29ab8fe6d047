"""What a closed form works on: one example's gradient in float64, the chain of the network, and the rounding to expect."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.target import Target, target_of
from leakgauge.attacks.verify import no_pictures
from leakgauge.chain.link import Chain, State
from leakgauge.chain.trace import trace
from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.core.callables import Loss
from leakgauge.core.observation import Observation
from leakgauge.core.spec import ImageSpec
from leakgauge.core.training import LocalTraining
from leakgauge.errors import UnsupportedError
from leakgauge.linalg import DENSE, LARGE

ROUNDING = {
    "float64": 1e-15,
    "float32": 1.5e-7,
    "float16": 4e-4,
    "bfloat16": 3e-3,
}  # of a tensor's entries, relative to their RMS
MINUTES = 300.0  # seconds without which large layers are not factored
ROOM = 12e9  # bytes of memory without which neither are they
INSTEAD = "Use a matching attack (dlg, inverting-gradients), which needs no inverse."


@dataclass(frozen=True)
class Problem:
    """One example's gradient and the network that made it.

    Args:
        chain: the traced network.
        state: parameters and buffers by name, float64.
        gradients: parameter name -> gradient, float64; withheld ones are absent.
        target: the same for the replay that verifies a result.
        loss, training, spec, labels: as observed.
        rounding: error of a tensor's entries relative to their root mean square, at least.
        dense: unknowns up to which a dense factor may be made.
        expired: polled by the long parts.
    """

    chain: Chain
    state: State = field(repr=False)
    gradients: dict[str, Tensor] = field(repr=False)
    target: Target = field(repr=False)
    loss: Loss
    training: LocalTraining
    spec: ImageSpec
    labels: Tensor | None
    rounding: float
    dense: int = DENSE
    expired: Callable[[], bool] = field(default=lambda: False, repr=False)

    def noise(self, name: str) -> float:
        """Expected error of the entries of one gradient, at least: rounding."""
        return self.rounding * self.size(name)

    def size(self, name: str) -> float:
        """Root mean square of one gradient's entries."""
        return float(self.gradients[name].square().mean().sqrt())


class NoiseLevel:
    """Expected errors of the gradients, as layers with more equations than unknowns show them.

    Noise added to every entry alike shows as one absolute level, rounding as one level relative to a tensor's size: whichever
    varied less over the layers measured so far is taken for those to come, never below rounding.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.seen: dict[str, float] = {}

    def measured(self, name: str, level: float) -> None:
        """Notes the error of one gradient's entries."""
        self.seen[name] = level

    def expected(self, name: str) -> float:
        """Error of one gradient's entries."""
        floor = self.problem.noise(name)
        if name in self.seen:
            return max(floor, self.seen[name])
        levels = [(level, level / self.problem.size(own)) for own, level in self.seen.items() if level > 0]
        if not levels:
            return floor
        plain, relative = ([math.log(pair[kind]) for pair in levels] for kind in (0, 1))
        if max(plain) - min(plain) < max(relative) - min(relative):
            return max(floor, math.exp(sum(plain) / len(plain)))
        return max(floor, math.exp(sum(relative) / len(relative)) * self.problem.size(name))


def problem_of(seen: Observation, method: str, limits: Limits) -> Problem:
    """Prepares an observation for a closed form.

    Raises:
        UnsupportedError: with every reason at once, where the network or the protocol is out of reach.
    """
    reasons = protocol_reasons(seen)
    if seen.pictures is None:
        raise no_pictures(seen, method)
    chain = trace(seen.model, seen.pictures.shape)
    reasons += list(chain.reasons)
    if reasons:
        raise UnsupportedError(f"{method} cannot treat this observation: {'; '.join(reasons)}. {INSTEAD}")
    target = target_of(seen, "observed", torch.float64, limits.device)
    rounding = ROUNDING[seen.training.dtype]
    if seen.training.amp:
        rounding = max(rounding, ROUNDING["bfloat16"])
    if any(record.name == "half-precision" for record in seen.defences):
        rounding = max(rounding, ROUNDING["float16"])
    labels = None if seen.labels is None else seen.labels.to(limits.device)
    return Problem(
        chain=chain,
        state={**target.parameters, **target.buffers},
        gradients=_gradients(target),
        target=target,
        loss=seen.loss,
        training=target.training,
        spec=seen.pictures,
        labels=labels,
        rounding=rounding,
        dense=_dense(limits),
        expired=lambda: limits.expired,
    )


def _dense(limits: Limits) -> int:
    """Unknowns up to which a dense factor may be made: minutes and a few GB must be there for the large ones."""
    if limits.time_limit is not None and limits.time_limit < MINUTES:
        return DENSE
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return DENSE
    return LARGE if memory > ROOM else DENSE


def _one_gradient(training: LocalTraining, num_examples: int) -> bool:
    """Whether one example's gradient can be read off the update, up to a positive factor."""
    if training.batch_size is not None and training.batch_size >= num_examples:
        training = replace(training, batch_size=None)
    return replace(training, weight_decay=0.0, clip_norm=None).is_one_gradient


def _gradients(target: Target) -> dict[str, Tensor]:
    """The gradient in the update: after one step of SGD with weight decay it is -change / rate - decay * weight."""
    training, tensors = target.training, dict(target.tensors)
    if training.lr is None:
        return tensors
    factor = 1.0 if training.schedule is None else training.schedule[0]
    boost = training.lr * factor * (1.0 + training.momentum if training.nesterov else 1.0)
    return {name: tensor / -boost - training.weight_decay * target.parameters[name] for name, tensor in tensors.items()}


def protocol_reasons(seen: Observation) -> list[str]:
    """Why closed forms cannot treat the protocol, each a clause; empty if they can."""
    reasons = []
    if seen.num_examples != 1:
        reasons.append(f"the batch has {seen.num_examples} examples, and layer equations hold for one (a sum mixes them)")
    if not _one_gradient(seen.training, seen.num_examples):
        reasons.append("the client took several local steps, so that the update is no single gradient")
    if seen.training.mode == "train":
        layers = list(batch_norm_layers(seen.model))
        if layers:
            reasons.append(f"{', '.join(map(repr, layers[:4]))} normalise(s) by the example itself (BatchNorm in train mode)")
        dropout = [
            name
            for name, module in seen.model.named_modules()
            if isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0
        ]
        if dropout:
            reasons.append(f"{', '.join(map(repr, dropout[:4]))} drop(s) unknown values (Dropout in train mode)")
    return reasons
