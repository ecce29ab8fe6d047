"""The end of a network for tokens: what its head sees, and gradients of parameters between the last attention and the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork


@dataclass(frozen=True)
class Head:
    """One forward pass with leaves in place of some parameters.

    Args:
        leaves: name -> leaf.
        hidden: (N, L, D) input of the head, with its graph.
        logits: (N, L, V) token scores, with their graph.
        weight: (V, D) of the head.
    """

    leaves: dict[str, Tensor]
    hidden: Tensor
    logits: Tensor
    weight: Tensor

    def gradient(self, value: Tensor, cotangent: Tensor | None = None) -> Tensor:
        """(P,) derivative in all leaves of a scalar, or of the inner product of a tensor with a constant one of its shape."""
        leaves = list(self.leaves.values())
        found = torch.autograd.grad(value, leaves, cotangent, retain_graph=True, allow_unused=True)
        pairs = zip(self.leaves.values(), found, strict=True)
        return torch.cat([(torch.zeros_like(leaf) if part is None else part).flatten() for leaf, part in pairs])


def head_of(network: TextNetwork, arguments: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> Head | None:
    """The head's state for some inputs; None without a linear layer that has one output per token id."""
    heads = [part for part in network.module.modules() if isinstance(part, torch.nn.Linear)]
    heads = [part for part in heads if part.out_features == network.vocabulary]
    if not heads or not names:
        return None
    seen: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.enable_grad():
            leaves = {name: network.parameter(name).clone().requires_grad_() for name in names}
            output = torch.func.functional_call(network.module, leaves, (), dict(arguments))
    finally:
        handle.remove()
    logits = output.logits if hasattr(output, "logits") else output
    return Head(leaves, seen[0], logits, heads[-1].weight.detach())
