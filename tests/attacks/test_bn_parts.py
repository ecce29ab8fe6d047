"""The parts of bn-matching: surrogate point, registration of restarts, prior pictures, matrix-free least squares."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_cases import observe, pictures
from torch import Tensor, nn
from torch.nn import functional

import leakgauge as lg
from leakgauge.attacks.bn_presets import bn_matching
from leakgauge.attacks.matching.distance import SquaredL2
from leakgauge.attacks.matching.priors import Context, GroupConsistency, best_shifts, shifted
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.search.matrix_free import MatrixFree, descend
from leakgauge.attacks.matching.starts import PriorPicture
from leakgauge.attacks.matching.target import target_of
from leakgauge.core import ImageSpec, Observation
from leakgauge.errors import OptionError, ShapeError
from leakgauge.models import load_model
from leakgauge.randomness import rng

SPEC = ImageSpec((1, 6, 6), mean=0.5, std=0.25)


def network() -> nn.Module:
    return load_model("shallow-resnet:width=4", num_classes=4, input_shape=(1, 8, 8), seed=0).double()


def several(**training: Any) -> Observation:
    settings = {"mode": "train", "dtype": "float64", "lr": 1e-3, "batch_size": 2, "shuffle": False, **training}
    return observe(network(), pictures(4), labels=True, **settings)


def surrogate(seen: Observation) -> Problem:
    """The matching problem at the surrogate point, in float64 and squared L2."""
    assert seen.spec is not None
    target = target_of(seen, "observed", torch.float64, "cpu", surrogate=True)
    context = Context(target.network, seen.spec, seen.batch_norm)
    shape = (seen.num_examples, *seen.spec.shape)
    distance = SquaredL2().fitted(target.tensors)
    return Problem(target, seen.loss, distance, (), None, context, shape, seen.labels, 0, "linear", 16)


def placed(inputs: Tensor, place: float = 0.0) -> Tensor:
    return torch.cat([inputs.double().reshape(-1), torch.tensor([place], dtype=torch.float64)])


def test_the_surrogate_point_starts_half_way_and_stays_between_the_models() -> None:
    seen = several(epochs=1, lr=0.1)
    target = surrogate(seen).target
    start = {name: tensor.detach().double() for name, tensor in seen.model.named_parameters()}
    for place, alpha in ((0.0, 0.5), (2.0, 0.7), (-5.0, 0.0), (7.0, 1.0)):
        for name, tensor in target.at(torch.tensor(place, dtype=torch.float64)).items():
            torch.testing.assert_close(tensor, start[name] + alpha * seen.tensors[name].double(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_gradient_there_is_that_of_autograd_with_mini_batches_apart(epochs: int) -> None:
    seen = several(epochs=epochs, lr=0.1)
    problem = surrogate(seen)
    assert (problem.target.network.groups, problem.size) == (2, 4 * 64 + 1)
    candidate = torch.rand(4, 1, 8, 8, generator=rng(1), dtype=torch.float64)
    done = problem.replayed(placed(candidate), "none")
    module = copy.deepcopy(seen.model).double().train()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(seen.tensors[name].double(), alpha=0.5)
    assert seen.labels is not None
    parts = list(zip(candidate.split(2), seen.labels.split(2), strict=True))
    values = [functional.cross_entropy(module(inputs), labels) for inputs, labels in parts]
    found = torch.autograd.grad(torch.stack(values).mean(), list(module.parameters()))
    for (name, _), tensor in zip(module.named_parameters(), found, strict=True):
        torch.testing.assert_close(done.tensors[name], tensor, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        for _ in range(epochs - 1):
            for inputs, _ in parts:
                module(inputs)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(done.buffers[name], buffer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("epochs", [1, 2])
def test_at_a_small_learning_rate_the_truth_nearly_fits_and_other_mini_batches_do_not(epochs: int) -> None:
    inputs = pictures(4).inputs
    seen = several(epochs=epochs, lr=1e-4)
    fit = float(surrogate(seen).value(placed(inputs), "none"))
    assert fit < 1e-3
    assert fit < 1e-2 * float(surrogate(seen).value(placed(inputs.flip(-1)), "none"))
    regrouped = replace(seen, labels=seen.labels[[0, 2, 1, 3]] if seen.labels is not None else None)
    assert fit < 0.1 * float(surrogate(regrouped).value(placed(inputs[[0, 2, 1, 3]]), "none"))
    finer = float(surrogate(several(epochs=epochs, lr=1e-5)).value(placed(inputs), "none"))
    assert finer < 0.1 * fit


PROTOCOLS: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
    "schedule": {"schedule": (1.0, 0.1)},
    "sum": {"reduction": "sum"},
    "accumulation": {"accumulation": 2, "reduction": "sum"},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_surrogate_knows_how_far_the_clients_optimiser_moves(name: str) -> None:
    """With one mini-batch that comes round twice, the change is the gradient times a known factor as the rate goes to zero."""
    seen = several(lr=1e-6, steps=2, batch_size=2 if "accumulation" in PROTOCOLS[name] else 4, **PROTOCOLS[name])
    assert float(surrogate(seen).value(placed(pictures(4).inputs), "none")) < 1e-6


def test_the_place_of_the_surrogate_is_searched_too() -> None:
    problem = surrogate(several(epochs=1, lr=0.1))
    point = placed(torch.rand(4, 1, 8, 8, generator=rng(1)), 0.3)
    _, slope = problem.evaluate(point[None])
    step = torch.zeros_like(point)
    step[-1] = 1e-5
    numeric = float(problem.value(point + step, "none") - problem.value(point - step, "none")) / 2e-5
    assert float(slope[0, -1]) == pytest.approx(numeric, rel=1e-4)
    assert numeric != 0


def test_planted_shifts_are_found_exactly() -> None:
    reference = torch.rand(1, 2, 3, 9, 8, generator=rng(0))
    moves = torch.tensor([[[0, 0], [0, 0]], [[2, -1], [-2, 2]], [[1, 1], [0, -2]]])
    assert torch.equal(best_shifts(shifted(reference.expand(3, -1, -1, -1, -1), -moves), reference, 2), moves)
    far = torch.roll(reference, (0, 3), (-2, -1))
    assert bool((best_shifts(far, reference, 2).abs() <= 2).all())


def test_shifted_copies_pull_each_other_only_without_registration() -> None:
    picture = torch.rand(1, 2, 1, 8, 8, generator=rng(0), dtype=torch.float64)
    moves = torch.tensor([[[0, 0], [0, 0]], [[2, -1], [1, 2]], [[0, 1], [-2, 0]]])
    copies = shifted(picture.expand(3, -1, -1, -1, -1), moves)
    torch.testing.assert_close(GroupConsistency(1.0, 2).pull(copies), torch.zeros(3, dtype=torch.float64), atol=1e-20, rtol=0)
    assert bool((GroupConsistency(1.0).pull(copies) > 1e-3).all())


@pytest.mark.parametrize("shift", [0, 2])
def test_the_pulls_slope_is_that_of_finite_differences(shift: int) -> None:
    group = GroupConsistency(0.7, shift)
    base = torch.rand(1, 2, 1, 8, 8, generator=rng(0), dtype=torch.float64)
    moves = torch.tensor([[[0, 0], [0, 0]], [[1, -1], [2, 0]], [[0, 1], [-1, 0]]])
    candidates = shifted(base.expand(3, -1, -1, -1, -1), moves) + 0.05 * torch.randn(3, 2, 1, 8, 8, generator=rng(1))
    leaf = candidates.clone().requires_grad_()
    (slope,) = torch.autograd.grad(group.pull(leaf).sum(), leaf)
    for seed in range(3):
        direction = torch.randn(candidates.shape, generator=rng(seed, "direction"), dtype=torch.float64)
        step = 1e-6
        numeric = (group.pull(candidates + step * direction) - group.pull(candidates - step * direction)).sum() / (2 * step)
        assert float((slope * direction).sum()) == pytest.approx(float(numeric), rel=1e-6)


def test_a_prior_picture_is_where_the_first_restart_starts() -> None:
    one, each = torch.rand(1, 6, 6, generator=rng(0)), torch.rand(3, 1, 6, 6, generator=rng(1))
    for pixels in (one, each):
        drawn = PriorPicture(pixels).draw((2, 3, 1, 6, 6), SPEC, rng(2))
        torch.testing.assert_close(SPEC.denormalise(drawn[0]), pixels.expand(3, 1, 6, 6))
        assert 0.02 < float((SPEC.denormalise(drawn[1]) - pixels).std()) < 0.1
        assert torch.equal(drawn, PriorPicture(pixels).draw((2, 3, 1, 6, 6), SPEC, rng(2)))
    with pytest.raises(ShapeError, match=r"The prior picture has shape \(1, 5, 6\); expected \(1, 6, 6\) or \(3, 1, 6, 6\)"):
        PriorPicture(torch.zeros(1, 5, 6)).draw((1, 3, 1, 6, 6), SPEC, rng(0))


@pytest.mark.parametrize(("fits", "tolerance"), [(True, 1e-8), (False, 1e-6)])
def test_linear_least_squares_are_solved(fits: bool, tolerance: float) -> None:
    """Where a residual remains, steps are judged by its squared length, which shows a point to half of all digits."""
    matrix, right = (torch.randn(30, size, generator=rng(0, name), dtype=torch.float64) for size, name in ((12, "A"), (1, "b")))
    right = matrix @ matrix.T @ right if fits else right
    found = descend(
        lambda x: matrix @ x - right[:, 0], torch.zeros(12, dtype=torch.float64), MatrixFree(iterations=20, enough=0.0)
    )
    expected = torch.linalg.lstsq(matrix, right).solution[:, 0]
    torch.testing.assert_close(found.point, expected, rtol=tolerance, atol=tolerance)
    assert found.value == pytest.approx(float((matrix @ expected - right[:, 0]).square().sum()), rel=1e-12, abs=1e-12)


def test_a_curved_valley_is_followed_to_its_end() -> None:
    def rosenbrock(x: Tensor) -> Tensor:
        return torch.cat([10 * (x[1:] - x[:-1].square()), 1 - x[:-1]])

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    found = descend(rosenbrock, start, MatrixFree(iterations=200, enough=1e-6), goal=1e-20)
    torch.testing.assert_close(found.point, torch.ones(2, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_the_iteration_keeps_to_its_budget_and_to_the_clock() -> None:
    matrix = torch.randn(40, 30, generator=rng(0), dtype=torch.float64)
    start = torch.ones(30, dtype=torch.float64)

    def residual(x: Tensor) -> Tensor:
        return matrix @ x.sin() - 1

    for budget in (0, 1, 7, 25):
        assert descend(residual, start, MatrixFree(), budget=budget).products <= budget
    polled: list[bool] = []

    def expired() -> bool:
        polled.append(True)
        return len(polled) > 5

    assert descend(residual, start, MatrixFree(), expired=expired).products <= 5
    nothing = descend(residual, start, MatrixFree(), expired=lambda: True)
    assert nothing.products == 0
    assert torch.equal(nothing.point, start)
    worse = descend(residual, start, MatrixFree())
    assert worse.value < float(residual(start).square().sum())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gradient": -1.0}, "gradient is -1.0; expected a weight >= 0"),
    ({"statistics": float("nan")}, "statistics is nan; expected a weight >= 0"),
    ({"tv": -0.1}, "tv is -0.1; expected a number >= 0"),
    ({"l2": float("inf")}, "l2 is inf; expected a number >= 0"),
    ({"group": -1}, "group is -1; expected a number >= 0"),
    ({"shift": -1}, "shift is -1; expected a number >= 0"),
    ({"lr": 0.0}, "lr is 0.0; expected a number > 0"),
    ({"decay": "fast"}, "decay is 'fast'; expected a number > 0"),
    ({"multistep": "sme"}, "multistep is 'sme'; expected replay or surrogate"),
    ({"labels": "granted"}, "labels is 'granted'; expected one of"),
    ({"mode": "test"}, "expected eval, train or observed"),
    ({"restarts": 0}, "must be at least 1"),
    ({"dtype": "float16"}, "expected float32 or float64"),
    ({"prior": "cat"}, "'cat' is a name; expected 'grey' or the picture itself"),
    ({"prior": torch.full((1, 8, 8), 128.0)}, "values from 128 to 128; expected pixels in \\[0, 1\\]"),
    ({"prior": torch.full((1, 8, 8), float("nan"))}, "expected pixels in \\[0, 1\\]"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_options_out_of_range_are_refused_in_a_sentence(options: dict[str, Any], words: str) -> None:
    seen = observe(network(), pictures(1), labels=True, mode="train")
    with pytest.raises(OptionError, match=words):
        lg.attack(seen, "bn-matching", budget=1, **options)


def test_the_names_of_priors() -> None:
    assert bn_matching(prior="grey").start == bn_matching().start
