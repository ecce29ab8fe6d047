"""Gossip: mixing weights, consensus, what a neighbour knows of a sender's start, and attacks per edge."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from federation_cases import LOCAL, SPEC, assert_equal, batch, last, member, members, normed, state_of
from hypothesis import given, settings
from hypothesis import strategies as st

import leakgauge as lg
from leakgauge.errors import OptionError, ShapeError
from leakgauge.federated.gossip import _mixed_state, _Sent, first_gossip_state
from leakgauge.federated.state import State
from leakgauge.federated.state import state_of as copied
from leakgauge.randomness import derived_seed

TRAIN = lg.LocalTraining(lr=0.1, steps=2, batch_size=2, mode="train")


@st.composite
def graphs(draw: st.DrawFn) -> lg.Topology:
    count = draw(st.integers(1, 9))
    names = [f"n{place}" for place in range(count)]
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    return lg.Topology.of(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [], nodes=names)


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_mixing_weights_are_doubly_stochastic(topology: lg.Topology) -> None:
    weights = topology.mixing()
    assert torch.equal(weights, weights.T)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(len(topology.nodes), dtype=torch.float64), rtol=0, atol=1e-12)
    for row, first in enumerate(topology.nodes):
        for column, second in enumerate(topology.nodes):
            if first != second:
                assert (weights[row, column] > 0) == (second in topology.neighbours(first))
    assert float(torch.linalg.eigvalsh(weights).abs().max()) <= 1 + 1e-12
    lg.ThreatModel.neighbour(mixing=weights)


def test_topologies_by_name() -> None:
    names = ["a", "b", "c", "d"]
    assert lg.Topology.ring(names).edges == (("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"))
    assert lg.Topology.ring(["a", "b"]).edges == (("a", "b"),)
    assert lg.Topology.ring(["a"]).edges == ()
    assert len(lg.Topology.complete(names).edges) == 6
    assert lg.Topology.star(names).neighbours("a") == ("b", "c", "d")
    assert lg.Topology.star(names).view("c") == ("a", "c")
    assert lg.Topology.of([("b", "a"), ("a", "b"), ("b", "c")]).nodes == ("b", "a", "c")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lg.Topology((), ()), "no nodes"),
        (lambda: lg.Topology(("a", "a"), ()), "'a' twice"),
        (lambda: lg.Topology(("a",), (("a", "a"),)), "to itself"),
        (lambda: lg.Topology(("alice",), (("alice", "alise"),)), "Did you mean 'alice'"),
        (lambda: lg.Topology(("a", "b"), (("a",),)), "two names"),  # type: ignore[arg-type]
        (lambda: lg.Federation(normed(), members(1), topology=lg.Topology.ring(["a", "b"])), "same names"),
        (lambda: lg.Federation(normed(), members(1), topology=lg.Topology.ring(["a"]), fraction=0.5), "belongs to a server"),
        (
            lambda: lg.Federation(normed(), members(1, training=lg.LocalTraining()), topology=lg.Topology.ring(["a"])),
            "needs LocalTraining.lr",
        ),
    ],
)
def test_wrong_use_is_one_sentence(make: object, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()  # type: ignore[operator]
    assert words in str(caught.value)


def test_the_threat_model_checks_the_mixing_matrix() -> None:
    threat = lg.ThreatModel.neighbour(mixing=[[0.5, 0.5], [0.25, 0.75]], labels=True)
    assert threat.mixing == ((0.5, 0.5), (0.25, 0.75))
    assert threat.name == "neighbour in gossip"
    assert lg.Knowledge.LABELS in threat.knowledge
    assert lg.ThreatModel.neighbour(torch.eye(2)).mixing == ((1.0, 0.0), (0.0, 1.0))
    assert lg.ThreatModel.honest_but_curious().mixing is None
    for wrong, words in (
        ([[1.0], [1.0]], "square"),
        ([], "square"),
        ([[0.4, 0.5], [0.5, 0.5]], "sums to 0.9"),
        ([[2.0, -1.0], [0, 1]], ">= 0"),
    ):
        with pytest.raises((OptionError, ShapeError), match=words):
            lg.ThreatModel.neighbour(mixing=wrong)  # type: ignore[arg-type]


def consensus_distance(states: dict[str, dict[str, torch.Tensor]]) -> float:
    """Largest distance of a node's floating-point tensors from their mean over the nodes, 2-norm."""
    rows = torch.stack(
        [torch.cat([t.double().flatten() for t in node.values() if t.is_floating_point()]) for node in states.values()]
    )
    return float((rows - rows.mean(0)).norm(dim=1).max())


