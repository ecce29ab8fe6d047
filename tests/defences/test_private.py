"""DP-SGD inside local training: against a slow loop over examples, against Opacus, and its sensitivity."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import leakgauge as lg
from leakgauge.core.training import LocalTraining
from leakgauge.defences import DPSGD, CentralDP, GaussianNoise, Prune
from leakgauge.errors import OptionError, UnsupportedError
from leakgauge.local.network import Network
from leakgauge.local.private import GradientNoise, clipped_sum
from leakgauge.local.replay import draw_order, replay
from leakgauge.randomness import rng

CASES: dict[str, dict[str, Any]] = {
    "one gradient": {},
    "one gradient, sum": {"reduction": "sum"},
    "one gradient, accumulated": {"batch_size": 2, "accumulation": 3},
    "one step": {"lr": 0.1},
    "epochs, momentum, last batch short": {"lr": 0.05, "epochs": 3, "batch_size": 4, "momentum": 0.9},
    "Adam": {"lr": 0.01, "steps": 3, "optimiser": "adam", "batch_size": 3},
    "class weights, smoothing": {"lr": 0.1, "steps": 2, "class_weights": (1.0, 2.0, 0.5), "label_smoothing": 0.1},
    "proximal, whole clip": {"lr": 0.1, "steps": 3, "proximal": 0.5, "clip_norm": 0.05},
    "accumulated steps": {"lr": 0.1, "epochs": 2, "batch_size": 2, "accumulation": 2, "weight_decay": 0.01},
}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Softplus(),
        nn.Flatten(), nn.Linear(4 * 16, 3),
    )  # fmt: skip
    return layers.double()


def data(count: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 2, 6, 6, dtype=torch.float64, generator=rng(1))
    return x, torch.randint(3, (count,), generator=rng(2))


def slow_loop(model: nn.Module, x: Tensor, y: Tensor, t: LocalTraining, order: Any, clip: float) -> dict[str, Tensor]:
    """One backward pass per example, clipped and added by hand, with torch.optim's rules."""
    model = copy.deepcopy(model).eval()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    lr = t.lr or 1.0
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    more = {"momentum": t.momentum} if t.optimiser == "sgd" else {}
    optimiser = kinds[t.optimiser](model.parameters(), lr=lr, weight_decay=t.weight_decay, **more)
    weights = None if t.class_weights is None else torch.tensor(t.class_weights, dtype=torch.float64)
    for batches in order:
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for index in torch.cat(list(batches)).tolist():
            model.zero_grad()
            kept = functional.cross_entropy(
                model(x[index : index + 1]),
                y[index : index + 1],
                weight=weights,
                reduction="sum",
                label_smoothing=t.label_smoothing,
            )
            kept.backward()
            norm = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).norm()
            for name, p in model.named_parameters():
                total[name] += p.grad * min(1.0, clip / (float(norm) + 1e-6))
        nominal = min(t.batch_size or len(x), len(x)) * len(batches)
        for name, p in model.named_parameters():
            p.grad = total[name] / (nominal if t.reduction == "mean" else 1) + t.proximal * (p.detach() - start[name])
        if t.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip_norm)
        if t.lr is None:
            return {name: p.grad.clone() for name, p in model.named_parameters()}
        optimiser.step()
    return {name: p.detach() - start[name] for name, p in model.named_parameters()}


