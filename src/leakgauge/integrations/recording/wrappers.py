"""What engines wrap around a network and its optimiser, and how to see through it."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.optim import Optimizer

from leakgauge.errors import IntegrationError


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel, torch.compile and Opacus's GradSampleModule."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model._orig_mod  # type: ignore[assignment]
        elif hasattr(model, "to_standard_module"):
            model = model._module  # type: ignore[assignment]
        else:
            return model


def innermost(optimiser: Any) -> Optimizer:
    """The torch optimiser inside those of Opacus and Accelerate."""
    found = optimiser
    for name in ("optimizer", "original_optimizer"):
        found = getattr(found, name, found)
    if not isinstance(found, Optimizer):
        raise IntegrationError(
            f"The optimiser is a {type(optimiser).__name__}; expected one of torch.optim, or of Opacus around it."
        )
    return found


def is_private(optimiser: Any) -> bool:
    """Whether it is an optimiser of Opacus."""
    return all(hasattr(optimiser, name) for name in ("original_optimizer", "noise_multiplier", "max_grad_norm"))


def copied(model: nn.Module) -> nn.Module:
    """The network inside all wrappers, copied, without gradients and without Opacus's hooks."""
    private = [part for part in model.modules() if hasattr(part, "to_standard_module")]
    copied: nn.Module = copy.deepcopy(private[0]).to_standard_module() if private else copy.deepcopy(unwrapped(model))  # type: ignore[operator]
    for part in copied.modules():  # Opacus can also hook into a network without wrapping it
        for hooks in (part._forward_hooks, part._backward_hooks, part._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if str(getattr(hook, "__module__", "")).startswith("opacus")]:
                del hooks[key]
    copied.zero_grad(set_to_none=True)
    return copied
