"""`replay` against an ordinary torch optimiser loop, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakgauge.core.training import LocalTraining
from leakgauge.local.network import Network
from leakgauge.local.replay import draw_order, replay
from leakgauge.randomness import rng

CASES: dict[str, dict[str, Any]] = {
    "one gradient": {},
    "one gradient, sum": {"reduction": "sum"},
    "one gradient, train mode": {"mode": "train"},
    "one gradient, clipped": {"clip_norm": 0.1},
    "one gradient, accumulated": {"batch_size": 2, "accumulation": 3},
    "one step": {"lr": 0.1},
    "five steps, order kept": {"lr": 0.1, "steps": 5, "batch_size": 2, "shuffle": False},
    "three epochs, shuffled, last batch short": {"lr": 0.05, "epochs": 3, "batch_size": 4, "mode": "train"},
    "three epochs, last batch dropped": {"lr": 0.05, "epochs": 3, "batch_size": 4, "drop_last": True},
    "momentum": {"lr": 0.05, "steps": 4, "momentum": 0.9},
    "Nesterov, weight decay": {"lr": 0.05, "steps": 4, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.01, "steps": 4, "optimiser": "adam", "batch_size": 3},
    "Adam, weight decay, betas": {"lr": 0.01, "steps": 4, "optimiser": "adam", "weight_decay": 0.1, "betas": (0.8, 0.95)},
    "AdamW": {"lr": 0.01, "steps": 4, "optimiser": "adamw", "weight_decay": 0.1},
    "schedule": {"lr": 0.1, "steps": 4, "schedule": (1.0, 0.5, 0.1)},
    "accumulation and clipping": {"lr": 0.1, "steps": 3, "batch_size": 2, "accumulation": 2, "clip_norm": 0.05},
    "proximal": {"lr": 0.1, "steps": 3, "proximal": 0.5},
    "label smoothing, class weights": {"lr": 0.1, "steps": 2, "label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5)},
    "everything, train mode": {
        "lr": 0.02, "epochs": 2, "batch_size": 2, "momentum": 0.5, "nesterov": True, "weight_decay": 0.01, "clip_norm": 1.0,
        "proximal": 0.1, "mode": "train", "accumulation": 2, "schedule": (1.0, 0.9), "label_smoothing": 0.05,
    },
}  # fmt: skip


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, momentum=None),
        nn.Softplus(), nn.Flatten(), nn.Linear(4 * 16, 3),
    )  # fmt: skip
    return layers.double()


def optimiser_loop(model: nn.Module, x: Tensor, y: Tensor, t: LocalTraining, order: Any) -> tuple[dict, dict]:
    model = copy.deepcopy(model).train(t.mode == "train")
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    lr = t.lr or 1.0
    if t.optimiser == "sgd":
        optimiser: Any = torch.optim.SGD(
            model.parameters(), lr=lr, momentum=t.momentum, nesterov=t.nesterov, weight_decay=t.weight_decay
        )
    else:
        kind = torch.optim.Adam if t.optimiser == "adam" else torch.optim.AdamW
        optimiser = kind(model.parameters(), lr=lr, betas=t.betas, weight_decay=t.weight_decay)
    weights = None if t.class_weights is None else torch.tensor(t.class_weights, dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=weights, reduction=t.reduction, label_smoothing=t.label_smoothing)
    for index, batches in enumerate(order):
        if t.schedule:
            optimiser.param_groups[0]["lr"] = lr * t.schedule[min(index, len(t.schedule) - 1)]
        optimiser.zero_grad()
        for batch in batches:
            (loss(model(x[batch]), y[batch]) / (len(batches) if t.reduction == "mean" else 1)).backward()
        for name, p in model.named_parameters():
            p.grad += t.proximal * (p.detach() - start[name])
        if t.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip_norm)
        if t.lr is None:
            return {name: p.grad.clone() for name, p in model.named_parameters()}, dict(model.named_buffers())
        optimiser.step()
    return {name: p.detach() - start[name] for name, p in model.named_parameters()}, dict(model.named_buffers())


@pytest.mark.parametrize("graph", ["none", "autograd", "func"])
@pytest.mark.parametrize("case", CASES)
def test_replay_equals_an_optimiser_loop(case: str, graph: Any) -> None:
    model, training = small_network(), LocalTraining(**CASES[case])
    x, y = torch.randn(6, 2, 6, 6, dtype=torch.float64, generator=rng(1)), torch.tensor([0, 1, 2, 0, 1, 1])
    order = draw_order(training, 6, rng(3, "order"))
    expected, buffers = optimiser_loop(model, x, y, training, order)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    got = replay(Network(model, training.mode), x, y, loss="cross_entropy", training=training, order=order, graph=graph)
    assert got.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got.tensors[name].detach(), tensor, rtol=1e-12, atol=1e-12)
    for name, tensor in buffers.items():
        torch.testing.assert_close(got.buffers[name].detach(), tensor, rtol=1e-12, atol=1e-12)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"replay changed {name}"


@pytest.mark.parametrize("case", ["one gradient, train mode", "Adam", "momentum", "everything, train mode"])
def test_replay_is_differentiable_in_the_inputs(case: str) -> None:
    model, training = small_network(), LocalTraining(**CASES[case])
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64, generator=rng(1))
    y, network = torch.tensor([0, 1, 2, 0]), Network(model, training.mode)
    order = draw_order(training, 4, rng(3))
    direction = torch.randn(x.shape, dtype=torch.float64, generator=rng(2))

    def value(inputs: Tensor) -> Tensor:
        done = replay(network, inputs, y, loss="cross_entropy", training=training, order=order)
        buffers = [b.sum() for b in done.buffers.values() if b.is_floating_point()]
        return torch.stack([t.sin().sum() for t in done.tensors.values()] + buffers).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-6
    numeric = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), numeric, rtol=1e-6, atol=1e-9)


def test_order_without_shuffling_goes_round_and_round() -> None:
    order = draw_order(LocalTraining(lr=0.1, steps=4, batch_size=2, shuffle=False), 5)
    assert [[batch.tolist() for batch in step] for step in order] == [[[0, 1]], [[2, 3]], [[4]], [[0, 1]]]


def test_vmap_over_replay_equals_a_loop() -> None:
    model, training = small_network(), LocalTraining(lr=0.1, steps=2, mode="train")
    x = torch.randn(3, 4, 2, 6, 6, dtype=torch.float64, generator=rng(1))
    y, network = torch.tensor([0, 1, 2, 0]), Network(model, "train")

    def change(inputs: Tensor, graph: Any) -> Any:
        return replay(network, inputs, y, loss="cross_entropy", training=training, graph=graph).tensors

    batched = torch.func.vmap(lambda one: change(one, "func"))(x)
    for index in range(3):
        for name, tensor in change(x[index], "none").items():
            torch.testing.assert_close(batched[name][index], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2, "bias": False}])
def test_large_convolutions_take_their_own_second_derivative(settings: Any, monkeypatch: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 6, 3, **settings), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    ).double()
    x, y = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=rng(1)), torch.tensor([0, 2])
    model(x)
    slopes = []
    for large in (0, 10**9):
        monkeypatch.setattr("leakgauge.local.convolution.LARGE", large)
        leaf = x.clone().requires_grad_()
        done = replay(Network(model), leaf, y, loss="cross_entropy", training=LocalTraining(lr=0.1, steps=2))
        value = torch.stack([tensor.sin().sum() for tensor in done.tensors.values()]).sum()
        slopes.append(torch.autograd.grad(value, leaf)[0])
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-12, atol=1e-14)
