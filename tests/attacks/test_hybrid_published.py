"""The hybrid as published: pseudo-inverse and correction, layer by layer."""

from __future__ import annotations

import pytest
import torch
from attack_cases import limits, observe, pictures
from test_recursive import closed, convolutions, mse, seeded
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.attacks.base import Limits
from leakgauge.attacks.hybrid.published import (
    CORRECTIONS,
    Published,
    Suffix,
    correct,
    misfit,
    pseudo_inverse,
    published,
    variation,
)
from leakgauge.attacks.recursive.known import through
from leakgauge.attacks.recursive.layer import Equations
from leakgauge.attacks.recursive.problem import NoiseLevel, Problem, problem_of
from leakgauge.attacks.recursive.start import last_linear, starts
from leakgauge.attacks.recursive.sweep import equations_of
from leakgauge.core import Outcome
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng

SHAPE = (3, 12, 12)


def prepared(model: nn.Module, batch: lg.Batch, **training: object) -> Problem:
    return problem_of(observe(model, batch, dtype="float64", **training), "hybrid", Limits())


def run(problem: Problem, budget: int | str = 200) -> Published:
    return published(problem, rng(0, "published"), limits(budget))


def off(batch: lg.Batch, value: Tensor) -> float:
    return float((value - batch.inputs[0].double()).square().mean())


def first_equations(problem: Problem) -> Equations:
    """Those of the only convolution of a network conv, tanh, flatten, linear."""
    known = starts(problem, last_linear(problem), rng(0))[0].known
    for link in reversed(problem.chain.links[1:3]):
        known = through(known, link, problem.state)
    return equations_of(problem, 0, known, NoiseLevel(problem))


def rows(equations: Equations, inputs: Tensor) -> Tensor:
    """U x for (S, *input)."""
    operator, k = equations.operator, equations.known.cotangent
    return torch.cat([operator.apply(inputs).flatten(1), operator.weight_gradient(inputs, k).flatten(1)], 1)


@pytest.mark.parametrize("activation", ["tanh", "leaky"])
def test_the_correction_adds_to_the_sweep_on_a_deficient_first_layer(activation: str) -> None:
    """At the published size, where total variation does not yet outweigh the equations; a twentieth of the iterations."""
    shape = (3, 32, 32)
    batch, model = pictures(shape=shape, classes=10), convolutions((6, 4, 2, 0), activation=activation, shape=shape)
    problem = prepared(model, batch)
    alone = lg.attack(observe(model, batch, dtype="float64"), "recursive")
    assert alone.outcome is Outcome.UNDERDETERMINED
    found = run(problem, 500)
    assert found.value.shape == shape
    assert off(batch, found.value) < 0.5 * min(mse(batch, alone), off(batch, run(problem, 1).value))
    assert found.label == int(batch.labels[0])
    (report,) = found.reports
    assert report.rank < report.unknowns
    assert found.evaluations >= 500


def test_the_pseudo_inverse_is_the_solution_nearest_to_grey() -> None:
    batch = pictures(shape=SHAPE, classes=10)
    equations = first_equations(prepared(convolutions((6, 4, 2, 0), shape=SHAPE), batch))
    value, report, _ = pseudo_inverse(equations, rng(0))
    truth = batch.inputs[0].double()

    matrix = rows(equations, torch.eye(432, dtype=torch.float64).reshape(432, *SHAPE)).T
    wanted = 0.5 + torch.linalg.pinv(matrix, rtol=1e-10) @ (matrix @ (truth - 0.5).flatten())
    assert torch.allclose(value.flatten(), wanted, atol=1e-7)
    assert abs(report.rank - int(torch.linalg.matrix_rank(matrix, rtol=1e-10))) < 60
    assert float(misfit(equations, truth)) < 1e-20
    assert float(misfit(equations, value)) < 1e-12


def test_matching_the_suffix_cannot_see_the_null_space() -> None:
    """A null-space move of the input's own length changes no gradient; another move of that length does."""
    batch = pictures(shape=SHAPE, classes=10)
    problem = prepared(convolutions((6, 4, 2, 0), shape=SHAPE), batch)
    equations, suffix = first_equations(problem), Suffix(problem, 0, int(batch.labels[0]))
    truth = batch.inputs[0].double()
    pixels = torch.eye(432, dtype=torch.float64).reshape(432, *SHAPE)
    matrix = rows(equations, pixels).T
    _, sizes, turned = torch.linalg.svd(matrix)
    free = turned[int((sizes > 1e-9 * sizes[0]).sum()) :]
    move = (free.T @ (free @ torch.randn(432, generator=rng(1), dtype=torch.float64))).reshape(SHAPE)
    move = move * truth.norm() / move.norm()
    before, after = suffix.gradients(truth), suffix.gradients(truth + move)
    other = suffix.gradients(truth + move.flip(1))
    for name, tensor in before.items():
        assert float((after[name] - tensor).detach().norm() / tensor.detach().norm()) < 1e-12
    assert float((other["0.weight"] - before["0.weight"]).detach().norm()) > 1e-3 * float(before["0.weight"].detach().norm())
    assert abs(float(suffix.distance(truth + move).detach())) < 1e-12
    assert float(suffix.distance(truth + move.flip(1)).detach()) > 1e-6


