"""Audit: a plan, run over a store that survives anything, and the report of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.expand import cells_of, plan_hash
from leakgauge.audit.plan.expectations import Held, check_expectations
from leakgauge.audit.plan.reading import read_audit_plan
from leakgauge.audit.plan.tables import AuditPlan
from leakgauge.audit.run.local import run_local
from leakgauge.audit.run.prepare import Tell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.failures import damaged
from leakgauge.audit.store.stills import results_with_stills
from leakgauge.audit.store.store import Store
from leakgauge.audit.verdict.judge import judge
from leakgauge.audit.verdict.judgement import Judgement
from leakgauge.errors import DataError, OptionError
from leakgauge.registry import make


@dataclass(frozen=True)
class AuditReport:
    """What an audit came to, as far as its cells have ended.

    Args:
        results: one per ended cell, in the order of the plan. A failure is a result with its reason.
        verdict: what they say, by rules that it states.
        plan: the plan as JSON.
        plan_hash: over plan and cells.
        planned: how many cells the plan has.
        expected: the plan's own expectations, checked.
        folder: of the run.
        ended: the day on which the last cell ended, as 'YYYY-MM-DD'.
    """

    results: tuple[CellResult, ...] = field(repr=False)
    verdict: Judgement = field(repr=False)
    plan: Mapping[str, Any] = field(repr=False)
    plan_hash: str
    planned: int
    expected: tuple[Held, ...]
    folder: Path
    ended: str = ""

    @property
    def complete(self) -> bool:
        """Whether all cells of the plan have ended."""
        return len(self.results) == self.planned

    @property
    def failed(self) -> tuple[Held, ...]:
        """Expectations that the results contradict."""
        return tuple(entry for entry in self.expected if entry.held is False)

    def to_html(self, path: str | Path, redact: bool = False) -> None:
        """Writes one self-contained page.

        Args:
            path: of the file.
            redact: leave out originals, names and what comes near an original.

        Raises:
            DataError: if the file cannot be written.
        """
        make("reporters", "audit-html", redact=redact)(self, path)

    def to_json(self, path: str | Path, redact: bool = False) -> None:
        """Writes the same as strict JSON.

        Raises:
            DataError: if the file cannot be written.
        """
        make("reporters", "audit-json", redact=redact)(self, path)

    @staticmethod
    def load(folder: str | Path) -> AuditReport:
        """The report of a run folder, complete or not; nothing is played.

        Raises:
            DataError: if there is no run, or it is damaged.
        """
        with Store.open(folder, write=False) as store:
            return report_of(store)


@dataclass(frozen=True)
class Audit:
    """A plan to be run.

    Args:
        plan: as `read_audit_plan` gives it.
    """

    plan: AuditPlan

    @staticmethod
    def from_toml(path: str | Path, settings: Sequence[str] = ()) -> Audit:
        """The audit that a TOML file describes, checked as a whole.

        Args:
            path: the file, or 'plan:NAME' for one that comes with the package.
            settings: changes 'a.b=1', as after --set.

        Raises:
            DataError: if there is no such file, or it is no TOML.
            OptionError: for an unknown key, a missing one, or a value that cannot be.
        """
        return Audit(read_audit_plan(path, settings))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order of the plan."""
        return cells_of(self.plan)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over plan and cells."""
        return plan_hash(self.plan, self.cells)

    def run(
        self,
        directory: str | Path,
        workers: int | None = None,
        ray: str | None = None,
        *,
        threads: int | None = None,
        device: str = "auto",
        again: Sequence[str] = (),
        stopped: Callable[[], bool] = lambda: False,
        tell: Tell = lambda share, text: None,  # noqa: ARG005
    ) -> AuditReport:
        """Plays every cell that the store has no result of; the same call continues a run that was stopped or killed.

        Args:
            directory: of the store; made where it does not exist.
            workers: processes; as many as there are cores by default (of a Ray cluster: as it has).
            ray: the address of a Ray cluster, or 'local' for one on this machine; None for plain processes.
            threads: for torch, in each worker; an equal share of the cores by default, 1 under Ray.
            device: for the attacks: 'auto', 'cpu', 'cuda'.
            again: statuses whose cells are played again, such as ('failed', 'timeout').
            stopped: polled; True ends the run with what is done.
            tell: called with the share done and a remark.

        Raises:
            DataError: if the store cannot be used, or another run is at work in it.
            MissingExtraError: for `ray` without the extra.
            LeakgaugeError: if workers do not start.
        """
        if workers is not None and workers < 1:
            raise OptionError(f"workers is {workers}; expected at least 1.")
        with Store.open(directory) as store:
            store.set_plan(self.plan.to_json(), self.hash, self.cells)
            store.drop_damaged()
            store.forget(*again)
            pending = store.pending()
            if ray is not None:
                from leakgauge.audit.run.ray_cluster import run_ray

                run_ray(store, pending, ray, workers, threads=threads, device=device, stopped=stopped, tell=tell)
            else:
                run_local(store, pending, workers, threads=threads, device=device, stopped=stopped, tell=tell)
            return report_of(store)


def report_of(store: Store) -> AuditReport:
    """The report of an open store.

    Raises:
        DataError: if no cell has ended yet, or the store is damaged.
    """
    results = results_with_stills(store)
    plan = store.plan
    if not results:
        raise DataError(f"No cell of the audit in {str(store.folder)!r} has ended yet; the same command continues it.")
    try:
        read = AuditPlan.model_validate(plan)
    except ValidationError as error:
        raise damaged(store.folder, "its plan is none") from error
    return AuditReport(
        results=tuple(results),
        verdict=judge(results, **read.verdict.model_dump()),
        plan=plan,
        plan_hash=store.plan_hash,
        planned=len(store.cells()),
        expected=check_expectations(read, results),
        folder=store.folder,
        ended=store.ended,
    )
