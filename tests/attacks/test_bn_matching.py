"""`bn-matching`: what its result depends on, what it finds beside its two controls, and how it meets a declared defence."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_cases import lenet, observe, pictures, problem_for, psnr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.attacks.matching.target import target_of
from leakgauge.core import Observation, Reconstruction
from leakgauge.defences import DPSGD, Clip, GaussianNoise, PercentileNoise
from leakgauge.measures.image import ssim
from leakgauge.models import load_model
from leakgauge.truth import Batch

THREE = ("bn-matching", "bn-matching-no-statistics", "bn-matching-eval-mode")


def network(classes: int = 4, side: int = 8, width: int = 4) -> nn.Module:
    return load_model(f"shallow-resnet:width={width}", num_classes=classes, input_shape=(1, side, side), seed=0)


@cache
def client(seed: int, mode: str = "train") -> Observation:
    """One client's update of one picture of class 1."""
    return observe(network(), pictures(1, seed), labels=True, mode=mode, lr=0.1)


def rebuilt(seen: Observation, name: str = "bn-matching", budget: int = 24, **options: Any) -> Tensor:
    return lg.attack(seen, name, seed=3, budget=budget, **options).inputs


PAIRS = st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=5, deadline=None)
@given(PAIRS, st.sampled_from(["replay", "surrogate"]))
def test_without_the_batch_norm_term_the_update_decides(pair: tuple[int, int], multistep: str) -> None:
    own, other = (client(seed) for seed in pair)
    replaced = replace(own, tensors=other.tensors)
    found = rebuilt(own, statistics=0.0, multistep=multistep)
    assert float((found - rebuilt(replaced, statistics=0.0, multistep=multistep)).abs().max()) > 1e-2
    statistics_replaced = replace(own, buffers=other.buffers, batch_norm=other.batch_norm)
    assert torch.equal(found, rebuilt(statistics_replaced, statistics=0.0, multistep=multistep))


@settings(max_examples=5, deadline=None)
@given(PAIRS, st.booleans(), st.integers(1, 2))
def test_without_any_term_that_uses_it_the_result_does_not_depend_on_the_update(
    pair: tuple[int, int], prior: bool, restarts: int
) -> None:
    own, other = (client(seed) for seed in pair)
    options: dict[str, Any] = {"gradient": 0.0, "statistics": 0.0, "tv": 0.1, "l2": 0.1, "restarts": restarts}
    if prior:
        options["prior"] = torch.full((1, 8, 8), 0.4)
    found = rebuilt(own, **options)
    assert torch.equal(found, rebuilt(other, **options))
    assert torch.equal(found, rebuilt(replace(own, tensors={n: -7 * t for n, t in own.tensors.items()}), **options))
    loud = observe(network(), pictures(1, pair[0]), labels=True, mode="train", lr=0.1, defences=(GaussianNoise(1.0), Clip(0.1)))
    assert torch.equal(found, rebuilt(loud, **options))


@settings(max_examples=5, deadline=None)
@given(PAIRS)
def test_with_the_batch_norm_term_alone_only_the_buffers_count(pair: tuple[int, int]) -> None:
    own, other = (client(seed) for seed in pair)
    found = rebuilt(own, gradient=0.0)
    assert torch.equal(found, rebuilt(replace(own, tensors=other.tensors), gradient=0.0))
    replaced = replace(own, buffers=other.buffers, batch_norm=other.batch_norm)
    assert not torch.equal(found, rebuilt(replaced, gradient=0.0))
    assert torch.equal(rebuilt(other, gradient=0.0), rebuilt(replace(replaced, tensors=other.tensors), gradient=0.0))


def photograph(names: str, side: int) -> Batch:
    return lg.load_data(f"demo:{names}?size={side}&grey=true")


def scored(batch: Batch, guess: Reconstruction) -> tuple[float, float]:
    """PSNR over the batch in dB, mean SSIM."""
    assert batch.spec is not None
    assert isinstance(batch.inputs, Tensor)
    truth, found = (batch.spec.denormalise(inputs).clamp(0, 1) for inputs in (batch.inputs, guess.inputs))
    return psnr(truth, found), float(ssim(truth, found).mean())


@pytest.mark.parametrize("name", ["cat", "retina"])
def test_statistics_make_the_difference_on_a_client_in_training_mode(name: str) -> None:
    """The claim of Hatamizadeh et al. 2023 at small scale: one picture, an untrained network, equal budgets."""
    batch = photograph(name, 32)
    seen = observe(network(10, 32, 32), batch, labels=True, mode="train", lr=0.1)
    (fine, alike), (blind, _), (_, alike_eval) = (scored(batch, lg.attack(seen, attack, seed=0, budget=300)) for attack in THREE)
    assert fine >= 40
    assert alike >= 0.98
    assert blind <= fine - 10
    assert alike_eval <= alike - 0.3


