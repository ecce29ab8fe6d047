"""Recorder: writes what a client shared as observations, attacks it on the side, and asks a guard before it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from leakgauge.audit.guard.guard import Decision, Guard
from leakgauge.audit.guard.probe import Finding, Private, Probe
from leakgauge.core.callables import Loss, check_loss
from leakgauge.core.observation import Observation
from leakgauge.core.spec import ImageSpec, Spec
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.integrations.recording.exchange import Exchange, observation_of
from leakgauge.integrations.recording.folder import free_name, write_observation, write_truth
from leakgauge.integrations.recording.log import Log
from leakgauge.models import load_model
from leakgauge.randomness import beside

ON_ERROR = ("continue", "stop")


@dataclass(frozen=True)
class Recorded:
    """What became of one message.

    Args:
        path: the observation's file, or None where none was written.
        observation: what the server would see, or None where the message could not be read.
        decision: the guard's, or None without a guard.
        error: why recording failed, '' where it did not.
        seconds: that recording and guard took, without the attack on the side.
    """

    path: Path | None
    observation: Observation | None = field(repr=False)
    decision: Decision | None
    error: str
    seconds: float

    @property
    def send(self) -> bool:
        """Whether the update may leave."""
        return self.decision is None or self.decision.send


class Recorder:
    """Writes each message as an observation; holds no batch.

    In `folder` stand `round-0001-client-NAME.safetensors`, one per message, `MODEL` with the network's name, `log.jsonl` with
    one line per event, and under `truth/`, only when asked, the private batches for scoring.

    Args:
        folder: made when the first message comes.
        model: the architecture, or its name as `load_model` takes it.
        spec: shape and normalisation of one picture, or the TextSpec of one text; attacks need it.
        loss: name or callable.
        training: the clients' protocol, where the engine's configuration is silent.
        num_classes: outputs of a named network; None for its own default.
        batch_norm: keep the buffers after training.
        defences: public records of the defences that the clients apply, if known.
        keep_truth: write the private batch, where one is handed over, to `truth/`. Only on the client's own machine.
        probe: an attack on each message, within its time limit and beside the training; its findings go to the log.
        wait: wait for the probe before `record` returns, for processes that are ended at once after the training.
        guard: a policy that is checked before an update leaves.
        on_error: 'continue' (the log says why a message could not be recorded, and training goes on) or 'stop' (raise).

    Raises:
        OptionError: for an unknown value of `on_error`, or a loss that is none.
    """

    def __init__(
        self,
        folder: str | Path,
        model: str | nn.Module,
        *,
        spec: Spec | None = None,
        loss: Loss = "cross_entropy",
        training: LocalTraining | None = None,
        num_classes: int | None = None,
        batch_norm: bool = True,
        defences: Sequence[DefenceRecord] = (),
        keep_truth: bool = False,
        probe: Probe | None = None,
        wait: bool = False,
        guard: Guard | None = None,
        on_error: str = "continue",
    ) -> None:
        if on_error not in ON_ERROR:
            raise OptionError(f"Recorder.on_error is {on_error!r}; expected 'continue' or 'stop'.")
        check_loss(loss)
        self.folder = Path(folder)
        self.model, self.spec, self.loss, self.training, self.num_classes = model, spec, loss, training, num_classes
        self.batch_norm, self.defences, self.keep_truth = batch_norm, tuple(defences), keep_truth
        self.probe, self.wait, self.guard, self.on_error = probe, wait, guard, on_error
        self.log = Log(self.folder)
        self.recorded = 0
        self._architecture: nn.Module | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._running: list[Future[None]] = []

    def record(self, exchange: Exchange, private: Private | Callable[[], Private | None] | None = None) -> Recorded:
        """Records one message, and decides whether it may leave.

        Each step that fails is logged and, with on_error='continue', costs nothing but itself: a file that cannot be written
        does not keep the guard from deciding, and where the guard has nothing to decide on, its stated default applies.

        Args:
            exchange: the message.
            private: the truth, on the client's own machine, or what gathers it: for the probe's and the guard's comparison, and
                for `truth/` if `keep_truth` is set. Where gathering fails the message is recorded without it.

        Raises:
            IntegrationError: with on_error='stop', if anything but the guard's check failed.
        """
        start = time.perf_counter()
        about, whose = _about(exchange)
        errors: list[str] = []
        seen, path, decision = None, None, None
        try:
            seen = self.observe(exchange)
        except Exception as error:  # noqa: BLE001 - the training must not fail by its recorder
            errors.append(self._failed("the message cannot be read", error, whose, about))
        if callable(private):
            try:
                private = _gathered(private)
            except Exception as error:  # noqa: BLE001 - the user's own function
                private = None
                errors.append(self._failed("the truth cannot be gathered", error, whose, about))
        if self.guard is not None:
            decision = self.guard.unable(errors[0].rstrip(".")) if seen is None else self.guard.check(seen, private)
            self.log.write(
                "decision", f"{whose}: {decision.reason}", warning=not decision.send or bool(decision.failure),
                **about, **decision.to_json(),
            )  # fmt: skip
        if seen is not None:
            name = free_name(self.folder, exchange)
            try:
                path = write_observation(self.folder, name, seen, self.model_name)
                self.recorded += 1
            except Exception as error:  # noqa: BLE001
                errors.append(self._failed("the observation cannot be written", error, whose, about))
            if self.keep_truth and private is not None:
                try:
                    write_truth(self.folder, name, private.batch)
                except Exception as error:  # noqa: BLE001
                    errors.append(self._failed("the truth cannot be written", error, whose, about))
        seconds = time.perf_counter() - start
        if path is not None and seen is not None and seen.provenance is not None:
            self.log.write(
                "recorded", f"{whose}: recorded as {path.name}", **about, file=path.name, kind=seen.kind,
                num_examples=seen.num_examples, assumed=list(seen.provenance.assumed), withheld=list(seen.withheld),
                seconds=seconds,
            )  # fmt: skip
        if seen is not None and self.probe is not None:
            self._probe_beside(seen, private, whose, about)
        if errors and self.on_error == "stop":
            raise IntegrationError(f"Recording was told to stop the training when it fails: {errors[0]}")
        return Recorded(path, seen, decision, " ".join(errors), seconds)

    def observe(self, exchange: Exchange) -> Observation:
        """The observation of a message; nothing is written."""
        return observation_of(
            exchange,
            self.architecture,
            spec=self.spec,
            loss=self.loss,
            training=self.training,
            batch_norm=self.batch_norm,
            defences=self.defences,
            model_name=self.model_name,
        )

    def refuse(self, exchange: Exchange, error: Exception) -> Recorded:
        """What `record` does with a message that the engine's side could not even gather.

        Raises:
            IntegrationError: with on_error='stop'.
        """
        about, whose = _about(exchange)
        words = self._failed("the message cannot be gathered", error, whose, about)
        decision = None if self.guard is None else self.guard.unable(words.rstrip("."))
        if decision is not None:
            self.log.write("decision", f"{whose}: {decision.reason}", warning=True, **about, **decision.to_json())
        if self.on_error == "stop":
            raise IntegrationError(f"Recording was told to stop the training when it fails: {words}") from error
        return Recorded(None, None, decision, words, 0.0)

    @property
    def architecture(self) -> nn.Module:
        """The network, loaded by name when it is first needed."""
        if self._architecture is None:
            named = isinstance(self.model, str)
            shape = self.spec.shape if isinstance(self.spec, ImageSpec) else None
            self._architecture = load_model(str(self.model), self.num_classes, shape) if named else self.model  # type: ignore[assignment]
        assert self._architecture is not None
        return self._architecture

    @property
    def model_name(self) -> str:
        """The network's name; '' for a module that was handed over."""
        return self.model if isinstance(self.model, str) else ""

    def close(self, timeout: float | None = None) -> None:
        """Waits for the attacks on the side, `timeout` seconds at most; those that have not begun by then are left out."""
        _, late = wait_for(self._running, timeout=timeout)
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None
        if late:
            self.log.write("probes left out", f"{len(late)} attack(s) on the side had not ended in time.", warning=True)
        self._running = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_worker": None, "_running": []}

    def _failed(self, what: str, error: Exception, whose: str, about: Mapping[str, Any]) -> str:
        said = " ".join(str(error).split()) or type(error).__name__
        words = f"{what[:1].upper()}{what[1:]}: {said.rstrip('.')}."
        self.log.write("error", f"{whose}: {words}", warning=True, **about, reason=said)
        return words

    def _probe_beside(self, seen: Observation, private: Private | None, whose: str, about: Mapping[str, Any]) -> None:
        probe = self.probe
        assert probe is not None

        def work() -> None:
            with beside():
                try:
                    found = probe.run(seen, private)
                    self.log.write("probe", f"{whose}: {_in_words(found)}", **about, **found.to_json())
                except Exception as error:  # noqa: BLE001
                    self._failed("the attack on the side failed", error, whose, about)

        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leakgauge-probe")
        self._running = [future for future in self._running if not future.done()]
        self._running.append(self._worker.submit(work))
        if self.wait:
            self._running[-1].result()


def _gathered(gather: Callable[[], Private | None]) -> Private | None:
    found = gather()
    if found is not None and not isinstance(found, Private):
        raise IntegrationError(f"the function for the truth returned {type(found).__name__}; expected a Private, or None")
    return found


def _about(exchange: Exchange) -> tuple[dict[str, Any], str]:
    """Whose message it is, for programs and in words."""
    about = {"engine": exchange.engine, "side": exchange.side, "round": exchange.round, "client": exchange.client}
    return about, f"round {exchange.round}, client {exchange.client or '?'}"


def _in_words(found: Finding) -> str:
    values = [f"{name} {getattr(found, name):.3g}" for name in ("rdlv", "ssim", "psnr") if found.to_json()[name] is not None]
    rank = [f"rank {found.rank} among {found.decoys} decoys"] if found.rank else []
    return ", ".join([f"{found.attack}: {found.outcome}", f"{found.certified} certified", *values, *rank])
