"""What an NVFlare client does with one task around its filters, with real DXO, Shareable and FLContext objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from exchanges import LR, exchange, private
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContextManager
from nvflare.app_common.app_constant import AppConstants

from leakgauge.audit.guard.probe import Private
from leakgauge.integrations.nvflare import ReceivedModel, RecordUpdate

STATED = {"NUM_STEPS_CURRENT_ROUND": 1, "lr": LR, "batch_size": 1, "optimizer": "sgd", "mode": "train"}


def task(
    outgoing: RecordUpdate | None,
    *,
    incoming: ReceivedModel | None = None,
    index: int = 0,
    count: int = 1,
    number: int | None = 3,
    site: str = "site-1",
    kind: str = DataKind.WEIGHTS,
    about: dict[str, Any] | None = None,
    told: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    sent: dict[str, Any] | None = None,
) -> DXO:
    """One round of one client: the model comes in, one step of SGD is taken, the result goes out. Returns what leaves.

    Without `about` the client's metadata state everything, the example count included.
    """
    message = exchange(index, count)
    before = message.before if before is None else before
    if sent is None:
        sent = message.sent if kind == DataKind.WEIGHTS else {name: message.sent[name] - before[name] for name in before}
    about = {**STATED, "num_examples": count, "batch_size": count} if about is None else about
    with FLContextManager(engine=None, identity_name=site, job_id="job-7").new_context() as context:
        received = DXO(DataKind.WEIGHTS, data=dict(before), meta=dict(told or {})).to_shareable()
        result = DXO(kind, data=dict(sent), meta=dict(about)).to_shareable()
        for shareable in (received, result):
            shareable.set_header(AppConstants.CURRENT_ROUND, number)
        left = (incoming or ReceivedModel()).process(received, context)
        assert all(from_shareable(left).data[name] is before[name] for name in before)  # the input filter changes nothing
        if outgoing is not None:
            result = outgoing.process(result, context)
            outgoing.handle_event(EventType.AFTER_TASK_RESULT_FILTER, context)
        return from_shareable(result)


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Equal in names, dtypes and bits."""
    return set(left) == set(right) and all(
        np.asarray(left[name]).dtype == np.asarray(right[name]).dtype
        and np.asarray(left[name]).tobytes() == np.asarray(right[name]).tobytes()
        for name in left
    )


def hand_over(site: str, number: int) -> Private:
    """A client's own function, as `private='nvflare_client:hand_over'` names it."""
    assert (site, number) == ("site-1", 3)
    given = private(0, 1, decoys=20)
    return replace(given, prior=0.7 * given.batch.inputs[0] + 0.1)


def loses_the_batch(site: str, number: int) -> Private:
    raise FileNotFoundError(f"the batch of {site} is gone")


def hands_over_a_word(site: str, number: int) -> str:
    return "batch"
