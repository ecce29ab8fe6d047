"""ThreatModel: what can and cannot be reached from an observation, and the batch's BatchNorm statistics."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from small_network import SPEC, batch, client_update, network, observed
from torch import Tensor, nn

from leakgauge.core import DefenceRecord, Knowledge, LocalTraining, Observation, ThreatModel, Update
from leakgauge.core.update import KINDS
from leakgauge.defences import GaussianNoise
from leakgauge.federated.client import Client
from leakgauge.local import Network
from leakgauge.randomness import derived_seed, rng
from leakgauge.truth import Batch

CLIENT_SEED, DEFENCE_SEED = 918_273_645, 546_372_819
NAME = "patient-4711-left-lung.png"


def reachable(root: Any) -> Iterator[Any]:
    """Every object that can be reached by fields, items, attributes, closures or bases of views."""
    seen: set[int] = set()
    queue = [root]
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, type) or type(item).__name__ in ("module", "OpOverload"):
            continue
        if isinstance(item, Mapping):
            queue += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            queue += list(item)
        elif isinstance(item, Tensor):
            queue += [part for part in (item.grad, item._base, item.grad_fn) if part is not None]
        if isinstance(item, Enum):
            continue
        if dataclasses.is_dataclass(item):
            queue += [getattr(item, field.name) for field in dataclasses.fields(item)]
        for attribute in ("__dict__", "__slots__"):
            held = getattr(item, attribute, None)
            queue += list(held.values()) if isinstance(held, dict) else []
        for cell in getattr(item, "__closure__", None) or ():
            queue.append(cell.cell_contents)


def private_tensors(data: Batch) -> list[Tensor]:
    assert isinstance(data.inputs, Tensor)
    assert data.spec is not None
    pixels = data.spec.denormalise(data.inputs)
    return [data.inputs, pixels, *data.inputs, *pixels, data.inputs.mean((0, 2, 3)), data.inputs.mean(0)]


def planted(labels: bool, kind: str = "delta") -> tuple[Observation, Batch]:
    data = dataclasses.replace(batch(4), names=(NAME, "b", "c", "d"), labels=torch.tensor([2, 0, 1, 1]))
    model = network()
    client = Client(model, training=LocalTraining(lr=0.1, steps=2, batch_size=2, mode="train"))
    update = client.train(data, seed=CLIENT_SEED)
    if kind == "weights":
        weights = {name: model.get_parameter(name).detach() + tensor for name, tensor in update.tensors.items()}
        update = dataclasses.replace(update, tensors=weights, kind="weights")
    update = GaussianNoise(std=1e-3).protect(update, generator=rng(DEFENCE_SEED, "defence"))
    nn.functional.cross_entropy(model(data.inputs), data.labels).backward()  # leaves the true gradient on the module
    return ThreatModel.honest_but_curious(labels=labels).observe(update, model, data.spec, model_name="small"), data


@pytest.mark.parametrize("kind", ["delta", "weights"])
@pytest.mark.parametrize("labels", [False, True])
def test_nothing_private_can_be_reached(tmp_path: Path, labels: bool, kind: str) -> None:
    seen, data = planted(labels, kind)
    seeds = {CLIENT_SEED, DEFENCE_SEED}
    seeds |= {
        derived_seed(seed, *names)
        for seed in tuple(seeds)
        for names in (("client", "order"), ("client", "dropout"), ("defence",))
    }
    private = [tensor.double() for tensor in private_tensors(data)]
    count = 0
    for item in reachable(seen):
        count += 1
        assert not isinstance(item, Batch | Client | Update | torch.Generator)
        if isinstance(item, int) and not isinstance(item, bool):
            assert item not in seeds
        if isinstance(item, str):
            assert NAME not in item
        if isinstance(item, Tensor):
            assert item.grad_fn is None
            assert item.grad is None
            held = item.double()
            assert not any(held.numel() == other.numel() and torch.allclose(held.flatten(), other.flatten()) for other in private)
            is_labels = item.dtype == torch.int64 and item.shape == data.labels.shape and torch.equal(item, data.labels)
            assert not is_labels or labels
            storage = item.untyped_storage()
            assert storage.nbytes() == item.numel() * item.element_size(), "a view could carry more than it shows"
    assert count > 100
    path = tmp_path / "seen.safetensors"
    seen.save(path)
    content = path.read_bytes()
    assert NAME.encode() not in content
    for seed in seeds:
        assert str(seed).encode() not in content
        assert seed.to_bytes(8, "little") not in content
        assert seed.to_bytes(8, "big") not in content
    assert isinstance(data.inputs, Tensor)
    for tensor in (data.inputs, data.inputs.double(), *data.inputs):
        assert tensor.contiguous().numpy().tobytes() not in content
    assert (data.labels.numpy().tobytes() in content) == labels


def test_what_is_granted() -> None:
    model = network()
    update = dataclasses.replace(client_update(model, mode="train"), defences=(DefenceRecord("noise", {"std": 0.1}),))
    for fact in (*Knowledge, None):
        seen = ThreatModel("someone", frozenset() if fact is None else frozenset({fact})).observe(update, model, SPEC)
        assert (seen.labels is not None) == (fact is Knowledge.LABELS)
        assert bool(seen.buffers) == bool(seen.batch_norm) == (fact is Knowledge.BATCH_NORM)
        assert bool(seen.defences) == (fact is Knowledge.DEFENCE)
        assert seen.threat == "someone"
    assert ThreatModel.honest_but_curious().knowledge == frozenset({Knowledge.BATCH_NORM, Knowledge.DEFENCE})
    assert ThreatModel.honest_but_curious(True, False, False).knowledge == frozenset({Knowledge.LABELS})


def test_the_model_and_the_update_are_copies() -> None:
    model = network()
    update = client_update(model, mode="train")
    seen = ThreatModel.honest_but_curious(labels=True).observe(update, model, SPEC)
    before = {name: tensor.clone() for name, tensor in seen.tensors.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for tensor in update.tensors.values():
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in seen.tensors.items())
    assert all(torch.equal(a, b) for a, b in zip(seen.model.parameters(), network().parameters(), strict=True))
    assert not seen.model.training
    assert all(parameter.requires_grad for parameter in model.parameters()), "the caller's module must stay as it was"
    model[4].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    frozen = ThreatModel.honest_but_curious().observe(client_update(model), model, SPEC)
    assert [name for name, parameter in frozen.model.named_parameters() if not parameter.requires_grad] == ["4.bias"]


def test_weights_become_a_delta() -> None:
    model = network()
    update = client_update(model, lr=0.1, steps=2)
    weights = {name: model.get_parameter(name).detach() + tensor for name, tensor in update.tensors.items()}
    seen = ThreatModel.honest_but_curious().observe(dataclasses.replace(update, tensors=weights, kind="weights"), model, SPEC)
    assert seen.kind == "delta"
    assert seen.kind in KINDS
    for name, tensor in update.tensors.items():
        torch.testing.assert_close(seen.tensors[name], tensor, rtol=0, atol=1e-6)


def layer_input(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the BatchNorm layer (index 1) sees."""
    assert isinstance(model, nn.Sequential)
    return model[0](inputs).detach().double()


