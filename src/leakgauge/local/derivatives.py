"""Forward-mode derivatives, and what torch says where a network has an operation without one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output", Tensor, dict[str, Tensor])
_one_at_a_time = threading.RLock()


def directional(function: Callable[[Tensor], Output], point: Tensor, direction: Tensor) -> Output:
    """The derivative of a function at a point along a direction, in forward mode: J v, of the shape of the function's output.

    torch keeps the level of forward differentiation per process, so that two threads (an attack beside a training, say) must
    not differentiate at once.
    """
    with _one_at_a_time:
        found: Output = torch.func.jvp(function, (point,), (direction,))[1]
    return found


def lacks_derivative(error: BaseException | None) -> bool:
    """Whether torch failed because an operation has no forward-mode derivative, or none under torch.func transforms.

    torch raises NotImplementedError for the first, or a RuntimeError that names forward-mode AD, and a RuntimeError that names
    functorch for an autograd.Function written without `setup_context`.
    """
    if isinstance(error, NotImplementedError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("forward" in text or "functorch" in text)
