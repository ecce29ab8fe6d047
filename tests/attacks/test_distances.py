"""Distances against their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.attacks.matching.distance import L1, SMOOTH, Cosine, Distance, Kept, LayerWeighted, SquaredL2, dictated_by
from leakgauge.core import DefenceRecord
from leakgauge.randomness import rng

SHAPES = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 3, 2, 2)}


def tensors(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = rng(seed, "tensors")
    return {name: scale * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts.values()])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_against_plain_formulas(seed: int, scale: float) -> None:
    found, target = tensors(seed, scale), tensors(seed + 1, scale)
    a, b = flat(found), flat(target)
    expected = {
        SquaredL2(): ((a - b) ** 2).sum() / (b**2).sum(),
        L1(): (a - b).abs().sum() / b.abs().sum(),
        Cosine(): 1 - torch.nn.functional.cosine_similarity(a, b, dim=0, eps=0),
        LayerWeighted(SquaredL2()): torch.stack(
            [((found[name] - part) ** 2).sum() / (part**2).sum() for name, part in target.items()]
        ).mean(),
    }
    for distance, value in expected.items():
        torch.testing.assert_close(distance(found, target), value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(distance(target, target), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-14)


def test_layer_weights_grow_towards_the_output() -> None:
    found, target = tensors(0), tensors(1)
    parts = [SquaredL2()({name: found[name]}, {name: part}) for name, part in target.items()]
    expected = (0.25 * parts[0] + 0.5 * parts[1] + parts[2]) / 1.75
    torch.testing.assert_close(LayerWeighted(SquaredL2(), decay=0.5)(found, target), expected)


@pytest.mark.parametrize("distance", [SquaredL2(), LayerWeighted(), LayerWeighted(decay=0.7), Kept(), Kept(LayerWeighted())])
def test_the_squared_residual_is_the_distance(distance: Distance) -> None:
    found, target = tensors(0), tensors(1)
    target["a.weight"][0] = 0
    vector = distance.residual(found, target)
    assert vector is not None
    torch.testing.assert_close(vector.square().sum(), distance(found, target), rtol=1e-12, atol=0)


@pytest.mark.parametrize("distance", [L1(), Cosine(), LayerWeighted(Cosine()), Kept(L1())])
def test_other_distances_have_no_residual(distance: Distance) -> None:
    assert distance.residual(tensors(0), tensors(1)) is None


def test_kept_ignores_what_was_pruned() -> None:
    found, target = tensors(0), tensors(1)
    target["a.weight"][0] = 0
    other = {name: part.clone() for name, part in found.items()}
    other["a.weight"][0] += 7
    assert torch.equal(Kept()(found, target), Kept()(other, target))
    kept = flat(target) != 0
    a, b = flat(found)[kept], flat(target)[kept]
    torch.testing.assert_close(Kept()(found, target), ((a - b) ** 2).sum() / (b**2).sum())


@pytest.mark.parametrize("distance", [SquaredL2(), L1(), Cosine(), LayerWeighted(), Kept()])
def test_only_what_was_shared_is_compared(distance: Distance) -> None:
    found, target = tensors(0), tensors(1)
    del target["a.bias"]
    there = {name: found[name] for name in target}
    assert torch.equal(distance(found, target), distance(there, target))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), None),
        (("made-up",), None),
        (("gaussian-noise",), SquaredL2()),
        (("laplacian-noise",), L1(smooth=SMOOTH)),
        (("prune",), Kept(SquaredL2(), below="tensor")),
        (("laplacian-noise", "prune"), Kept(L1(smooth=SMOOTH), below="tensor")),
    ],
)
def test_what_a_known_defence_dictates(names: tuple[str, ...], expected: Distance | None) -> None:
    assert dictated_by([DefenceRecord(name, {}) for name in names]) == expected
