"""A Flower job of three clients and three rounds with BatchNorm: what is recorded is what crossed the wire."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch
from flower_cases import (
    CLIENTS,
    CONFIG,
    ROUNDS,
    build,
    client_app,
    private,
    private_batch,
    recorder,
    recordings,
    run_job,
    same_bits,
)
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import leakgauge as lg
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.federated.validate import validate
from leakgauge.integrations.flower import (
    Payload,
    RecordingGrid,
    RecordingMod,
    run_in_process,
    to_record,
    to_tensors,
)
from leakgauge.integrations.flower.message import read_request

EVERY = {(number, str(client)) for number in range(1, ROUNDS + 1) for client in range(1, CLIENTS + 1)}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flower")
    on_clients, on_server = recorder(folder / "clients"), recorder(folder / "server")
    done = run_job(RecordingMod(on_clients), wrap=lambda grid, config: RecordingGrid(grid, on_server, config))
    return folder, done


def test_every_train_reply_is_recorded_once_on_each_side_and_nothing_else(job):
    folder, done = job
    assert len(done.wire) == ROUNDS * CLIENTS
    for side in ("clients", "server"):
        assert set(recordings(folder / side)) == EVERY  # evaluation messages went the same way
        assert (folder / side / "MODEL").read_text().strip() == "shallow-resnet:width=4"
        assert len((folder / side / "log.jsonl").read_text().splitlines()) == ROUNDS * CLIENTS


@pytest.mark.parametrize("side", ["clients", "server"])
def test_recorded_change_and_buffers_are_the_arrays_on_the_wire_bit_for_bit(job, side):
    folder, done = job
    found = recordings(folder / side)
    parameters = dict(build().named_parameters())
    for (number, client), (received, sent) in done.wire.items():
        seen = found[number, str(client)]
        assert set(seen.tensors) == set(parameters)
        for name in parameters:
            assert same_bits(seen.tensors[name], sent[name] - received[name]), (number, client, name)
            assert same_bits(seen.model.state_dict()[name], received[name])
        buffers = set(sent) - set(parameters)
        assert set(seen.buffers) == buffers
        assert len(buffers) == 9
        for name in buffers:
            assert same_bits(seen.buffers[name], sent[name])
        for name, array in sent.items():
            said = hashlib.sha256(f"torch.{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
            assert seen.provenance.digests[name] == said


def test_both_sides_recorded_the_same_bits(job):
    folder, _ = job
    ours, theirs = recordings(folder / "clients"), recordings(folder / "server")
    for key, seen in ours.items():
        other = theirs[key]
        assert (seen.provenance.side, other.provenance.side) == ("client", "server")
        assert seen.provenance.digests == other.provenance.digests
        assert (seen.training, seen.num_examples, seen.provenance.assumed) == (
            other.training, other.num_examples, other.provenance.assumed)  # fmt: skip
        for name, tensor in seen.tensors.items():
            assert torch.equal(tensor, other.tensors[name])
        for name, tensor in seen.buffers.items():
            assert torch.equal(tensor, other.buffers[name])


def test_round_client_examples_and_protocol_come_from_the_job(job):
    folder, _ = job
    for (number, client), seen in recordings(folder / "clients").items():
        assert seen.num_examples == len(private_batch(int(client)))
        size = None if seen.num_examples == 2 else 2  # two of two are the whole batch
        assert (seen.training.lr, seen.training.epochs, seen.training.batch_size) == (0.05, 2, size)
        assert seen.training.mode == "train"  # told by BatchNorm's counters
        assert seen.provenance.assumed == ()
        assert (seen.provenance.engine, seen.provenance.run, seen.provenance.round) == ("flower", "1", number)
        assert len(seen.batch_norm) == 3


def test_the_true_batch_explains_every_recording(job):
    folder, _ = job
    for (_, client), seen in recordings(folder / "server").items():
        assert validate(seen, seen.model, private_batch(int(client))).residual <= 1e-5


def test_the_job_itself_is_the_same_with_and_without_recorders(job):
    plain = run_job()
    _, recorded = job
    for name, array in plain.result.arrays.items():
        assert array.data == recorded.result.arrays[name].data


def test_messages_pushed_and_pulled_one_by_one_are_recorded_too(tmp_path):
    ours = recorder(tmp_path)

    def main(grid, context):
        outer = RecordingGrid(grid, ours, context.run_config)
        content = RecordDict({"arrays": ArrayRecord(build().state_dict())})
        messages = [outer.create_message(content, "train", node, "7") for node in outer.get_node_ids()]
        ids = list(outer.push_messages(messages))
        replies = [reply for message_id in reversed(ids) for reply in outer.pull_messages([message_id])]
        assert outer.run.run_id == 1
        assert outer.num_clients == CLIENTS  # anything else is the inner grid's
        return len(replies)

    assert run_in_process(main, client_app(), CLIENTS, CONFIG) == CLIENTS
    assert set(recordings(tmp_path)) == {(7, "1"), (7, "2"), (7, "3")}  # the round is the group's name


def test_the_truth_is_written_only_when_asked(tmp_path):
    run_job(RecordingMod(recorder(tmp_path / "without"), private), rounds=1)
    assert len(recordings(tmp_path / "without")) == CLIENTS
    assert not (tmp_path / "without" / "truth").exists()
    secret = private_batch(1).inputs.numpy().tobytes()[:64]
    assert all(secret not in path.read_bytes() for path in (tmp_path / "without").iterdir())
    run_job(RecordingMod(recorder(tmp_path / "with", keep_truth=True), private), rounds=1)
    for (number, client), seen in recordings(tmp_path / "with").items():
        truth = lg.Batch.load(tmp_path / "with" / "truth" / f"round-{number:04d}-client-{client}.truth.safetensors")
        assert torch.equal(truth.inputs, private_batch(int(client)).inputs)
        assert validate(seen, seen.model, truth).residual <= 1e-5


def test_an_attack_on_the_side_logs_rdlv_for_each_round_and_client(tmp_path):
    ours = recorder(tmp_path, probe=lg.Probe("control"), wait=True)
    run_job(RecordingMod(ours, private), rounds=2)
    found = {(entry["round"], entry["client"]): entry for entry in ours.log.entries if entry["event"] == "probe"}
    assert set(found) == {(number, str(client)) for number in (1, 2) for client in (1, 2, 3)}
    assert all(isinstance(entry["rdlv"], float) and entry["decoys"] == 30 for entry in found.values())


def test_a_recorder_may_be_made_of_the_context_once_per_client_and_run(tmp_path):
    made = []

    def make(context):
        made.append(context.node_id)
        return recorder(tmp_path / str(context.node_config["partition-id"]))

    run_job(RecordingMod(make), rounds=2)
    assert sorted(made) == [1, 2, 3]
    assert [len(recordings(tmp_path / str(place))) for place in range(3)] == [2, 2, 2]


def test_lists_of_arrays_without_names_get_the_names_of_the_network(tmp_path):
    def unnamed(message, context, call_next):
        named = ArrayRecord(
            {
                name: Array(array.numpy())
                for name, array in zip(build().state_dict(), message.content["arrays"].values(), strict=True)
            }
        )
        message.content["arrays"] = named
        reply = call_next(message, context)
        reply.content["arrays"] = ArrayRecord([array.numpy() for array in reply.content["arrays"].values()])
        reply.content["metrics"]["num_examples"] = reply.content["metrics"].pop("num-examples")
        return reply

    ours = recorder(tmp_path)

    def main(grid, context):
        content = RecordDict({"arrays": ArrayRecord([tensor.numpy() for tensor in build().state_dict().values()])})
        return list(RecordingGrid(grid, ours).send_and_receive([Message(content, 1, "train")]))

    (reply,) = run_in_process(main, client_app(unnamed), 1, CONFIG)
    (seen,) = recordings(tmp_path).values()
    assert seen.provenance.round is None
    assert seen.num_examples == 2
    for name, array in zip(build().state_dict(), reply.content["arrays"].values(), strict=True):
        if name in seen.tensors:
            assert same_bits(seen.tensors[name], array.numpy() - build().state_dict()[name].numpy())


def test_of_several_array_records_the_named_one_is_recorded(tmp_path):
    def crowded(message, context, call_next):
        message.content["more"] = ArrayRecord([np.zeros(3)])
        reply = call_next(message, context)
        reply.content["more"] = ArrayRecord([np.zeros(3)])
        return reply

    def plain(message, context, call_next):  # federated averaging takes one record only
        reply = call_next(message, context)
        reply.content.pop("more", None)
        return reply

    ours = recorder(tmp_path)
    run_job(plain, RecordingMod(ours), crowded, rounds=1, clients=2)
    assert len(recordings(tmp_path)) == ours.recorded == 2
    other = recorder(tmp_path / "other")
    run_job(plain, RecordingMod(other, payload=Payload(arrayrecord_key="weights")), crowded, rounds=1, clients=2)
    assert other.recorded == 0
    reasons = [entry["reason"] for entry in other.log.entries]
    assert len(reasons) == 2
    assert all("'arrays', 'more'" in reason and "arrayrecord_key" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("config", "group", "expected"),
    [({"server-round": 3}, "9", 3), ({"server_round": 3.0}, "", 3), ({"current_round": "12"}, "", 12), ({}, "5", 5),
     ({"round": float("nan")}, "", None), ({"round": True}, "evening", None)],
)  # fmt: skip
def test_the_round_is_found_where_jobs_keep_it(config, group, expected):
    content = RecordDict({"arrays": ArrayRecord([np.zeros(1)]), "config": ConfigRecord(config)})
    metadata = Metadata(1, "", 0, 1, "", group, 0.0, 1.0, "train")
    assert read_request(Message(content=content, metadata=metadata), {}, side="client").facts["round"] == expected


def test_clients_do_not_share_what_they_received():
    def emptying(message, context, call_next):
        reply = call_next(message, context)
        message.content["arrays"].clear()
        return reply

    assert len(run_job(emptying, rounds=1).wire) == CLIENTS


def test_a_client_that_raises_is_answered_for_as_in_the_engine():
    app = ClientApp()

    @app.train()
    def fails(message, context):
        raise RuntimeError("out of memory")

    def main(grid, context):
        content = RecordDict({"arrays": ArrayRecord(build().state_dict())})
        return list(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))

    replies = run_in_process(main, app, 2)
    assert [reply.error.reason for reply in replies] == ["RuntimeError: out of memory"] * 2
    assert isinstance(replies[0].error, Error)


def test_a_strategy_that_waits_for_more_clients_is_told(monkeypatch):
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    with pytest.raises(IntegrationError, match="more than the 1 client.*min_available_nodes"):
        run_job(clients=1)  # federated averaging trains two at least


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_arrays_become_tensors_and_arrays_again_bit_for_bit(kind):
    bits = torch.randint(0, 256, (6, 8), generator=lg.rng(0, kind), dtype=torch.uint8)  # NaN and infinities too
    wide = bits.view(getattr(torch, kind)) if kind != "bool" else bits > 127
    tensors = {"matrix": wide, "strided": wide.T, "scalar": wide[0, 0], "empty": wide[:0]}
    record = to_record(tensors)
    back = to_tensors(record)
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert same_bits(back[name], np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape))
    again = to_record(back)
    assert [array.numpy().tobytes() for array in again.values()] == [array.numpy().tobytes() for array in record.values()]


def test_types_that_flower_cannot_send_and_arrays_that_are_none_are_named():
    with pytest.raises(IntegrationError, match="'weight' has the type torch.bfloat16"):
        to_record({"weight": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(IntegrationError, match="'weight' of the message cannot be read"):
        to_tensors({"weight": Array("float32", (1,), "other", b"0000")})
    with pytest.raises(OptionError, match="Payload.kind is 'weight'"):
        Payload(kind="weight")


def test_a_mod_can_be_sent_to_another_process(tmp_path):
    again = pickle.loads(pickle.dumps(RecordingMod(recorder(tmp_path), private)))
    run_job(again, rounds=1)
    assert len(recordings(tmp_path)) == CLIENTS


def test_a_client_that_sends_its_change_is_recorded_as_one(tmp_path):
    def difference(message, context, call_next):
        before = message.content["arrays"].to_torch_state_dict()
        reply = call_next(message, context)
        after = reply.content["arrays"].to_torch_state_dict()
        reply.content["arrays"] = to_record({name: after[name] - before[name].to(after[name].dtype) for name in after})
        reply.content["metrics"] = MetricRecord({"weight": 3, "loss": 0.5})
        return reply

    ours = recorder(tmp_path)
    mod = RecordingMod(ours, payload=Payload(kind="delta", weighted_by_key="weight"))

    def main(grid, context):
        content = RecordDict({"arrays": ArrayRecord(build().state_dict())})
        return list(grid.send_and_receive([Message(content, 1, "train", group_id="4")]))

    (reply,) = run_in_process(main, client_app(mod, difference), 1, CONFIG)
    (seen,) = recordings(tmp_path).values()
    assert seen.num_examples == 3
    for name, tensor in seen.tensors.items():
        assert same_bits(tensor, reply.content["arrays"][name].numpy())
