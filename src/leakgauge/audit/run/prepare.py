"""Before the cells: the states that a run trains itself, each once, by the process that writes the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.states import is_trained
from leakgauge.audit.plan.tables import TrainedTable
from leakgauge.audit.run.states import TrainedFile, trained
from leakgauge.audit.store.failures import StoreError
from leakgauge.audit.store.store import Store
from leakgauge.errors import LeakgaugeError
from leakgauge.federated.records import FederationProgress

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Prepared:
    """What cells need before they are played.

    Args:
        weights: cell key -> its trained state.
        problems: cell key -> why its state cannot be trained.
    """

    weights: Mapping[str, TrainedFile] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def prepare(store: Store, cells: Sequence[Cell], stopped: Callable[[], bool], tell: Tell) -> Prepared | None:
    """Trains what is not trained yet, or reads it from the store; None where the run was stopped meanwhile.

    Raises:
        DataError: if the store cannot be written.
    """
    table = TrainedTable.model_validate(store.plan.get("training", {}))
    weights: dict[str, TrainedFile] = {}
    problems: dict[str, str] = {}
    found: dict[tuple[Any, ...], TrainedFile | str] = {}
    with one_thread():
        for cell in cells:
            if not is_trained(cell.state):
                continue
            kind = (cell.state, cell.model, cell.num_classes, cell.seed, cell.loss, cell.data)
            if kind not in found:
                said = f"training the network of {cell.state!r}"

                def told(at: FederationProgress, said: str = said) -> None:
                    tell(0.0, f"{said}, round {at.index} of {at.rounds}")

                try:
                    made = trained(cell, table, store.folder, stopped, told)
                except StoreError:
                    raise
                except LeakgaugeError as error:
                    found[kind] = str(error)
                else:
                    if made is None:
                        return None
                    found[kind] = made
            outcome = found[kind]
            if isinstance(outcome, str):
                problems[cell.key] = outcome
            else:
                weights[cell.key] = outcome
    return Prepared(weights, problems)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch in the body: the same bits whoever calls."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