def test_four_different_pictures_come_back_together() -> None:
    batch = photograph("cat,astronaut,coffee,rocket", 16)
    seen = observe(network(10, 16, 32), batch, labels=True, mode="train", lr=0.1)
    guess = lg.attack(seen, "bn-matching", seed=0, budget=400)
    assert scored(batch, guess)[0] >= 40
    assert guess.labels is not None
    assert torch.equal(guess.labels, batch.labels)


def test_the_surrogate_beats_the_control_on_two_small_steps() -> None:
    batch = photograph("cat,retina", 16)
    seen = observe(network(10, 16, 32), batch, labels=True, mode="train", lr=1e-3, steps=2, batch_size=1, shuffle=False)
    guess, control = lg.attack(seen, "bn-matching", budget=300, multistep="surrogate"), lg.attack(seen, "control")
    assert scored(batch, guess)[0] >= scored(batch, control)[0] + 10


def test_the_same_seed_gives_the_same_result_bit_for_bit_and_a_prior_picture_moves_it() -> None:
    seen = client(0)
    prior = torch.full((1, 8, 8), 0.2)
    assert torch.equal(rebuilt(seen, prior=prior, restarts=2), rebuilt(seen, prior=prior, restarts=2))
    plain, started = (rebuilt(seen, budget=1, warm=False, polish=False, grid=False, prior=one) for one in (None, prior))
    torch.testing.assert_close(started, prior[None])
    assert not torch.allclose(plain, started)
    assert torch.equal(started, rebuilt(seen, budget=1, warm=False, polish=False, grid=False, prior=prior[None]))
    with pytest.raises(lg.errors.ShapeError, match="The prior picture has shape"):
        rebuilt(seen, prior=torch.zeros(1, 4, 4))


def test_work_stays_near_the_budget() -> None:
    for name in THREE:
        assert lg.attack(client(0), name, budget=60).stats.evaluations <= 1.1 * 60


def test_the_presets_say_what_they_leave_out() -> None:
    seen = client(0)
    blind, fixed = (lg.attack(seen, name, budget=4).stats for name in THREE[1:])
    assert blind.options["statistics"] == fixed.options["statistics"] == "0.0"
    assert (blind.options["mode"], fixed.options["mode"]) == ("observed", "eval")
    assert any("assumes a client in eval mode" in note for note in fixed.notes)


@pytest.mark.parametrize(
    "defences", [(GaussianNoise(0.01, buffers=True),), (PercentileNoise(0.1),), (Clip(0.05),), (DPSGD(0.5, 0.1),)]
)
def test_a_plain_attack_ignores_a_declared_defence(defences: tuple[Any, ...]) -> None:
    dp = isinstance(defences[0], DPSGD)
    model = lenet() if dp else network()
    seen = observe(model, pictures(1), labels=True, mode="eval" if dp else "train", lr=0.1, defences=defences)
    undeclared = rebuilt(replace(seen, defences=()))
    assert torch.equal(rebuilt(seen, adaptive=False), undeclared)
    assert not torch.equal(rebuilt(seen, adaptive=True), undeclared)


def test_an_adaptive_attack_clips_each_candidate_as_dp_sgd_does() -> None:
    """Noise-free DP-SGD: the true batch explains the update where its clip is replayed, and only there."""
    batch = pictures(3)
    seen = observe(lenet().double(), batch, labels=True, dtype="float64", lr=0.1, defences=(DPSGD(0.0, 0.05),))
    truth = batch.inputs.double().reshape(-1)
    problem = problem_for(seen, batch.labels)
    assert problem.target.example_clip == 0.05
    assert float(problem.value(truth, "none")) < 1e-20
    blind = replace(problem, target=target_of(seen, "observed", torch.float64, "cpu", adaptive=False))
    assert blind.target.example_clip is None
    assert float(blind.value(truth, "none")) > 0.1


def test_the_example_on_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "bn-matching.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    start = "import torch\ntorch.set_num_threads(1)\n"
    done = subprocess.run([sys.executable, "-c", start + code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in re.findall(r"^(\S+) tensor\(\[([\d.]+)", done.stdout, re.MULTILINE)}
    assert set(found) == set(THREE)
    assert found[THREE[0]] >= max(found[THREE[1]], found[THREE[2]]) + 10
