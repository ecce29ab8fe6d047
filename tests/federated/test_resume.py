"""Rounds on disk: continued runs equal uninterrupted ones, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from federation_cases import assert_equal, batch, members, mlp, normed

import leakgauge as lg
from leakgauge.errors import DataError, OptionError
from leakgauge.federated import FederationProgress

TRAIN = lg.LocalTraining(lr=0.1, steps=2, batch_size=2, mode="train")


def fedbn() -> lg.Federation:
    clients = members(2, 4, 3, training=TRAIN, batch_norm="local", defences=(lg.GaussianNoise(std=1e-3),))
    return lg.Federation(normed(dropout=0.3), clients, validation=batch(6), fraction=0.7, dropout=0.2)


def ring() -> lg.Federation:
    clients = members(2, 4, 3, 2, training=TRAIN)
    return lg.Federation(
        normed(), clients, validation=batch(6), topology=lg.Topology.ring([each.name for each in clients]), dropout=0.2
    )


def sums() -> lg.Federation:
    return lg.Federation(normed(), members(2, 2, training=TRAIN), secure_aggregation=True, server_defence=lg.CentralDP(0.5, 1.0))


CASES: dict[str, Callable[[], lg.Federation]] = {"fedbn": fedbn, "gossip": ring, "secure sum": sums}


def assert_same_round(first: lg.Round, second: lg.Round) -> None:
    assert first.index == second.index
    assert first.dropped == second.dropped
    assert first.accuracy == second.accuracy or (math.isnan(first.accuracy) and math.isnan(second.accuracy))
    assert_equal(first.state, second.state)
    assert len(first.messages) == len(second.messages)
    for one, other in zip(first.messages, second.messages, strict=True):
        assert (one.sender, one.receiver, one.exact, one.members) == (other.sender, other.receiver, other.exact, other.members)
        assert_equal(dict(one.update.tensors), dict(other.update.tensors))
        assert_equal(dict(one.update.buffers), dict(other.update.buffers))
        assert_equal(one.model.state_dict(), other.model.state_dict())


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_four_rounds_at_once_equal_two_and_two(make: Callable[[], lg.Federation], tmp_path: Path) -> None:
    whole = list(make().run(4, seed=5))
    first = list(make().run(2, seed=5, folder=tmp_path / "rounds"))
    second = list(make().run(4, seed=5, folder=tmp_path / "rounds"))
    assert [found.index for found in first + second] == [1, 2, 3, 4]
    for one, other in zip(whole, first + second, strict=True):
        assert_same_round(one, other)
    assert list(make().run(4, seed=5, folder=tmp_path / "rounds")) == []
    for one, other in zip(whole, make().finished(tmp_path / "rounds", seed=5), strict=True):
        assert not other.messages
        assert_same_round(dataclasses.replace(one, messages=()), other)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_any_finished_round_can_be_computed_again(make: Callable[[], lg.Federation], tmp_path: Path) -> None:
    whole = list(make().run(4, folder=tmp_path))
    again = list(make().run(3, folder=tmp_path, start=2))
    for one, other in zip(whole[1:3], again, strict=True):
        assert_same_round(one, other)
    assert [found.index for found in make().finished(tmp_path)] == [1, 2, 3], "later rounds are computed again too"


def test_an_interruption_leaves_whole_rounds(tmp_path: Path) -> None:
    whole = list(fedbn().run(4))
    for found in fedbn().run(4, folder=tmp_path):
        if found.index == 2:
            break  # as Ctrl-C does
    assert len(list(fedbn().finished(tmp_path))) == 2
    (tmp_path / "round-00003.part").write_bytes(b"half")
    with (tmp_path / "rounds.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"round": 3, "accu')
    rest = list(fedbn().run(4, folder=tmp_path))
    for one, other in zip(whole[2:], rest, strict=True):
        assert_same_round(one, other)
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert {"accuracy", "dropped", "seconds"} <= set(lines[0])


def test_an_interrupt_inside_a_round_keeps_the_finished_ones(tmp_path: Path) -> None:
    def stop(entry: FederationProgress) -> None:
        if (entry.index, entry.done) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sums().run(3, folder=tmp_path, progress=stop))
    rest = list(sums().run(3, folder=tmp_path))
    assert [found.index for found in rest] == [2, 3]
    assert_equal(rest[-1].state, list(sums().run(3))[-1].state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: dataclasses.replace(plan, model=normed(seed=1)), "the model"),
        (lambda plan: dataclasses.replace(plan, fraction=0.9), "the rules of the rounds"),
        (lambda plan: dataclasses.replace(plan, validation=None), "the validation batch"),
        (lambda plan: dataclasses.replace(plan, loss="mse"), "the loss"),
        (lambda plan: dataclasses.replace(plan, members=plan.members[:2]), "the list of members"),
        (
            lambda plan: dataclasses.replace(
                plan, members=(dataclasses.replace(plan.members[0], batch=batch(2, seed=77)), *plan.members[1:])
            ),
            "member 'a'",
        ),
    ],
)
def test_a_folder_of_another_plan_is_refused(
    change: Callable[[lg.Federation], lg.Federation], words: str, tmp_path: Path
) -> None:
    list(fedbn().run(1, folder=tmp_path))
    with pytest.raises(OptionError, match="another plan") as caught:
        change(fedbn()).run(2, folder=tmp_path)
    assert words in str(caught.value)
    with pytest.raises(OptionError, match="the seed"):
        fedbn().run(2, seed=1, folder=tmp_path)


def test_a_damaged_folder_is_one_sentence(tmp_path: Path) -> None:
    list(sums().run(2, folder=tmp_path))
    (tmp_path / "round-00002.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="round-00002"):
        sums().run(3, folder=tmp_path)
    (tmp_path / "federation.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be used"):
        sums().run(3, folder=tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be used"):
        sums().run(3, folder=tmp_path / "file")


def test_losses_that_are_functions_can_be_resumed(tmp_path: Path) -> None:
    plan = lg.Federation(mlp(), members(2), loss=torch.nn.functional.cross_entropy)
    list(plan.run(1, folder=tmp_path))
    assert [found.index for found in plan.run(2, folder=tmp_path)] == [2]
