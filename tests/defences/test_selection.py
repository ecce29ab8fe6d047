"""Defences that look at the whole update, and those that round: exact properties over many updates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.core import Update
from leakgauge.defences import SVT, BFloat16, CentralDP, Clip, Defence, HalfPrecision, PercentileSharing, Quantise, Sign, TopK
from leakgauge.errors import ShapeError, UpdateError
from leakgauge.randomness import rng

SEEDS = st.integers(0, 10_000)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
SCALES = st.floats(1e-4, 1e4)


def update(seed: int, sizes: list[int], scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Update:
    generator = rng(seed, "update")
    tensors = {str(index): (scale * torch.randn(size, generator=generator)).to(dtype) for index, size in enumerate(sizes)}
    return Update(tensors=tensors, kind="delta")


def flat(update: Update) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in update.tensors.values()])


def protected(defence: Defence, before: Update, seed: int = 0) -> Tensor:
    return flat(defence.protect(before, generator=rng(seed)))


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, SCALES, st.floats(1e-3, 1e3))
def test_clip_bounds_the_norm_and_keeps_the_direction(seed: int, sizes: list[int], scale: float, norm: float) -> None:
    before = update(seed, sizes, scale)
    after, own = protected(Clip(norm), before), float(flat(before).norm())
    assert float(after.norm()) <= norm * (1 + 1e-12)
    torch.testing.assert_close(after, flat(before) * min(1.0, norm / own), rtol=1e-12, atol=0)
    if own <= norm:
        assert torch.equal(after, flat(before))


@settings(max_examples=60, deadline=None)
@given(SEEDS, SEEDS, SIZES, SCALES, SCALES, st.floats(1e-3, 1e3))
def test_replacing_a_client_moves_its_clipped_update_by_twice_the_norm(
    one: int, other: int, sizes: list[int], scale: float, further: float, norm: float
) -> None:
    first, second = (protected(Clip(norm), update(*args)) for args in ((one, sizes, scale), (other, sizes, further)))
    assert float((first - second).norm()) <= 2 * norm * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, st.floats(0.001, 1.0))
def test_top_k_keeps_exactly_the_largest(seed: int, sizes: list[int], fraction: float) -> None:
    before = flat(update(seed, sizes))
    after = protected(TopK(fraction), update(seed, sizes))
    kept = after != 0
    assert int(kept.sum()) == max(1, round(fraction * len(before)))
    assert torch.equal(after[kept], before[kept])
    if not bool(kept.all()):
        assert float(before[~kept].abs().max()) <= float(before[kept].abs().min())


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, st.floats(0, 99.9), st.floats(0.01, 3.0))
def test_percentile_sharing_shares_the_largest_up_to_its_bound(
    seed: int, sizes: list[int], percentile: float, gamma: float
) -> None:
    before = flat(update(seed, sizes))
    after = protected(PercentileSharing(percentile, gamma), update(seed, sizes))
    kept = after != 0
    assert torch.equal(after[kept], before[kept].clamp(-gamma, gamma))
    least = torch.quantile(before.abs(), percentile / 100)
    assert torch.equal(kept, before.abs() >= least) or bool((before.abs() - least).abs().min() < 1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIZES, st.floats(0.01, 1.0), st.floats(0.1, 1e4))
def test_svt_shares_at_most_its_share_within_its_bound(seed: int, sizes: list[int], fraction: float, epsilon: float) -> None:
    after = protected(SVT(fraction, epsilon=epsilon, gamma=0.5, tau=0.1), update(seed, sizes), seed)
    assert int((after != 0).sum()) <= max(1, round(fraction * sum(sizes)))
    assert float(after.abs().max()) <= 0.5


def test_svt_without_noise_to_speak_of_is_a_threshold() -> None:
    before = flat(update(0, [400]))
    after = protected(SVT(1.0, epsilon=1e12, noise_var=1e12, gamma=2.0, tau=1.0), update(0, [400]))
    torch.testing.assert_close(after, before.clamp(-2, 2) * (before.abs() >= 1.0), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, SCALES, st.integers(2, 16), st.booleans())
def test_quantising_errs_by_half_a_step(seed: int, sizes: list[int], scale: float, bits: int, stochastic: bool) -> None:
    before = update(seed, sizes, scale)
    after = Quantise(bits, stochastic).protect(before, generator=rng(seed))
    for name, tensor in before.tensors.items():
        step = float(tensor.abs().max()) / (2 ** (bits - 1) - 1)
        levels = after.tensors[name] / step
        assert float((levels - levels.round()).abs().max()) < 1e-9 * 2**bits
        assert float(levels.abs().max()) <= 2 ** (bits - 1) - 1 + 1e-9 * 2**bits
        assert float((after.tensors[name] - tensor).abs().max()) <= step * (1.0 if stochastic else 0.5) * (1 + 1e-9)


def test_stochastic_rounding_is_right_on_average() -> None:
    before = Update(tensors={"w": torch.cat([torch.full((40_000,), 0.3), torch.tensor([1.0])]).double()}, kind="delta")
    after = protected(Quantise(2, stochastic=True), before)[:-1]
    assert set(after.tolist()) == {0.0, 1.0}
    assert float(after.mean()) == pytest.approx(0.3, abs=0.01)


def test_zero_tensors_stay_zero() -> None:
    before = Update(tensors={"w": torch.zeros(5)}, kind="delta")
    for defence in (Quantise(4), Quantise(4, stochastic=True), Sign(), Clip(1.0), TopK(0.2), PercentileSharing(50, 1.0)):
        assert torch.equal(protected(defence, before), torch.zeros(5))


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIZES, SCALES)
def test_signs_carry_the_mean_magnitude(seed: int, sizes: list[int], scale: float) -> None:
    before = update(seed, sizes, scale)
    after = Sign().protect(before, generator=rng(0))
    for name, tensor in before.tensors.items():
        assert torch.equal(after.tensors[name].sign(), tensor.sign())
        torch.testing.assert_close(after.tensors[name].abs(), tensor.abs().mean().expand_as(tensor))


@pytest.mark.parametrize(("defence", "dtype"), [(HalfPrecision(), torch.float16), (BFloat16(), torch.bfloat16)])
def test_lower_precision_is_that_of_torch(defence: Defence, dtype: torch.dtype) -> None:
    before = update(0, [50], dtype=torch.float32)
    assert torch.equal(protected(defence, before), flat(before).to(dtype).float())


def test_the_server_averages_clipped_clients() -> None:
    updates = [dict(update(seed, [5, 3], scale).tensors) for seed, scale in ((0, 0.01), (1, 1.0), (2, 100.0))]
    copies = [{name: tensor.clone() for name, tensor in one.items()} for one in updates]
    mean = CentralDP(0.0, 0.5).aggregate(updates, generator=rng(0))
    clipped = [flat(Clip(0.5).protect(Update(tensors=one, kind="delta"), generator=rng(0))) for one in updates]
    torch.testing.assert_close(torch.cat(list(mean.values())), torch.stack(clipped).mean(0), rtol=1e-12, atol=1e-15)
    assert all(torch.equal(one[name], copy[name]) for one, copy in zip(updates, copies, strict=True) for name in one)


def test_the_servers_noise_is_divided_by_the_number_of_clients() -> None:
    updates = [{"w": torch.zeros(100_000)} for _ in range(4)]
    noise = CentralDP(2.0, 3.0).aggregate(updates, generator=rng(0))["w"]
    assert float(noise.std()) == pytest.approx(2.0 * 3.0 / 4, rel=0.01)
    again = CentralDP(2.0, 3.0).aggregate(updates, generator=rng(0))["w"]
    assert torch.equal(noise, again)


def test_updates_that_do_not_fit_each_other_are_named() -> None:
    server = CentralDP(1.0, 1.0)
    with pytest.raises(UpdateError, match="was given no update"):
        server.aggregate([], generator=rng(0))
    with pytest.raises(UpdateError, match="Update 2 and update 1 differ in 'b'"):
        server.aggregate([{"a": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.zeros(1)}], generator=rng(0))
    with pytest.raises(ShapeError, match=r"Tensor 'a': shape \(2,\) in update 2"):
        server.aggregate([{"a": torch.zeros(1)}, {"a": torch.zeros(2)}], generator=rng(0))
