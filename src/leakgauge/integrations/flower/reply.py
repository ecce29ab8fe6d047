"""What becomes of a reply to a train message, on either side of the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Message

from leakgauge.audit.guard.probe import Private
from leakgauge.errors import OptionError
from leakgauge.integrations.flower.message import (
    ARRAYS,
    EXAMPLES,
    Request,
    bare_exchange,
    holds_arrays,
    read_exchange,
    read_request,
)
from leakgauge.integrations.recording.exchange import KINDS
from leakgauge.integrations.recording.recorder import Recorded, Recorder


@dataclass(frozen=True)
class Payload:
    """Where in its messages a job keeps what is recorded, under Flower's own names of the settings.

    Args:
        kind: what clients send: 'weights' (a state dict after training), 'delta' or 'gradient'.
        arrayrecord_key: name of the ArrayRecord; needed only where a message holds several.
        weighted_by_key: name of the number of examples in the reply's MetricRecord.

    Raises:
        OptionError: for an unknown kind.
    """

    kind: str = "weights"
    arrayrecord_key: str = ARRAYS
    weighted_by_key: str = EXAMPLES

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"Payload.kind is {self.kind!r}; expected one of {', '.join(KINDS)}.")

    def request(self, message: Message, run_config: dict[str, object], side: str) -> Request:
        """What is kept of a train message; see `read_request`."""
        return read_request(message, run_config, side=side, key=self.arrayrecord_key)

    def record(
        self, recorder: Recorder, request: Request, reply: Message, truth: Callable[[], Private | None] | None = None
    ) -> Recorded | None:
        """Records a reply, or logs why there is nothing to record.

        Args:
            recorder: where to.
            request: what the client had received.
            reply: what it answered.
            truth: gathers the private batch, on the client's own machine. If that fails, the update is recorded without it.

        Returns:
            None where the reply carries an error, or belongs to a message without arrays, such as a key exchange.

        Raises:
            IntegrationError: with the recorder's on_error='stop', if anything failed.
        """
        if reply.has_error():
            reason = " ".join(str(reply.error.reason or f"error code {reply.error.code}").split())
            _note(recorder, "not delivered", request, f"no update was delivered ({reason})", reason)
            return None
        if request.problem and not holds_arrays(reply):
            return None
        try:
            exchange = read_exchange(
                request, reply, recorder, kind=self.kind, key=self.arrayrecord_key, examples=self.weighted_by_key
            )
        except Exception as error:  # noqa: BLE001 - the recorder knows what a message that cannot be read means
            return recorder.refuse(bare_exchange(request), error)
        return recorder.record(exchange, truth)


def _note(recorder: Recorder, event: str, request: Request, words: str, reason: str) -> None:
    about = {name: request.facts[name] for name in ("engine", "side", "round", "client")}
    recorder.log.write(event, f"round {about['round']}, client {about['client']}: {words}", warning=True, **about, reason=reason)
