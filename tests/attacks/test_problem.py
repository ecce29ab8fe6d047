"""The matching problem: its value at the truth, its slope, and the vector form of its objective."""

from __future__ import annotations

import pytest
import torch
from attack_cases import CLASSES, lenet, observe, pictures, problem_for
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.attacks.matching.distance import L1, Cosine, Distance, Kept, LayerWeighted, SquaredL2
from leakgauge.attacks.matching.priors import GroupConsistency, TotalVariation
from leakgauge.defences import GaussianNoise
from leakgauge.randomness import rng

PROTOCOLS = {
    "gradient": {},
    "sum": {"reduction": "sum"},
    "one step": {"lr": 0.1},
    "one step, momentum": {"lr": 0.1, "momentum": 0.9},
    "one step, Nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "one step, schedule": {"lr": 0.1, "schedule": (0.5, 0.1)},
    "one step, whole mini-batch": {"lr": 0.1, "batch_size": 16},
    "two steps": {"lr": 0.1, "steps": 2, "shuffle": False, "batch_size": 1},
    "Adam": {"lr": 0.01, "steps": 2, "optimiser": "adam"},
    "clipped": {"lr": 0.1, "clip_norm": 0.01},
    "weight decay": {"lr": 0.1, "weight_decay": 0.1},
    "smoothing": {"label_smoothing": 0.1},
}


def truth_point(inputs: Tensor) -> Tensor:
    return inputs.double().reshape(-1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_truth_explains_the_update(name: str) -> None:
    batch = pictures(2)
    seen = observe(lenet(), batch, dtype="float64", **PROTOCOLS[name])
    problem = problem_for(seen, batch.labels)
    assert problem.value(truth_point(batch.inputs)).item() < 1e-13
    assert float(problem.value(truth_point(batch.inputs) + 0.1)) > 1e-6


@pytest.mark.parametrize("form", ["linear", "softmax"])
def test_open_labels_reach_the_truth(form: str) -> None:
    batch = pictures(2)
    problem = problem_for(observe(lenet(), batch, dtype="float64"), None, form=form)
    assert problem.size == 2 * 64 + 2 * CLASSES
    hot = torch.nn.functional.one_hot(batch.labels, CLASSES).double()
    rows = (hot if form == "linear" else 50 * hot) + 3.7  # a common offset of a row means nothing
    assert float(problem.value(torch.cat([truth_point(batch.inputs), rows.reshape(-1)]))) < 1e-20
    _, labels = problem.split(torch.randn(problem.size, generator=rng(0), dtype=torch.float64))
    torch.testing.assert_close(labels.sum(1), torch.ones(2, dtype=torch.float64))


DISTANCES = [SquaredL2(), L1(), Cosine(), LayerWeighted(), Kept()]


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda distance: type(distance).__name__)
@pytest.mark.parametrize("protocol", ["gradient", "two steps"])
def test_the_slope_is_that_of_finite_differences(distance: Distance, protocol: str) -> None:
    seen = observe(lenet(), pictures(2), dtype="float64", **PROTOCOLS[protocol])
    problem = problem_for(seen, None, distance=distance.fitted(dict(seen.tensors)) if protocol == "two steps" else distance,
                          priors=(TotalVariation(0.1),))  # fmt: skip
    point = torch.rand(problem.size, generator=rng(1), dtype=torch.float64)
    value, slope = problem.evaluate(point[None])
    assert float(value) == pytest.approx(float(problem.value(point)), rel=1e-12)
    direction = torch.randn(3, problem.size, generator=rng(2), dtype=torch.float64)
    h = 1e-6
    for one in direction:
        numeric = (problem.value(point + h * one) - problem.value(point - h * one)) / (2 * h)
        assert float(slope[0] @ one) == pytest.approx(float(numeric), rel=2e-4, abs=1e-8)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda distance: type(distance).__name__)
