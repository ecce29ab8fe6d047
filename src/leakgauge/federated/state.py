"""State: what one round leaves to the next, as tensors by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from leakgauge.federated.member import state_names

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class View:
    """What a neighbour in gossip holds to be a sender's state.

    Args:
        tensors: parameters and buffers by name.
        exact: whether they are the sender's own.
    """

    tensors: Tensors
    exact: bool


@dataclass(frozen=True)
class State:
    """Everything that a round needs from the one before.

    Args:
        shared: the server's parameters and buffers; in gossip the mean over the nodes.
        own: per client, the tensors it keeps for itself; in gossip each node's whole state.
        views: in gossip, per (sender, receiver), the sender's state as the receiver knows it.
    """

    shared: Tensors
    own: Mapping[str, Tensors] = field(default_factory=dict)
    views: Mapping[tuple[str, str], View] = field(default_factory=dict)


def state_of(model: nn.Module) -> Tensors:
    """A copy of a model's parameters and persistent buffers."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensors[name].detach().clone() for name in state_names(model)}


def module_at(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the model, in eval mode and without gradients left on it, with these parameters and buffers."""
    module = copy.deepcopy(model).eval()
    module.zero_grad(set_to_none=True)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    return module


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two states agree bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
