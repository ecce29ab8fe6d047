"""Messages of an engine as observations: bit for bit, with what was stated and what was not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from exchanges import LR, SPEC, exchange, network, private

from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import IntegrationError, ModelError, UpdateError
from leakgauge.federated.validate import validate
from leakgauge.integrations.recording.exchange import observation_of
from leakgauge.integrations.recording.protocol import DECISIVE, training_from_config


def test_the_change_is_what_was_sent_minus_what_was_received_bit_for_bit(tmp_path):
    message = exchange()
    seen = observation_of(message, network(), spec=SPEC)
    seen.save(tmp_path / "seen.safetensors")
    again = Observation.load(tmp_path / "seen.safetensors", network())
    for name, tensor in again.tensors.items():
        assert np.array_equal(tensor.numpy(), message.sent[name] - message.before[name]), name
    state = again.model.state_dict()
    assert all(np.array_equal(state[name].numpy(), array) for name, array in message.before.items())
    assert all(np.array_equal(tensor.numpy(), message.sent[name]) for name, tensor in again.buffers.items())
    assert len(again.buffers) == len(message.sent) - len(again.tensors) > 0


def test_provenance_travels_with_the_file_and_tells_one_recording_from_another(tmp_path):
    message = exchange(round_index=3, client="17", run="job-1", side="server")
    seen = observation_of(message, network(), spec=SPEC)
    seen.save(tmp_path / "seen.safetensors")
    source = Observation.load(tmp_path / "seen.safetensors", network()).provenance
    assert source == seen.provenance
    assert (source.engine, source.side, source.round, source.client, source.run) == ("test", "server", 3, "17", "job-1")
    assert source.assumed == ()
    array = message.sent["conv.weight"] if "conv.weight" in message.sent else next(iter(message.sent.values()))
    name = next(name for name, entry in message.sent.items() if entry is array)
    wanted = hashlib.sha256(f"{torch.as_tensor(array).dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
    assert source.digests[name] == wanted
    other = observation_of(exchange(1), network(), spec=SPEC).provenance
    assert other.digests[name] != wanted


def test_an_older_file_without_provenance_still_opens(tmp_path):
    seen = observation_of(exchange(), network(), spec=SPEC)
    import dataclasses

    plain = dataclasses.replace(seen, provenance=None)
    plain.save(tmp_path / "plain.safetensors")
    assert Observation.load(tmp_path / "plain.safetensors", network()).provenance is None


@pytest.mark.parametrize("kind", ["weights", "delta"])
def test_the_recorded_update_follows_from_the_true_batch(kind):
    message = exchange(count=2)
    if kind == "delta":
        change = {name: array - message.before[name] for name, array in message.sent.items()}
        message = exchange(count=2, kind="delta", sent=change)
    seen = observation_of(message, network(), spec=SPEC)
    found = validate(seen, network(), private(count=2).batch)
    assert found.agrees, found.cause
    assert found.residual <= 1e-5
    assert found.buffers_residual <= 1e-5


def test_parameters_that_were_not_sent_are_withheld():
    message = exchange()
    name = next(name for name in message.sent if name.endswith("linear.weight"))
    sent = {key: array for key, array in message.sent.items() if key != name}
    seen = observation_of(exchange(sent=sent), network(), spec=SPEC)
    assert seen.withheld == (name,)
    assert name not in seen.tensors


def test_what_nobody_stated_is_called_assumed_and_counters_tell_mode_and_steps():
    seen = observation_of(exchange(config={}, num_examples=None), network(), spec=SPEC)
    assert set(seen.provenance.assumed) == {"lr", "batch_size", "optimiser", "num_examples"}
    assert (seen.training.mode, seen.training.steps) == ("train", 1)


def test_counters_contradict_what_was_stated_and_a_note_says_so():
    """A partial protocol, such as LocalTraining(lr=0.01) alone, would otherwise mean eval mode."""
    seen = observation_of(exchange(config={}), network(), spec=SPEC, training=LocalTraining(lr=LR, steps=3))
    assert seen.training.mode == "train"
    assert seen.provenance.notes == (
        "The protocol says eval mode, but BatchNorm's counters saw train mode, which is recorded.",
        "The protocol says 3 mini-batch(es), but BatchNorm's counters saw 1.",
    )
    assert observation_of(exchange(), network(), spec=SPEC).provenance.notes == ()


def test_wrappers_around_names_are_stripped():
    message = exchange()
    wrapped = {f"module._orig_mod.{name}": array for name, array in message.sent.items()}
    plain, seen = (observation_of(entry, network(), spec=SPEC) for entry in (message, exchange(sent=wrapped)))
    assert all(torch.equal(tensor, seen.tensors[name]) for name, tensor in plain.tensors.items())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sent": {}}, IntegrationError, "holds no array that was sent back"),
        ({"before": {}}, IntegrationError, "holds no array that was received"),
        ({"kind": "model"}, IntegrationError, "expected one of weights, delta, gradient"),
        ({"sent": {"linear.weight": object()}}, IntegrationError, "expected an array"),
        ({"sent": {"nobody.weight": np.zeros(3)}}, ModelError, "which the model does not have"),
    ],
)
def test_a_message_that_does_not_fit_says_what_is_wrong(changes, error, words):
    with pytest.raises(error, match=words):
        observation_of(exchange(**changes), network(), spec=SPEC)


def test_numbers_that_are_not_finite_are_refused():
    message = exchange()
    broken = {name: array.copy() for name, array in message.sent.items()}
    next(iter(broken.values())).flat[0] = np.nan
    with pytest.raises(UpdateError, match="NaN"):
        observation_of(exchange(sent=broken), network(), spec=SPEC)


@pytest.mark.parametrize(
    ("config", "wanted", "assumed"),
    [
        ({"lr": 0.1, "local-epochs": 2, "batch-size": 4, "optimizer": "Adam", "mode": "train"},
         LocalTraining(lr=0.1, epochs=2, batch_size=4, optimiser="adam", mode="train"), ()),
        ({"Learning-Rate": "0.5", "LOCAL_STEPS": 3.0, "proximal-mu": 0.1, "max_grad_norm": 2},
         LocalTraining(lr=0.5, steps=3, proximal=0.1, clip_norm=2.0), ("batch_size", "optimiser", "mode")),
        ({"lr": "fast", "optimizer": "lion", "local-epochs": 1.5}, LocalTraining(lr=1.0), DECISIVE),
        ({"lr": float("nan"), "momentum": 7.0}, LocalTraining(lr=1.0), (*DECISIVE, "momentum")),
        ({"server-round": 3, "device": "cpu"}, LocalTraining(lr=1.0), DECISIVE),
    ],
)  # fmt: skip
def test_configurations_are_read_under_their_usual_names(config, wanted, assumed):
    assert training_from_config(config) == (wanted, assumed)


def test_the_configuration_of_a_round_wins_over_what_was_stated_once():
    once = LocalTraining(lr=0.1, epochs=1, mode="train")
    assert training_from_config({"lr": 0.01}, once) == (LocalTraining(lr=0.01, epochs=1, mode="train"), ())
    assert training_from_config({"local-steps": 4}, once)[0].steps_for(10) == 4
    assert training_from_config({}, once) == (once, ())
    assert training_from_config({"lr": LR, "epochs": 3}, gradient=True) == (LocalTraining(), ("mode",))
