"""A round without a server: nodes train, send their weights to their neighbours, and mix.

In round t node i trains from its mixed state x_i to y_i and sends y_i to each neighbour; then x_i becomes sum_j W_ij y_j, over
itself and its neighbours, with Metropolis weights W. A neighbour k that wants the change y_i - x_i needs x_i. In the first round
that is the common initial model. Later it is a mixture of messages, of which k holds its own and those of its own neighbours: if
all of i's neighbours are among them, k computes x_i exactly. Otherwise it leaves out the messages it did not see and
renormalises the weights of the others, which is an estimate, and the message says so (`exact=False`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from leakgauge.federated.aggregate import replaced, stepped, weighted_mean
from leakgauge.federated.contribute import Contribution
from leakgauge.federated.records import Message
from leakgauge.federated.server import NOBODY, Played, Tell, train_all
from leakgauge.federated.state import State, Tensors, View, module_at, same, state_of
from leakgauge.federated.topology import Topology

if TYPE_CHECKING:
    from leakgauge.federated.federation import Federation


def first_gossip_state(federation: Federation, initial: Tensors) -> State:
    """Every node at the common initial model, which every neighbour knows."""
    assert federation.topology is not None
    topology = federation.topology
    own = {member.name: dict(initial) for member in federation.members}
    edges = [(sender, receiver) for sender in topology.nodes for receiver in topology.neighbours(sender)]
    return State(initial, own, {edge: View(own[edge[0]], True) for edge in edges})


def gossip_round(
    federation: Federation, state: State, index: int, seed: int, tell: Tell, cancelled: Callable[[], bool]
) -> Played | None:
    """One round of gossip; None if it was cancelled.

    A node that is dropped neither sends nor receives in that round and keeps its state; its neighbours take its weight
    upon themselves, so the matrix in force stays doubly stochastic. What a node keeps for itself is not mixed. A node mixes with
    the weights that it sent, after its defences.

    Source: Lian et al. 2017 (decentralised SGD); Zhu et al. 2019, section 2 (leakage to a neighbour).
    """
    assert federation.topology is not None
    topology = federation.topology
    found = train_all(federation, federation.members, dict(state.own), index, seed, tell, cancelled)
    if found is None:
        return None
    contributions, dropped = found
    if not contributions:
        return Played(state, (), dropped, NOBODY)
    sent = {entry.member.name: _sent(entry, state.own[entry.member.name]) for entry in contributions}
    messages, modules = [], dict[int, nn.Module]()
    for entry in contributions:
        name = entry.member.name
        weights = {key: sent[name].tensors[key] for key in entry.update.tensors}
        buffers = {key: sent[name].tensors[key] for key in entry.update.buffers}
        update = replace(entry.update, tensors=weights, buffers=buffers, kind="weights")
        for receiver in topology.neighbours(name):
            if receiver not in sent:
                continue
            view = state.views[(name, receiver)]
            if id(view.tensors) not in modules:
                modules[id(view.tensors)] = module_at(federation.model, view.tensors)
            messages.append(Message(name, update, modules[id(view.tensors)], (name,), receiver, view.exact))
    return Played(_mixed_state(federation, topology, state, sent), tuple(messages), dropped)


@dataclass(frozen=True)
class _Sent:
    """A node's whole state after training, and the names of the tensors that it sent."""

    tensors: Tensors
    names: frozenset[str]


def _sent(entry: Contribution, start: Mapping[str, Tensor]) -> _Sent:
    after = stepped(start, entry.update.tensors, 1.0)
    after = replaced(replaced(after, entry.update.buffers), entry.kept)
    return _Sent(after, frozenset([*entry.update.tensors, *entry.update.buffers]))


def _mixed_state(federation: Federation, topology: Topology, state: State, sent: Mapping[str, _Sent]) -> State:
    initial = state_of(federation.model)
    kept = {member.name: member.kept(federation.model) for member in federation.members}
    mixing = topology.mixing()
    place = {name: position for position, name in enumerate(topology.nodes)}

    def mixed(node: str, seen: set[str]) -> Tensors:
        """The node's state after mixing, from the messages of the nodes in `seen`, among which the node is."""
        after: Tensors = {}
        for name, own in sent[node].tensors.items():
            if name in kept[node]:
                after[name] = own
                continue
            weights = {node: float(mixing[place[node], place[node]])}
            for other in topology.neighbours(node):
                weight = float(mixing[place[node], place[other]])
                if other in seen and (other not in sent or name not in sent[other].names):
                    weights[node] += weight  # known not to have sent it
                elif other in seen:
                    weights[other] = weight
            if len(weights) == 1:
                after[name] = own
                continue
            parts = [{name: sent[other].tensors[name]} for other in weights]
            after[name] = weighted_mean(parts, list(weights.values()))[name].to(own.dtype)
        return after

    own = {node: mixed(node, set(topology.nodes)) if node in sent else dict(state.own[node]) for node in topology.nodes}
    views = {}
    for (sender, receiver), view in state.views.items():
        if sender not in sent:  # it has not moved
            views[(sender, receiver)] = View(own[sender], True) if view.tensors is state.own[sender] else view
        elif receiver not in sent:
            views[(sender, receiver)] = View(view.tensors, False)
        else:
            near = set(topology.view(receiver))
            exact = set(topology.view(sender)) <= near
            if exact and not kept[sender]:
                views[(sender, receiver)] = View(own[sender], True)
                continue
            guess = {**(own[sender] if exact else mixed(sender, near))}
            guess |= {name: initial[name] for name in kept[sender]}
            views[(sender, receiver)] = View(guess, exact and same(guess, own[sender]))
    names = [own[node] for node in topology.nodes]
    mean = weighted_mean(names, [1.0] * len(names))
    shared = {name: tensor.to(initial[name].dtype) for name, tensor in mean.items()}
    return State({name: shared[name] for name in initial}, own, views)
