"""What a hypothesis about a mismatch is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError, ShapeError
from leakgauge.federated.validation.recompute import Recomputed, Setting, Tensors, recompute
from leakgauge.local.network import Inputs
from leakgauge.local.optimisers import Optimiser

FEW_ORDERS = 40  # mini-batch orders up to which all are tried under each hypothesis; beyond, only the order of the batch


@dataclass(frozen=True)
class Candidate:
    """One explanation, worked out.

    Args:
        sentence: the explanation, a clause without capital and full stop.
        tensors: the update it predicts.
        left: residual where it is not that of `tensors`, such as 0 for a difference that is noise.
        declared: whether the observation itself declares it.
    """

    sentence: str
    tensors: Tensors = field(repr=False)
    left: float | None = None
    declared: bool = False


@dataclass(frozen=True)
class Trial:
    """The mismatch that hypotheses try to explain.

    Args:
        seen: the observation.
        given: the caller's model, whose weights may be others.
        setting: the declared one.
        base: the update recomputed under it.
        tolerance: residual that rounding may leave.
    """

    seen: Observation
    given: nn.Module = field(repr=False)
    setting: Setting
    base: Recomputed
    tolerance: float

    def again(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        model: nn.Module | None = None,
        inputs: Inputs | None = None,
        labels: Tensor | None = None,
        loss: Loss | None = None,
        rule: Callable[[LocalTraining], Optimiser] | None = None,
        noise: float = 0.0,
    ) -> Recomputed | None:
        """The update recomputed with `changes` to the protocol, or with another model, inputs, labels, loss, rule or noise.

        None where the changes make no valid protocol or the update cannot be computed.
        """
        try:
            setting = replace(
                self.setting,
                model=self.setting.model if model is None else model,
                inputs=self.setting.inputs if inputs is None else inputs,
                labels=self.setting.labels if labels is None else labels,
                loss=self.setting.loss if loss is None else loss,
                training=replace(self.setting.training, **(changes or {})),
                rule=self.setting.rule if rule is None else rule,
                noise=noise,
            )
            found = recompute(setting, self.seen, self.tolerance, FEW_ORDERS, sample=0)
        except (OptionError, ShapeError):
            return None
        return found if found.tensors else None

    @property
    def lr(self) -> float | None:
        """Declared learning rate; None for a shared gradient."""
        return self.setting.training.lr

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.setting.labels)

    @property
    def steps(self) -> int:
        """Declared number of optimiser steps."""
        return self.setting.training.steps_for(self.count)


@dataclass(frozen=True)
class Hypothesis:
    """A row of the table: a name, and the candidates it yields for a mismatch, the likeliest first."""

    name: str
    candidates: Callable[[Trial], Iterator[Candidate]]
