"""What is claimed, and what is not: a table of cases by their words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import leakgauge as lg
from leakgauge.core import LocalTraining
from leakgauge.defences import (
    DPSGD,
    SVT,
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
from leakgauge.defences.guarantee import Guarantee, guarantee, participations
from leakgauge.errors import OptionError
from leakgauge.local.replay import draw_order
from leakgauge.randomness import rng

PLAIN = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.LazyLinear(3))
NORMED = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(3))
EVAL = {"lr": 0.1, "epochs": 2, "batch_size": 4}
TRAIN = EVAL | {"mode": "train"}


def claim(*defences: Defence, model: nn.Module = PLAIN, training: dict[str, Any] = EVAL, **more: Any) -> Guarantee:
    usual: dict[str, Any] = {"num_examples": 10, "rounds": 5, "shares_buffers": True}
    return guarantee(model, LocalTraining(**training), defences, **usual | more)


def test_dp_sgd_is_per_record_and_composes_passes_and_rounds() -> None:
    found = claim(DPSGD(8.0, 1.0))
    assert found.unit == "record"
    assert found.epsilon == lg.epsilon(4.0, 1.0, 2 * 5, 1e-5), "replacing a record halves the multiplier; 2 passes, 5 rounds"
    assert "one record that is replaced" in found.neighbours
    assert "batch counters" in found.neighbours
    assert "at most 2 mini-batch(es) a round, times 5 round(s)" in found.composition
    assert "no amplification is claimed" in found.composition
    assert "seeded pseudo-random generator" in found.noise_source
    assert "floating point" in found.noise_source
    assert found.uncovered == ()
    assert found.verdict.startswith(f"({found.epsilon:.3g}, 1e-05)-differential privacy per record")


def test_clip_then_gaussian_noise_is_per_client() -> None:
    found = claim(Clip(0.5), GaussianNoise(2.0), rounds=3, delta=1e-6)
    assert found.unit == "client"
    assert found.epsilon == lg.epsilon(2.0, 1.0, 3, 1e-6), "std / (2 norm)"
    assert "one client, all of whose records are replaced" in found.neighbours
    assert "per client" in found.verdict


@pytest.mark.parametrize(
    "defences",
    [
        (Clip(0.5), Prune(0.5), GaussianNoise(2.0)),
        (Clip(0.5), TopK(0.5), GaussianNoise(2.0)),
        (Clip(0.5), PercentileSharing(50, 1.0), GaussianNoise(2.0)),
        (Clip(0.5), Clip(0.9), GaussianNoise(2.0)),
        (Quantise(4), Clip(0.5), GaussianNoise(2.0)),
        (Clip(0.5), GaussianNoise(2.0), Sign()),
        (Clip(0.5), GaussianNoise(2.0), HalfPrecision(), Prune(0.9)),
        (GaussianNoise(1.0), Clip(0.5), GaussianNoise(2.0)),
        (DPSGD(0.0, 1.0), Clip(0.5), GaussianNoise(2.0)),
    ],
    ids=str,
)
def test_what_may_stand_around_clip_and_noise(defences: tuple[Defence, ...]) -> None:
    assert claim(*defences).epsilon == claim(Clip(0.5), GaussianNoise(2.0)).epsilon


def test_what_follows_dp_sgd_is_post_processing() -> None:
    assert claim(DPSGD(8.0, 1.0), Prune(0.9), Quantise(4)).epsilon == claim(DPSGD(8.0, 1.0)).epsilon


@pytest.mark.parametrize(
    ("defences", "words"),
    [
        ((), "no defence is applied"),
        ((GaussianNoise(1.0),), "there is noise but no clip before it"),
        ((GaussianNoise(1.0), Clip(1.0)), "the noise comes before the clip"),
        ((Clip(1.0),), "clipping alone hides nothing"),
        ((Clip(1.0), GaussianNoise(0.0)), "the clip is there, but the noise is zero"),
        ((Clip(1.0), Quantise(4), GaussianNoise(1.0)), "a defence that may make the update longer"),
        ((Clip(1.0), LaplacianNoise(1.0)), "Laplacian noise would need a bound on the sum of magnitudes"),
        ((LaplacianNoise(1.0),), "laplacian-noise is no mechanism of differential privacy"),
        ((Clip(1.0), PercentileNoise(1.0)), "the size of the noise depends on the private data"),
        ((PercentileNoise(1.0),), "percentile-noise is no mechanism"),
        ((Prune(0.9),), "prune is no mechanism of differential privacy"),
        ((HalfPrecision(),), "half-precision is no mechanism"),
        ((Sign(), Quantise(8)), "sign, quantise is no mechanism"),
        ((SVT(0.1),), "svt is no mechanism"),
        ((PercentileSharing(90, 0.1),), "percentile-sharing is no mechanism"),
        ((DPSGD(0.0, 1.0),), "dp-sgd with noise multiplier 0 adds no noise"),
        ((CentralDP(1.0, 1.0),), "no defence acts before the update reaches the server"),
    ],
    ids=str,
)
def test_no_guarantee_and_why(defences: tuple[Defence, ...], words: str) -> None:
    found = claim(*defences)
    assert found.epsilon is None
    assert found.unit == ""
    assert found.verdict.startswith("no guarantee: not covered is the shared parameters: ")
    assert words in found.verdict
    assert len(found.uncovered) == 1
    assert words in found.uncovered[0]


def test_running_statistics_are_not_covered_where_training_changes_and_shares_them() -> None:
    both = (Clip(1.0), GaussianNoise(2.0))
    for noise in (GaussianNoise(2.0), GaussianNoise(2.0, buffers=True)):
        found = claim(Clip(1.0), noise, model=NORMED, training=TRAIN)
        assert found.epsilon is None
        assert found.uncovered == (
            "the running statistics of 1 BatchNorm layer(s), which local training computes from private data",
        )
    assert claim(*both, model=NORMED, training=EVAL).epsilon is not None, "in eval mode they are constants"
    assert claim(*both, model=NORMED, training=TRAIN, shares_buffers=False).epsilon is not None, "kept local"
    assert claim(*both, model=PLAIN, training=TRAIN).epsilon is not None, "there are none"


def test_dp_sgd_on_a_network_that_mixes_examples_claims_nothing() -> None:
    found = claim(DPSGD(8.0, 1.0), model=NORMED, training=TRAIN, shares_buffers=False)
    assert found.epsilon is None
    assert "BatchNorm ('1') mixes examples" in found.verdict
    assert claim(DPSGD(8.0, 1.0), model=NORMED, training=EVAL).epsilon is not None


def test_metrics_are_not_covered() -> None:
    found = claim(DPSGD(8.0, 1.0), shares_metrics=True)
    assert found.epsilon is None
    assert found.uncovered == ("the metrics (loss, accuracy), which the client computes on private data",)


def test_central_noise_never_protects_against_the_server() -> None:
    found = claim(CentralDP(4.0, 1.0))
    assert found.epsilon is None
    assert "never protects against the server itself" in found.verdict
    assert f"({lg.epsilon(2.0, 1.0, 5, 1e-5):.3g}, 1e-05)-differential privacy per client over 5 round(s)" in found.verdict
    assert "nor, here, against those who see the aggregate only" in claim(CentralDP(4.0, 1.0), shares_metrics=True).verdict
    assert "nor, here" in claim(CentralDP(4.0, 1.0), model=NORMED, training=TRAIN).verdict
    assert claim(DPSGD(8.0, 1.0), CentralDP(4.0, 1.0)).epsilon == claim(DPSGD(8.0, 1.0)).epsilon


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"batch_size": 3},
        {"batch_size": 3, "accumulation": 3},
        {"lr": 0.1, "epochs": 3},
        {"lr": 0.1, "epochs": 3, "batch_size": 3},
        {"lr": 0.1, "epochs": 3, "batch_size": 3, "drop_last": True},
        {"lr": 0.1, "epochs": 3, "batch_size": 4, "accumulation": 2},
        {"lr": 0.1, "epochs": 4, "batch_size": 4, "accumulation": 5},
        {"lr": 0.1, "steps": 7, "batch_size": 4},
        {"lr": 0.1, "steps": 7, "batch_size": 4, "shuffle": False},
        {"lr": 0.1, "steps": 3, "batch_size": 4, "accumulation": 4, "drop_last": True},
        {"lr": 0.1, "steps": 3, "batch_size": 50},
    ],
    ids=str,
)
def test_participations_bound_what_the_client_really_does(training: dict[str, Any]) -> None:
    protocol, count = LocalTraining(**training), 10
    passes, most = participations(protocol, count)
    for seed in range(20):
        steps = draw_order(protocol, count, rng(seed))
        if protocol.lr is None:
            steps = steps[:1]
        seen = torch.zeros(len(steps), count)
        for row, batches in enumerate(steps):
            for batch in batches:
                seen[row, batch] += 1
        assert int(seen.sum(0).max()) <= passes
        assert int(seen.max()) <= most
        cost = seen.square().sum(0).max()  # a step that holds a record m times moves by m C, which costs m^2
        assert int(cost) <= passes * most
    assert passes <= (training.get("epochs") or 10)


def test_steps_that_reach_over_a_pass_cost_more() -> None:
    over = claim(DPSGD(8.0, 1.0), training={"lr": 0.1, "epochs": 4, "batch_size": 4, "accumulation": 5})
    assert over.epsilon == lg.epsilon(4.0, 1.0, 4 * 3 * 5, 1e-5) or over.epsilon == lg.epsilon(4.0, 1.0, 4 * 2 * 5, 1e-5)
    assert "of them in one optimiser step" in over.composition


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"num_examples": 0}, "guarantee's num_examples is 0; expected a whole number >= 1"),
        ({"rounds": 1.5}, "guarantee's rounds is 1.5"),
        ({"delta": 0.0}, r"guarantee's delta is 0.0; expected a number in \(0, 1\)"),
    ],
)
def test_counts_out_of_range_are_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        claim(DPSGD(1.0, 1.0), **more)
