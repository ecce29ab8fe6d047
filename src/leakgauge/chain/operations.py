"""The same for operations that a network calls without a module: torch.relu, `+`, flatten, ..."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from leakgauge.chain import activations
from leakgauge.chain.activations import Activation
from leakgauge.chain.rules import Part, Shape, unsupported

Maker = Callable[..., Activation | None]

RESHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "unflatten"}
IDENTITIES = {"dropout", "dropout1d", "dropout2d", "dropout3d", "clone", "to", "float", "double"}
POOLS = {
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "mean", "pad",
}  # fmt: skip
JOINS = {"add", "iadd", "add_", "sub", "isub", "cat", "concat"}
ACTIVATIONS: dict[str, Maker] = {
    "relu": lambda inplace=False: activations.relu(),  # noqa: ARG005
    "leaky_relu": lambda negative_slope=0.01, inplace=False: activations.leaky_relu(negative_slope),  # noqa: ARG005
    "elu": lambda alpha=1.0, inplace=False: activations.elu(alpha),  # noqa: ARG005
    "softplus": activations.softplus,
    "sigmoid": activations.sigmoid,
    "tanh": activations.tanh,
}
REASONS = {
    "max_pool1d": "max-pooling has no inverse: which inputs were chosen is unknown",
    "max_pool2d": "max-pooling has no inverse: which inputs were chosen is unknown",
    "max_pool3d": "max-pooling has no inverse: which inputs were chosen is unknown",
    "gelu": "it is not injective: an output has two inputs below its minimum",
    "silu": "it is not injective: an output has two inputs below its minimum",
    "scaled_dot_product_attention": "attention multiplies functions of its input with each other",
    "matmul": "a product of two computed tensors, as in attention, is not linear in the input",
    "bmm": "a product of two computed tensors, as in attention, is not linear in the input",
    "softmax": "softmax depends on its input only up to a constant",
    "layer_norm": "it normalises by statistics of the example itself, which are unknown",
    "group_norm": "it normalises by statistics of the example itself, which are unknown",
}


def operation_name(target: Any) -> str:
    """'relu' for torch.relu, torch.nn.functional.relu, 'relu_' and the like."""
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = name.lstrip("_")
    if name in ("boolean_dispatch", "fn"):  # functional.max_pool2d and friends hide behind a dispatcher
        name = next((known for known in REASONS if getattr(functional, known, None) is target), name)
    return name if name in JOINS else name.rstrip("_")


def part_of_operation(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], inputs: Shape, outputs: Shape) -> Part:
    """What an operation on one computed tensor (the first argument) is in a chain.

    Args:
        target: the function, or the name of a tensor method.
        arguments, keywords: those after the computed tensor, with numbers filled in.
        inputs, outputs: shapes without the batch.
    """
    name = operation_name(target)
    if name in ACTIVATIONS:
        try:
            found = ACTIVATIONS[name](*arguments, **keywords)
        except TypeError:
            return unsupported("its arguments are not those of an elementwise activation")
        return unsupported("it is not injective") if found is None else Part("activation", activation=found)
    if name in RESHAPES:
        return Part("reshape")
    if name in IDENTITIES:
        return Part("identity")
    if name in POOLS:
        constant = name != "pad" or keywords.get("mode", arguments[1] if len(arguments) > 1 else "constant") == "constant"
        if not constant:
            return unsupported("only zero padding is covered")
        return Part("identity" if inputs == outputs else "pool")
    if target in (operator.mul, operator.truediv, operator.add, operator.sub, operator.neg) or name in (
        "mul",
        "div",
        "add",
        "sub",
    ):
        numbers = all(isinstance(value, int | float) for value in (*arguments, *keywords.values()))
        return Part("affine") if numbers else unsupported("it combines computed tensors elementwise")
    return unsupported(REASONS.get(name, "there is no rule for this operation"))


def is_join(target: Any) -> bool:
    """Whether an operation on several computed tensors only adds or stacks them."""
    return target in (operator.add, operator.iadd, torch.add, torch.cat) or operation_name(target) in JOINS
