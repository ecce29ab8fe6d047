"""A small Flower job that the tests run in this process: three clients, a network with BatchNorm, federated averaging."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

import leakgauge as lg
from leakgauge.integrations.flower import InProcessGrid, run_in_process

NETWORK = "shallow-resnet:width=4"
SPEC = lg.ImageSpec((1, 8, 8))
CONFIG = {"lr": 0.05, "local-epochs": 2, "batch-size": 2, "optimiser": "sgd", "shuffle": False}
ROUNDS, CLIENTS = 3, 3


def build() -> nn.Module:
    return lg.load_model(NETWORK, num_classes=2, input_shape=SPEC.shape, seed=0)


def private_batch(client: int) -> lg.Batch:
    """Client 1 has 2 examples, client 2 has 3, client 3 has 4."""
    count = client + 1
    return lg.Batch(torch.rand(count, *SPEC.shape, generator=lg.rng(client, "data")), torch.arange(count) % 2, SPEC)


def private(message: Message, context: Context) -> lg.Private:
    return lg.Private(private_batch(context.node_id), decoys=torch.rand(30, *SPEC.shape, generator=lg.rng(9, "decoys")))


def train_once(message: Message, context: Context) -> Message:
    model, batch = build(), private_batch(context.node_id)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=CONFIG["lr"])
    for _ in range(CONFIG["local-epochs"]):
        for inputs, labels in zip(batch.inputs.split(2), batch.labels.split(2), strict=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
    metrics = MetricRecord({"num-examples": len(batch), "loss": 0.5})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


def evaluate_once(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})}), reply_to=message)


def client_app(*mods: Any) -> ClientApp:
    app = ClientApp(mods=list(mods))
    app.train()(train_once)
    app.evaluate()(evaluate_once)
    return app


def numpy_of(message: Message) -> dict[str, np.ndarray]:
    """The arrays of a message, read by numpy alone."""
    return {name: array.numpy() for name, array in message.content["arrays"].items()}


@dataclass
class Job:
    """A run and what crossed its wire, noted without any of our code.

    `wire` maps (round, client) to the arrays received and sent; `refused` to the reason of an error reply.
    """

    result: Any = None
    wire: dict[tuple[int, int], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = field(default_factory=dict)
    refused: dict[tuple[int, int], str] = field(default_factory=dict)

    def tap(self, grid: InProcessGrid) -> InProcessGrid:
        inner = grid.pull_messages
        sent: dict[str, Message] = {}
        push = grid.push_messages

        def push_messages(messages: Any) -> list[str]:
            messages = list(messages)
            ids = list(push(messages))
            sent.update(zip(ids, messages, strict=True))
            return ids

        def pull_messages(ids: Any) -> list[Message]:
            replies = list(inner(ids))
            for reply in replies:
                message = sent[reply.metadata.reply_to_message_id]
                if message.metadata.message_type != "train":
                    continue
                key = (message.content["config"]["server-round"], reply.metadata.src_node_id)
                if reply.has_error():
                    self.refused[key] = reply.error.reason
                else:
                    self.wire[key] = (numpy_of(message), numpy_of(reply))
            return replies

        grid.push_messages, grid.pull_messages = push_messages, pull_messages
        return grid


def run_job(*mods: Any, wrap: Any = lambda grid, config: grid, rounds: int = ROUNDS, clients: int = CLIENTS) -> Job:
    """Runs the job; `wrap` may put a grid around the tapped one."""
    job = Job()

    def main(grid: InProcessGrid, context: Context) -> Any:
        return FedAvg(min_available_nodes=clients).start(
            grid=wrap(job.tap(grid), context.run_config),
            initial_arrays=ArrayRecord(build().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({}),
        )

    job.result = run_in_process(main, client_app(*mods), clients, CONFIG)
    return job


def recorder(folder: Any, **options: Any) -> lg.Recorder:
    return lg.Recorder(folder, NETWORK, spec=SPEC, **options)


def recordings(folder: Any) -> dict[tuple[int, str], lg.Observation]:
    """(round, client) -> observation of every file in a folder."""
    seen = [lg.Observation.load(path, build()) for path in sorted(folder.glob("*.safetensors"))]
    found = {(entry.provenance.round, entry.provenance.client): entry for entry in seen}
    assert len(found) == len(seen)
    return found


def same_bits(tensor: torch.Tensor, array: np.ndarray) -> bool:
    return (
        tuple(tensor.shape) == array.shape and tensor.numpy().dtype == array.dtype and tensor.numpy().tobytes() == array.tobytes()
    )