@pytest.mark.parametrize("graph", ["none", "autograd", "func"])
@pytest.mark.parametrize("clip", [0.3, 1e9])
@pytest.mark.parametrize("case", CASES)
def test_without_noise_it_equals_a_loop_over_examples(case: str, clip: float, graph: Any) -> None:
    model, training, (x, y) = small_network(), LocalTraining(**CASES[case]), data()
    order = draw_order(training, 6, rng(3, "order"))
    expected = slow_loop(model, x, y, training, order, clip)
    got = replay(Network(model), x, y, loss="cross_entropy", training=training, order=order, graph=graph, example_clip=clip)
    assert got.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got.tensors[name].detach(), tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("epochs, momentum, last batch short", "class weights, smoothing")]
)
def test_a_large_clip_equals_the_plain_replay(case: str) -> None:
    """Where every mini-batch is full, and no class weights make an example's share depend on the others."""
    model, training, (x, y) = small_network(), LocalTraining(**CASES[case]), data()
    more = {"loss": "cross_entropy", "training": training, "order": draw_order(training, 6, rng(3)), "graph": "none"}
    plain, clipped = (replay(Network(model), x, y, example_clip=clip, **more) for clip in (None, 1e9))
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(clipped.tensors[name], tensor, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(clipped.losses, plain.losses)


@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_one_step_is_that_of_opacus(clip: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()
    x, y = data(5)
    training = LocalTraining(lr=0.2, momentum=0.5)
    got = replay(Network(model), x, y, loss="cross_entropy", training=training, graph="none", example_clip=clip).tensors
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    sampled = GradSampleModule(copy.deepcopy(model))
    inner = torch.optim.SGD(sampled.parameters(), lr=0.2, momentum=0.5)
    optimiser = DPOptimizer(inner, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=5)
    functional.cross_entropy(sampled(x), y).backward()
    optimiser.step()
    for name, p in sampled._module.named_parameters():
        torch.testing.assert_close(got[name], p.detach() - start[name], rtol=1e-9, atol=1e-12)


def test_replacing_a_record_moves_the_sum_by_at_most_twice_the_clip() -> None:
    model, (x, y) = small_network(), data()
    network = Network(model)
    settings: dict[str, Any] = {"loss": "cross_entropy", "training": LocalTraining(), "trainable": network.trainable()}

    def total(inputs: Tensor, labels: Tensor, clip: float) -> Tensor:
        found, _ = clipped_sum(network, network.parameters(), network.buffers(), inputs, labels, clip=clip, **settings)
        return torch.cat([tensor.reshape(-1) for tensor in found.values()]).detach()

    largest = 0.0
    for clip in (0.01, 0.3):
        for seed in range(10):
            other, labels = x.clone(), y.clone()
            labels[seed % 6] = seed % 3
            other[seed % 6] = 50 * torch.randn(2, 6, 6, dtype=torch.float64, generator=rng(seed, "other"))
            moved = float((total(x, y, clip) - total(other, labels, clip)).norm())
            assert moved <= 2 * clip
            largest = max(largest, moved / (2 * clip))
    assert largest > 0.4, "the test looks at records that matter"


def test_memory_is_bounded_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = small_network(), data()
    settings: dict[str, Any] = {"loss": "cross_entropy", "training": LocalTraining(), "graph": "none", "example_clip": 0.2}
    whole = replay(Network(model), x, y, **settings).tensors
    monkeypatch.setattr("leakgauge.local.private.NUMBERS", 2 * sum(p.numel() for p in model.parameters()))
    chunked = replay(Network(model), x, y, **settings).tensors
    for name, tensor in whole.items():
        torch.testing.assert_close(chunked[name], tensor, rtol=1e-12, atol=1e-14)


def test_noise_comes_once_a_step_with_the_stated_size() -> None:
    model = nn.Linear(400, 100)
    x, y = torch.randn(4, 400, generator=rng(0)), torch.zeros(4, dtype=torch.long)
    order = [[torch.tensor([0, 1]), torch.tensor([2, 3])]]
    training = LocalTraining(batch_size=2, accumulation=2)
    more: dict[str, Any] = {"loss": "cross_entropy", "training": training, "order": order, "graph": "none", "example_clip": 0.5}
    clean = replay(Network(model), x, y, **more).tensors
    noisy = replay(Network(model), x, y, noise=GradientNoise(3.0, rng(1)), **more).tensors
    noise = (noisy["weight"] - clean["weight"]).reshape(-1)
    assert float(noise.std()) == pytest.approx(3.0 / 4, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    silent = replay(Network(model), x, y, noise=GradientNoise(0.0, rng(1)), **more).tensors
    assert all(torch.equal(silent[name], tensor) for name, tensor in clean.items())


def test_the_clipped_replay_is_differentiable_for_the_attack() -> None:
    model, training, (x, y) = small_network(), LocalTraining(lr=0.1, steps=2, batch_size=3), data()
    network, order = Network(model), draw_order(LocalTraining(lr=0.1, steps=2, batch_size=3), 6)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=rng(4))

    def value(inputs: Tensor, graph: Any) -> Tensor:
        found = replay(network, inputs, y, loss="cross_entropy", training=training, order=order, graph=graph, example_clip=0.3)
        return torch.stack([tensor.sin().sum() for tensor in found.tensors.values()]).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(leaf, "autograd"), leaf)
    step = 1e-6
    numeric = (value(x + step * direction, "none") - value(x - step * direction, "none")) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), numeric, rtol=1e-6, atol=1e-9)
    along = torch.func.jvp(lambda inputs: value(inputs, "func"), (x,), (direction,))[1]
    torch.testing.assert_close(along, numeric, rtol=1e-6, atol=1e-9)
    several = torch.func.vmap(lambda inputs: value(inputs, "func"))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(several[1], value(2 * x, "none"), rtol=1e-10, atol=0)


