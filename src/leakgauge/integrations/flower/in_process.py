"""A Flower run in this process: messages go straight to the ClientApp. For tests and small examples; no server, no ray."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from leakgauge.errors import IntegrationError

Result = TypeVar("Result")
RUN, SERVER = 1, 0
PATIENCE = 20  # questions for the nodes without a message in between; strategies wait a second after each


@dataclass
class InProcessGrid(Grid):  # type: ignore[misc]  # flwr is untyped here
    """A Grid whose nodes 1, 2, ... are one ClientApp with a Context each.

    As on a wire, a client gets its own copy of a message. An exception of the ClientApp becomes an error reply, as in Flower's
    engines. Clients answer in the order of the nodes, so that runs repeat although strategies sample nodes at random.

    Args:
        client_app: the ClientApp.
        num_clients: number of nodes, >= 1.
        run_config: the run's configuration, for all.
    """

    client_app: Callable[[Message, Context], Message]
    num_clients: int
    run_config: Mapping[str, Any] = field(default_factory=dict)
    _contexts: dict[int, Context] = field(default_factory=dict, init=False, repr=False)
    _waiting: dict[str, Message] = field(default_factory=dict, init=False, repr=False)
    _asked: int = field(default=0, init=False, repr=False)
    _ids: Iterator[int] = field(default_factory=lambda: count(1), init=False, repr=False)
    _run: Any = field(default_factory=lambda: Run.create_empty(RUN), init=False, repr=False)

    def __post_init__(self) -> None:
        for place in range(self.num_clients):
            places = {"partition-id": place, "num-partitions": self.num_clients}
            self._contexts[place + 1] = Context(RUN, place + 1, places, RecordDict(), dict(self.run_config))

    def get_node_ids(self) -> Iterable[int]:
        """1, 2, ...

        Raises:
            IntegrationError: if a strategy keeps asking, since it waits for more clients than there will ever be.
        """
        self._asked += 1
        if self._asked > PATIENCE:
            raise IntegrationError(
                f"The strategy waits for more than the {self.num_clients} client(s) of this run; lower its min_available_nodes, "
                "min_train_nodes and min_evaluate_nodes, or raise num_clients."
            )
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keeps the messages, under ids of their own, until their replies are fetched."""
        ids = []
        self._asked = 0
        for message in messages:
            message_id = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = message_id  # as Flower's own grids do
            self._waiting[message_id] = copy.deepcopy(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Lets the clients answer these messages, one after another in the order of the nodes."""
        messages = [self._waiting.pop(message_id) for message_id in list(message_ids) if message_id in self._waiting]
        return [self._answer(message) for message in sorted(messages, key=lambda message: int(message.metadata.dst_node_id))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        """Both in turn; there is nothing to wait for, so that `timeout` is not looked at."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        try:
            return self.client_app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 - as Flower's engines answer for a ClientApp that raised
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)

    def set_run(self, run: Any) -> None:
        """See Flower's Grid."""
        self._run = run

    @property
    def run(self) -> Any:
        """See Flower's Grid."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See Flower's Grid."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


def run_in_process(
    server: Callable[[Any, Context], Result],
    client_app: Callable[[Message, Context], Message],
    num_clients: int,
    run_config: Mapping[str, Any] | None = None,
) -> Result:
    """Runs a Flower job in this process, and returns what `server` returns.

    Args:
        server: a ServerApp, or a function (grid, context) such as `ServerApp.main` decorates.
        client_app: a ClientApp.
        num_clients: nodes; their Context has `partition-id` and `num-partitions`.
        run_config: what `[tool.flwr.app.config]` holds.
    """
    grid = InProcessGrid(client_app, num_clients, dict(run_config or {}))
    with _identity():
        return server(grid, Context(RUN, SERVER, {}, RecordDict(), dict(run_config or {})))


@contextmanager
def _identity() -> Iterator[None]:
    """Says which run this process works for, which Flower's messages ask for."""
    names = ("_task_id", "_run_id", "_node_id")
    earlier = [getattr(TaskIdentity, name) for name in names]
    try:
        for name, value in zip(names, (RUN, RUN, SERVER), strict=True):
            setattr(TaskIdentity, name, value)
        yield
    finally:
        for name, value in zip(names, earlier, strict=True):
            setattr(TaskIdentity, name, value)
