"""The case behind a cell."""

from __future__ import annotations

from leakgauge.audit.case import Case
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.tables import defence_calls
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining


def bare_case(cell: Cell) -> Case:
    """The case of a cell, its network as it is initialised, whatever the cell's state.

    Raises:
        LeakgaugeError: for a name, option or value that cannot be used.
    """
    return Case(
        model=cell.model,
        data=cell.data,
        attack=cell.attack,
        num_classes=cell.num_classes,
        loss=cell.loss,
        training=LocalTraining(**dict(cell.protocol)),
        defences=defence_calls(cell.defence),
        threat=ThreatModel.honest_but_curious(**dict(cell.threat)),
        seed=cell.seed,
        attack_seed=cell.seed,
        model_seed=cell.seed,
        budget=cell.budget,
        time_limit=cell.time_limit,
        measures=cell.measures,
    )