def test_dropout_draws_for_each_example() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 3)).double()
    x, y = torch.ones(2, 50, dtype=torch.float64), torch.tensor([1, 1])
    settings: dict[str, Any] = {
        "loss": "cross_entropy",
        "training": LocalTraining(mode="train", reduction="sum"),
        "graph": "none",
    }
    torch.manual_seed(0)
    got = replay(Network(model, "train"), x, y, example_clip=1e9, **settings).tensors["1.weight"]
    assert len(got[1].unique()) >= 3, "inputs 0, 2 in one of the two examples or in both"


def client(model: nn.Module, *defences: Any, **training: Any) -> lg.Client:
    return lg.Client(model, training=LocalTraining(**training), defences=defences)


def batch() -> lg.Batch:
    x, y = data()
    return lg.Batch(x.float(), y, lg.ImageSpec((2, 6, 6), mean=0.0, std=1.0))


def test_a_client_trains_with_dp_sgd_and_says_so() -> None:
    model = small_network().float()
    both = (Prune(0.5), DPSGD(1.0, 0.2), GaussianNoise(0.01))
    once, again = (client(model, *both, lr=0.1, epochs=2, batch_size=2).train(batch(), seed=5) for _ in range(2))
    assert [record.name for record in once.defences] == ["dp-sgd", "prune", "gaussian-noise"]
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in once.tensors.items())
    other = client(model, *both, lr=0.1, epochs=2, batch_size=2).train(batch(), seed=6)
    assert not all(torch.equal(tensor, other.tensors[name]) for name, tensor in once.tensors.items())
    silent = client(model, DPSGD(0.0, 1e9)).train(batch(), seed=5)
    plain = client(model).train(batch(), seed=5)
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(silent.tensors[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_noise_of_one_client_and_step_is_reproducible_by_its_generator() -> None:
    model, place = small_network().float(), 1
    got = client(model, Prune(0.0), DPSGD(2.0, 0.2)).train(batch(), seed=7)
    noise = GradientNoise(0.4, rng(7, "client", "defence", place))
    x, y = batch().inputs, batch().labels
    assert isinstance(x, Tensor)
    order = draw_order(LocalTraining(), 6, rng(7, "client", "order"))
    more: dict[str, Any] = {"loss": "cross_entropy", "training": LocalTraining(), "order": order, "graph": "none"}
    expected = replay(Network(model), x, y, example_clip=0.2, noise=noise, **more)
    assert all(torch.equal(tensor, got.tensors[name]) for name, tensor in expected.tensors.items())


def test_batch_norm_in_train_mode_is_refused_by_name() -> None:
    with pytest.raises(
        UnsupportedError, match=r"BatchNorm layer\(s\) '4' normalise by the batch: use GroupNorm instead, or mode='eval'"
    ):
        client(small_network().float(), DPSGD(1.0, 1.0), mode="train").train(batch())
    untracked = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(UnsupportedError, match="'0' normalise by the batch"):
        client(untracked, DPSGD(1.0, 1.0)).train(batch())


def test_defences_in_the_wrong_place_are_named() -> None:
    with pytest.raises(OptionError, match="Client.defences holds CentralDP, which belongs to the server"):
        client(small_network().float(), CentralDP(1.0, 1.0)).train(batch())
    with pytest.raises(OptionError, match="more than one defence of stage 'training'"):
        client(small_network().float(), DPSGD(1.0, 1.0), DPSGD(1.0, 2.0)).train(batch())
    x, y = data()
    settings: dict[str, Any] = {"loss": "cross_entropy", "training": LocalTraining()}
    with pytest.raises(OptionError, match="noise without example_clip"):
        replay(Network(small_network()), x, y, noise=GradientNoise(1.0, rng(0)), **settings)
    with pytest.raises(OptionError, match="example_clip is 0; expected a number > 0"):
        replay(Network(small_network()), x, y, example_clip=0, **settings)
