"""`lg.record`: it changes nothing, keeps nothing it was not asked for, leaves nothing behind, and says what it cannot say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_cases import CASES, SPEC, adam, data, network, play, sgd
from safetensors import safe_open
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from leakgauge.attacks.run import attack
from leakgauge.core import LocalTraining, Observation
from leakgauge.defences import Clip
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.federated.client import Client
from leakgauge.federated.validation.validate import validate
from leakgauge.integrations.recording.loop import record
from leakgauge.integrations.recording.protocol import training_of, unsaid_of
from leakgauge.truth import Batch

LOSS = nn.functional.cross_entropy


def one_gradient(model: nn.Module, count: int = 4) -> None:
    inputs, labels = data(count)
    LOSS(model(inputs), labels).backward()


def notes_of(recorder: Any) -> str:
    return " ".join(recorder.observation.provenance.notes)


@pytest.mark.parametrize("name", ["momentum", "dropout in train mode", "clip_grad_norm_, Adam, accumulation", "torch.compile"])
def test_the_training_is_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    found = []
    for recording in (True, False):
        random.seed(1)
        np.random.seed(1)
        trained, recorder = play(CASES[name], tmp_path, recording=recording)
        assert (recorder is not None and recorder.observation is not None) is recording
        found.append((trained.state_dict(), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
    recorded, plain = found
    for key, one in recorded[0].items():
        assert torch.equal(one, plain[0][key]), key
    assert torch.equal(recorded[1], plain[1])
    assert recorded[2:] == plain[2:]


def test_global_draws_inside_and_after_the_block_are_the_same() -> None:
    def draws(recording: bool) -> list[float]:
        torch.manual_seed(3)
        model = network(norm=True).train()
        found = []
        if recording:
            with record(model, spec=SPEC):
                one_gradient(model)
                found.append(float(torch.rand(())))
        else:
            one_gradient(model)
            found.append(float(torch.rand(())))
        return [*found, float(torch.rand(()))]

    assert draws(True) == draws(False)


def test_the_observation_file_holds_no_example(tmp_path: Path) -> None:
    model, (inputs, labels) = network(), data(4)
    with record(model, spec=SPEC, out=tmp_path / "seen.safetensors") as recorder:
        recorder.batch(inputs, labels)
        LOSS(model(inputs), labels).backward()
    assert recorder.truth is None
    assert [path.name for path in tmp_path.iterdir()] == ["seen.safetensors"]
    content = (tmp_path / "seen.safetensors").read_bytes()
    assert not any(row.numpy().tobytes()[:64] in content for row in inputs)
    with safe_open(str(tmp_path / "seen.safetensors"), framework="pt") as file:
        assert all(key.startswith(("tensor/", "state/", "buffer/")) for key in file.keys())  # noqa: SIM118
        assert "order" not in str(file.metadata())


def test_one_backward_pass_is_the_gradient_that_a_client_shares(tmp_path: Path) -> None:
    model = network()
    expected = Client(network(), training=LocalTraining(mode="train")).train(Batch(*data(4), SPEC))
    with record(model.train(), loss="cross_entropy", spec=SPEC, out=tmp_path / "seen"):
        one_gradient(model)
    seen = Observation.load(tmp_path / "seen", network())
    assert seen.kind == "gradient" and seen.training == expected.training and seen.num_examples == 4
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(seen.tensors[name], tensor)


def test_a_recorded_gradient_is_attacked_like_any_other() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Sigmoid(), nn.Linear(8, 3))
    with record(model, spec=SPEC) as recorder:
        one_gradient(model, count=1)
    assert recorder.observation is not None
    guess = attack(recorder.observation, "linear-layer", seed=0)
    torch.testing.assert_close(guess.inputs.float(), data(1)[0], atol=1e-4, rtol=0)


def test_accumulated_gradients_without_a_step() -> None:
    model, (inputs, labels) = network(), data(6)
    with record(model, spec=SPEC, truth="unused") as recorder:
        recorder.truth_file = None
        for rows in torch.arange(6).split(2):
            recorder.batch(inputs[rows], labels[rows])
            (LOSS(model(inputs[rows]), labels[rows]) / 3).backward()
    seen = recorder.observation
    assert seen is not None
    assert (seen.kind, seen.training.batch_size, seen.training.accumulation) == ("gradient", 2, 3)
    assert validate(seen, model, Batch(inputs, labels, SPEC)).agrees


def test_an_error_inside_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    model = network()
    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    with pytest.raises(ZeroDivisionError), record(model, out=tmp_path / "seen", truth=tmp_path / "truth") as recorder:
        one_gradient(model)
        assert len(_global_optimizer_pre_hooks) == before[0] + 1
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert recorder.observation is None
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert not any(part._post_accumulate_grad_hooks for part in model.parameters())


def test_a_file_that_cannot_be_written_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "truth.part").mkdir()
    model, (inputs, labels) = network(), data(4)
    with pytest.raises(Exception, match="truth"), record(model, out=tmp_path / "seen", truth=tmp_path / "truth") as recorder:
        recorder.batch(inputs, labels)
        LOSS(model(inputs), labels).backward()
    assert [path.name for path in tmp_path.iterdir()] == ["truth.part"]


def test_what_trained_nothing_or_elsewhere_is_said() -> None:
    with pytest.raises(IntegrationError, match="Nothing was trained"), record(network()):
        pass
    model, inner = network(), network()
    with pytest.raises(IntegrationError, match="saw no forward pass"), record(model):
        LOSS(model[0:6](data(4)[0]), data(4)[1]).backward()  # type: ignore[index]
    with pytest.raises(OptionError, match="no loss 'crossentropy'"):
        record(inner, loss="crossentropy")
    with pytest.raises(IntegrationError, match="4 inputs and 3 labels"), record(model) as recorder:
        recorder.batch(data(4)[0], data(3)[1])


def test_labels_that_are_missing_cost_the_truth_only(tmp_path: Path) -> None:
    model = network()
    places = {"out": tmp_path / "seen", "truth": tmp_path / "truth"}
    with pytest.raises(IntegrationError, match="not given those of every mini-batch"), record(model, **places):
        one_gradient(model)
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_labels_are_granted_only_when_asked() -> None:
    model, (inputs, labels) = network(), data(4)
    for granted in (True, False):
        with record(model, spec=SPEC, labels=granted) as recorder:
            recorder.batch(inputs, labels)
            LOSS(model(inputs), labels).backward()
        assert recorder.observation is not None
        assert (recorder.observation.labels is not None) is granted
        assert recorder.truth is None
        model.zero_grad()


def test_batch_norm_can_be_left_out() -> None:
    model = network(norm=True).train()
    with record(model, spec=SPEC, batch_norm=False) as recorder:
        one_gradient(model)
    assert recorder.observation is not None
    assert not recorder.observation.buffers and not recorder.observation.batch_norm


def test_passes_without_gradients_and_unused_ones_do_not_count() -> None:
    model, (inputs, labels) = network(), data(6)
    optimiser = sgd()(model)
    with record(model, spec=SPEC) as recorder:
        with torch.no_grad():
            model(inputs[4:])
        LOSS(model(inputs[:4]), labels[:4]).backward()
        optimiser.step()
        model(inputs[:2])  # looked at, never differentiated
    assert recorder.observation is not None
    assert recorder.observation.num_examples == 4
    assert recorder.observation.training == LocalTraining(lr=0.1, mode="train")


def test_equal_rows_of_one_mini_batch_count_apart() -> None:
    model = network()
    inputs, labels = data(2)
    with record(model, spec=SPEC) as recorder:
        LOSS(model(torch.cat([inputs, inputs])), torch.cat([labels, labels])).backward()
    assert recorder.observation is not None and recorder.observation.num_examples == 4
    model.zero_grad()
    with record(model, spec=SPEC, num_examples=9) as recorder:
        one_gradient(model)
    assert recorder.observation.num_examples == 9
    assert "4 distinct examples were seen, and 9 were stated" in notes_of(recorder)
    assert "num_examples" not in recorder.observation.provenance.assumed


def test_augmented_rows_with_a_stated_count_are_whole_passes() -> None:
    model, (inputs, labels) = network(), data(6)
    optimiser = sgd()(model)
    with record(model, spec=SPEC, num_examples=6) as recorder:
        for shift in (0.0, 0.1):
            for rows in torch.arange(6).split(4):
                optimiser.zero_grad()
                LOSS(model(inputs[rows] + shift), labels[rows]).backward()
                optimiser.step()
    assert recorder.observation is not None
    training = recorder.observation.training
    assert (training.epochs, training.batch_size, training.shuffle) == (2, 4, True)
    assert "12 distinct examples were seen, and 6 were stated" in notes_of(recorder)


def test_what_the_loop_did_beside_the_protocol_is_noted() -> None:
    inputs, labels = data(8)
    model = network(norm=True).train()
    optimiser = sgd(momentum=0.9)(model)
    LOSS(model(inputs), labels).backward()
    optimiser.step()  # momentum from before, and gradients that nobody cleared
    model[1].eval()  # type: ignore[index]
    with record(model, spec=SPEC) as recorder:
        LOSS(model(inputs[:5]), labels[:5]).backward()
        optimiser.step()
        optimiser.zero_grad()
        output = model(inputs[5:])
        LOSS(output, labels[5:]).backward(retain_graph=True)
        LOSS(output, labels[5:]).backward()
        optimiser.step()
        optimiser.zero_grad()
        LOSS(model(inputs[:3]), labels[:3]).backward()
        optimiser.zero_grad()  # as a gradient scaler skips a step
        LOSS(model(inputs[:4]), labels[:4]).backward()
    words = notes_of(recorder)
    for said in (
        "brought its state", "Gradients lay on", "stayed in eval mode", "differentiated several times", "thrown away",
        "not followed by a step",
    ):  # fmt: skip
        assert said in words, said


def test_irregular_mini_batches_are_noted_and_the_truth_keeps_their_order(tmp_path: Path) -> None:
    model, (inputs, labels) = network(), data(8)
    optimiser = adam()(model)
    with record(model, spec=SPEC, truth=tmp_path / "truth", out=tmp_path / "seen") as recorder:
        for rows in ([0, 1, 2], [3], [4, 5, 6, 7], [0, 7]):
            optimiser.zero_grad()
            LOSS(model(inputs[rows]), labels[rows]).backward()
            recorder.batch(inputs[rows], labels[rows])
            optimiser.step()
    assert "they held 3, 1, 4, 2 rows" in notes_of(recorder)
    truth = Batch.load(tmp_path / "truth")
    assert truth.order == (((0, 1, 2),), ((3,),), ((4, 5, 6, 7),), ((0, 7),))
    assert torch.equal(truth.labels, labels)
    found = validate(Observation.load(tmp_path / "seen", network()), network(), truth)
    assert found.agrees and found.residual <= 1e-5


def test_weights_changed_by_hand_need_a_stated_protocol() -> None:
    def by_hand(model: nn.Module) -> None:
        one_gradient(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)  # type: ignore[operator]

    model = network()
    with pytest.raises(IntegrationError, match="learning rate is not known"), record(model):
        by_hand(model)
    model = network()
    with record(model, spec=SPEC, training=LocalTraining(lr=0.1)) as recorder:
        by_hand(model)
    assert recorder.observation is not None and recorder.observation.kind == "delta"
    assert validate(recorder.observation, model, Batch(*data(4), SPEC)).agrees


def test_a_closure_and_declared_defences() -> None:
    model = network()
    optimiser = sgd()(model)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = LOSS(model(data(4)[0]), data(4)[1])
        loss.backward()
        return loss

    with record(model, spec=SPEC, defences=(Clip(3.0),), round=7, client="ward-3", model_name="small") as recorder:
        optimiser.step(closure)
    seen = recorder.observation
    assert seen is not None and seen.provenance is not None
    assert [entry.name for entry in seen.defences] == ["clip"]
    assert seen.provenance.words == "torch, round 7, client ward-3"
    assert seen.training.lr == 0.1 and seen.num_examples == 4


def test_settings_of_optimisers() -> None:
    model = network()
    training, assumed = training_of(sgd(momentum=0.9, nesterov=True)(model), batch_size=4)
    assert training == LocalTraining(lr=0.1, momentum=0.9, nesterov=True, batch_size=4)
    assert assumed == ("steps", "mode")
    training, assumed = training_of(torch.optim.Adagrad(model.parameters(), lr=0.1), epochs=2, batch_size=4, mode="train")
    assert assumed == ("optimiser",)
    assert unsaid_of(sgd()(model)) == ()
    assert "Adagrad" in unsaid_of(torch.optim.Adagrad(model.parameters()))[0]
