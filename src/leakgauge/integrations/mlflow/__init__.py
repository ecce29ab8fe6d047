"""MLflow: an audit as a run with parameters, metrics, tags and files (extra `mlflow`)."""

from __future__ import annotations

from leakgauge.integrations.mlflow.log import log_audit

__all__ = ["log_audit"]
