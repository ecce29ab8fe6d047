"""Two DXO filters for a client: one keeps the model that came in, the other records what goes out and may hold it back."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from numbers import Real
from operator import attrgetter
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from leakgauge.audit.guard.guard import Guard
from leakgauge.audit.guard.probe import Private, Probe
from leakgauge.core.spec import ImageSpec
from leakgauge.core.training import LocalTraining
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.integrations.nvflare.convert import KINDS, arrays_of, tensors_of_dxo
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.integrations.recording.protocol import NAMES
from leakgauge.integrations.recording.recorder import Recorded, Recorder

RECEIVED = "leakgauge.received_model"  # a property of the task's context, which both filters of one task share
BLOCKED = ("nothing", "unchanged")
UPDATES = [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF]
ENDS = (EventType.END_RUN, EventType.SWAP_OUT)


class ReceivedModel(DXOFilter):  # type: ignore[misc]  # nvflare is untyped
    """Input filter: keeps a copy of the global model until the result of the same task goes out. Changes nothing.

    NVFlare's context holds no global model when the result is filtered. The copy lies in the context of the task as a private
    property, so it never leaves the process and goes with the task.
    """

    def __init__(self) -> None:
        super().__init__(supported_data_kinds=UPDATES, data_kinds_to_filter=UPDATES)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> None:
        """Keeps arrays, round and metadata; an unreadable model is reported when the result goes out."""
        try:
            arrays = tensors_of_dxo(dxo)
        except IntegrationError as error:
            self.log_warning(fl_ctx, f"leakgauge cannot keep the global model: {error}", fire_event=False)
            arrays = {}
        kept = {"arrays": arrays, "round": shareable.get_header(AppConstants.CURRENT_ROUND), "meta": dict(dxo.meta or {})}
        fl_ctx.set_prop(RECEIVED, kept, private=True, sticky=False)


class RecordUpdate(DXOFilter):  # type: ignore[misc]  # nvflare is untyped
    """Output filter: records what leaves the client, attacks it on the side, and holds it back where the guard says so.

    All arguments are texts, numbers and mappings of them, since NVFlare writes them into the job. Put it last on the way out,
    so that it sees what the server will see, and `ReceivedModel` last on the way in.

    Args:
        folder: where to record; '{site}' and '{job}' stand for the client's name and the job's id. A relative folder is taken
            from where the client's process runs.
        model: the network's name as `load_model` takes it, or 'pkg.mod:callable'.
        input_shape: [C, H, W] of one picture; None where inputs are no pictures.
        mean, std: normalisation, one number or one per channel.
        num_classes: outputs of a named network; None for its own default.
        loss: name of the loss.
        training: fields of LocalTraining, where the client's metadata is silent.
        num_examples: where the client's metadata does not state 'num_examples'.
        batch_norm: keep the buffers after training.
        private: 'pkg.mod:callable' that is called as (site, round) in the client's process and returns a `Private`; '' for none.
        keep_truth: write the private batch to 'truth/' beside the recordings.
        probe: attack on each update, beside the training, as 'NAME:k=v'; '' for none.
        probe_seconds: its time limit.
        probe_wait: wait for it before the result leaves; for a simulation with fewer threads than clients, where NVFlare ends a
            client's process after each task, and for filters of the site's privacy.json, which get no events.
        block: the guard's rules, such as 'rdlv > 0.3, certified > 0'; '' for no guard.
        guard_attack: the attack behind the guard's rules.
        guard_seconds: time limit of a decision; the attack gets half of it.
        guard_failure: 'block' or 'send': what a guard does that cannot decide.
        blocked: what leaves instead of a blocked update: 'nothing' (an empty result, which FedAvg skips) or 'unchanged' (the
            model as it was received, or a change of zero).
        on_error: 'continue' or 'stop' when recording fails; 'stop' fails the task, and FedAvg then ends the job.

    Raises:
        OptionError: for a value out of range.
    """

    def __init__(
        self,
        folder: str,
        model: str,
        input_shape: list[int] | None = None,
        mean: float | list[float] = 0.0,
        std: float | list[float] = 1.0,
        num_classes: int | None = None,
        loss: str = "cross_entropy",
        training: dict[str, Any] | None = None,
        num_examples: int | None = None,
        batch_norm: bool = True,
        private: str = "",
        keep_truth: bool = False,
        probe: str = "",
        probe_seconds: float = 10.0,
        probe_wait: bool = False,
        block: str = "",
        guard_attack: str = "linear-layer",
        guard_seconds: float = 20.0,
        guard_failure: str = "block",
        blocked: str = "nothing",
        on_error: str = "continue",
    ) -> None:
        super().__init__(supported_data_kinds=UPDATES, data_kinds_to_filter=UPDATES)
        # NVFlare writes the attributes that are named like arguments into the job
        self.folder, self.model, self.num_classes, self.loss = str(folder), model, num_classes, loss
        self.input_shape = None if input_shape is None else list(input_shape)
        self.mean, self.std, self.training, self.num_examples = mean, std, training, num_examples
        self.batch_norm, self.private, self.keep_truth = batch_norm, private, keep_truth
        self.probe, self.probe_seconds, self.probe_wait = probe, probe_seconds, probe_wait
        self.block, self.guard_attack, self.guard_seconds, self.guard_failure = block, guard_attack, guard_seconds, guard_failure
        self.blocked, self.on_error = blocked, on_error
        if blocked not in BLOCKED:
            raise OptionError(f"RecordUpdate.blocked is {blocked!r}; expected 'nothing' or 'unchanged'.")
        if private and not all(private.partition(":")):
            raise OptionError(f"RecordUpdate.private is {private!r}; expected 'pkg.mod:callable'.")
        if keep_truth and not private:
            raise OptionError("RecordUpdate.keep_truth needs private='pkg.mod:callable', which hands over the private batch.")
        self._recorder: Recorder | None = None
        self._new_recorder("site", "job")  # says at once what is wrong

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """Records one result; None lets it pass as it is.

        Raises:
            IntegrationError: with on_error='stop', if recording failed.
        """
        received = fl_ctx.get_prop(RECEIVED) or {"arrays": {}, "round": None, "meta": {}}
        received["recorded"] = True
        try:
            recorded = self._record(self._recorder_for(fl_ctx), dxo, shareable, fl_ctx, received)
        except IntegrationError as error:
            self.log_error(fl_ctx, f"leakgauge stops this task, as configured: {error}", fire_event=False)
            raise
        if recorded.send:
            return None
        assert recorded.decision is not None
        self.log_warning(fl_ctx, f"leakgauge holds this result back. {recorded.decision.reason}", fire_event=False)
        return self._instead(dxo, received["arrays"])

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Reports results that passed by unseen; at the end of the run, waits for the attacks on the side within their limit."""
        if event_type == EventType.AFTER_TASK_RESULT_FILTER:
            received = fl_ctx.get_prop(RECEIVED)
            if received is not None and not received.get("recorded"):
                self._passed_by(fl_ctx, received["round"])
        elif self._recorder is not None and event_type in ENDS:
            self._recorder.close(timeout=2 * self.probe_seconds)

    def _recorder_for(self, fl_ctx: FLContext) -> Recorder:
        if self._recorder is None:
            self._recorder = self._new_recorder(str(fl_ctx.get_identity_name()), str(fl_ctx.get_job_id("")))
        return self._recorder

    def _passed_by(self, fl_ctx: FLContext, number: int | None) -> None:
        """NVFlare calls no filter for a result without arrays, and goes on as if nothing had happened."""
        client = str(fl_ctx.get_identity_name())
        reason = "the result held no weights (NVFlare drops arrays of another type than the exchange format, with a warning)"
        self._recorder_for(fl_ctx).log.write(
            "error", f"round {number}, client {client}: Nothing was recorded: {reason}.", warning=True,
            engine="nvflare", side="client", round=number, client=client, reason=reason,
        )  # fmt: skip

    def _record(
        self, recorder: Recorder, dxo: DXO, shareable: Shareable, fl_ctx: FLContext, received: Mapping[str, Any]
    ) -> Recorded:
        """Gathers the exchange and records it; what cannot be gathered is refused, as the recorder is configured."""
        meta = dict(dxo.meta or {})
        number = received["round"] if received["round"] is not None else shareable.get_header(AppConstants.CURRENT_ROUND)
        about: dict[str, Any] = {
            "kind": KINDS[DataKind(dxo.data_kind).value],
            "num_examples": _count(meta.get("num_examples", self.num_examples)),
            "config": self._config(received["meta"], meta),
            "engine": "nvflare",
            "round": None if number is None else int(number),
            "client": str(fl_ctx.get_identity_name()),
            "run": str(fl_ctx.get_job_id("")),
            "notes": _notes(meta),
        }
        try:
            if not received["arrays"]:
                raise IntegrationError(
                    "No global model was kept for this task; add ReceivedModel() as an input filter of the same task."
                )
            exchange = Exchange(before=received["arrays"], sent=tensors_of_dxo(dxo), **about)
        except IntegrationError as error:
            return recorder.refuse(Exchange(before={}, sent={}, **about), error)
        gather = (lambda: _named(self.private)(about["client"], about["round"])) if self.private else None
        return recorder.record(exchange, gather)

    def _config(self, received: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, object]:
        """What is stated of the round: by the client's message, else by the server's, else by `training`."""
        config: dict[str, object] = {}
        for stated in (meta, received, self.training or {}):
            for key, value in stated.items():
                if isinstance(value, str | Real):
                    config.setdefault(key, value)
        if FLMetaKey.NUM_STEPS_CURRENT_ROUND in meta:
            config.setdefault("steps", meta[FLMetaKey.NUM_STEPS_CURRENT_ROUND])
        return config

    def _instead(self, dxo: DXO, received: Mapping[str, Any]) -> DXO:
        """What leaves in place of a blocked result; its metadata stays here, but for the weight in the average."""
        if self.blocked == "nothing":
            return DXO(dxo.data_kind, data={})
        sent = {name: received[name] for name in dxo.data if name in received}
        if DataKind(dxo.data_kind) == DataKind.WEIGHT_DIFF:
            sent = {name: torch.zeros_like(tensor) for name, tensor in sent.items()}
        weight = FLMetaKey.NUM_STEPS_CURRENT_ROUND
        return DXO(dxo.data_kind, data=arrays_of(sent), meta={weight: dxo.meta[weight]} if weight in (dxo.meta or {}) else {})

    def _protocol(self) -> LocalTraining | None:
        """`training` as a whole protocol, where it has fields that no configuration of a round can state."""
        stated = self.training or {}
        protocol = LocalTraining(**stated)
        beyond = sorted(set(stated) - set(NAMES.values()))
        if beyond and "mode" not in stated:
            raise OptionError(f"RecordUpdate.training states {beyond[0]!r}; then it has to state 'mode' ('train' or 'eval') too.")
        return protocol if beyond else None

    def _new_recorder(self, site: str, job: str) -> Recorder:
        spec = None
        if self.input_shape is not None:
            mean, std = (value if isinstance(value, int | float) else tuple(value) for value in (self.mean, self.std))
            spec = ImageSpec(tuple(self.input_shape), mean, std)  # type: ignore[arg-type]
        guard = None
        if self.block:
            probe = Probe(self.guard_attack, time_limit=self.guard_seconds / 2)
            guard = Guard(self.block, probe=probe, time_limit=self.guard_seconds, on_failure=self.guard_failure)
        return Recorder(
            self.folder.replace("{site}", site).replace("{job}", job),
            self.model,
            spec=spec,
            loss=self.loss,
            training=self._protocol(),
            num_classes=self.num_classes,
            batch_norm=self.batch_norm,
            keep_truth=self.keep_truth,
            probe=Probe(self.probe, time_limit=self.probe_seconds) if self.probe else None,
            wait=self.probe_wait,
            guard=guard,
            on_error=self.on_error,
        )


def _named(name: str) -> Callable[[str, int | None], Private | None]:
    """What 'pkg.mod:callable' names; whatever Python says where there is no such thing goes to the log."""
    module, _, path = name.partition(":")
    found: Callable[[str, int | None], Private | None] = attrgetter(path)(importlib.import_module(module))
    return found


def _count(value: object) -> int | None:
    """A whole number of examples, or None where the value is none."""
    number = float(value) if isinstance(value, Real) else math.nan
    return int(number) if number >= 1 and number.is_integer() else None


def _notes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Other filters that had the result before."""
    history = meta.get(FLMetaKey.FILTER_HISTORY) or []
    return (f"Filtered before by {', '.join(map(str, history))}.",) if history else ()
