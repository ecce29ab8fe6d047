"""A chain of leakgauge's own defences as a filter, to see what an audit says of a correct one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from leakgauge.core.update import Update
from leakgauge.defences.base import Defence
from leakgauge.randomness import rng

Tensors = Mapping[str, Tensor]
Filter = Callable[[Tensors, Tensors], Tensors]
"""(state dict before, state dict after local training) -> the state dict that really leaves."""


def defences_as_filter(defences: Defence | Sequence[Defence], *, parameters: Sequence[str], seed: int = 0) -> Filter:
    """A filter that lets defences rewrite the change, in order.

    Args:
        defences: of stage 'update'.
        parameters: names of the parameters; all else counts as buffers.
        seed: of the noise; every call draws on.
    """
    chain = (defences,) if isinstance(defences, Defence) else tuple(defences)
    generator, names = rng(seed, "filter"), set(parameters)

    def run(before: Tensors, after: Tensors) -> Tensors:
        change = {name: after[name] - before[name] for name in after if name in names}
        update = Update(change, "delta", buffers={name: after[name] for name in after if name not in names})
        for defence in chain:
            update = defence.protect(update, generator=generator)
        sent = {name: before[name] + update.tensors[name] for name in change}
        return {name: torch.as_tensor({**sent, **update.buffers}[name]) for name in after}

    return run
