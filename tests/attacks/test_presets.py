"""The named matching attacks, end to end on small networks whose leak is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_cases import CLASSES, lenet, observe, pictures, psnr
from torch import nn

import leakgauge as lg
from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.matching import GradientMatching
from leakgauge.attacks.matching.priors import BatchNormPrior, TotalVariation
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.matching.starts import Given, Grey, Mixed, Noise, Uniform, start_named
from leakgauge.core import Outcome
from leakgauge.errors import KnowledgeError, OptionError, ShapeError, UnsupportedError
from leakgauge.randomness import rng


def run(seen: lg.Observation, name: str, seed: int = 0, **options: Any) -> lg.Reconstruction:
    return lg.attack(seen, name, seed=seed, device="cpu", **options)


@pytest.mark.parametrize(
    ("name", "options", "seed"),
    [
        ("dlg", {}, 0),
        ("dlg", {}, 1),
        ("dlg", {"labels": "softmax"}, 1),
        ("dlg", {"dtype": "float64"}, 0),
        ("idlg", {}, 0),
        ("idlg", {}, 1),
        ("mu-2022", {}, 0),
        ("mu-2022", {}, 1),
    ],
    ids=str,
)
def test_one_picture_comes_back(name: str, options: dict[str, Any], seed: int) -> None:
    batch = pictures(1, seed)
    guess = run(observe(lenet(seed), batch), name, seed, **options)
    assert psnr(batch.inputs, guess.inputs) > 60
    assert guess.labels is not None
    assert guess.labels.tolist() == batch.labels.tolist()
    assert guess.explains
    assert guess.outcome is Outcome.CONVERGED
    assert guess.attack == name
    assert guess.stats.residual < 2e-5
    assert not guess.certified.any()


@pytest.mark.parametrize("form", ["joint", "softmax"])
@pytest.mark.parametrize("label", [0, 3])
def test_the_labels_reported_are_those_that_were_optimised(form: str, label: int) -> None:
    """A published tool optimised the labels, and then reported the random ones it had started from."""
    batch = pictures(1)
    batch = lg.Batch(batch.inputs, torch.tensor([label]), batch.spec)
    guess = run(observe(lenet(), batch), "dlg", labels=form, restarts=1, start="grey")
    assert guess.explains
    assert guess.labels is not None
    assert guess.labels.tolist() == [label]


def test_two_pictures_with_recovered_labels() -> None:
    batch = pictures(2)
    guess = run(observe(lenet(), batch), "idlg")
    assert guess.labels is not None
    assert guess.labels.tolist() == [1, 2]
    assert "recovered by the rule 'counts'" in guess.stats.notes[0]
    assert psnr(batch.inputs, guess.inputs) > 60


def test_labels_that_were_granted_are_used() -> None:
    batch = pictures(2)
    guess = run(observe(lenet(), batch, labels=True), "mu-2022")
    assert "Labels were granted" in guess.stats.notes[0]
    assert guess.labels is not None
    assert guess.labels.tolist() == batch.labels.tolist()
    with pytest.raises(KnowledgeError, match="told to use known labels, but the threat model does not grant them"):
        run(observe(lenet(), batch), "dlg", labels="known")


ONE_STEP = {
    "one step": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "Nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "schedule": {"lr": 0.1, "schedule": (0.5, 0.1)},
    "mini-batch that holds all": {"lr": 0.1, "batch_size": 32},
    "one epoch": {"lr": 0.1, "epochs": 1},
    "proximal": {"lr": 0.1, "proximal": 1.0},
}


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_local_step_leaks_what_the_gradient_leaks(name: str) -> None:
    batch = pictures(1)
    plain = run(observe(lenet(), batch, dtype="float64"), "mu-2022")
    stepped = run(observe(lenet(), batch, dtype="float64", **ONE_STEP[name]), "mu-2022")
    assert stepped.outcome is Outcome.CONVERGED
    torch.testing.assert_close(stepped.inputs, plain.inputs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "protocol",
    [
        {"lr": 0.1, "steps": 2, "shuffle": False},
        {"lr": 0.1, "steps": 2, "shuffle": False, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
        {"lr": 0.1, "steps": 2, "shuffle": False, "schedule": (1.0, 0.5), "clip_norm": 10.0},
        {"lr": 0.1, "epochs": 1, "batch_size": 1, "shuffle": False},
    ],
    ids=str,
)
def test_several_local_steps_are_replayed(protocol: dict[str, Any]) -> None:
    count = 2 if "batch_size" in protocol else 1
    batch = pictures(count)
    guess = run(observe(lenet(), batch, labels=True, **protocol), "dlg", labels="known")
    assert psnr(batch.inputs, guess.inputs) > 30
    assert not any("shuffles" in note for note in guess.stats.notes)


def test_a_shuffled_order_is_said() -> None:
    guess = run(observe(lenet(), pictures(2), labels=True, lr=0.1, epochs=1, batch_size=1), "dlg", labels="known", budget=60)
    assert any("shuffles its mini-batches" in note for note in guess.stats.notes)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("distance", ["cosine", "l2", "l1"])
def test_inverting_gradients_goes_down_within_the_box(signed: bool, distance: str) -> None:
    batch = pictures(2)
    spec = lg.ImageSpec(batch.inputs.shape[1:], mean=0.4, std=0.25)
    batch = lg.Batch(spec.normalise(batch.inputs), batch.labels, spec)
    guess = run(observe(lenet(), batch), "inverting-gradients", budget=200, signed=signed, distance=distance, tv=1e-3)
    pixels = spec.denormalise(guess.inputs)
    assert float(pixels.min()) > -1e-6
    assert float(pixels.max()) < 1 + 1e-6
    objectives = [point.objective for point in guess.stats.curve]
    assert objectives[-1] < 0.5 * objectives[0]
    assert guess.stats.objective == min(guess.stats.restart_objectives)
    assert guess.outcome is Outcome.STEP_LIMIT


def test_total_variation_smooths() -> None:
    seen = observe(lenet(), pictures(4), labels=True)
    rough, smooth = (run(seen, "inverting-gradients", budget=120, tv=tv, restarts=1) for tv in (0.0, 1.0))
    assert (smooth.inputs.diff(dim=3).abs().mean()) < 0.5 * rough.inputs.diff(dim=3).abs().mean()


def test_partial_sharing_still_runs() -> None:
    batch = pictures(1)
    for withhold in (("conv1.weight", "conv1.bias"), ("linear.weight",), ("conv2.weight", "conv3.bias")):
        guess = run(observe(lenet(), batch, withhold=withhold), "dlg", budget=1000)
        assert guess.inputs.shape == batch.inputs.shape
        assert torch.isfinite(guess.inputs).all()
    with pytest.raises(UnsupportedError, match="the last linear layer 'linear' was not shared"):
        run(observe(lenet(), batch, withhold=("linear.weight", "linear.bias")), "idlg")


def norm_network() -> nn.Module:
    torch.manual_seed(0)
    first, second = (nn.Conv2d(channels, 8, 5, stride=2, padding=2) for channels in (1, 8))
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.Sigmoid(), second, nn.Sigmoid(), nn.Flatten(), nn.Linear(32, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
    return model


def test_a_train_mode_client_is_matched_in_its_own_mode() -> None:
    batch = pictures(2)
    seen = observe(norm_network(), batch, labels=True, mode="train")
    own = run(seen, "mu-2022", mode="observed")
    assert own.explains
    assert psnr(batch.inputs, own.inputs) > 40
    other = run(seen, "mu-2022")
    assert not other.explains
    assert any("assumes a client in eval mode; the protocol says train mode" in note for note in other.stats.notes)


def test_parts_can_be_combined() -> None:
    batch = pictures(2)
    seen = observe(norm_network(), batch, labels=True, mode="train")
    parts = GradientMatching(
        priors=(TotalVariation(1e-4), BatchNormPrior(1e-2)), search=LBFGS(), start=Uniform(), restarts=3, chunk=2, mode="observed"
    )
    guess = parts(seen, rng(0), Limits(300))
    assert guess.stats.restarts == 3
    assert len(guess.stats.restart_objectives) == 3
    assert guess.stats.objective == min(guess.stats.restart_objectives)


def test_a_given_start_at_the_truth_is_the_end() -> None:
    batch = pictures(1)
    seen = observe(lenet(), batch, labels=True)
    guess = GradientMatching(start=Given(batch.inputs), restarts=1, labels="known")(seen, rng(0))
    torch.testing.assert_close(guess.inputs, batch.inputs, rtol=0, atol=1e-5)
    assert guess.stats.evaluations < 100
    with pytest.raises(ShapeError, match=r"starting inputs have shape \(2, 1, 8, 8\); expected \(1, 1, 8, 8\)"):
        GradientMatching(start=Given(batch.inputs.repeat(2, 1, 1, 1)))(seen, rng(0))


def test_starts() -> None:
    spec = lg.ImageSpec((1, 8, 8), mean=0.5, std=0.5)
    shape = (4, 2, 1, 8, 8)
    uniform = Uniform().draw(shape, spec, rng(0))
    assert float(uniform.min()) >= -1
    assert float(uniform.max()) <= 1
    assert float(Grey(0.0).draw(shape, spec, rng(0)).abs().max()) == 0
    assert float(Noise(2.0).draw(shape, spec, rng(0)).std()) == pytest.approx(2, rel=0.1)
    mixed = Mixed((Grey(0.0), Uniform())).draw(shape, spec, rng(0))
    assert [float(row.std()) > 0 for row in mixed] == [False, True, False, True]
    assert start_named("grey") == Grey()
    with pytest.raises(OptionError, match="There is no start 'gray'. Did you mean 'grey'"):
        start_named("gray")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": "guess"}, "labels is 'guess'; expected one of auto, known, recovered, joint, softmax"),
        ({"restarts": 0}, "restarts and .chunk must be at least 1"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected float32 or float64"),
        ({"distance": "l3"}, "There is no distance 'l3'; expected one of auto, l2, l1, cosine"),
        ({"mode": "training"}, "The mode is 'training'; expected eval, train or observed"),
        ({"step": 1}, "The attack 'dlg' has no option 'step'. Did you mean"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        run(observe(lenet(), pictures(1)), "dlg", **options)


PROGRAM = """
import json, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from attack_cases import lenet, observe, pictures
import leakgauge as lg
found = {}
for name, seed, budget in json.loads(sys.argv[2]):
    guess = lg.attack(observe(lenet(), pictures(2), labels=True), name, seed=seed, budget=budget, device="cpu")
    found[f"{name} {seed}"] = [guess.inputs.numpy().tobytes().hex(), guess.labels.tolist(), guess.stats.objective,
                               guess.stats.evaluations]