def test_nodes_without_training_converge_to_the_mean() -> None:
    names = [f"n{place}" for place in range(6)]
    topology = lg.Topology.ring(names)
    federation = lg.Federation(normed(), tuple(member(name) for name in names), topology=topology)
    initial = copied(normed())
    state = first_gossip_state(federation, initial)
    starts = {name: copied(normed(seed=place)) for place, name in enumerate(names)}
    state = State(initial, starts, state.views)
    keys = frozenset(initial)
    distances = [consensus_distance(starts)]
    for _ in range(60):
        state = _mixed_state(federation, topology, state, {name: _Sent(state.own[name], keys) for name in names})
        distances.append(consensus_distance(state.own))
    second = sorted(torch.linalg.eigvalsh(topology.mixing()).abs().tolist())[-2]
    assert distances[-1] < 1e-5 * distances[0]
    assert distances[3] <= second**3 * distances[0] * len(names) ** 0.5
    for name in ("0.weight", "5.bias"):
        mean = torch.stack([start[name].double() for start in starts.values()]).mean(0)
        for node in state.own.values():
            torch.testing.assert_close(node[name].double(), mean, rtol=1e-4, atol=1e-5)


def test_two_nodes_average_what_they_trained() -> None:
    clients = members(2, 5, training=TRAIN)
    found = last(lg.Federation(normed(), clients, topology=lg.Topology.complete(["a", "b"])))
    sent = [message.update for message in found.messages]
    assert [(message.sender, message.receiver, message.exact) for message in found.messages] == [
        ("a", "b", True),
        ("b", "a", True),
    ]
    assert all(update.kind == "weights" for update in sent)
    for name in ("0.weight", "1.weight"):
        torch.testing.assert_close(found.state[name], (sent[0].tensors[name] + sent[1].tensors[name]) / 2)
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(found.state[name], (sent[0].buffers[name] + sent[1].buffers[name]) / 2)
    seen = found.messages[0].observe(lg.ThreatModel.neighbour(lg.Topology.complete(["a", "b"]).mixing()), SPEC)
    assert seen.kind == "delta"
    assert seen.threat == "neighbour in gossip"
    assert seen.batch_norm["1"].steps == 2


EXPECTED = {  # sender, receiver -> whether the receiver sees all that the sender mixes with
    "complete": (lg.Topology.complete(list("abcd")), lambda sender, receiver: True),
    "ring of four": (lg.Topology.ring(list("abcd")), lambda sender, receiver: False),
    "star": (lg.Topology.star(list("abcd")), lambda sender, receiver: receiver == "a"),
    "two triangles": (
        lg.Topology.of([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]),
        lambda sender, receiver: sender in "abd" and (sender, receiver) != ("c", "d") and receiver != "d",
    ),
}


@pytest.mark.parametrize(("topology", "expected"), EXPECTED.values(), ids=EXPECTED.keys())
def test_a_start_is_exact_where_the_senders_neighbours_are_seen(topology: lg.Topology, expected: object) -> None:
    clients = tuple(member(name, 2 + place, TRAIN) for place, name in enumerate(topology.nodes))
    federation = lg.Federation(normed(), clients, topology=topology)
    rounds = list(federation.run(3))
    assert all(message.exact for message in rounds[0].messages)
    assert {(message.sender, message.receiver) for message in rounds[0].messages} == {
        (a, b) for pair in topology.edges for a, b in (pair, pair[::-1])
    }
    weights = dict(zip(topology.nodes, topology.mixing().tolist(), strict=True))
    for before, found in pairwise(rounds):
        sent = {message.sender: {**message.update.tensors, **message.update.buffers} for message in before.messages}
        for message in found.messages:
            assert message.exact == expected(message.sender, message.receiver), message  # type: ignore[operator]
            near = topology.view(message.receiver)
            row = {name: weights[message.sender][topology.nodes.index(name)] for name in topology.view(message.sender)}
            row = {name: weight for name, weight in row.items() if name in near}
            total = sum(row.values())
            for name, tensor in message.model.state_dict().items():
                if tensor.is_floating_point():
                    wanted = sum(weight / total * sent[node][name].double() for node, weight in row.items())
                    torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-7)


def test_an_exact_start_gives_the_senders_own_change() -> None:
    names = list("abc")
    clients = tuple(member(name, 1, lg.LocalTraining(lr=0.1, dtype="float64")) for name in names)
    model = lg.load_model("mlp:hidden=12", num_classes=3, input_shape=SPEC.shape).double()
    topology = lg.Topology.complete(names)
    found = list(lg.Federation(model, clients, topology=topology).run(3))[-1]
    for message in found.messages:
        start = message.model
        own = next(each for each in clients if each.name == message.sender)
        update = lg.Client(start, training=own.training).train(own.batch)
        seen = message.observe(lg.ThreatModel.neighbour(topology.mixing()), SPEC)
        for name, tensor in update.tensors.items():
            torch.testing.assert_close(seen.tensors[name], tensor, rtol=0, atol=1e-12)


