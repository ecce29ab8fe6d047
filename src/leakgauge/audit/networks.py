"""Whether a network takes a batch: its outputs, and whether every label has one."""

from __future__ import annotations

import torch
from torch import nn

from leakgauge.errors import ModelError
from leakgauge.truth import Batch


def outputs_of(model: nn.Module, name: str, shape: tuple[int, ...]) -> int:
    """Number of outputs, from one forward pass of a blank input.

    Raises:
        ModelError: if the network does not take inputs of this shape, or its output is no (N, K).
    """
    like = next(iter(model.parameters()), None)
    if like is None:
        raise ModelError(f"The model {name!r} has no parameters, so its update would be empty.")
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = model(torch.zeros((2, *shape), dtype=like.dtype, device=like.device))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"The model {name!r} does not take inputs of shape {tuple(shape)} ({first}).") from error
    logits = output.logits if hasattr(output, "logits") else output
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"The model {name!r} returns {found} for two inputs of shape {tuple(shape)}; expected (2, classes).")
    return int(logits.shape[1])


def label_problem(batch: Batch, outputs: int, loss: str, name: str, option: str) -> str:
    """The sentence about a label that has no output; '' where every one has.

    Args:
        batch: the private examples.
        outputs: of the network.
        loss: by name.
        name: of the network.
        option: how its number of classes is given, such as '--classes '.
    """
    if loss != "cross_entropy" or batch.labels.ndim != 1:
        return ""
    highest = int(batch.labels.max())
    if highest < outputs:
        return ""
    whose = f" of {batch.names[int(batch.labels.argmax())]!r}" if batch.names else ""
    return (
        f"The label {highest}{whose} has no output: the model {name!r} has {outputs} classes, 0 to {outputs - 1}; "
        f"give {option}{highest + 1} or more."
    )