print(json.dumps(found))
"""


def test_a_seed_means_the_same_in_every_process() -> None:
    wanted = [[name, seed, 150] for name in ("dlg", "inverting-gradients") for seed in (3, 4)]
    arguments = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), json.dumps(wanted)]
    running = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    found = json.loads(outputs[0])
    for name in ("dlg", "inverting-gradients"):
        assert found[f"{name} 3"][0] != found[f"{name} 4"][0]
    guess = run(observe(lenet(), pictures(2), labels=True), "dlg", 3, budget=150)
    assert guess.inputs.numpy().tobytes().hex() == found["dlg 3"][0]


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    seen = observe(lenet(), pictures(1))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(seen, "inverting-gradients", budget=40)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(run(seen, "inverting-gradients", budget=40).inputs, first.inputs)


def test_the_observation_stays_as_it_was() -> None:
    seen = observe(lenet(), pictures(1))
    tensors = {name: part.clone() for name, part in seen.tensors.items()}
    state = {name: part.clone() for name, part in seen.model.state_dict().items()}
    run(seen, "dlg", budget=60)
    assert all(torch.equal(part, seen.tensors[name]) for name, part in tensors.items())
    assert all(torch.equal(part, seen.model.state_dict()[name]) for name, part in state.items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in seen.model.parameters())
