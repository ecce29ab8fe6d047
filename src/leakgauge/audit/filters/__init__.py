"""The audit of a deployed filter as a black box: planted updates go in, and what comes out is measured."""

from __future__ import annotations

from leakgauge.audit.filters.plain import defences_as_filter
from leakgauge.audit.filters.record import FilterAudit, FilterFinding
from leakgauge.audit.filters.run import PROBES, audit_filter

__all__ = ["PROBES", "FilterAudit", "FilterFinding", "audit_filter", "defences_as_filter"]
