"""The clients: an ordinary ClientApp, with one mod more."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import NETWORK, PROTOCOL, SPEC, build, others, partition, train

import leakgauge as lg
from leakgauge.integrations.flower import RecordingMod


def recorder(context: Context) -> lg.Recorder:
    """Where this client records: the folder stands in the run's configuration."""
    config = context.run_config
    return lg.Recorder(
        Path(str(config["out"])) / "clients",
        NETWORK,
        spec=SPEC,
        training=PROTOCOL,
        keep_truth=True,  # this example scores itself; leave it out where the pictures must not be written anywhere
        probe=lg.Probe(str(config["probe"]), time_limit=20) if config["probe"] else None,
        wait=True,
        guard=lg.Guard(str(config["block"]), lg.Probe("bn-matching", time_limit=20), time_limit=30) if config["block"] else None,
    )


def private(_: Message, context: Context) -> lg.Private:
    """The truth of this round. It stays on the client's machine: for the guard, the probe and the file under truth/."""
    return lg.Private(partition(int(context.node_config["partition-id"])), decoys=others())


app = ClientApp(mods=[RecordingMod(recorder, private)])


@app.train()
def train_round(message: Message, context: Context) -> Message:
    """Loads the global model, trains, and sends the weights back."""
    model = build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    batch = partition(int(context.node_config["partition-id"]))
    config = context.run_config
    loss = train(model, batch, lr=config["lr"], epochs=config["local-epochs"], batch_size=config["batch-size"])
    metrics = MetricRecord({"num-examples": len(batch), "loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)