def test_one_train_mode_step_gives_the_true_batch_statistics() -> None:
    model, data = network(), batch(4)
    for training in ({}, {"lr": 0.1}):
        seen = observed(copy.deepcopy(model), mode="train", **training)
        entry = seen.batch_norm["1"]
        assert isinstance(data.inputs, Tensor)
        values = layer_input(model, data.inputs)
        assert entry.exact
        assert entry.steps == 1
        torch.testing.assert_close(entry.mean.double(), values.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(entry.var.double(), values.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_several_steps_give_the_weighted_mean(momentum: float | None) -> None:
    model, data = network(), batch(4)
    model[1].momentum = momentum  # type: ignore[index, union-attr, assignment]
    training = LocalTraining(lr=0.2, steps=3, mode="train")
    seen = ThreatModel.honest_but_curious().observe(Client(model, training=training).train(data), model, SPEC)
    means, variances = [], []
    played = copy.deepcopy(model).train()
    optimiser = torch.optim.SGD(played.parameters(), lr=0.2)
    assert isinstance(data.inputs, Tensor)
    for _ in range(3):
        values = layer_input(played, data.inputs)
        means.append(values.mean((0, 2, 3)))
        variances.append(values.var((0, 2, 3), correction=0))
        optimiser.zero_grad()
        nn.functional.cross_entropy(played(data.inputs), data.labels).backward()
        optimiser.step()
    weights = torch.tensor([1.0 if momentum is None else (1 - momentum) ** (2 - k) for k in range(3)], dtype=torch.float64)
    weights = weights / weights.sum()
    entry = seen.batch_norm["1"]
    assert entry.steps == 3
    assert not entry.exact
    expected = (weights[:, None] * torch.stack(means)).sum(0), (weights[:, None] * torch.stack(variances)).sum(0)
    torch.testing.assert_close(entry.mean.double(), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entry.var.double(), expected[1], rtol=1e-4, atol=1e-5)


def test_eval_mode_moves_no_statistics() -> None:
    seen = observed(mode="eval")
    assert not seen.batch_norm
    assert Network(seen.model).buffers().keys() == seen.buffers.keys()
