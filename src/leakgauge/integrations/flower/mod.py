"""RecordingMod: a Flower client mod that records what leaves the client, and asks a guard before it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from leakgauge.audit.guard.probe import Private
from leakgauge.integrations.flower.message import is_training
from leakgauge.integrations.flower.reply import Payload
from leakgauge.integrations.recording.recorder import Recorder

ClientCall = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class RecordingMod:
    """Records every train message of a client together with its reply; all others pass untouched.

    Put it first in `ClientApp(mods=[...])`: the first mod is the outermost one and sees what really leaves. Where the guard
    blocks an update, the reply becomes an error, and strategies aggregate without it. The error names the guard's rules; what
    was measured on the private batch stays in the client's own log.

    Args:
        recorder: where to record, or a callable that makes one of the Context, for a folder that the run's configuration names;
            it is called once per run and node.
        private: message, context -> the truth of this round on the client's own machine, or None; called after the training.
            It reaches the recorder's guard, probe and truth file, and nothing else.
        payload: what the ClientApp sends, and under which names.
    """

    recorder: Recorder | Callable[[Context], Recorder]
    private: Callable[[Message, Context], Private | None] | None = None
    payload: Payload = Payload()  # noqa: RUF009 - frozen
    _made: dict[tuple[int, int], Recorder] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, message: Message, context: Context, call_next: ClientCall) -> Message:
        """Flower's interface of a mod.

        Raises:
            IntegrationError: with the recorder's on_error='stop', if recording failed; Flower then reports this client as failed.
        """
        if not is_training(message):
            return call_next(message, context)
        request = self.payload.request(message, context.run_config, "client")
        reply = call_next(message, context)
        private = self.private
        truth = None if private is None else lambda: private(message, context)
        recorder = self._recorder(context)
        recorded = self.payload.record(recorder, request, reply, truth)
        if recorded is None or recorded.send or recorder.guard is None:
            return reply
        rules = ", ".join(map(str, recorder.guard.rules))
        reason = f"leakgauge: the guard held the update back (rules: {rules}); why stands in the client's log"
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)

    def _recorder(self, context: Context) -> Recorder:
        if isinstance(self.recorder, Recorder):
            return self.recorder
        key = (context.run_id, context.node_id)
        if key not in self._made:
            self._made[key] = self.recorder(context)
        return self._made[key]
