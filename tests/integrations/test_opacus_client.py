"""A client trained by Opacus is a client like any other: same clipping, same epsilon, and its defence on record."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_cases import SPEC, Case, adam, data, network, sgd
from torch import nn

from leakgauge.core import LocalTraining, Observation, ThreatModel
from leakgauge.defences import DPSGD
from leakgauge.defences.accounting import epsilon
from leakgauge.errors import IntegrationError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.federated.validation.recompute import residual
from leakgauge.federated.validation.validate import validate
from leakgauge.integrations.opacus import OpacusClient, dp_sgd_of
from leakgauge.integrations.recording.loop import LoopRecorder, record
from leakgauge.truth import Batch

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = 12


def batch() -> Batch:
    return Batch(*data(EXAMPLES), SPEC)


def made_private(case: Case, *, noise: float, **options: Any) -> tuple[nn.Module, Any, Any]:
    """What a user of Opacus has: module, optimiser and loader from PrivacyEngine."""
    from opacus import PrivacyEngine

    torch.manual_seed(4)
    model = network().train()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data(EXAMPLES)), batch_size=case.size, shuffle=True)
    private, optimiser, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=case.optimiser(model),
        data_loader=loader,
        noise_multiplier=noise,
        max_grad_norm=0.3,
        **options,
    )
    return private if isinstance(private, nn.Module) else model, optimiser, loader  # with wrap_model=False it only hooks


def recorded(case: Case, folder: Path, *, noise: float, give: bool = True, **options: Any) -> LoopRecorder:
    """An ordinary Opacus loop inside lg.record."""
    model, optimiser, loader = made_private(case, noise=noise, **options)
    given = {"optimiser": optimiser, "num_examples": EXAMPLES} if give else {}
    with record(model, spec=SPEC, out=folder / "seen", truth=folder / "truth", **given) as recorder:
        for _ in range(case.epochs):
            for inputs, labels in loader:
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                recorder.batch(inputs, labels)
                optimiser.step()
    return recorder


@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"lr": 0.1, "epochs": 2, "batch_size": 4, "shuffle": False},
        {"lr": 0.01, "steps": 4, "batch_size": 4, "shuffle": False, "optimiser": "adam", "weight_decay": 0.1},
        {"lr": 0.1, "steps": 3, "momentum": 0.9, "reduction": "sum", "schedule": (1.0, 0.5)},
    ],
)
def test_clipping_is_our_own_clients(protocol: dict[str, Any]) -> None:
    training = LocalTraining(mode="train", **protocol)
    own = Client(network(), training=training, defences=(DPSGD(0.0, 0.3),)).train(batch())
    theirs = OpacusClient(network(), training=training, noise_multiplier=0.0, clip_norm=0.3, poisson=False).train(batch())
    unclipped = Client(network(), training=training).train(batch())
    assert residual(own.tensors, theirs.tensors) <= 1e-6
    assert residual(own.tensors, unclipped.tensors) > 0.1
    assert theirs.training == own.training and theirs.kind == own.kind
    assert theirs.defences == own.defences and theirs.num_examples == own.num_examples


def test_epsilon_is_the_engines_own_over_all_rounds() -> None:
    client = OpacusClient(network(), training=LocalTraining(lr=0.1, epochs=2, batch_size=4), noise_multiplier=1.1, clip_norm=0.3)
    assert client.epsilon(1e-5) == 0.0
    client.train(batch(), seed=0)
    once = client.epsilon(1e-5)
    client.train(batch(), seed=1)
    assert once == pytest.approx(epsilon(1.1, 4 / EXAMPLES, 6, 1e-5), rel=1e-12)
    assert client.epsilon(1e-5) == pytest.approx(epsilon(1.1, 4 / EXAMPLES, 12, 1e-5), rel=1e-12)
    silent = OpacusClient(network(), training=LocalTraining(lr=0.1), noise_multiplier=0.0)
    silent.train(batch())
    assert silent.epsilon(1e-5) == math.inf
    with pytest.raises(UnsupportedError, match="counts on Poisson sampling"):
        OpacusClient(network(), poisson=False).epsilon(1e-5)


def test_the_update_is_reproducible_observed_and_leaves_the_model_alone() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    client = OpacusClient(model, training=LocalTraining(lr=0.1, epochs=1, batch_size=4), noise_multiplier=1.0, clip_norm=0.3)
    one, same, other = client.train(batch(), seed=1), client.train(batch(), seed=1), client.train(batch(), seed=2)
    assert residual(one.tensors, same.tensors) == 0.0
    assert residual(one.tensors, other.tensors) > 0.1
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    seen = ThreatModel.honest_but_curious().observe(one, model, SPEC)
    assert seen.defences == (DPSGD(1.0, 0.3).record(),)
    assert seen.training.mode == "train" and seen.training.batch_size == 4


def test_frozen_layers_are_withheld() -> None:
    update = OpacusClient(network(frozen=True), training=LocalTraining(lr=0.1), noise_multiplier=0.0).train(batch())
    assert set(update.withheld) == {"0.weight", "0.bias"}
    assert "0.weight" not in update.tensors and "5.weight" in update.tensors


def test_what_opacus_cannot_do_is_said() -> None:
    with pytest.raises(UnsupportedError, match=r"BatchNorm mixes them \('1'\)"):
        OpacusClient(network(norm=True)).train(batch())
    with pytest.raises(UnsupportedError, match=r"accumulation=2"):
        OpacusClient(network(), training=LocalTraining(lr=0.1, accumulation=2)).train(batch())
    with pytest.raises(IntegrationError, match="SGD; expected Opacus's DPOptimizer"):
        dp_sgd_of(sgd()(network()))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        (Case(epochs=3), {}),
        (Case(sgd(momentum=0.9), size=1, epochs=2), {}),  # some Poisson samples are empty
        (Case(adam()), {"poisson_sampling": False}),
        (Case(epochs=2), {"wrap_model": False}),
    ],
)
def test_an_opacus_loop_without_noise_is_recomputed(case: Case, options: dict[str, Any], tmp_path: Path) -> None:
    recorder = recorded(case, tmp_path, noise=0.0, **options)
    seen = Observation.load(tmp_path / "seen", network())
    found = validate(seen, network(), Batch.load(tmp_path / "truth"))
    assert found.agrees and found.residual <= 1e-5, found.cause
    assert seen.defences == (DPSGD(0.0, 0.3).record(),)
    assert set(seen.tensors) == set(dict(network().named_parameters()))
    assert seen.num_examples == EXAMPLES
    assert not any("distinct examples" in note for note in seen.provenance.notes)  # type: ignore[union-attr]
    assert recorder.truth is not None and recorder.truth.order is not None
    if case.size == 1:
        assert len(recorder.truth) < EXAMPLES  # some were never drawn
        assert any(len(rows) == 0 for step in recorder.truth.order for rows in step)


@pytest.mark.parametrize("optimiser", [sgd(), sgd(momentum=0.9), adam()])
def test_noise_is_the_named_cause(optimiser: Any, tmp_path: Path) -> None:
    recorded(Case(optimiser, epochs=2), tmp_path, noise=1.0)
    seen = Observation.load(tmp_path / "seen", network())
    found = validate(seen, network(), Batch.load(tmp_path / "truth"))
    assert not found.agrees and found.residual > 0.1
    assert found.hypothesis == "private noise" and found.declared
    assert "noise_multiplier 1, clip_norm 0.3" in found.cause
    assert seen.provenance is not None and seen.provenance.engine == "opacus"
    words = " ".join(seen.provenance.notes)
    assert "Poisson sampling" in words and "noise of DP-SGD" in words
    assert "rows;" not in words  # sizes of Poisson samples are not public


def test_noise_of_another_strength_is_not_taken_for_the_declared_one(tmp_path: Path) -> None:
    import dataclasses

    recorded(Case(epochs=2), tmp_path, noise=1.0)
    seen = Observation.load(tmp_path / "seen", network())
    weaker = dataclasses.replace(seen, defences=(DPSGD(0.2, 0.3).record(),))
    assert validate(weaker, network(), Batch.load(tmp_path / "truth")).hypothesis != "private noise"


def test_a_loop_that_hides_its_optimiser_is_noted(tmp_path: Path) -> None:
    recorder = recorded(Case(epochs=1), tmp_path, noise=0.0, give=False)
    assert recorder.observation is not None and recorder.observation.provenance is not None
    assert recorder.observation.defences == ()
    assert any("its optimiser was not given" in note for note in recorder.observation.provenance.notes)


def test_recording_does_not_change_an_opacus_loop(tmp_path: Path) -> None:
    def weights(recording: bool) -> dict[str, torch.Tensor]:
        model, optimiser, loader = made_private(Case(), noise=1.0)

        def train() -> None:
            for inputs, labels in loader:
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimiser.step()

        with warnings.catch_warnings():
            if recording:
                with record(model, optimiser=optimiser, spec=SPEC):
                    train()
            else:
                train()
        return model.state_dict()

    one, other = weights(True), weights(False)
    assert all(torch.equal(one[name], other[name]) for name in one)
