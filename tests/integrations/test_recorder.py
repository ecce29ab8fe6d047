"""The recorder: files and log lines are counted, failures go where they are configured to go, the truth stays at home."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from exchanges import MODEL, SPEC, exchange, network, private
from safetensors import safe_open

from leakgauge.audit.guard.guard import Guard
from leakgauge.audit.guard.probe import Probe
from leakgauge.core.observation import Observation
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.federated.validate import validate
from leakgauge.integrations.recording.log import read_log
from leakgauge.integrations.recording.recorder import Recorder
from leakgauge.truth import Batch


def recorder(folder: Path, **options: object) -> Recorder:
    return Recorder(folder, MODEL, spec=SPEC, num_classes=10, **options)


def events(folder: Path, name: str) -> list[dict]:
    return [entry for entry in read_log(folder) if entry["event"] == name]


def test_each_message_becomes_one_observation_with_its_model_named(tmp_path):
    with recorder(tmp_path) as own:
        for index in (1, 2):
            for client in ("a", "b/c"):
                assert own.record(exchange(round_index=index, client=client)).send
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == [
        "round-0001-client-a.safetensors", "round-0001-client-b-c.safetensors",
        "round-0002-client-a.safetensors", "round-0002-client-b-c.safetensors",
    ]  # fmt: skip
    assert own.recorded == len(events(tmp_path, "recorded")) == 4
    assert (tmp_path / "MODEL").read_text() == MODEL + "\n"
    seen = Observation.load(tmp_path / names[1], network())
    assert (seen.provenance.round, seen.provenance.client, seen.model_name) == (1, "b/c", MODEL)


def test_a_second_message_of_a_client_in_a_round_overwrites_nothing(tmp_path):
    own = recorder(tmp_path)
    paths = [own.record(exchange(index)).path.name for index in (0, 1)]
    assert paths == ["round-0001-client-site-1.safetensors", "round-0001-client-site-1-2.safetensors"]


def test_no_number_of_the_batch_is_in_what_is_recorded(tmp_path):
    """Neither inputs nor labels, in any tensor, although the recorder was handed the truth."""
    own = recorder(tmp_path, guard=Guard("psnr > 1000", probe=Probe("control"), on_failure="send"))
    truth = private(count=3)
    path = own.record(exchange(count=3), truth).path
    pixels = truth.batch.inputs.flatten(1)
    with safe_open(str(path), framework="pt") as file:
        assert "labels" not in file.keys()  # noqa: SIM118
        for name in file.keys():  # noqa: SIM118
            values = file.get_tensor(name).flatten().float()
            for row in pixels:
                windows = values.unfold(0, len(row), 1) if len(values) >= len(row) else values[:0].reshape(0, len(row))
                assert not bool((windows == row).all(1).any()), name
    assert not (tmp_path / "truth").exists()


def test_the_truth_goes_to_a_file_of_its_own_only_when_asked(tmp_path):
    own = recorder(tmp_path, keep_truth=True)
    path = own.record(exchange(), private()).path
    truth = tmp_path / "truth" / "round-0001-client-site-1.truth.safetensors"
    batch = Batch.load(truth)
    assert torch.equal(batch.inputs, private().batch.inputs)
    assert validate(Observation.load(path, network()), network(), batch).agrees


def test_a_guard_that_blocks_is_logged_with_reason_and_time(tmp_path):
    own = recorder(tmp_path, guard=Guard("determinable > 0"))
    found = own.record(exchange())
    assert not found.send
    (line,) = events(tmp_path, "decision")
    assert line["send"] is False
    assert line["reason"].startswith("Blocked: determinable > 0")
    assert line["seconds"] > 0
    assert (line["round"], line["client"]) == (1, "site-1")
    assert len(events(tmp_path, "recorded")) == 1


def test_a_probe_on_the_side_logs_its_finding_per_round(tmp_path):
    with recorder(tmp_path, probe=Probe("control", time_limit=5)) as own:
        for index in (1, 2):
            own.record(exchange(round_index=index), private(decoys=20))
    lines = events(tmp_path, "probe")
    assert [line["round"] for line in lines] == [1, 2]
    assert all(line["psnr"] > 0 and line["decoys"] == 20 for line in lines)


def test_waiting_for_the_probe_leaves_its_line_before_record_returns(tmp_path):
    own = recorder(tmp_path, probe=Probe("control", time_limit=5), wait=True)
    own.record(exchange(), private())
    assert len(events(tmp_path, "probe")) == 1


def test_a_message_that_cannot_be_read_costs_nothing_but_its_file(tmp_path, caplog):
    own = recorder(tmp_path)
    with caplog.at_level(logging.WARNING, "leakgauge.recorder"):
        found = own.record(exchange(sent={"other": torch.zeros(2)}))
    assert found.send
    assert found.path is None
    assert "The message cannot be read: The weights after hold 'other'" in found.error
    assert found.error.rstrip(".") in caplog.text
    assert own.record(exchange()).path is not None


def test_with_a_guard_a_message_that_cannot_be_read_meets_the_stated_default(tmp_path):
    for default, send in (("block", False), ("send", True)):
        own = recorder(tmp_path / default, guard=Guard("psnr > 1", on_failure=default))
        assert own.record(exchange(sent={"other": torch.zeros(2)})).send is send


def test_a_full_disk_is_logged_and_the_guard_still_decides(tmp_path, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    own = recorder(tmp_path, guard=Guard("determinable > 0"))
    monkeypatch.setattr(Observation, "save", full)
    found = own.record(exchange())
    assert not found.send
    assert "No space left on device" in found.error
    assert "No space left on device" in caplog.text
    assert list(tmp_path.glob("*.safetensors")) == list(tmp_path.glob("*.part")) == []


def test_a_folder_that_cannot_be_written_stops_the_training_only_if_told_to(tmp_path, caplog):
    place = tmp_path / "file"
    place.write_text("no folder")
    found = recorder(place / "below").record(exchange())
    assert found.send
    assert "cannot be written" in found.error
    assert "cannot be written" in caplog.text
    with pytest.raises(IntegrationError, match=r"told to stop the training.*cannot be written"):
        recorder(place / "below", on_error="stop").record(exchange())


def test_a_truth_that_cannot_be_gathered_costs_nothing_but_itself(tmp_path):
    def lost() -> None:
        raise RuntimeError("no such patient")

    guard = Guard("psnr > 1", on_failure="send")
    found = recorder(tmp_path / "on", guard=guard, keep_truth=True).record(exchange(), lost)
    assert found.path is not None
    assert found.error == "The truth cannot be gathered: no such patient."
    assert "needs the truth" in found.decision.failure
    assert not (tmp_path / "on" / "truth").exists()
    assert recorder(tmp_path / "word").record(exchange(), lambda: "a word").error.endswith("expected a Private, or None.")
    given = recorder(tmp_path / "given", keep_truth=True).record(exchange(), private)
    assert (given.error, len(list((tmp_path / "given" / "truth").iterdir()))) == ("", 1)
    with pytest.raises(IntegrationError, match="no such patient"):
        recorder(tmp_path / "stop", on_error="stop").record(exchange(), lost)


def test_a_message_that_cannot_be_gathered_follows_the_same_rule(tmp_path):
    found = recorder(tmp_path, guard=Guard("psnr > 1", on_failure="send")).refuse(exchange(), RuntimeError("no such patient"))
    assert found.send
    assert "no such patient" in found.error
    with pytest.raises(IntegrationError, match="no such patient"):
        recorder(tmp_path, on_error="stop").refuse(exchange(), RuntimeError("no such patient"))


def test_a_recorder_travels_to_another_process(tmp_path):
    own = recorder(tmp_path, probe=Probe("control"))
    own.record(exchange(), private())
    again = pickle.loads(pickle.dumps(own))
    assert again.record(exchange(round_index=2), private()).path.is_file()
    again.close()
    own.close()
    assert len(events(tmp_path, "probe")) == 2


def test_wrong_settings_are_refused_at_once(tmp_path):
    with pytest.raises(OptionError, match="expected 'continue' or 'stop'"):
        Recorder(tmp_path, MODEL, on_error="ignore")
