"""Batch statistics from running statistics, against hooks on a real torch module that trains with torch.optim."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.core.batch_statistics import batch_norm_layers, difference
from leakgauge.randomness import rng

SPEC = lg.ImageSpec((3, 16, 16), mean=0.5, std=0.25)
NETWORKS = ("resnet20", "shallow-resnet")
LR = 1e-3  # small enough that rounding in float32 does not lead the two trainings apart within ten steps


def pictures(count: int, seed: int = 0) -> lg.Batch:
    """Different brightness and contrast for each picture, so that mini-batches differ in their statistics."""
    generator = rng(seed, "pictures")
    level, contrast = torch.rand(count, 1, 1, 1, generator=generator), torch.rand(count, 1, 1, 1, generator=generator)
    pixels = (level + contrast * (torch.rand((count, *SPEC.shape), generator=generator) - 0.5)).clamp(0, 1)
    return lg.Batch(SPEC.normalise(pixels), torch.arange(count) % 10, SPEC)


def network(name: str, dtype: torch.dtype = torch.float32, momentum: float | None = 0.1) -> nn.Module:
    """The network with running statistics moved away from 0 and 1 by three batches."""
    model = lg.load_model(name, num_classes=10, input_shape=SPEC.shape).to(dtype)
    for layer in batch_norm_layers(model).values():
        layer.momentum = momentum
    model.train()
    with torch.no_grad():
        for seed in (50, 51, 52):
            model(pictures(4, seed).inputs.to(dtype))
    return model.eval()


def played(model: nn.Module, data: lg.Batch, size: int) -> dict[str, list[tuple[Tensor, Tensor, int]]]:
    """Per layer and step: mean, biased variance and number of values per channel, as torch computes them in train mode."""
    model = copy.deepcopy(model).train()
    found: dict[str, list[tuple[Tensor, Tensor, int]]] = {}

    def watch(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().double().transpose(0, 1).flatten(1)
            found.setdefault(name, []).append((values.mean(1), values.var(1, correction=0), values.shape[1]))

        dict(model.named_modules())[name].register_forward_pre_hook(hook)

    for name in batch_norm_layers(model):
        watch(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    dtype = next(model.parameters()).dtype
    for rows in torch.arange(len(data)).split(size):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs[rows].to(dtype)), data.labels[rows]).backward()  # type: ignore[index]
        optimiser.step()
    return found


def observed(model: nn.Module, data: lg.Batch, size: int | None, dtype: str = "float32") -> lg.Observation:
    training = lg.LocalTraining(lr=LR, epochs=1, batch_size=size, shuffle=False, mode="train", dtype=dtype)
    return lg.ThreatModel.honest_but_curious().observe(lg.Client(model, training=training).train(data), model, SPEC)


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 4])
def test_one_step_gives_the_batchs_own_statistics(name: str, count: int) -> None:
    model, data = network(name), pictures(count)
    truth, seen = played(model, data, count), observed(model, data, None)
    assert set(seen.batch_norm) == set(truth) == set(batch_norm_layers(model))
    assert len(truth) >= (19 if name == "resnet20" else 3)
    for layer, ((mean, var, _),) in truth.items():
        found = seen.batch_norm[layer]
        assert found.exact
        assert found.steps == 1
        assert found.amplification == pytest.approx(10.0)
        assert off(found.mean, mean) <= 1e-5, layer
        assert off(found.var, var) <= 1e-5, layer


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("steps", [2, 5, 10])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_steps_give_the_stated_weighted_mean(name: str, steps: int, dtype: str) -> None:
    momentum, tolerance = 0.1, 1e-10 if dtype == "float64" else 1e-5
    model, data = network(name, getattr(torch, dtype), momentum), pictures(2 * steps)
    truth, seen = played(model, data, 2), observed(model, data, 2, dtype)
    weights = torch.tensor([momentum * (1 - momentum) ** (steps - k) for k in range(1, steps + 1)], dtype=torch.float64)
    weights /= 1 - (1 - momentum) ** steps
    assert float(weights.sum()) == pytest.approx(1.0)
    for layer, entries in truth.items():
        found = seen.batch_norm[layer]
        assert found.steps == steps == len(entries)
        assert not found.exact
        assert found.amplification == pytest.approx(1 / (1 - 0.9**steps))
        for value, index in ((found.mean, 0), (found.var, 1)):
            parts = torch.stack([entry[index] for entry in entries])  # type: ignore[arg-type]
            assert off(value, (weights[:, None] * parts).sum(0)) <= tolerance, layer
            if steps > 2:
                assert off(value, parts.mean(0)) > 1e-3, "a plain mean would be wrong"


@pytest.mark.parametrize("steps", [1, 4])
def test_a_cumulative_average_gives_the_plain_mean(steps: int) -> None:
    model, data = network("shallow-resnet", torch.float64, None), pictures(2 * steps)
    truth, seen = played(model, data, 2), observed(model, data, 2, "float64")
    for layer, entries in truth.items():
        found = seen.batch_norm[layer]
        assert found.steps == steps
        assert found.amplification == pytest.approx((3 + steps) / steps)
        for value, index in ((found.mean, 0), (found.var, 1)):
            assert off(value, torch.stack([entry[index] for entry in entries]).mean(0)) <= 1e-10, layer  # type: ignore[arg-type]


def single_layer(momentum: float | None = 0.1, channels: int = 6) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(channels, momentum=momentum).double()
    layer.running_mean.normal_(generator=rng(0, "mean"))  # type: ignore[union-attr]
    layer.running_var.uniform_(0.5, 2.0, generator=rng(0, "var"))  # type: ignore[union-attr]
    return layer.train()


@pytest.mark.parametrize("count", [2, 3, 5, 49])
def test_the_variance_is_corrected_at_tiny_counts(count: int) -> None:
    layer = single_layer()
    values = torch.randn(count, 6, dtype=torch.float64, generator=rng(count, "values"))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer(values)
    found = difference(before, layer.state_dict(), "", layer.momentum, float(count))
    plain = difference(before, layer.state_dict(), "", layer.momentum, None)
    assert found is not None
    assert plain is not None
    torch.testing.assert_close(found.var, values.var(0, correction=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain.var, values.var(0, correction=1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.mean, values.mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_a_smaller_last_batch_leaves_the_mean_exact_and_enlarges_its_own_variance(momentum: float | None) -> None:
    layer, sizes = single_layer(momentum), (8, 8, 3)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    parts = [torch.randn(size, 6, dtype=torch.float64, generator=rng(k, "part")) for k, size in enumerate(sizes)]
    for part in parts:
        layer(part)
    found = difference(before, layer.state_dict(), "", momentum, 8.0)
    assert found is not None
    weights = (
        [1 / 3] * 3 if momentum is None else [momentum * (1 - momentum) ** (2 - k) / (1 - (1 - momentum) ** 3) for k in range(3)]
    )
    mean = sum(weight * part.mean(0) for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=1e-12)
    factors = [1 + (8 - size) / (8 * (size - 1)) for size in sizes]
    variance = sum(
        weight * factor * part.var(0, correction=0) for weight, factor, part in zip(weights, factors, parts, strict=True)
    )
    torch.testing.assert_close(found.var, variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 1), (0.1, 5), (0.25, 1)])
def test_noise_on_running_statistics_grows_by_the_stated_factor(momentum: float, steps: int) -> None:
    std, channels = 1e-3, 400
    model = nn.Sequential(
        nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels, momentum=momentum), nn.Flatten(), nn.Linear(channels * 16, 2)
    )
    spec = lg.ImageSpec((3, 4, 4))
    data = lg.Batch(torch.rand(2 * steps, 3, 4, 4, generator=rng(0, "x")), torch.arange(2 * steps) % 2, spec)
    training = lg.LocalTraining(lr=1e-3, epochs=1, batch_size=2, shuffle=False, mode="train", dtype="float64")
    update = lg.Client(model, training=training).train(data)
    noisy = lg.GaussianNoise(std=std, buffers=True).protect(update, generator=rng(1, "noise"))
    threat = lg.ThreatModel.honest_but_curious()
    clear, found = (threat.observe(each, model, spec).batch_norm["1"] for each in (update, noisy))
    assert found.steps == steps
    assert found.amplification == pytest.approx(1 / (1 - (1 - momentum) ** steps))
    correction = 31 / 32  # of the variance: two pictures of 16 positions
    assert float((found.mean - clear.mean).std()) / std == pytest.approx(found.amplification, rel=0.2)
    assert float((found.var - clear.var).std()) / std == pytest.approx(found.amplification * correction, rel=0.2)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_file_keeps_everything(momentum: float | None, tmp_path: Path) -> None:
    model = network("shallow-resnet", momentum=momentum)
    seen = observed(model, pictures(6), 2)
    seen.save(tmp_path / "seen.safetensors")
    loaded = lg.Observation.load(tmp_path / "seen.safetensors", model)
    assert loaded.batch_norm.keys() == seen.batch_norm.keys()
    for layer, entry in seen.batch_norm.items():
        other = loaded.batch_norm[layer]
        assert torch.equal(entry.mean, other.mean)
        assert torch.equal(entry.var, other.var)
        assert dataclasses.replace(entry, mean=other.mean, var=other.var) == other


def test_nothing_counted_is_nothing_recovered() -> None:
    layer = single_layer()
    state = layer.state_dict()
    assert difference(state, state, "", 0.1, 4.0) is None
    assert difference({}, state, "", 0.1, 4.0) is None
    moved = {**state, "num_batches_tracked": state["num_batches_tracked"] + 1}
    assert difference(state, moved, "", 0.0, 4.0) is None
