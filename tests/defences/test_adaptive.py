"""The distance that each defence dictates: right at the truth, differentiable, and composed in the order of the defences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import leakgauge as lg
from leakgauge.attacks.matching.distance import (
    L1,
    Distance,
    Kept,
    Rescaled,
    Rounded,
    Signs,
    SquaredL2,
    adapts,
    dictated_by,
)
from leakgauge.core import DefenceRecord, Update
from leakgauge.defences import (
    SVT,
    BFloat16,
    Clip,
    Defence,
    GaussianNoise,
    HalfPrecision,
    LaplacianNoise,
    PercentileNoise,
    PercentileSharing,
    Prune,
    Quantise,
    Sign,
    TopK,
)
from leakgauge.randomness import rng

SHAPES = {"a.weight": (6, 5), "a.bias": (6,), "b.weight": (3, 2, 2, 2)}
NOISELESS: list[tuple[Defence, ...]] = [
    *((Prune(0.5),), (TopK(0.3),), (PercentileSharing(50, 1.0),), (Clip(0.5),), (Sign(),), (Quantise(3),), (Quantise(8),)),
    *((Quantise(4, stochastic=True),), (HalfPrecision(),), (BFloat16(),), (Clip(0.5), Prune(0.4)), (Prune(0.4), Quantise(5))),
    *((Clip(0.5), Sign()), (Quantise(4), Clip(0.5)), (Prune(0.5), Sign()), (TopK(0.5), Clip(0.2), BFloat16())),
]
NOISY: list[tuple[Defence, ...]] = [
    *((GaussianNoise(0.1),), (LaplacianNoise(0.1),), (PercentileNoise(0.1),), (SVT(0.5, epsilon=1e3, noise_var=5.0, gamma=1.0),)),
    *((Clip(0.5), GaussianNoise(0.01)), (LaplacianNoise(0.1), Prune(0.5)), (GaussianNoise(0.1), Quantise(4))),
]
ALL = [*NOISELESS, *NOISY]


def tensors(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = rng(seed, "tensors")
    return {name: scale * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def defended(defences: tuple[Defence, ...], truth: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[DefenceRecord, ...]]:
    update = Update(tensors=truth, kind="delta")
    for index, defence in enumerate(defences):
        update = defence.protect(update, generator=rng(index, "defence"))
    return dict(update.tensors), update.defences


def dictated(defences: tuple[Defence, ...], truth: dict[str, Tensor]) -> tuple[Distance, dict[str, Tensor]]:
    target, records = defended(defences, truth)
    distance = dictated_by(records)
    assert distance is not None
    return distance, target


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts.values()])


def apart(vector: Tensor) -> dict[str, Tensor]:
    sizes = [torch.Size(shape).numel() for shape in SHAPES.values()]
    pieces = torch.split(vector, sizes)
    return {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, SHAPES.items(), strict=True)}


@pytest.mark.parametrize("units", [1.0, -1e-3, 1e4])
@pytest.mark.parametrize("defences", NOISELESS, ids=str)
def test_the_truth_agrees_with_what_was_shared_in_any_units(defences: tuple[Defence, ...], units: float) -> None:
    """Attacks divide a weight change by minus the learning rate, so that a distance cannot rely on absolute sizes."""
    truth = tensors(0, 0.5)
    distance, target = dictated(defences, truth)
    found, seen = ({name: units * part for name, part in parts.items()} for parts in (truth, target))
    others = {name: units * part for name, part in tensors(1, 0.5).items()}
    for fitted in (distance, distance.fitted(seen)):
        at_truth, elsewhere = float(fitted(found, seen)), float(fitted(others, seen))
        assert at_truth <= _slack(distance) + 1e-12
        assert elsewhere > 20 * at_truth
        assert elsewhere > 0.05


def _slack(distance: Distance) -> float:
    """What a distance leaves at the truth: the tie-breaker of a dead zone, and clips that are not undone exactly."""
    inner = distance
    slack = 0.0
    while True:
        if isinstance(inner, Rounded):
            slack = max(slack, 0.2 * inner.tie) + (0.01 if isinstance(distance, Rescaled) else 0)
        if isinstance(inner, Signs):
            slack = max(slack, 2 * inner.magnitudes)
        if not hasattr(inner, "distance"):
            return slack + (1e-2 if isinstance(distance, Rescaled) else 0)
        inner = inner.distance


@pytest.mark.parametrize("defences", ALL, ids=str)
def test_its_derivative_is_that_of_finite_differences(defences: tuple[Defence, ...]) -> None:
    truth = tensors(0, 0.5)
    distance, target = dictated(defences, truth)
    distance = distance.fitted(target)
    point = flat(truth) + 0.2 * flat(tensors(2))

    def value(vector: Tensor) -> Tensor:
        return distance(apart(vector), target)

    assert torch.autograd.gradcheck(value, (point.clone().requires_grad_(),), eps=1e-7, atol=1e-6)
    slopes = torch.func.vmap(torch.func.grad(value))(torch.stack([point, 0.5 * point]))
    (alone,) = torch.autograd.grad(value(leaf := (0.5 * point).requires_grad_()), leaf)
    torch.testing.assert_close(slopes[1], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("defences", ALL, ids=str)
def test_the_squared_residual_is_the_distance_and_fitting_changes_nothing(defences: tuple[Defence, ...]) -> None:
    distance, target = dictated(defences, tensors(0, 0.5))
    found = tensors(3)
    fitted = distance.fitted(target)
    torch.testing.assert_close(fitted(found, target), distance(found, target), rtol=1e-9, atol=0)
    vector = fitted.residual(found, target)
    assert vector is not None
    assert float(vector.square().sum()) == pytest.approx(float(fitted(found, target)), rel=1e-9)


def test_derivatives_stay_in_the_attacks_arithmetic() -> None:
    for defences in ALL:
        truth = {name: part.float() for name, part in tensors(0, 0.5).items()}
        distance, target = dictated(defences, truth)
        fitted = distance.fitted(target)
        point = flat(truth) + 0.1
        product = torch.func.vmap(
            lambda way, use=fitted, seen=target, at=point: torch.func.jvp(lambda v: use.residual(apart(v), seen), (at,), (way,))[
                1
            ]
        )
        assert product(torch.eye(60)[:3]).dtype is torch.float32, defences


def test_small_entries_are_known_to_be_small() -> None:
    truth = tensors(0)
    for defence, below in ((Prune(0.5), "tensor"), (TopK(0.3), "whole")):
        distance, target = dictated((defence,), truth)
        assert distance == Kept(SquaredL2(), below=below)
        wrong = {name: torch.where(target[name] == 0, 3 * part.abs().max(), part) for name, part in truth.items()}
        assert float(Kept(SquaredL2())(wrong, target)) == 0
        assert float(distance(wrong, target)) > 0.1


def test_entries_at_the_bound_may_be_larger() -> None:
    truth = tensors(0)
    distance, target = dictated((PercentileSharing(30, 0.5),), truth)
    assert float(distance(truth, target)) == 0
    assert float(SquaredL2()(truth, target)) > 0.1
    larger = {name: torch.where(target[name].abs() >= 0.5, 7 * part, part) for name, part in truth.items()}
    assert float(distance(larger, target)) == 0
    assert float(distance({name: -part for name, part in larger.items()}, target)) > 0.5


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-2])
def test_half_precision_knows_the_coarse_steps_near_zero(scale: float) -> None:
    """16-bit floats are evenly spaced below 6e-5, where half a step is far more than 2^-11 of the number."""
    truth = {"w": scale * torch.randn(3000, generator=rng(0), dtype=torch.float64)}
    distance, target = dictated((HalfPrecision(),), truth)
    assert isinstance(distance, Rounded)
    units = {name: part / -0.01 for name, part in truth.items()}, {name: part / -0.01 for name, part in target.items()}
    assert float(distance(*units)) <= distance.tie * float(SquaredL2()(*units)) * (1 + 1e-6) + 1e-18


@pytest.mark.parametrize(
    ("defences", "expected"),
    [
        ((GaussianNoise(0.1), Prune(0.5)), Kept(SquaredL2(), below="tensor")),
        ((Prune(0.5), GaussianNoise(0.1)), SquaredL2()),
        ((Clip(1.0), GaussianNoise(0.1)), Rescaled(SquaredL2())),
        ((Clip(1.0), Prune(0.5)), Rescaled(Kept(SquaredL2(), below="tensor"))),
        ((Quantise(4), GaussianNoise(0.1)), SquaredL2()),
        ((GaussianNoise(0.1), Quantise(4)), Rounded(SquaredL2(), levels=7)),
        ((Quantise(4, stochastic=True),), Rounded(SquaredL2(), levels=7, steps=1.0)),
        ((Sign(), GaussianNoise(0.1)), Rescaled(SquaredL2())),
        ((Prune(0.5), Sign()), Signs(kept=True)),
        ((LaplacianNoise(0.1), GaussianNoise(0.1)), dictated_by([LaplacianNoise(0.1).record()])),
    ],
    ids=str,
)
def test_defences_compose_in_their_order(defences: tuple[Defence, ...], expected: Distance) -> None:
    assert dictated_by([defence.record() for defence in defences]) == expected


def test_every_built_in_defence_has_its_adaptive_attack() -> None:
    for entry in lg.catalogue("defences"):
        assert adapts(entry.name), entry.name
        assert dictated_by([DefenceRecord(entry.name, {})]) is not None
    assert not adapts("my-own")
    assert dictated_by([DefenceRecord("my-own", {})]) is None
    assert dictated_by([]) is None
    assert isinstance(dictated_by([DefenceRecord("my-own", {}), DefenceRecord("laplacian-noise", {})]), L1)
