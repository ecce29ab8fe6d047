"""Guards and failures in a Flower job: training goes on or stops as configured, and the log says why."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch
from flower_cases import CLIENTS, build, client_app, numpy_of, private, recorder, recordings, run_job
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp.mod import fixedclipping_mod

import leakgauge as lg
from leakgauge.errors import IntegrationError
from leakgauge.integrations.flower import RecordingGrid, RecordingMod, run_in_process

ALL = [lg.Guard("psnr > 0", lg.Probe("control")), lg.Guard("deficit >= 0")]  # rules that hold for every update


def log_of(folder, event):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def unchanged(job):
    return job.result.arrays == {} or all(
        np.array_equal(array.numpy(), build().state_dict()[name].numpy()) for name, array in job.result.arrays.items()
    )


@pytest.mark.parametrize("guard", ALL, ids=lambda guard: guard.block)
def test_averaging_goes_on_without_the_client_that_the_guard_blocks(tmp_path, guard):
    def make(context):
        return recorder(tmp_path / str(context.node_id), guard=guard if context.node_id == 2 else None)

    on_server = recorder(tmp_path / "server")
    job = run_job(RecordingMod(make, private), wrap=lambda grid, config: RecordingGrid(grid, on_server, config), rounds=2)
    assert set(job.refused) == {(1, 2), (2, 2)}
    assert {*job.refused.values()} == {  # the rules, and nothing that was measured on the private batch
        f"leakgauge: the guard held the update back (rules: {guard.block}); why stands in the client's log"
    }
    first, third = (job.wire[1, client][1] for client in (1, 3))
    received = job.wire[2, 1][0]
    for name in dict(build().named_parameters()):  # 2 and 4 examples
        assert np.array_equal(received[name], first[name] * (2 / 6) + third[name] * (4 / 6))
    decisions = log_of(tmp_path / "2", "decision")
    assert [(line["round"], line["send"]) for line in decisions] == [(1, False), (2, False)]
    assert all(line["seconds"] > 0 and guard.block in line["reason"] for line in decisions)
    assert len(recordings(tmp_path / "2")) == 2  # what was held back is on record on its own machine
    assert set(recordings(tmp_path / "server")) == {(1, "1"), (1, "3"), (2, "1"), (2, "3")}
    missing = log_of(tmp_path / "server", "not delivered")
    assert [(line["round"], line["client"]) for line in missing] == [(1, "2"), (2, "2")]
    assert all("the guard held the update back" in line["reason"] for line in missing)


@pytest.mark.parametrize("on_failure", ["block", "send"])
def test_a_guard_over_its_time_does_as_configured(tmp_path, on_failure):
    guard = lg.Guard("psnr > 1000", lg.Probe("bn-matching", time_limit=0.5), time_limit=0.05, on_failure=on_failure)
    job = run_job(RecordingMod(recorder(tmp_path, guard=guard), private), rounds=1)
    assert len(job.refused) == (CLIENTS if on_failure == "block" else 0)
    assert unchanged(job) == (on_failure == "block")
    reasons = [line["reason"] for line in log_of(tmp_path, "decision")]
    assert len(reasons) == CLIENTS
    assert all("ran over its 0.05 s" in reason for reason in reasons)


def test_a_guard_on_the_server_is_logged_and_holds_nothing_back(tmp_path):
    ours = recorder(tmp_path, guard=ALL[1])
    job = run_job(wrap=lambda grid, config: RecordingGrid(grid, ours, config), rounds=1)
    assert len(job.wire) == CLIENTS
    assert not unchanged(job)
    assert [line["send"] for line in log_of(tmp_path, "decision")] == [False] * CLIENTS


def fails(message, context):
    raise LookupError("no such partition")


def test_a_truth_that_cannot_be_gathered_costs_only_the_truth(tmp_path):
    job = run_job(RecordingMod(recorder(tmp_path, keep_truth=True), fails), rounds=2)
    assert len(job.wire) == 2 * CLIENTS
    assert len(recordings(tmp_path)) == 2 * CLIENTS
    errors = log_of(tmp_path, "error")
    assert len(errors) == 2 * CLIENTS
    assert all("truth cannot be gathered" in line["words"] and "no such partition" in line["reason"] for line in errors)


def test_a_guard_that_lacks_the_truth_does_as_configured(tmp_path):
    job = run_job(RecordingMod(recorder(tmp_path, guard=lg.Guard("rdlv > 0.3", lg.Probe("control"))), fails), rounds=1)
    assert len(job.refused) == CLIENTS
    assert all("needs the truth" in line["reason"] for line in log_of(tmp_path, "decision"))


def test_told_to_stop_the_client_fails_and_says_why(tmp_path):
    job = run_job(RecordingMod(recorder(tmp_path, on_error="stop"), fails), rounds=1)
    assert len(job.refused) == CLIENTS
    assert all("told to stop" in reason and "no such partition" in reason for reason in job.refused.values())
    assert unchanged(job)


def test_told_to_stop_the_server_stops(tmp_path):
    (tmp_path / "file").write_text("")
    ours = recorder(tmp_path / "file" / "folder", on_error="stop")
    with pytest.raises(IntegrationError, match="told to stop .* cannot be written"):
        run_job(wrap=lambda grid, config: RecordingGrid(grid, ours, config), rounds=1)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_folder_that_cannot_be_written_costs_only_the_recordings(tmp_path, side):
    (tmp_path / "file").write_text("")
    ours = recorder(tmp_path / "file" / "folder")
    if side == "client":
        job = run_job(RecordingMod(ours), rounds=2)
    else:
        job = run_job(wrap=lambda grid, config: RecordingGrid(grid, ours, config), rounds=2)
    assert len(job.wire) == 2 * CLIENTS
    assert not unchanged(job)
    assert ours.recorded == 0
    assert [entry["event"] for entry in ours.log.entries] == ["error"] * 2 * CLIENTS
    assert all("cannot be written" in entry["words"] for entry in ours.log.entries)


def test_a_full_disk_costs_only_what_it_cannot_hold(tmp_path, monkeypatch):
    save, calls = lg.Observation.save, []

    def full(seen, path, **options):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(seen, path, **options)

    monkeypatch.setattr(lg.Observation, "save", full)
    job = run_job(RecordingMod(recorder(tmp_path)), rounds=1)
    assert len(job.wire) == CLIENTS
    assert set(recordings(tmp_path)) == {(1, "1"), (1, "3")}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".jsonl", ".safetensors", ".safetensors"]
    (line,) = log_of(tmp_path, "error")
    assert (line["client"], "No space left on device" in line["reason"]) == ("2", True)


def test_arrays_of_another_network_are_refused_with_a_reason(tmp_path):
    ours = lg.Recorder(tmp_path, "shallow-resnet:width=8", spec=lg.ImageSpec((1, 8, 8)))
    job = run_job(RecordingMod(ours), rounds=1)
    assert len(job.wire) == CLIENTS
    assert ours.recorded == 0
    assert all("stem.weight" in line["reason"] for line in log_of(tmp_path, "error"))


def test_weights_that_are_not_finite_are_refused_with_a_reason(tmp_path):
    def broken(message, context, call_next):
        reply = call_next(message, context)
        arrays = reply.content["arrays"].to_torch_state_dict()
        arrays["linear.bias"][0] = torch.nan
        reply.content["arrays"] = ArrayRecord(arrays)
        return reply

    ours = recorder(tmp_path)
    run_job(RecordingMod(ours), broken, rounds=1)
    assert ours.recorded == 0
    assert all("linear.bias" in line["reason"] and "NaN" in line["reason"] for line in log_of(tmp_path, "error"))


def test_a_reply_that_is_an_error_is_logged_and_passed_on(tmp_path):
    ours = recorder(tmp_path)
    job = run_job(RecordingMod(ours), fixedclipping_mod, rounds=1)  # which lacks its setting
    assert len(job.refused) == CLIENTS
    assert ours.recorded == 0
    lines = log_of(tmp_path, "not delivered")
    assert len(lines) == CLIENTS
    assert all("clipping_norm" in line["reason"] for line in lines)


def test_train_messages_without_arrays_pass_untouched(tmp_path):
    ours = recorder(tmp_path, on_error="stop", guard=ALL[1])

    def keys(message, context, call_next):  # as a key exchange before masked updates
        return Message(RecordDict({}), reply_to=message)

    def main(grid, context):
        outer = RecordingGrid(grid, recorder(tmp_path, on_error="stop"))
        return list(outer.send_and_receive([Message(RecordDict({}), 1, "train")]))

    (reply,) = run_in_process(main, client_app(RecordingMod(ours), keys), 1)
    assert reply.has_content()
    assert ours.log.entries == []


def test_an_update_without_arrays_is_no_way_past_the_guard(tmp_path):
    def masked(message, context, call_next):  # what it sends stands elsewhere
        reply = call_next(message, context)
        if message.metadata.message_type == "train":
            reply.content["arrays"] = ArrayRecord()
        return reply

    job = run_job(RecordingMod(recorder(tmp_path, guard=ALL[1])), masked, rounds=1)
    assert len(job.refused) == CLIENTS
    assert all("without a check" in line["reason"] for line in log_of(tmp_path, "decision"))


def test_what_the_client_trains_on_is_what_the_server_sent(tmp_path):
    seen = []

    def look(message, context, call_next):
        seen.extend([numpy_of(message)] if message.metadata.message_type == "train" else [])
        return call_next(message, context)

    job = run_job(RecordingMod(recorder(tmp_path)), look, rounds=1)
    assert len(seen) == CLIENTS
    for received, (sent, _) in zip(seen, job.wire.values(), strict=True):
        assert all(np.array_equal(received[name], sent[name]) for name in sent)