def test_gradients_of_the_suffix_are_the_observed_ones_at_the_truth() -> None:
    batch, model = pictures(shape=SHAPE, classes=10), convolutions((8, 3, 1, 1), (6, 3, 2, 1), shape=SHAPE)
    problem = prepared(model, batch)
    middle = model[:2].double()(batch.inputs.double())[0]
    suffix = Suffix(problem, 2, int(batch.labels[0]))
    assert suffix.names == ["2.weight", "2.bias", "5.weight", "5.bias"]
    assert abs(float(suffix.distance(middle.detach()).detach())) < 1e-12


def test_a_correction_lowers_its_objective_and_keeps_the_best_point() -> None:
    batch = pictures(shape=SHAPE, classes=10)
    problem = prepared(convolutions((6, 4, 2, 0), shape=SHAPE), batch)
    equations, suffix = first_equations(problem), Suffix(problem, 0, int(batch.labels[0]))
    start, _, _ = pseudo_inverse(equations, rng(0))
    weights = CORRECTIONS[0]

    def objective(value: Tensor) -> float:
        matching = weights.matching * suffix.distance(value).detach()
        return float(matching + weights.variation * variation(value) + weights.equations * misfit(equations, value))

    seen: list[float] = []
    value, taken = correct(start, suffix, equations, weights, 120, watch=lambda _, lowest: seen.append(lowest))
    assert taken == 120
    assert objective(value) < objective(start)
    assert len(seen) == 2
    assert seen[0] >= seen[1]
    same, none = correct(start, suffix, equations, weights, 120, expired=lambda: True)
    assert none == 0
    assert torch.equal(same, start)


def test_total_variation_by_hand() -> None:
    assert float(variation(torch.tensor([[[0.0, 1.0], [4.0, 6.0]]]))) == 1.5 + 4.5
    assert float(variation(torch.arange(6.0).reshape(2, 3))) == 1.0
    assert float(variation(torch.arange(6.0))) == 0.0


def test_the_budget_scales_the_published_iterations() -> None:
    """10 000 + 8 000 + 1 000 for three layers; their shares are kept."""
    batch = pictures(shape=SHAPE, classes=10)
    problem = prepared(convolutions((8, 3, 2, 1), (8, 3, 1, 1), (8, 3, 1, 1), shape=SHAPE), batch)
    found = run(problem, 38)
    assert found.notes[0].startswith("published variant: 38 iterations of Adam over 3 layer(s), 0 % of the paper's")
    assert [report.name for report in found.reports] == ["4", "2", "0"]


def test_one_seed_one_result() -> None:
    problem = prepared(convolutions((6, 4, 2, 0), shape=SHAPE), pictures(shape=SHAPE, classes=10))
    assert torch.equal(run(problem, 30).value, run(problem, 30).value)


def test_what_it_cannot_pass_is_said() -> None:
    pooled = seeded(lambda: closed(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), shape=SHAPE))
    with pytest.raises(UnsupportedError, match=r"cannot pass '1': only pooled values of Tanh are known.* Use variant=default"):
        run(prepared(pooled, pictures(shape=SHAPE, classes=10)), 5)
    first = seeded(lambda: closed(nn.AvgPool2d(2), nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), shape=SHAPE))
    with pytest.raises(UnsupportedError, match="pools its input before any weight sees it"):
        run(prepared(first, pictures(shape=SHAPE, classes=10)), 5)


def test_it_is_a_variant_of_hybrid() -> None:
    batch, model = pictures(shape=SHAPE, classes=10), convolutions((6, 4, 2, 0), shape=SHAPE)
    guess = lg.attack(observe(model, batch), "hybrid", budget=60, variant="published")
    assert not guess.certified.any()
    assert guess.outcome is not Outcome.DETERMINED
    assert guess.labels is not None
    assert guess.labels.tolist() == batch.labels.tolist()
    assert any("published variant: 60 iterations" in note for note in guess.stats.notes)
