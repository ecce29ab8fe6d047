"""Losses as data: a name, or a callable that can be found again by its import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from leakgauge.core.spec import Spec
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, UpdateError, did_you_mean

Loss = str | Callable[[Any, Tensor], Tensor]
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "causal_cross_entropy")


def loss_on(loss: Loss, spec: Spec | None) -> Loss:
    """The loss as it is computed on such inputs: cross-entropy of a causal language model shifts its labels by one token."""
    causal = isinstance(spec, TextSpec) and spec.task == "causal"
    return "causal_cross_entropy" if causal and loss == "cross_entropy" else loss


def check_loss(loss: Loss) -> None:
    """Raises OptionError for a loss that is neither a known name nor callable."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise OptionError(f"There is no loss {loss!r}.{did_you_mean(loss, LOSSES)}")
    elif not callable(loss):
        raise OptionError(f"The loss is {loss!r}; expected a name or a callable (output, target) -> scalar.")


def loss_to_json(loss: Loss) -> str:
    """The loss as text: its name, or 'pkg.mod:name' of a callable.

    Raises:
        UpdateError: for a callable that has no import path, such as a lambda.
    """
    if isinstance(loss, str):
        return loss
    name, module = getattr(loss, "__qualname__", ""), getattr(loss, "__module__", "")
    if not name or not module or "<" in name:
        raise UpdateError(
            f"The loss {loss!r} has no import path, so a file cannot name it; use a function defined in a module, or a "
            "loss by name."
        )
    return f"{module}:{name}"


def loss_from_json(text: str, given: Loss | None = None) -> Loss:
    """The loss that a file names. A callable must be handed over by the caller: a file never decides what code runs.

    Args:
        text: what `loss_to_json` wrote.
        given: the callable, for a file made with one.

    Raises:
        UpdateError: if the file was made with a callable and none, or another one, was given.
    """
    if ":" in text:
        if given is None or loss_to_json(given) != text:
            raise UpdateError(f"The observation was made with the loss {text!r}; hand that function over as `loss=`.")
        return given
    if text not in LOSSES:
        raise UpdateError(f"The observation names the loss {text!r}, which this version does not know.")
    return text
