"""A run folder of `leakgauge audit` as findings: what `report` and `compare` read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakgauge.errors import DataError

if TYPE_CHECKING:
    from leakgauge.report.grid.findings import Findings


def is_run(folder: str) -> bool:
    """Whether an audit wrote this folder."""
    from leakgauge.audit.store.store import Store

    return Store.is_one(folder)


def load_findings(folder: str, pictures: bool = True) -> Findings:
    """The ended cells of an audit's store with what they say.

    Args:
        folder: as given to `leakgauge audit --store`.
        pictures: read the pictures too, but no filmstrips; without them only numbers and texts are there.

    Raises:
        DataError: if there is no store, none of its cells has ended, or it is damaged.
    """
    from leakgauge.audit.audit import report_of
    from leakgauge.audit.store.store import Store
    from leakgauge.report.grid.findings import findings_of, findings_of_report

    with Store.open(folder, write=False) as store:
        if pictures:
            return findings_of_report(report_of(store))
        results = store.results()
        if not results:
            raise DataError(f"No cell of the audit in {folder!r} has ended yet; the same command continues it.")
        return findings_of(results, store.plan, plan_hash=store.plan_hash, planned=len(store.cells()), ended=store.ended)