def test_the_closed_form_reads_pictures_over_exact_edges_only() -> None:
    """In a star the centre reads every leaf; no leaf reads the centre from round 2 on."""
    names = ["centre", "east", "west", "north"]
    topology = lg.Topology.star(names)
    training = lg.LocalTraining(lr=0.05, dtype="float64")
    clients = tuple(lg.Member(name, batch(1, seed=place), training) for place, name in enumerate(names))
    model = lg.load_model("mlp:hidden=48", num_classes=3, input_shape=SPEC.shape).double()
    threat = lg.ThreatModel.neighbour(topology.mixing())
    for found in lg.Federation(model, clients, topology=topology).run(3):
        for message in found.messages:
            guess = lg.attack(message.observe(threat, SPEC), "linear-layer")
            truth = clients[names.index(message.sender)].batch
            psnr = float(lg.score(truth, guess).psnr)
            read = found.index == 1 or message.receiver == "centre"
            assert message.exact == read
            assert psnr > 80 if read else psnr < 25, (found.index, message.sender, message.receiver, psnr)


def test_what_a_node_keeps_is_not_mixed_and_not_known() -> None:
    names = list("abc")
    clients = tuple(member(name, 3, TRAIN, batch_norm="local") for name in names)
    rounds = list(lg.Federation(normed(), clients, topology=lg.Topology.complete(names)).run(2))
    start = state_of(normed())
    for message in rounds[1].messages:
        assert not message.exact
        assert "1.weight" in message.update.withheld
        assert torch.equal(message.model.state_dict()["1.running_mean"], start["1.running_mean"])
        message.observe(lg.ThreatModel.neighbour(torch.eye(3)), SPEC)


def test_a_node_that_drops_out_keeps_its_state_and_its_neighbours_go_on() -> None:
    names = list("abcd")
    clients = tuple(member(name, 2, TRAIN) for name in names)
    federation = lg.Federation(normed(), clients, topology=lg.Topology.complete(names), dropout=0.4)
    rounds = list(federation.run(12, seed=2))
    assert any(found.dropped for found in rounds)
    for before, found in pairwise(rounds):
        gone = {entry.name for entry in found.dropped}
        for message in found.messages:
            assert not gone & {message.sender, message.receiver}
            missed = {entry.name for entry in before.dropped}
            if not missed:
                assert message.exact, "everybody saw everything in the round before"
            if message.receiver in missed and message.sender not in missed:
                assert not message.exact
            if message.exact:
                own = next(each for each in clients if each.name == message.sender)
                update = lg.Client(message.model, training=TRAIN).train(
                    own.batch, seed=derived_seed(2, "federation", found.index, own.name)
                )
                delta = message.observe(lg.ThreatModel.neighbour(torch.eye(4)), SPEC).tensors
                for name, tensor in update.tensors.items():
                    torch.testing.assert_close(delta[name], tensor, rtol=1e-4, atol=1e-6)
    broken = batch(2)
    broken.inputs[:] = float("nan")
    odd = (*clients[:3], lg.Member("d", broken, LOCAL))
    found = last(dataclasses.replace(federation, members=odd, dropout=0.0), rounds=2)
    assert [entry.name for entry in found.dropped] == ["d"]
    assert len(found.messages) == 6
    assert all(message.exact for message in found.messages)


def test_a_defended_node_mixes_what_it_sent() -> None:
    clients = members(2, 2, training=TRAIN, defences=(lg.GaussianNoise(std=0.1),))
    found = last(lg.Federation(normed(), clients, topology=lg.Topology.complete(["a", "b"])))
    sent = [message.update.tensors["0.weight"] for message in found.messages]
    torch.testing.assert_close(found.state["0.weight"], (sent[0] + sent[1]) / 2)
    assert [record.name for record in found.messages[0].update.defences] == ["gaussian-noise"]
    again = last(lg.Federation(normed(), clients, topology=lg.Topology.complete(["a", "b"])))
    assert_equal(found.state, again.state)


@pytest.mark.parametrize("gone", ["a", "b", "d"])
def test_mixing_without_a_node_keeps_the_mean_of_the_others(gone: str) -> None:
    """The neighbours keep the weight of a node that is away for themselves, so the matrix in force stays doubly stochastic."""
    names = list("abcd")
    topology = lg.Topology.of([("a", "b"), ("b", "c"), ("c", "d"), ("b", "d")])
    federation = lg.Federation(normed(), tuple(member(name) for name in names), topology=topology)
    initial = copied(normed())
    starts = {name: copied(normed(seed=place)) for place, name in enumerate(names)}
    views = first_gossip_state(federation, initial).views
    there = [name for name in names if name != gone]
    sent = {name: _Sent(starts[name], frozenset(initial)) for name in there}
    after = _mixed_state(federation, topology, State(initial, starts, views), sent).own
    assert_equal(after[gone], starts[gone])
    for name in ("0.weight", "5.weight"):
        before, now = (torch.stack([states[node][name] for node in there]).mean(0) for states in (starts, after))
        torch.testing.assert_close(now, before, rtol=1e-5, atol=1e-6)
