"""A round with a server: FedAvg and FedSGD, client sampling, secure aggregation, a defence of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from leakgauge.core.update import Update
from leakgauge.errors import LeakgaugeError
from leakgauge.federated.aggregate import replaced, secure_sum, stepped, weighted_mean
from leakgauge.federated.contribute import Contribution, contribute
from leakgauge.federated.member import Member
from leakgauge.federated.records import Dropped, Message
from leakgauge.federated.state import State, Tensors, module_at, same
from leakgauge.randomness import rng

if TYPE_CHECKING:
    from leakgauge.federated.federation import Federation

Tell = Callable[[int, int, str], None]  # clients done, clients in all, name of the last
NOBODY = "No client's update arrived, so the state is the one of the round before."


@dataclass(frozen=True)
class Played:
    """A round's result: the new state, what was sent, who was dropped."""

    state: State
    messages: tuple[Message, ...]
    dropped: tuple[Dropped, ...]
    note: str = ""


def server_round(
    federation: Federation, state: State, index: int, seed: int, tell: Tell, cancelled: Callable[[], bool]
) -> Played | None:
    """One round of FedAvg or FedSGD; None if it was cancelled."""
    chosen = sampled(federation, index, seed)
    starts = {member.name: {**state.shared, **state.own.get(member.name, {})} for member in chosen}
    found = train_all(federation, chosen, starts, index, seed, tell, cancelled)
    if found is None:
        return None
    contributions, dropped = found
    if not contributions:
        return Played(state, (), dropped, NOBODY)
    updates = [entry.update for entry in contributions]
    after, whole = _aggregated(federation, state.shared, updates, index, seed)
    own = {**state.own, **{entry.member.name: entry.kept for entry in contributions if entry.kept}}
    public = module_at(federation.model, state.shared)
    if whole is not None:
        exact = all(_starts_public(state, entry.member.name) for entry in contributions)
        message = Message("sum", whole, public, tuple(entry.member.name for entry in contributions), exact=exact)
        return Played(State(after, own), (message,), dropped)
    messages = tuple(
        Message(
            entry.member.name,
            entry.update,
            public,
            (entry.member.name,),
            exact=_starts_public(state, entry.member.name),
        )
        for entry in contributions
    )
    return Played(State(after, own), messages, dropped)


def sampled(federation: Federation, index: int, seed: int) -> tuple[Member, ...]:
    """The members of a round: max(1, round(fraction x members)) of them, drawn by seed and round, in their own order."""
    members = federation.members
    count = max(1, round(federation.fraction * len(members)))
    if count == len(members):
        return members
    order = torch.randperm(len(members), generator=rng(seed, "federation", index, "sample"))[:count]
    return tuple(members[place] for place in sorted(order.tolist()))


def train_all(
    federation: Federation,
    chosen: tuple[Member, ...],
    starts: dict[str, Tensors],
    index: int,
    seed: int,
    tell: Tell,
    cancelled: Callable[[], bool],
) -> tuple[list[Contribution], tuple[Dropped, ...]] | None:
    """Trains each chosen client from its start; a client that fails is dropped with a reason. None if cancelled."""
    contributions, dropped = [], []
    for place, member in enumerate(chosen, start=1):
        if cancelled():
            return None
        draw = float(torch.rand((), generator=rng(seed, "federation", index, "dropout", member.name)))
        if draw < federation.dropout:
            dropped.append(Dropped(member.name, f"Client {member.name!r} dropped out of round {index} (simulated)."))
        else:
            try:
                contributions.append(
                    contribute(
                        member,
                        federation.model,
                        starts[member.name],
                        federation.loss,
                        server_lr=federation.server_lr,
                        seed=seed,
                        index=index,
                    )
                )
            except LeakgaugeError as error:
                dropped.append(Dropped(member.name, str(error)))
            except (RuntimeError, ValueError, IndexError) as error:  # torch's own words for data that do not fit the model
                first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
                dropped.append(Dropped(member.name, f"Client {member.name!r} cannot train on its data: {first}."))
        tell(place, len(chosen), member.name)
    return contributions, tuple(dropped)


def _aggregated(
    federation: Federation, shared: Tensors, updates: list[Update], index: int, seed: int
) -> tuple[Tensors, Update | None]:
    """The server's state after the round; and under secure aggregation the one sum, after the defence of the server."""
    counts = [float(update.num_examples) for update in updates]
    factor = -federation.server_lr if updates[0].kind == "gradient" else federation.server_lr
    buffers = weighted_mean([update.buffers for update in updates], counts)
    whole = secure_sum(updates) if federation.secure_aggregation else None
    defence = federation.server_defence
    if defence is None:
        mean = weighted_mean([update.tensors for update in updates], counts)
    else:
        generator = rng(seed, "federation", index, "server defence")
        mean = defence.aggregate([update.tensors for update in updates], generator=generator)
        if whole is not None:
            whole = replace(whole, tensors=mean, defences=(*whole.defences, defence.record()))
    return replaced(stepped(shared, mean, factor), buffers), whole


def _starts_public(state: State, name: str) -> bool:
    own = state.own.get(name, {})
    return same(own, {key: state.shared[key] for key in own})
