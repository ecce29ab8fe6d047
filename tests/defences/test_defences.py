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
import leakgauge.registry
from leakgauge.core import DefenceRecord, LocalTraining, Update
from leakgauge.defences import (
    DPSGD,
    SVT,
    BFloat16,
    CentralDP,
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
from leakgauge.errors import OptionError
from leakgauge.randomness import rng

NOISY: list[Defence] = [
    GaussianNoise(0.1),
    GaussianNoise(0.1, buffers=True),
    LaplacianNoise(0.1),
    LaplacianNoise(0.1, buffers=True),
    PercentileNoise(0.1),
    PercentileNoise(0.1, buffers=False),
    SVT(0.3, epsilon=1.0, gamma=0.5, tau=0.1),
    Quantise(4, stochastic=True),
]
EXACT: list[Defence] = [
    *(Prune(0.4), HalfPrecision(), BFloat16(), Clip(0.7), TopK(0.3), PercentileSharing(60.0, 0.8), Sign(), Quantise(4)),
]
CONFIGURED: list[Defence] = [*NOISY, *EXACT]
IDLE: list[Defence] = [
    *(GaussianNoise(0.0), LaplacianNoise(0.0), PercentileNoise(0.0), GaussianNoise(0.0, buffers=True), Prune(0.0)),
    *(Clip(1e6), TopK(1.0), PercentileSharing(0.0, 1e6)),
]
ELSEWHERE: list[Defence] = [DPSGD(1.0, 0.5), CentralDP(1.0, 0.5)]
BUILT_IN = {
    "gaussian-noise": {"std": 0.1},
    "laplacian-noise": {"scale": 0.1},
    "percentile-noise": {"sigma0": 0.1, "percentile": 95.0},
    "svt": {"fraction": 0.3, "epsilon": 1.0, "noise_var": 0.1, "gamma": 0.5, "tau": 0.1},
    "clip": {"norm": 0.7},
    "prune": {"fraction": 0.4},
    "top-k": {"fraction": 0.3},
    "percentile-sharing": {"percentile": 60.0, "gamma": 0.8},
    "sign": {},
    "quantise": {"bits": 4.0},
    "half-precision": {},
    "bfloat16": {},
    "dp-sgd": {"noise_multiplier": 1.0, "clip_norm": 0.5},
    "central-dp": {"noise_multiplier": 1.0, "clip_norm": 0.5},
}
SWITCHED = {
    GaussianNoise(0.1, buffers=True): {"buffers": 1.0},
    LaplacianNoise(0.1, buffers=True): {"buffers": 1.0},
    PercentileNoise(0.1, buffers=False): {"buffers": 0.0},
    Quantise(4, stochastic=True): {"stochastic": 1.0},
}
SEED = 271_828_182


def update(dtype: torch.dtype = torch.float32, size: int = 40, **more: Any) -> Update:
    generator = rng(0, "update")
    tensors = {
        "a.weight": torch.randn(size, 5, generator=generator).to(dtype),
        "a.bias": torch.randn(7, generator=generator).to(dtype),
    }
    buffers = {"a.count": torch.tensor(3), "a.running_var": torch.rand(6, generator=generator).to(dtype)}
    return Update(**{"tensors": tensors, "kind": "gradient", "buffers": buffers, "labels": torch.tensor([1])} | more)


def names(defence: Defence) -> str:
    return defence.name


@pytest.mark.parametrize("defence", IDLE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_strength_zero_changes_nothing_bit_for_bit(defence: Defence, dtype: torch.dtype) -> None:
    before = update(dtype)
    after = defence.protect(before, generator=rng(0))
    assert all(torch.equal(part, after.tensors[name]) for name, part in before.tensors.items())
    assert all(torch.equal(part, after.buffers[name]) for name, part in before.buffers.items())


@pytest.mark.parametrize("defence", [*CONFIGURED, *IDLE], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_callers_tensors_stay(defence: Defence, dtype: torch.dtype) -> None:
    before = update(dtype)
    copy = {name: part.clone() for name, part in before.tensors.items()}
    stay = {name: part.clone() for name, part in before.buffers.items()}
    after = defence.protect(before, generator=rng(0))
    for name, part in copy.items():
        assert torch.equal(before.tensors[name], part)
        assert after.tensors[name].untyped_storage().data_ptr() != before.tensors[name].untyped_storage().data_ptr()
        assert after.tensors[name].dtype is dtype
        assert after.tensors[name].shape == part.shape
        assert not after.tensors[name].requires_grad
    for name, part in stay.items():
        assert torch.equal(before.buffers[name], part)
        assert after.buffers[name].data_ptr() != before.buffers[name].data_ptr()
        assert after.buffers[name].dtype is part.dtype
        assert after.buffers[name].shape == part.shape
    assert before.defences == ()
    rest = [field.name for field in dataclasses.fields(Update) if field.name not in ("tensors", "defences", "labels", "buffers")]
    assert all(getattr(before, name) == getattr(after, name) for name in rest)


@pytest.mark.parametrize("defence", CONFIGURED, ids=repr)
def test_one_seed_one_result(defence: Defence) -> None:
    first, again, other = (defence.protect(update(), generator=rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(part, again.tensors[name]) for name, part in first.tensors.items())
    same = all(torch.equal(part, other.tensors[name]) for name, part in first.tensors.items())
    assert same == (defence in EXACT)


@pytest.mark.parametrize("defence", CONFIGURED, ids=repr)
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


@pytest.mark.parametrize("defence", [*CONFIGURED, *ELSEWHERE], ids=repr)
def test_the_record_makes_the_defence_again(defence: Defence) -> None:
    record = defence.record()
    assert record == DefenceRecord(defence.name, BUILT_IN[defence.name] | SWITCHED.get(defence, {}))
    assert lg.registry.make("defences", record.name, **record.parameters) == defence


@pytest.mark.parametrize("defence", CONFIGURED, ids=repr)
def test_the_record_is_public_only(defence: Defence) -> None:
    record = defence.record()
    after = defence.protect(defence.protect(update(), generator=rng(SEED)), generator=rng(SEED, "again"))
    assert after.defences == (record, record)
    assert str(SEED) not in repr(after)


@pytest.mark.parametrize("defence", [defence for defence in CONFIGURED if defence.name != "clip"], ids=repr)
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
        (lambda: Prune("half"), "Prune.fraction is 'half'"),
        (lambda: GaussianNoise(0.1, buffers="yes"), "GaussianNoise.buffers is 'yes'; expected True or False"),
        (lambda: GaussianNoise(float("inf")), "GaussianNoise.std is inf"),
        (lambda: PercentileNoise(-1.0), "PercentileNoise.sigma0 is -1.0; expected a number >= 0"),
        (lambda: PercentileNoise(1.0, percentile=101), r"PercentileNoise.percentile is 101; expected a number in \[0, 100\]"),
        (lambda: Clip(0.0), "Clip.norm is 0.0; expected a number > 0"),
        (lambda: TopK(0.0), r"TopK.fraction is 0.0; expected a number in \(0, 1\]"),
        (lambda: TopK(1.5), "TopK.fraction is 1.5"),
        (lambda: PercentileSharing(100.0, 1.0), r"PercentileSharing.percentile is 100.0; expected a number in \[0, 100\)"),
        (lambda: PercentileSharing(50.0, 0.0), "PercentileSharing.gamma is 0.0; expected a number > 0"),
        (lambda: SVT(0.0), "SVT.fraction is 0.0"),
        (lambda: SVT(0.1, epsilon=0.0), "SVT.epsilon is 0.0; expected a number > 0"),
        (lambda: SVT(0.1, noise_var=-1.0), "SVT.noise_var is -1.0"),
        (lambda: SVT(0.1, tau=-1.0), "SVT.tau is -1.0; expected a number >= 0"),
        (lambda: Quantise(1), "Quantise.bits is 1; expected a whole number from 2 to 16"),
        (lambda: Quantise(3.5), "Quantise.bits is 3.5"),
        (lambda: DPSGD(-1.0, 1.0), "DPSGD.noise_multiplier is -1.0; expected a number >= 0"),
        (lambda: DPSGD(1.0, 0.0), "DPSGD.clip_norm is 0.0; expected a number > 0"),
        (lambda: CentralDP(1.0, float("nan")), "CentralDP.clip_norm is nan"),
    ],
)
def test_strengths_out_of_range_are_named(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


def test_every_registered_defence_is_tested_here() -> None:
    assert {entry.name for entry in lg.catalogue("defences")} == set(BUILT_IN)


@pytest.mark.parametrize("defence", [*CONFIGURED, *ELSEWHERE], ids=repr)
def test_every_defence_says_how_an_attack_adapts(defence: Defence) -> None:
    assert defence.adaptive.endswith(".")
    assert defence.adaptive != Defence.adaptive
    assert defence.stage == {"dp-sgd": "training", "central-dp": "server"}.get(defence.name, "update")


@pytest.mark.parametrize(
    ("defence", "words"),
    [
        (DPSGD(1.0, 1.0), r"DPSGD acts inside local training.*Give it to the client: Client\(\.\.\., defences=\(DPSGD"),
        (CentralDP(1.0, 1.0), r"CentralDP acts at the server.*server_defence=CentralDP"),
    ],
)
def test_protect_says_where_a_defence_belongs(defence: Defence, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        defence.protect(update(), generator=rng(0))


@pytest.mark.parametrize("defence", [PercentileNoise(1.0), Prune(0.5), Clip(1.0), TopK(0.5), Sign(), Quantise(8)], ids=names)
def test_weights_themselves_are_refused_where_only_a_change_makes_sense(defence: Defence) -> None:
    with pytest.raises(OptionError, match="this update holds the weights themselves"):
        defence.protect(update(kind="weights"), generator=rng(0))


def test_noise_on_buffers_leaves_counters_alone() -> None:
    before = update()
    for defence in (GaussianNoise(0.1), LaplacianNoise(0.1), PercentileNoise(0.1, buffers=False)):
        after = defence.protect(before, generator=rng(0))
        assert all(torch.equal(part, after.buffers[name]) for name, part in before.buffers.items())
    for defence in (GaussianNoise(0.1, buffers=True), LaplacianNoise(0.1, buffers=True), PercentileNoise(0.1)):
        after = defence.protect(before, generator=rng(0))
        assert torch.equal(after.buffers["a.count"], before.buffers["a.count"])
        assert not torch.equal(after.buffers["a.running_var"], before.buffers["a.running_var"])
        plain = type(defence)(0.1, buffers=False).protect(before, generator=rng(0))
        assert all(torch.equal(part, after.tensors[name]) for name, part in plain.tensors.items())


@pytest.mark.parametrize("percentile", [0.0, 50.0, 95.0, 100.0])
def test_percentile_noise_follows_the_size_of_the_update(percentile: float) -> None:
    import numpy as np

    values = torch.randn(50_000, generator=rng(1), dtype=torch.float64)
    values[:20_000] = 0
    before = Update(tensors={"a": values[:30_000], "b": values[30_000:]}, kind="delta")
    after = PercentileNoise(2.0, percentile).protect(before, generator=rng(0))
    noise = torch.cat([after.tensors[name] - part for name, part in before.tensors.items()])
    wanted = 2.0 * float(np.percentile(values[values != 0].abs().numpy(), percentile))
    assert float(noise.std()) == pytest.approx(wanted, rel=0.02)
    silent = Update(tensors={"a": torch.zeros(3)}, kind="delta")
    assert torch.equal(PercentileNoise(2.0).protect(silent, generator=rng(0)).tensors["a"], torch.zeros(3))
