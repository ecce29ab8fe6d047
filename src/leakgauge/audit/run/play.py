"""`play`: one cell from its plain values to its result. Whatever goes wrong becomes a status with its reason."""

from __future__ import annotations

import inspect
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from leakgauge.attacks.base import Progress
from leakgauge.audit.case import Case, attack_call, name_of, network_of, reproduce, run_case
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.cell_case import bare_case
from leakgauge.audit.plan.states import is_checkpoint, is_trained
from leakgauge.audit.record import Record
from leakgauge.audit.run.result import CellResult, Status
from leakgauge.audit.run.states import Weights, checkpoint, state_words
from leakgauge.audit.text_case import load_batch
from leakgauge.audit.verdict.decoys import Decoys, decoys_of, seen_in
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.audit.verdict.lineups import line_ups_of
from leakgauge.errors import KnowledgeError, LeakgaugeError, OptionError, UnsupportedError
from leakgauge.registry import find
from leakgauge.truth import Batch

KEPT = 4  # batches, and decoys, that a process holds
Entry = TypeVar("Entry")
STATUS_OF: dict[str, Status] = {
    "UNDERDETERMINED": "underdetermined",
    "UNSUPPORTED": "unsupported",
    "TIMEOUT": "timeout",
    "NONFINITE": "failed",
}


class OutOfMemory(Exception):
    """A cell wanted more memory than there is: its worker starts anew."""


@dataclass
class Cache:
    """What one process keeps between cells, since neighbouring cells share it.

    Args:
        batches: data text and model -> batch, the latest few.
        checkpoints: path -> weights, the latest one.
        line_ups: what decoys depend on -> decoys, the latest few.
    """

    batches: OrderedDict[tuple[str, str], Batch] = field(default_factory=OrderedDict)
    checkpoints: dict[str, Weights] = field(default_factory=dict)
    line_ups: OrderedDict[tuple[Any, ...], Decoys] = field(default_factory=OrderedDict)

    def batch(self, data: str, model: str) -> Batch:
        """The batch that a text names.

        Raises:
            LeakgaugeError: if it cannot be read.
        """
        return _kept(self.batches, (data, model), lambda: load_batch(data, model))

    def decoys(self, cell: Cell, batch: Batch, training: str) -> Decoys:
        """The decoys of a cell's batch.

        Args:
            cell: whose.
            batch: loaded.
            training: what its state was trained on.

        Raises:
            LeakgaugeError: if they cannot be read.
        """
        seen = seen_in(cell, training)
        key = (cell.data, cell.decoys, cell.model, seen)
        return _kept(self.line_ups, key, lambda: decoys_of(cell.data, cell.decoys, batch, model=cell.model, seen=seen))

    def checkpoint(self, path: str) -> Weights:
        """The weights in a file.

        Raises:
            UpdateError: if it cannot be read.
        """
        if path not in self.checkpoints:
            self.checkpoints = {path: checkpoint(path)}
        return self.checkpoints[path]


def _kept(held: OrderedDict[Any, Entry], key: Any, make: Callable[[], Entry]) -> Entry:
    """The entry under a key, made where it is not held; those used longest ago are let go."""
    if key not in held:
        held[key] = make()
        while len(held) > KEPT:
            held.popitem(last=False)
    held.move_to_end(key)
    return held[key]


def play(
    cell: Cell,
    *,
    weights: Weights | None = None,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    cache: Cache | None = None,
    device: str = "auto",
    attempt: int = 1,
) -> CellResult:
    """Plays one cell.

    Args:
        cell: what to play.
        weights: of a state that is trained here.
        cancelled: polled during the attack.
        progress: called now and then.
        cache: what this process keeps between cells.
        device: for the attack.
        attempt: 1, or 2 after a crash.

    Raises:
        OutOfMemory: where the process may be in no state to go on.
    """
    started, kept = time.monotonic(), cache or Cache()
    try:
        status, reason, record, batch = _played(cell, weights, kept, device, cancelled, progress)
        line_ups, words = _line_ups(cell, batch, record, kept, weights.data if weights else "")
        result = CellResult(cell, status, reason, record, line_ups, words)
    except (UnsupportedError, KnowledgeError) as error:
        result = CellResult(cell, "unsupported", str(error))
    except LeakgaugeError as error:
        result = CellResult(cell, "failed", str(error))
    except Exception as error:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise OutOfMemory(" ".join(str(error).split())[:200]) from error
        result = CellResult(cell, "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return replace(result, seconds=time.monotonic() - started, attempt=attempt)


def case_of(cell: Cell, batch: Batch, weights: Weights | None) -> Case:
    """The case that a cell stands for.

    Raises:
        LeakgaugeError: for a name, option or value that cannot be used.
    """
    case = replace(bare_case(cell), attack=with_prior(cell.attack, cell.prior), model_state=state_words(cell.model))
    if weights is None:
        return case
    model: nn.Module = network_of(case, batch)
    weights.load_into(model)
    return replace(
        case,
        model=model,
        model_name=name_of(case),
        model_state=weights.words,
        command=reproduce(case, weights.place),
    )


def with_prior(attack: str, prior: str) -> str:
    """The attack with the plan's prior picture, where it takes one and names none itself."""
    name, options = attack_call(attack)
    if not prior or "prior" in options or "prior" not in inspect.signature(find("attacks", name)).parameters:
        return attack
    return f"{attack}{',' if options else ':'}prior={prior}"


def _played(
    cell: Cell,
    weights: Weights | None,
    cache: Cache,
    device: str,
    cancelled: Callable[[], bool] | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[Status, str, Record, Batch]:
    if weights is None and is_trained(cell.state):
        raise OptionError(f"The state {cell.state!r} has not been trained; a run trains it before its cells.")
    if weights is None and is_checkpoint(cell.state):
        weights = cache.checkpoint(cell.state)
    batch = cache.batch(cell.data, cell.model)
    case = case_of(cell, batch, weights)
    record = run_case(case, device=device, cancelled=cancelled, progress=progress, keep_unsupported=True, batch=batch)
    status = STATUS_OF.get(record.outcome, "ok")
    return status, "" if status == "ok" else record.cause or record.outcome_text, record, batch


def _line_ups(cell: Cell, batch: Batch, record: Record, cache: Cache, training: str) -> tuple[tuple[LineUp, ...], str]:
    """The line-ups and where their decoys come from; decoys that cannot be read cost the line-ups, not the record."""
    try:
        decoys = cache.decoys(cell, batch, training)
        return line_ups_of(record, decoys), decoys.words
    except LeakgaugeError as error:
        return (), f"Not testable: {error}"