@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_many_candidates_at_once_are_each_alone(distance: Distance, chunk: int) -> None:
    problem = problem_for(observe(lenet(), pictures(2)), None, distance=distance, chunk=chunk)
    points = torch.rand(3, problem.size, generator=rng(1), dtype=torch.float64)
    values, slopes = problem.evaluate(points)
    for row in range(3):
        value, slope = problem.evaluate(points[row : row + 1])
        torch.testing.assert_close(values[row], value[0], rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(slopes[row], slope[0], rtol=1e-8, atol=1e-12)


def test_the_group_pulls_every_restart() -> None:
    seen = observe(lenet(), pictures(1))
    plain, pulled = (problem_for(seen, None, group=group) for group in (None, GroupConsistency(0.5)))
    points = torch.rand(3, plain.size, generator=rng(1), dtype=torch.float64)
    pixels = points[:, : plain.pixels]
    expected = 0.5 * (pixels - pixels.mean(0)).square().mean(1)
    torch.testing.assert_close(pulled.evaluate(points)[0] - plain.evaluate(points)[0], expected)
    torch.testing.assert_close(pulled.evaluate(points[:1])[0], plain.evaluate(points[:1])[0])


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(0, 1000))
def test_the_projected_objective_is_never_above_the_full_one(count: int, seed: int) -> None:
    batch = pictures(count, seed)
    problem = problem_for(observe(lenet(seed), batch, dtype="float64"), batch.labels)
    residual = problem.residual()
    assert residual is not None
    truth = truth_point(batch.inputs)
    assert float(residual(truth).square().sum()) < 1e-20
    for scale in (1e-3, 0.3):
        point = truth + scale * torch.randn(truth.shape, generator=rng(seed, "off"), dtype=torch.float64)
        full, projected = float(problem.value(point)), float(residual(point).square().sum())
        assert 0 < projected <= full * (1 + 1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_projection_knows_several_steps(steps: int) -> None:
    """Several steps on two examples leave a linear layer with a change of rank 2 per step, and none of it may be lost."""
    batch = pictures(2, classes=10)
    seen = observe(lenet(classes=10), batch, dtype="float64", lr=1.0, steps=steps, batch_size=2, shuffle=False)
    assert int((torch.linalg.svdvals(seen.tensors["linear.weight"]) > 1e-12).sum()) == 2 * steps
    residual = problem_for(seen, batch.labels).residual()
    assert residual is not None
    vector = residual(truth_point(batch.inputs))
    assert float(vector.square().sum()) < 1e-20
    others = sum(part.numel() for name, part in seen.tensors.items() if name != "linear.weight")
    rows, columns = seen.tensors["linear.weight"].shape
    assert len(vector) == others + min(rows, 2 * 2 * steps) * columns


def test_the_projection_shows_a_candidate_that_leaves_the_observed_directions() -> None:
    """Two candidates whose output gradients cancel in the bias must not look alike: their weight gradients differ."""
    batch = pictures(2, classes=10)
    seen = observe(lenet(classes=10), batch, dtype="float64")
    problem = problem_for(seen, batch.labels)
    residual = problem.residual()
    assert residual is not None
    swapped = truth_point(batch.inputs.flip(0))
    full, projected = float(problem.value(swapped)), float(residual(swapped).square().sum())
    assert projected > 0.1 * full > 0


@pytest.mark.parametrize("distance", [L1(), Cosine()])
def test_where_there_is_no_vector_form(distance: Distance) -> None:
    seen = observe(lenet(), pictures(1))
    assert problem_for(seen, None, distance=distance).residual() is None
    assert problem_for(seen, None, priors=(TotalVariation(),)).residual() is None
    assert problem_for(seen, None, group=GroupConsistency()).residual() is None


def test_withheld_tensors_are_not_compared() -> None:
    batch = pictures(1)
    seen = observe(lenet(), batch, withhold=("conv1.weight", "linear.bias"), defences=(GaussianNoise(0.0),))
    problem = problem_for(seen, batch.labels)
    assert set(problem.target.tensors) == {
        "conv1.bias",
        "conv2.weight",
        "conv2.bias",
        "conv3.weight",
        "conv3.bias",
        "linear.weight",
    }
    assert float(problem.value(truth_point(batch.inputs))) < 1e-9
    residual = problem.residual()
    assert residual is not None
    assert len(residual(truth_point(batch.inputs))) == sum(part.numel() for part in seen.tensors.values())
