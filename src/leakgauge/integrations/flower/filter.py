"""A Flower mod as a filter of tensors, so that it can be audited as a black box."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Context, Message, MessageType, Metadata, MetricRecord, RecordDict
from torch import Tensor

from leakgauge.errors import IntegrationError
from leakgauge.integrations.flower.arrays import array_record, to_record, to_tensors
from leakgauge.integrations.flower.message import ARRAYS, EXAMPLES

Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]
Filter = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]


def mod_as_filter(mod: Mod, *, config: Mapping[str, object] | None = None, num_examples: int = 1) -> Filter:
    """A function (before, after) -> what the mod lets out, as if a ClientApp had trained from `before` to `after`.

    Each call is one train message of a fresh client to the mod alone.

    Args:
        mod: any Flower client mod, such as LocalDpMod(...) or fixedclipping_mod.
        config: what the server's strategy would put into the message's ConfigRecord, such as {'clipping_norm': 1.0}.
        num_examples: in the reply's MetricRecord.

    Returns:
        the filter; it raises IntegrationError where the mod fails, refuses (an error reply) or lets no arrays out.
    """
    settings = {"server-round": 1, **(config or {})}

    def run(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
        content = RecordDict({ARRAYS: to_record(before), "config": ConfigRecord(dict(settings))})
        metadata = Metadata(
            run_id=1, message_id="1", src_node_id=0, dst_node_id=1, reply_to_message_id="", group_id="",
            created_at=time.time(), ttl=3600.0, message_type=MessageType.TRAIN, src_task_id=1,
        )  # fmt: skip
        message = Message(content=content, metadata=metadata)

        def trained(request: Message, _: Context) -> Message:
            metrics = MetricRecord({EXAMPLES: num_examples})
            return Message(RecordDict({ARRAYS: to_record(after), "metrics": metrics}), reply_to=request)

        name = getattr(mod, "__name__", type(mod).__name__)
        try:
            reply = mod(message, Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {}), trained)
        except Exception as error:
            raise IntegrationError(f"The mod {name} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
        if reply.has_error():
            raise IntegrationError(f"The mod {name} let no update out: {reply.error.reason or reply.error.code}.")
        return to_tensors(array_record(reply.content, ARRAYS, f"that the mod {name} let out"))

    return run
