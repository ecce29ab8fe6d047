"""Rounds with a server: what is averaged, with which weights, what is kept, and who is dropped."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from federation_cases import LOCAL, SPEC, assert_equal, batch, last, member, members, mlp, normed, state_of
from torch import nn

import leakgauge as lg
from leakgauge.errors import DataError, OptionError
from leakgauge.randomness import derived_seed

TRAIN = lg.LocalTraining(lr=0.1, steps=2, batch_size=2, mode="train")
ONE_STEP = lg.LocalTraining(lr=0.1)
FEDSGD = lg.LocalTraining()


def test_identical_clients_equal_one_client() -> None:
    data, training = batch(4), lg.LocalTraining(lr=0.1, steps=3)
    clients = tuple(lg.Member(name, data, training) for name in "abc")
    found = last(lg.Federation(mlp(), clients))
    update = lg.Client(mlp(), training=training).train(data)
    for name, tensor in state_of(mlp()).items():
        torch.testing.assert_close(found.state[name], tensor + update.tensors[name], rtol=1e-6, atol=1e-7)
    assert [message.sender for message in found.messages] == ["a", "b", "c"]


def test_a_member_computes_what_a_client_computes() -> None:
    clients = members(5, defences=(lg.GaussianNoise(std=0.01), lg.Prune(fraction=0.3)))
    found = last(lg.Federation(mlp(), clients), seed=7)
    client = lg.Client(mlp(), training=LOCAL, defences=clients[0].defences)
    update = client.train(clients[0].batch, seed=derived_seed(7, "federation", 1, "a"))
    (message,) = found.messages
    assert_equal(dict(message.update.tensors), dict(update.tensors))
    assert [record.name for record in message.update.defences] == ["gaussian-noise", "prune"]


def test_federated_averaging_weighs_by_examples() -> None:
    clients = members(1, 2, 5)
    found = last(lg.Federation(mlp(), clients, server_lr=0.5))
    start = state_of(mlp())
    for name, tensor in found.state.items():
        total = sum(
            len(each.batch) * message.update.tensors[name].double() for each, message in zip(clients, found.messages, strict=True)
        )
        torch.testing.assert_close(tensor.double(), start[name].double() + 0.5 * total / 8, rtol=1e-6, atol=1e-7)


def test_federated_sgd_is_sgd_on_the_union() -> None:
    model = mlp().double()
    clients = members(1, 3, 4, training=lg.LocalTraining(dtype="float64"))
    found = last(lg.Federation(model, clients, server_lr=0.3), rounds=3)
    inputs, labels = (
        torch.cat([each.batch.inputs for each in clients]).double(),
        torch.cat([each.batch.labels for each in clients]),
    )
    played = mlp().double()
    optimiser = torch.optim.SGD(played.parameters(), lr=0.3)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(played(inputs), labels).backward()
        optimiser.step()
    for name, tensor in found.state.items():
        torch.testing.assert_close(tensor, played.state_dict()[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [lg.LocalTraining(dtype="float64"), lg.LocalTraining(lr=0.2, dtype="float64")])
def test_a_secure_sum_is_one_client_with_all_pictures(training: lg.LocalTraining) -> None:
    model, clients = mlp().double(), members(1, 3, 4, training=training)
    found = last(lg.Federation(model, clients, secure_aggregation=True))
    (message,) = found.messages
    inputs, labels = torch.cat([each.batch.inputs for each in clients]), torch.cat([each.batch.labels for each in clients])
    union = lg.Client(model, training=training).train(lg.Batch(inputs, labels, SPEC))
    for name, tensor in union.tensors.items():
        torch.testing.assert_close(message.update.tensors[name], tensor, rtol=0, atol=1e-12)
    assert message.members == ("a", "b", "c")
    assert message.update.num_examples == 8
    assert message.exact
    assert torch.equal(message.update.labels, labels)
    seen = message.observe(lg.ThreatModel.honest_but_curious(labels=True), SPEC)
    assert seen.num_examples == 8
    apart = last(lg.Federation(model, clients))
    for name, tensor in apart.state.items():
        torch.testing.assert_close(found.state[name], tensor, rtol=0, atol=1e-12)


def test_the_running_mean_of_a_secure_sum_is_the_unions_at_the_first_layer() -> None:
    training = lg.LocalTraining(lr=0.1, dtype="float64")
    model, clients = normed().double(), members(2, 6, training=training)
    (message,) = last(lg.Federation(model, clients, secure_aggregation=True)).messages
    inputs = torch.cat([each.batch.inputs for each in clients]).double()
    values = model[0](inputs).detach()
    seen = message.observe(lg.ThreatModel.honest_but_curious(), SPEC)
    torch.testing.assert_close(seen.batch_norm["1"].mean, values.mean((0, 2, 3)), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(seen.batch_norm["1"].var, values.var((0, 2, 3), correction=0), rtol=1e-4)


def test_an_attack_on_a_secure_sum_treats_it_as_one_client() -> None:
    clients = (lg.Member("a", batch(1, seed=3), FEDSGD), lg.Member("b", batch(1, seed=4), FEDSGD))
    model = lg.load_model("mlp:hidden=64", num_classes=3, input_shape=SPEC.shape)
    (message,) = last(lg.Federation(model, clients, secure_aggregation=True)).messages
    guess = lg.attack(message.observe(lg.ThreatModel.honest_but_curious(), SPEC), "linear-layer")
    both = torch.cat([each.batch.inputs for each in clients])
    nearest = (guess.inputs[:, None] - both[None]).flatten(2).abs().amax(2).amin(0)
    assert float(nearest.max()) < 1e-3


def test_shared_statistics_are_averaged_and_the_counter_is_the_largest() -> None:
    clients = (member("a", 2, TRAIN), lg.Member("b", batch(6, seed=5), dataclasses.replace(TRAIN, steps=3)))
    found = last(lg.Federation(normed(), clients))
    sent = [message.update.buffers for message in found.messages]
    for name in ("1.running_mean", "1.running_var"):
        wanted = (2 * sent[0][name].double() + 6 * sent[1][name].double()) / 8
        torch.testing.assert_close(found.state[name].double(), wanted, rtol=1e-6, atol=1e-7)
    assert int(found.state["1.num_batches_tracked"]) == 3
    seen = found.messages[0].observe(lg.ThreatModel.honest_but_curious(), SPEC)
    assert seen.batch_norm["1"].steps == 2
    assert all(message.exact for message in found.messages)


def test_the_batch_norm_mode_decides_the_mode_of_training() -> None:
    model = normed()
    assert member("a").protocol(model).mode == "train"
    assert member("a", batch_norm="local").protocol(model).mode == "train"
    assert member("a", training=TRAIN, batch_norm="frozen").protocol(model).mode == "eval"
    assert member("a").protocol(mlp()) == LOCAL
    assert member("a", training=TRAIN).protocol(mlp()) == TRAIN


def test_local_batch_norm_stays_with_the_client() -> None:
    federation = lg.Federation(normed(), members(2, 4, training=TRAIN, batch_norm="local"), validation=batch(8))
    rounds = list(federation.run(3))
    start = state_of(normed())
    layer = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for found in rounds:
        for name in layer:
            assert torch.equal(found.state[name], start[name]), "the server never hears of it"
        for message in found.messages:
            assert not layer & {*message.update.tensors, *message.update.buffers}
            assert {"1.weight", "1.bias"} <= set(message.update.withheld)
            assert message.exact == (found.index == 1)
            seen = message.observe(lg.ThreatModel.honest_but_curious(), SPEC)
            assert not seen.batch_norm
        assert not torch.equal(found.state["0.weight"], start["0.weight"])
        assert 0 <= found.accuracy <= 1
        assert math.isfinite(found.loss)


def test_local_batch_norm_persists_with_the_client() -> None:
    """One member whose BatchNorm is local equals one that trains on without a federation."""
    training = lg.LocalTraining(lr=0.1, steps=2, mode="train")
    data = batch(4)
    rounds = list(lg.Federation(normed(), (lg.Member("a", data, training, batch_norm="local"),), validation=batch(8)).run(3))
    played = normed().train()
    for found in rounds:
        optimiser = torch.optim.SGD(played.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            nn.functional.cross_entropy(played(data.inputs), data.labels).backward()
            optimiser.step()
        for name in ("0.weight", "5.weight", "5.bias"):
            torch.testing.assert_close(found.state[name], played.state_dict()[name], rtol=1e-4, atol=1e-5)
        check = batch(8)
        wanted = nn.functional.cross_entropy(played.eval()(check.inputs), check.labels).detach()
        played.train()
        assert found.loss == pytest.approx(float(wanted), rel=1e-4)


def test_frozen_statistics_stay_and_are_not_sent() -> None:
    model = normed(dropout=0.5)
    model(batch(6).inputs)  # moves the running statistics away from 0 and 1
    federation = lg.Federation(model, members(2, 4, training=TRAIN, batch_norm="frozen"))
    found = last(federation, rounds=2)
    start = state_of(model)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(found.state[name], start[name])
    for name in ("1.weight", "1.bias", "0.weight"):
        assert not torch.equal(found.state[name], start[name])
    for message in found.messages:
        assert not message.update.buffers
        assert message.update.training.mode == "eval"
        assert message.exact
    again = last(federation, rounds=2)
    assert_equal(found.state, again.state)


def test_partial_sharing_keeps_the_rest_with_the_client() -> None:
    clients = members(2, 3, share=("linear1.*",))
    rounds = list(lg.Federation(mlp(), clients).run(2))
    start = state_of(mlp())
    for found in rounds:
        assert torch.equal(found.state["linear2.weight"], start["linear2.weight"])
        assert not torch.equal(found.state["linear1.weight"], start["linear1.weight"])
        for message in found.messages:
            assert set(message.update.tensors) == {"linear1.weight", "linear1.bias"}
            assert set(message.update.withheld) == {"linear2.weight", "linear2.bias"}
            assert message.exact == (found.index == 1)
            message.observe(lg.ThreatModel.honest_but_curious(), SPEC)


@pytest.mark.parametrize("training", [lg.LocalTraining(lr=0.2), lg.LocalTraining()])
def test_what_is_kept_is_trained_on(training: lg.LocalTraining) -> None:
    """One member that shares a part is one that trains alone, as long as the server steps like the client."""
    data = batch(3)
    server_lr = 0.2 if training.lr is None else 1.0
    clients = (lg.Member("a", data, training, share=("linear1.*",)),)
    rounds = list(lg.Federation(mlp(), clients, server_lr=server_lr).run(3))
    played = mlp()
    optimiser = torch.optim.SGD(played.parameters(), lr=0.2)
    for found in rounds:
        optimiser.zero_grad()
        nn.functional.cross_entropy(played(data.inputs), data.labels).backward()
        optimiser.step()
        torch.testing.assert_close(found.state["linear1.weight"], played.state_dict()["linear1.weight"], rtol=1e-5, atol=1e-6)


def test_sampling_is_a_function_of_seed_and_round() -> None:
    federation = lg.Federation(mlp(), members(1, 1, 1, 1, 1), fraction=0.4)
    chosen = [tuple(message.sender for message in found.messages) for found in federation.run(8, seed=1)]
    assert chosen == [tuple(message.sender for message in found.messages) for found in federation.run(8, seed=1)]
    assert chosen != [tuple(message.sender for message in found.messages) for found in federation.run(8, seed=2)]
    assert {len(names) for names in chosen} == {2}
    assert len(set(chosen)) > 1
    few = dataclasses.replace(federation, fraction=0.01)
    assert [len(found.messages) for found in few.run(3)] == [1, 1, 1]


def test_a_client_with_a_nan_loss_is_dropped_and_the_round_goes_on() -> None:
    broken = batch(2)
    broken.inputs[0, 0, 0, 0] = float("nan")
    clients = (*members(2, 3), lg.Member("broken", broken, LOCAL))
    federation = lg.Federation(mlp(), clients, validation=batch(4))
    rounds = list(federation.run(2))
    for found in rounds:
        assert [message.sender for message in found.messages] == ["a", "b"]
        (entry,) = found.dropped
        assert entry.name == "broken"
        assert "not finite" in entry.reason
        assert math.isfinite(found.loss)
    assert_equal(rounds[0].state, last(lg.Federation(mlp(), members(2, 3))).state)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lg.Batch(torch.zeros(2, 1, 5, 5), torch.zeros(2, dtype=torch.long)), "cannot train on its data"),
        (lg.Batch(torch.zeros(2, 1, 6, 6), torch.tensor([0, 9])), "cannot train on its data"),
    ],
)
def test_data_that_do_not_fit_drop_the_client(data: lg.Batch, words: str) -> None:
    found = last(lg.Federation(mlp(), (*members(2), lg.Member("odd", data, LOCAL))))
    (entry,) = found.dropped
    assert entry.name == "odd"
    assert words in entry.reason
    assert "\n" not in entry.reason
    assert [message.sender for message in found.messages] == ["a"]


def test_an_update_whose_tensors_do_not_fit_drops_the_client() -> None:
    class Cuts(lg.Defence):
        name = "cuts"
        stage = "update"

        def protect(self, update: lg.Update, *, generator: torch.Generator) -> lg.Update:
            return dataclasses.replace(update, tensors={name: tensor[:1] for name, tensor in update.tensors.items()})

    found = last(lg.Federation(mlp(), (*members(2), member("odd", defences=(Cuts(),)))))
    (entry,) = found.dropped
    assert "shape" in entry.reason
    assert [message.sender for message in found.messages] == ["a"]


def test_if_nobody_is_left_the_state_stays() -> None:
    broken = batch(2)
    broken.inputs[:] = float("nan")
    found = last(lg.Federation(mlp(), (lg.Member("broken", broken, LOCAL),)), rounds=2)
    assert_equal(found.state, state_of(mlp()))
    assert not found.messages
    assert "No client's update arrived" in found.note


def test_clients_drop_out_at_the_stated_rate() -> None:
    federation = lg.Federation(mlp(), members(1, 1, 1, 1, training=ONE_STEP), dropout=0.3)
    rounds = list(federation.run(40, seed=3))
    gone = sum(len(found.dropped) for found in rounds)
    assert 25 <= gone <= 75, "160 draws at 0.3"
    assert all(len(found.dropped) + len(found.messages) == 4 for found in rounds)
    assert "dropped out" in next(found.dropped[0].reason for found in rounds if found.dropped)
    assert_equal(rounds[-1].state, last(federation, 40, seed=3).state)


def test_validation_is_plain_evaluation() -> None:
    check = batch(300)
    found = last(lg.Federation(normed(), members(3, training=TRAIN), validation=check))
    model = normed()
    model.load_state_dict(found.state)
    output = model.eval()(check.inputs).detach()
    assert found.accuracy == pytest.approx(float((output.argmax(1) == check.labels).double().mean()))
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(output, check.labels)), rel=1e-5)
    assert math.isnan(last(lg.Federation(mlp(), members(2))).accuracy)


def test_a_diverged_model_has_no_loss_and_nothing_right() -> None:
    check = lg.Batch(torch.full((4, *SPEC.shape), float("nan")), torch.zeros(4, dtype=torch.long), SPEC)
    found = last(lg.Federation(mlp(), members(2), validation=check))
    assert math.isnan(found.loss)
    assert found.accuracy == 0.0


def test_central_noise_is_added_by_the_server() -> None:
    clients = members(1, 3)
    strict = lg.Federation(mlp(), clients, server_defence=lg.CentralDP(noise_multiplier=0.0, clip_norm=0.01))
    found, start = last(strict), state_of(mlp())
    moved = torch.cat([(found.state[name] - start[name]).flatten() for name in start])
    assert float(moved.norm()) <= 0.01 + 1e-6
    assert not found.messages[0].update.defences, "the server has seen each update as it was sent"
    noisy = dataclasses.replace(strict, server_defence=lg.CentralDP(2.0, 0.01), secure_aggregation=True)
    (message,) = last(noisy).messages
    assert [record.name for record in message.update.defences] == ["central-dp"]
    after = last(noisy).state
    for name, tensor in message.update.tensors.items():
        torch.testing.assert_close(after[name], start[name] + tensor, rtol=1e-5, atol=1e-6)
    assert_equal(after, last(noisy).state)
    assert not torch.equal(after["linear1.weight"], last(noisy, seed=1).state["linear1.weight"])


def test_the_callers_model_and_batches_stay_as_they_are() -> None:
    model, clients = normed(), members(2, 3, training=TRAIN)
    before, inputs = state_of(model), [each.batch.inputs.clone() for each in clients]
    list(lg.Federation(model, clients, validation=batch(4)).run(2))
    assert_equal(before, state_of(model))
    assert all(torch.equal(each.batch.inputs, copy) for each, copy in zip(clients, inputs, strict=True))


def test_progress_is_told_and_a_run_can_be_cancelled() -> None:
    told = []
    list(lg.Federation(mlp(), members(1, 1)).run(2, progress=told.append))
    assert [(entry.index, entry.done, entry.clients, entry.name) for entry in told] == [
        (1, 1, 2, "a"), (1, 2, 2, "b"), (1, 2, 2, ""), (2, 1, 2, "a"), (2, 2, 2, "b"), (2, 2, 2, ""),
    ]  # fmt: skip
    assert all(entry.rounds == 2 for entry in told)
    rounds = []
    for found in lg.Federation(mlp(), members(1, 1)).run(5, cancelled=lambda: len(rounds) == 2):
        rounds.append(found)
    assert [found.index for found in rounds] == [1, 2]


def mixed() -> tuple[lg.Member, ...]:
    return (member("a"), member("b", training=FEDSGD))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lg.Member("a", [], LOCAL), "'a' has no data"),
        (lambda: lg.Member("", batch(1), LOCAL), "Member.name"),
        (lambda: member("a", batch_norm="froze"), "Did you mean 'frozen'"),
        (lambda: member("a", share=()), "shares nothing"),
        (lambda: member("a", defences=(lg.CentralDP(1.0, 1.0),)), "acts at the server"),
        (lambda: member("a", defences=(lg.DPSGD(1.0, 1.0), lg.DPSGD(1.0, 1.0))), "more than one"),
        (lambda: lg.Federation(mlp(), ()), "no members"),
        (lambda: lg.Federation(mlp(), (member("a"), member("a"))), "called 'a'"),
        (lambda: lg.Federation(mlp(), mixed()), "mixes members"),
        (lambda: lg.Federation(mlp(), members(1), fraction=0.0), "Federation.fraction"),
        (lambda: lg.Federation(mlp(), members(1), dropout=1.0), "Federation.dropout"),
        (lambda: lg.Federation(mlp(), members(1), server_lr=0.0), "Federation.server_lr"),
        (lambda: lg.Federation(mlp(), members(1), loss="cross_entropi"), "cross_entropy"),
        (lambda: lg.Federation(mlp(), members(1, share=("linear7.*",))), "is no parameter of the model"),
        (lambda: lg.Federation(normed(), members(1, share=("1.running_*",))), "shares no parameter that is trained"),
        (lambda: lg.Federation(mlp(), members(1, batch_norm="local")), "has no BatchNorm layer"),
        (lambda: lg.Federation(mlp(), members(1), server_defence=lg.GaussianNoise(0.1)), "expected CentralDP"),
        (
            lambda: lg.Federation(mlp(), (member("a"), member("b", share=("linear1.*",))), server_defence=lg.CentralDP(1.0, 1.0)),
            "share the same tensors",
        ),
        (lambda: lg.Federation(mlp(), (member("a"), member("b", training=ONE_STEP)), secure_aggregation=True), "one protocol"),
        (lambda: lg.Federation(mlp(), members(1)).run(0), "number of rounds"),
        (lambda: lg.Federation(mlp(), members(1)).run(3, start=2), "cannot start at round 2"),
    ],
)
def test_wrong_use_is_one_sentence(make: Any, words: str) -> None:
    with pytest.raises((OptionError, DataError)) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
