"""One client's part in a round: it trains from a state, keeps what is its own, and sends the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.core.observation import check_names
from leakgauge.core.update import Update, refuse_nonfinite
from leakgauge.errors import ShapeError, UpdateError
from leakgauge.federated.aggregate import replaced, stepped
from leakgauge.federated.client import Client
from leakgauge.federated.member import Member
from leakgauge.federated.state import Tensors, module_at
from leakgauge.randomness import derived_seed, rng


@dataclass(frozen=True)
class Contribution:
    """What a client did in one round.

    Args:
        member: the client.
        update: what it sends: without the tensors it keeps, after its defences.
        kept: the tensors it keeps, after training, by name.
    """

    member: Member
    update: Update
    kept: Tensors


def contribute(
    member: Member, model: nn.Module, start: Mapping[str, Tensor], loss: Loss, *, server_lr: float, seed: int, index: int
) -> Contribution:
    """Trains a client from `start` and splits the result into what it sends and what it keeps.

    A client that shares a gradient steps the parameters it keeps by itself, with the server's learning rate.

    Args:
        member: the client.
        model: the architecture; its state is not read.
        start: parameters and buffers from which the client starts.
        loss: name or callable.
        server_lr: for the parameters that a FedSGD client keeps.
        seed: of the federation.
        index: of the round.

    Raises:
        UpdateError: if the loss or a tensor is not finite, or tensors are missing or unknown.
        ShapeError: if a tensor has another shape than the model's.
    """
    module = module_at(model, start)
    own_seed = derived_seed(seed, "federation", index, member.name)
    while_training = tuple(defence for defence in member.defences if defence.stage == "training")
    afterwards = [defence for defence in member.defences if defence.stage != "training"]
    whole = Client(module, loss, member.protocol(model), while_training).train(member.batch, seed=own_seed)
    kept, silent = member.kept(model), member.silent(model)
    own = {name: start[name] for name in kept}
    factor = -server_lr if whole.kind == "gradient" else 1.0
    own = stepped(own, {name: tensor for name, tensor in whole.tensors.items() if name in kept}, factor)
    own = replaced(own, {name: tensor for name, tensor in whole.buffers.items() if name in kept})
    parameters = dict(module.named_parameters())
    held_back = tuple(name for name in parameters if name in kept and name not in whole.withheld)
    update = dataclasses.replace(
        whole,
        tensors={name: tensor for name, tensor in whole.tensors.items() if name not in kept},
        buffers={name: tensor for name, tensor in whole.buffers.items() if name not in silent},
        withheld=whole.withheld + held_back,
    )
    for place, defence in enumerate(afterwards, start=len(while_training)):
        update = defence.protect(update, generator=rng(own_seed, "client", "defence", place))
    refuse_misfit(update, module)
    refuse_nonfinite(own, "client's own state")
    return Contribution(member, update, own)


def refuse_misfit(update: Update, model: nn.Module) -> None:
    """Raises UpdateError or ShapeError unless every tensor of the update is finite and fits the model."""
    check_names(update.tensors, dict(model.named_parameters()), update.withheld)
    buffers = dict(model.named_buffers())
    for name, tensor in update.buffers.items():
        if name not in buffers:
            raise UpdateError(f"The update holds {name!r}, which is no buffer of the model.")
        if tensor.shape != buffers[name].shape:
            raise ShapeError(
                f"Buffer {name!r} of the update has shape {tuple(tensor.shape)}; the model's has {tuple(buffers[name].shape)}."
            )
    refuse_nonfinite(update.tensors, "update")
    refuse_nonfinite(update.buffers, "update's buffers")
