"""What a pair of Flower messages says: round, client, example count, configuration, arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, MessageType
from torch import Tensor

from leakgauge.core.pack import read_source
from leakgauge.errors import IntegrationError
from leakgauge.integrations.flower.arrays import array_record, to_tensors
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.integrations.recording.recorder import Recorder

ROUNDS = ("server-round", "current-round", "round")
EXAMPLES = "num-examples"
ARRAYS = "arrays"


@dataclass(frozen=True)
class Request:
    """A train message as the server sent it, kept from before the client sees it: a client may empty it.

    Args:
        arrays: name -> Flower array (whose bytes nobody changes).
        problem: why there are none, '' where there are.
        config: the run's configuration, and over it the message's.
        facts: side, round, client and run, as fields of an Exchange.
    """

    arrays: Mapping[str, Any] = field(repr=False)
    problem: str
    config: Mapping[str, object]
    facts: Mapping[str, Any]


def is_training(message: Message) -> bool:
    """Whether the message asks for training, in any action ('train', 'train.NAME')."""
    return bool(message.metadata.message_type.split(".")[0] == MessageType.TRAIN)


def holds_arrays(message: Message) -> bool:
    """Whether there is at least one array in it. Rounds of a key exchange, as in SecAgg+, have none."""
    return any(len(record) for record in message.content.array_records.values())


def read_request(message: Message, run_config: Mapping[str, object], *, side: str, key: str = ARRAYS) -> Request:
    """What is kept of a train message; it never raises for what the message lacks."""
    config: dict[str, object] = dict(run_config)
    for record in message.content.config_records.values():
        config |= dict(record)
    facts = {
        "engine": "flower",
        "side": side,
        "round": _round(config, message.metadata.group_id),
        "client": str(message.metadata.dst_node_id),
        "run": str(message.metadata.run_id),
    }
    try:
        return Request(dict(array_record(message.content, key, "to the client")), "", config, facts)
    except IntegrationError as error:
        return Request({}, str(error), config, facts)


def read_exchange(request: Request, reply: Message, recorder: Recorder, *, kind: str, key: str, examples: str) -> Exchange:
    """The exchange of a request and its reply.

    Args:
        request: from `read_request`.
        reply: what leaves the client; without an error.
        recorder: its network gives the names of arrays that have none (lists of arrays, as NumPyClient sends them).
        kind: what the client sends: 'weights', 'delta' or 'gradient'.
        key: name of the ArrayRecord, needed only where a message holds several.
        examples: name of the number of examples in the reply's MetricRecord.

    Raises:
        IntegrationError: if one of the two holds no arrays or one that cannot be read.
        UpdateError: if arrays without names do not fit the network.
    """
    if request.problem:
        raise IntegrationError(request.problem)
    sent = array_record(reply.content, key, "from the client")
    return Exchange(
        before=_named(to_tensors(request.arrays), recorder, "received arrays"),
        sent=_named(to_tensors(sent), recorder, "sent arrays"),
        kind=kind,
        num_examples=_examples(reply, examples),
        config=request.config,
        **request.facts,
    )


def bare_exchange(request: Request) -> Exchange:
    """The exchange without its arrays, to say in the log whose message it was."""
    return Exchange({}, {}, config=request.config, **request.facts)


def _named(tensors: dict[str, Tensor], recorder: Recorder, what: str) -> dict[str, Tensor]:
    if tensors and list(tensors) == [str(place) for place in range(len(tensors))]:
        return read_source(list(tensors.values()), recorder.architecture, what)
    return tensors


def _round(config: Mapping[str, object], group: str) -> int | None:
    known = {str(key).lower().replace("_", "-"): value for key, value in config.items()}
    for value in (*(known.get(name) for name in ROUNDS), group):
        if isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
            return int(value)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
    return None


def _examples(reply: Message, key: str) -> int | None:
    for record in reply.content.metric_records.values():
        for name, value in record.items():
            if str(name).replace("_", "-") == key.replace("_", "-") and isinstance(value, int | float) and value >= 1:
                return int(value) if float(value).is_integer() else None
    return None
