"""RecordingGrid: Flower's server side of the wire, recording each train reply with the arrays that were sent to that client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from leakgauge.integrations.flower.message import Request, is_training
from leakgauge.integrations.flower.reply import Payload
from leakgauge.integrations.recording.recorder import Recorder


@dataclass
class RecordingGrid(Grid):  # type: ignore[misc]  # flwr is untyped here
    """A Grid around another one, for any strategy: `strategy.start(grid=RecordingGrid(grid, recorder), ...)`.

    Messages and replies pass unchanged. Replies that carry an error are logged and not recorded. A guard of the recorder is
    asked and logged, but holds nothing back: on the server the update has left its client already.

    Args:
        grid: the Grid that the ServerApp was given.
        recorder: where to record.
        run_config: the run's configuration (`context.run_config`), for learning rate, local epochs and the like.
        payload: what the clients send, and under which names.
    """

    grid: Any
    recorder: Recorder
    run_config: Mapping[str, object] = field(default_factory=dict)
    payload: Payload = Payload()  # noqa: RUF009 - frozen
    _open: dict[str, Request] = field(default_factory=dict, init=False, repr=False)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; the arrays of train messages are kept until their replies come."""
        messages = list(messages)
        requests = self._requests(messages)
        ids = list(self.grid.push_messages(messages))
        self._open |= {message_id: requests[place] for place, message_id in enumerate(ids) if message_id and place in requests}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetches replies, and records those to train messages."""
        return self._recorded(self.grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Sends messages, waits for the replies, and records those to train messages."""
        messages = list(messages)
        requests = self._requests(messages)
        replies = list(self.grid.send_and_receive(messages, timeout=timeout))
        ids = [message.metadata.message_id for message in messages]  # known once they are sent
        self._open |= {ids[place]: request for place, request in requests.items()}
        found = self._recorded(replies)
        for message_id in ids:
            self._open.pop(message_id, None)
        return found

    def _requests(self, messages: list[Message]) -> dict[int, Request]:
        config = dict(self.run_config)
        return {
            place: self.payload.request(message, config, "server")
            for place, message in enumerate(messages)
            if is_training(message)
        }

    def _recorded(self, replies: Iterable[Message]) -> list[Message]:
        replies = list(replies)
        for reply in replies:
            request = self._open.pop(reply.metadata.reply_to_message_id, None)
            if request is not None:
                self.payload.record(self.recorder, request, reply)
        return replies

    # The rest is the inner grid's.

    def set_run(self, run: Any) -> None:
        """See Flower's Grid."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """See Flower's Grid."""
        return self.grid.run

    def create_message(self, *args: Any, **options: Any) -> Message:
        """See Flower's Grid."""
        return self.grid.create_message(*args, **options)

    def get_node_ids(self) -> Iterable[int]:
        """See Flower's Grid."""
        ids: Iterable[int] = self.grid.get_node_ids()
        return ids

    def get_nodes(self) -> Iterable[Any]:
        """See Flower's Grid."""
        nodes: Iterable[Any] = self.grid.get_nodes()
        return nodes

    def __getattr__(self, name: str) -> Any:
        if name == "grid":  # not yet set, as while it is copied
            raise AttributeError(name)
        return getattr(self.grid, name)
