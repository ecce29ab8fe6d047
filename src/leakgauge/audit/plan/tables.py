"""AuditPlan: what `leakgauge audit` plays, as tables of a TOML file. Lists are the axes of the grid."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from leakgauge.audit.simulation.plan import Table, ThreatTable, TrainingTable
from leakgauge.core.training import LocalTraining

AXES = ("data", "models", "states", "protocols", "threats", "defences", "attacks", "seeds")  # in the order of the cells
TABLE_AXES = ("protocols", "threats")
NONE = "none"
UNTRAINED = "untrained"
TRAINED = "trained"
MOST_EVALUATIONS = 10**9
SEED_LIMIT = 2**63  # seeds are kept in 64-bit columns

Measure = Literal[
    "psnr",
    "ssim",
    "mse",
    "above_control",
    "tokens",
    "rougeL",
    "rebuilt",
    "certified",
    "explained",
    "label",
    "exact",
    "underdetermined",
    "unsupported",
]
SHARES = ("rebuilt", "certified", "explained", "label", "exact", "underdetermined", "unsupported")  # true or false of each
Statistic = Literal["median", "mean", "min", "max", "share"]
Relation = Literal["at least", "at most", "above", "below", "about"]
Selector = dict[str, Any]


class VerdictTable(Table):
    """How the results are judged.

    Args:
        false_alarm: rate at which an attack that found nothing may be called identifying, over the whole grid.
        resamples: draws of the permutation and of the bootstrap.
        seed: of those draws.
    """

    false_alarm: float = Field(default=0.05, gt=0, lt=1)
    resamples: int = Field(default=10_000, ge=100, le=10_000_000)
    seed: int = Field(default=0, ge=-SEED_LIMIT, lt=SEED_LIMIT)


class ResourcesTable(Table):
    """What the worker processes may take.

    Args:
        memory: gigabytes per worker; a share of the machine's memory by default.
        hang_factor: a cell is stopped once it takes this many times its time limit.
    """

    memory: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    hang_factor: float = Field(default=3.0, gt=1, allow_inf_nan=False)


class TrainedTable(TrainingTable):
    """Federated training behind the state 'trained:rounds=N': the clients' LocalTraining, and what they train on.

    Args:
        data: 'SOURCE:PATH?..', shared out among the clients; no example of a cell's own batch should be in it.
        clients: how many.
        validation: examples held back to state the accuracy.
        seed: of the sharing out and of the clients' draws.
    """

    data: str = ""
    clients: int = Field(default=4, ge=1, le=10_000)
    validation: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=-SEED_LIMIT, lt=SEED_LIMIT)


class ExpectTable(Table):
    """A statement about the results that a run checks.

    Args:
        what: the statement in words.
        source: where it comes from, such as 'DLG, Table 1, reported'.
        where: axis -> text or table, or a list of them; '*' stands for anything. All cells by default.
        versus: another group of cells, to which the first is compared.
        measure: 'psnr', 'ssim', 'mse', .. of each example; or a share: 'rebuilt', 'certified', 'label', 'unsupported', ..
        statistic: over all examples of the group; 'share' of those for which a measure holds.
        relation: to `value`, or to the other group's statistic plus `value`.
        value: the number; 0 by default where there is another group.
        tolerance: how far 'about' may be off.
    """

    what: str = Field(min_length=1)
    source: str = ""
    where: Selector = Field(default_factory=dict)
    versus: Selector | None = None
    measure: Measure
    statistic: Statistic = "median"
    relation: Relation
    value: float | None = Field(default=None, allow_inf_nan=False)
    tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class AuditPlan(Table):
    """A grid: every combination of the axes' entries is a cell, but for those excluded.

    Args:
        name: of the plan; the file's by default.
        about: what it is for, in words.
        seeds: of the client's, the defence's and the attack's draws, and of a named network's weights.
        data: batches, as `load_data` reads them.
        models: networks, as `load_model` reads them.
        attacks: 'NAME:k=v,..' each.
        defences: 'NAME:k=v,..' each, several joined by ' + '; 'none' for no defence.
        protocols: fields of LocalTraining.
        threats: arguments of `ThreatModel.honest_but_curious`.
        states: 'untrained', 'trained:rounds=N,..' (see [training]) or the path of a checkpoint.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations, equal for all attacks.
        time_limit: seconds per cell.
        loss: by name.
        num_classes: outputs of the networks; their own default without it.
        decoys: 'auto', 'none' or data.
        prior: public data for attacks with a prior picture, or ''.
        measures: more measures of pictures, 'NAME:k=v' each.
        training: behind 'trained:rounds=N'.
    """

    name: str = ""
    about: str = ""
    seeds: list[int] = Field(default=[0], min_length=1)
    data: list[str] = Field(min_length=1)
    models: list[str] = Field(min_length=1)
    attacks: list[str] = Field(min_length=1)
    defences: list[str] = Field(default=[NONE], min_length=1)
    protocols: list[TrainingTable] = Field(default=[TrainingTable()], min_length=1)
    threats: list[ThreatTable] = Field(default=[ThreatTable()], min_length=1)
    states: list[str] = Field(default=[UNTRAINED], min_length=1)
    budget: str | int = "fast"
    time_limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    loss: str = "cross_entropy"
    num_classes: int | None = Field(default=None, ge=1, le=1_000_000)
    decoys: str = "auto"
    prior: str = ""
    measures: list[str] = Field(default_factory=list)
    training: TrainedTable = TrainedTable()
    verdict: VerdictTable = VerdictTable()
    resources: ResourcesTable = ResourcesTable()
    exclude: list[Selector] = Field(default_factory=list)
    expect: list[ExpectTable] = Field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON of everything that is given or has a default."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


def defence_calls(text: str) -> tuple[str, ...]:
    """The defences in a text, in the order in which the client applies them; none for 'none'."""
    return () if text.strip() == NONE else tuple(part.strip() for part in text.split(" + "))


def training_of(table: TrainingTable) -> LocalTraining:
    """The protocol of a table.

    Raises:
        OptionError: for a value out of range; its sentence starts with 'LocalTraining.FIELD'.
    """
    return LocalTraining(**table.given())
