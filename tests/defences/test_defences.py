"""Defences: what they change, what they leave alone, and what they say about themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import leakgauge as lg
from leakgauge.core import DefenceRecord, LocalTraining, Update
from leakgauge.defences import Defence, GaussianNoise, HalfPrecision, LaplacianNoise, Prune
from leakgauge.errors import OptionError
from leakgauge.randomness import rng

CONFIGURED: list[Defence] = [GaussianNoise(0.1), LaplacianNoise(0.1), Prune(0.4), HalfPrecision()]
IDLE: list[Defence] = [GaussianNoise(0.0), LaplacianNoise(0.0), Prune(0.0)]
BUILT_IN = {"gaussian-noise": {"std": 0.1}, "laplacian-noise": {"scale": 0.1}, "prune": {"fraction": 0.4}, "half-precision": {}}
SEED = 271_828_182


def update(dtype: torch.dtype = torch.float32, size: int = 40, **more: Any) -> Update:
    generator = rng(0, "update")
    tensors = {
        "a.weight": torch.randn(size, 5, generator=generator).to(dtype),
        "a.bias": torch.randn(7, generator=generator).to(dtype),
    }
    return Update(tensors=tensors, kind="gradient", buffers={"a.count": torch.tensor(3)}, labels=torch.tensor([1]), **more)


def names(defence: Defence) -> str:
    return defence.name


@pytest.mark.parametrize("defence", IDLE, ids=names)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_strength_zero_changes_nothing_bit_for_bit(defence: Defence, dtype: torch.dtype) -> None:
    before = update(dtype)
    after = defence.protect(before, generator=rng(0))
    assert all(torch.equal(part, after.tensors[name]) for name, part in before.tensors.items())


@pytest.mark.parametrize("defence", [*CONFIGURED, *IDLE], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_callers_tensors_stay(defence: Defence, dtype: torch.dtype) -> None:
    before = update(dtype)
    copy = {name: part.clone() for name, part in before.tensors.items()}
    after = defence.protect(before, generator=rng(0))
    for name, part in copy.items():
        assert torch.equal(before.tensors[name], part)
        assert after.tensors[name].untyped_storage().data_ptr() != before.tensors[name].untyped_storage().data_ptr()
        assert after.tensors[name].dtype is dtype
        assert after.tensors[name].shape == part.shape
        assert not after.tensors[name].requires_grad
    assert before.defences == ()
    rest = [field.name for field in dataclasses.fields(Update) if field.name not in ("tensors", "defences", "labels", "buffers")]
    assert all(getattr(before, name) == getattr(after, name) for name in rest)


@pytest.mark.parametrize("defence", CONFIGURED, ids=names)
def test_one_seed_one_result(defence: Defence) -> None:
    first, again, other = (defence.protect(update(), generator=rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(part, again.tensors[name]) for name, part in first.tensors.items())
    same = all(torch.equal(part, other.tensors[name]) for name, part in first.tensors.items())
    assert same == isinstance(defence, Prune | HalfPrecision)


@pytest.mark.parametrize("defence", CONFIGURED, ids=names)
def test_the_global_generator_is_left_alone(defence: Defence) -> None:
    before = torch.get_rng_state()
    defence.protect(update(), generator=rng(0))
    assert torch.equal(torch.get_rng_state(), before)


def noise_of(defence: Defence, count: int = 200_000) -> Tensor:
    after = defence.protect(Update(tensors={"w": torch.ones(count, dtype=torch.float64)}, kind="gradient"), generator=rng(0))
    return after.tensors["w"] - 1


@pytest.mark.parametrize("strength", [1e-3, 0.5])
def test_gaussian_noise_is_gaussian(strength: float) -> None:
    noise = noise_of(GaussianNoise(strength)) / strength
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, rel=0.01)
    assert float((noise**4).mean()) == pytest.approx(3, rel=0.03)
    assert float((noise.abs() < 1).double().mean()) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.005)


@pytest.mark.parametrize("strength", [1e-3, 0.5])
def test_laplacian_noise_is_laplacian(strength: float) -> None:
    noise = noise_of(LaplacianNoise(strength)) / strength
    assert float(noise.mean()) == pytest.approx(0, abs=0.015)
    assert float(noise.abs().mean()) == pytest.approx(1, rel=0.01)
    assert float(noise.std()) == pytest.approx(math.sqrt(2), rel=0.01)
    for bound in (0.1, 1.0, 3.0):
        assert float((noise.abs() < bound).double().mean()) == pytest.approx(1 - math.exp(-bound), abs=0.005)
    assert torch.isfinite(noise).all()


def test_tensors_get_noise_of_their_own() -> None:
    both = Update(tensors={"a": torch.zeros(50), "b": torch.zeros(50)}, kind="gradient")
    after = GaussianNoise(1.0).protect(both, generator=rng(0))
    assert not torch.equal(after.tensors["a"], after.tensors["b"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0, 0.999), st.integers(0, 1000), st.booleans())
def test_pruning_takes_exactly_its_share_of_the_smallest(size: int, fraction: float, seed: int, ties: bool) -> None:
    tensor = torch.randn(size, generator=rng(seed))
    if ties:
        tensor = tensor.sign() * tensor.abs().round().clamp(min=1)
    after = Prune(fraction).protect(Update(tensors={"w": tensor}, kind="gradient"), generator=rng(0)).tensors["w"]
    gone = after == 0
    assert int(gone.sum()) == int(fraction * size)
    assert torch.equal(after[~gone], tensor[~gone])
    if bool(gone.any()):
        assert float(tensor[gone].abs().max()) <= float(tensor[~gone].abs().min())


def test_half_precision_is_that_of_torch() -> None:
    after = HalfPrecision().protect(update(), generator=rng(0))
    for name, part in update().tensors.items():
        assert torch.equal(after.tensors[name], part.half().float())


@pytest.mark.parametrize("defence", CONFIGURED, ids=names)
def test_the_record_is_public_only(defence: Defence) -> None:
    record = defence.record()
    assert record == DefenceRecord(defence.name, BUILT_IN[defence.name])
    after = defence.protect(defence.protect(update(), generator=rng(SEED)), generator=rng(SEED, "again"))
    assert after.defences == (record, record)
    assert str(SEED) not in repr(after)


@pytest.mark.parametrize("defence", CONFIGURED, ids=names)
def test_a_client_applies_it_and_the_server_hears_of_it(defence: Defence) -> None:
    model = lg.load_model("mlp:hidden=8", num_classes=3, input_shape=(1, 4, 4), seed=0)
    batch = lg.Batch(torch.rand(2, 1, 4, 4, generator=rng(0)), torch.tensor([0, 2]), lg.ImageSpec((1, 4, 4)))
    training = LocalTraining(lr=0.1)
    plain = lg.Client(model, training=training).train(batch, seed=3)
    once, twice = (lg.Client(model, training=training, defences=(defence,)).train(batch, seed=3) for _ in range(2))
    assert all(torch.equal(part, twice.tensors[name]) for name, part in once.tensors.items())
    assert any(not torch.equal(part, plain.tensors[name]) for name, part in once.tensors.items())
    seen = lg.ThreatModel.honest_but_curious().observe(once, model, batch.spec)
    assert seen.defences == (defence.record(),)
    assert lg.ThreatModel.honest_but_curious(defence=False).observe(once, model, batch.spec).defences == ()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianNoise(-1.0), "GaussianNoise.std is -1.0; expected a number >= 0"),
        (lambda: GaussianNoise(float("nan")), "GaussianNoise.std is nan"),
        (lambda: LaplacianNoise(-0.1), "LaplacianNoise.scale is -0.1; expected a number >= 0"),
        (lambda: Prune(1.0), r"Prune.fraction is 1.0; expected a number in \[0, 1\)"),
        (lambda: Prune(-0.1), "Prune.fraction is -0.1"),
    ],
)
def test_strengths_out_of_range_are_named(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


def test_every_registered_defence_is_tested_here() -> None:
    assert {entry.name for entry in lg.catalogue("defences")} == set(BUILT_IN)
