"""Rule 1: no attack can meet the truth, a client's seed or a defence's seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from attack_cases import lenet, pictures
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.core.update import Update
from leakgauge.randomness import derived_seed, rng

CLIENT_SEED, DEFENCE_SEED = 918_273_645, 546_372_819
NAME = "patient-4711-left-lung.png"
TEXT = {entry.name for entry in entry_points(group="leakgauge.attacks") if entry.value.startswith("leakgauge.attacks.text.")}
ATTACKS = [entry.name for entry in lg.catalogue("attacks") if entry.name not in TEXT]  # of pictures
SEEDS = {CLIENT_SEED, DEFENCE_SEED} | {
    derived_seed(seed, *names)
    for seed in (CLIENT_SEED, DEFENCE_SEED)
    for names in (("client", "order"), ("client", "dropout"), ("client", "defence", 0), ("defence",))
}


def reachable(root: Any) -> Iterator[Any]:
    """Every object that can be reached by fields, items, attributes or closures."""
    seen: set[int] = set()
    queue, keep = [root], []
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        keep.append(item)
        yield item
        if isinstance(item, type | Enum) or type(item).__name__ == "module":
            continue
        if isinstance(item, Mapping):
            queue += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            queue += list(item)
        if dataclasses.is_dataclass(item):
            queue += [getattr(item, field.name) for field in dataclasses.fields(item)]
        held = getattr(item, "__dict__", None)
        queue += list(held.values()) if isinstance(held, dict) else []
        queue += [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]


def network(name: str) -> nn.Module:
    if name == "linear-layer":
        return lg.load_model("mlp:hidden=16", num_classes=4, input_shape=(1, 8, 8), seed=0)
    return lenet()


def planted(name: str) -> tuple[lg.Observation, lg.Batch]:
    if name in ("recursive", "hybrid"):  # they treat one example
        batch = dataclasses.replace(pictures(1), names=(NAME,), labels=torch.tensor([2]))
    else:
        batch = dataclasses.replace(pictures(3), names=(NAME, "b", "c"), labels=torch.tensor([2, 0, 2]))
    model = network(name)
    client = lg.Client(model, defences=(lg.GaussianNoise(1e-9),))
    update = lg.GaussianNoise(std=1e-9).protect(client.train(batch, seed=CLIENT_SEED), generator=rng(DEFENCE_SEED, "defence"))
    assert update.client_seed == CLIENT_SEED
    return lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, batch.spec), batch


def refuse_seeds_and_names(root: Any) -> int:
    count = 0
    for item in reachable(root):
        count += 1
        assert not isinstance(item, lg.Batch | lg.Client | Update | torch.Generator)
        if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            assert int(item) not in SEEDS
        if isinstance(item, str):
            assert NAME not in item
            assert not any(str(seed) in item for seed in SEEDS)
    return count


def holds(root: Any, private: list[Tensor]) -> bool:
    return any(
        item.numel() == other.numel() and torch.equal(item.double().flatten(), other.double().flatten())
        for item in reachable(root)
        if isinstance(item, Tensor)
        for other in private
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_neither_observation_nor_result_holds_what_was_planted(name: str) -> None:
    seen, batch = planted(name)
    private = [batch.inputs, *batch.inputs, batch.inputs.mean(0), batch.labels]
    assert refuse_seeds_and_names(seen) > 50
    assert not holds(seen, private)
    guess = lg.attack(seen, name, seed=7, budget=40, device="cpu")
    assert refuse_seeds_and_names(guess) > 15
    assert not holds(dataclasses.replace(guess, labels=None), private)
    assert refuse_seeds_and_names(seen) > 50, "nor does the attack leave anything behind in it"
    assert guess.stats.seed == 7
    assert guess.attack == name


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_sees_nothing_but_its_arguments(name: str) -> None:
    """Two observations with the same content, from clients with other seeds, give one result bit for bit."""
    guesses = []
    for seed in (1, 2):
        model, batch = network(name), pictures(1)
        update = lg.Client(model).train(batch, seed=seed)
        seen = lg.ThreatModel.honest_but_curious().observe(update, model, batch.spec)
        guesses.append(lg.attack(seen, name, seed=5, budget=40, device="cpu"))
    one, other = guesses
    assert torch.equal(one.inputs, other.inputs)
    assert one.outcome is other.outcome
    assert one.stats.evaluations == other.stats.evaluations
    if one.labels is not None and other.labels is not None:
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_result_keeps_its_contract(name: str) -> None:
    seen, batch = planted(name)
    guess = lg.attack(seen, name, budget=40, device="cpu")
    count = len(guess)
    assert count <= len(batch)
    assert guess.inputs.shape[1:] == batch.inputs.shape[1:]
    assert guess.inputs.dtype is torch.float32
    assert torch.isfinite(guess.inputs).all()
    assert guess.certified.shape == guess.confidence.shape == (count,)
    assert guess.certified.dtype is torch.bool
    assert bool(((guess.confidence >= 0) & (guess.confidence <= 1)).all())
    assert isinstance(guess.explains, bool)
    assert guess.explains or not guess.certified.any()
    assert guess.labels is None or guess.labels.shape == (count,)
    assert guess.seconds >= 0
    assert isinstance(guess.stats.evaluations, int)
