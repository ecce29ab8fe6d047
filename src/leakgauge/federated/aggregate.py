"""The server's side of a round: averages of what clients sent, and secure aggregation as one sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from leakgauge.core.update import DefenceRecord, Update

Tensors = dict[str, Tensor]


def weighted_mean(parts: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> Tensors:
    """The mean of each tensor over the parts that hold it.

    Floating-point tensors: sum w_i x_i / sum w_i, added up in float64 and left there. Whole numbers, such as BatchNorm's batch
    counter: the largest, so that a counter never runs backwards.

    Args:
        parts: tensors by name; a part may lack some.
        weights: one number > 0 per part.
    """
    found: Tensors = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        held = [(part[name], weight) for part, weight in zip(parts, weights, strict=True) if name in part]
        if not held[0][0].is_floating_point():
            found[name] = torch.stack([tensor for tensor, _ in held]).amax(0)
            continue
        total = sum(weight for _, weight in held)
        found[name] = torch.stack([tensor.double() * (weight / total) for tensor, weight in held]).sum(0)
    return found


def stepped(state: Mapping[str, Tensor], change: Mapping[str, Tensor], factor: float) -> Tensors:
    """state + factor * change where there is a change, computed in float64, in the dtype of the state."""
    return {
        name: (tensor.double() + factor * change[name].double()).to(tensor.dtype) if name in change else tensor
        for name, tensor in state.items()
    }


def replaced(state: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Tensors:
    """The state with these tensors in place of its own, in the dtype of the state."""
    return {name: new[name].to(tensor) if name in new else tensor for name, tensor in state.items()}


def secure_sum(updates: Sequence[Update]) -> Update:
    """What a server sees under secure aggregation: the mean over clients, weighted by their example counts.

    Of clients that share one gradient with reduction 'mean' and no BatchNorm in train mode, this is the gradient over the union
    of their batches. Running statistics are averaged alike: after one step the mean of a layer that no other BatchNorm layer
    precedes is that of the union; the variance is the mean of the clients' own, each counted for itself. Labels are joined
    in the order of the clients; counters are the largest; the protocol is the clients' common one.

    Args:
        updates: of one kind, one protocol and one set of tensors; at least one.
    """
    counts = [float(update.num_examples) for update in updates]
    first = updates[0]
    tensors = weighted_mean([update.tensors for update in updates], counts)
    buffers = weighted_mean([update.buffers for update in updates], counts)
    labels = [update.labels for update in updates if update.labels is not None]
    records: list[DefenceRecord] = []
    for update in updates:
        records += [record for record in update.defences if record not in records]
    return Update(
        tensors={name: tensor.to(first.tensors[name].dtype) for name, tensor in tensors.items()},
        kind=first.kind,
        buffers={name: tensor.to(first.buffers[name].dtype) for name, tensor in buffers.items()},
        loss=first.loss,
        training=first.training,
        num_examples=sum(update.num_examples for update in updates),
        labels=torch.cat(labels) if len(labels) == len(updates) else None,
        defences=first.defences if all(update.defences == first.defences for update in updates) else tuple(records),
        withheld=first.withheld,
    )
