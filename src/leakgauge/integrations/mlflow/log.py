"""`log_audit`: one audit as one MLflow run."""

from __future__ import annotations

import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from leakgauge.errors import IntegrationError
from leakgauge.integrations.mlflow.entries import Audit, Entries, clean, entries_of, text_of
from leakgauge.models.optional import import_optional

AT_ONCE, LONGEST = 100, 500
PURPOSE = "Logging to MLflow"


def log_audit(
    audit: Audit,
    *,
    tracking_uri: str | None = None,
    experiment: str = "leakgauge",
    run_name: str | None = None,
    run_id: str | None = None,
    redact: bool = True,
) -> str:
    """Logs an audit as one MLflow run, and returns the run's id.

    Steps are rounds where there are rounds, and positions in the list of records, or of defences, elsewhere. The infinite PSNR
    of an exact reconstruction is logged as 999 dB.

    Args:
        audit: a folder that `attack`, `demo`, `check`, `simulate`, `tradeoff` or `filter` wrote, or a recorder's; or what
            `run_simulation`, `run_tradeoff` and `audit_filter` return, or records.
        tracking_uri: an MLflow server or store; by default what MLflow itself is set to.
        experiment: name; made where it does not exist.
        run_name: of a new run.
        run_id: an existing run to log into, instead of a new one.
        redact: leave out originals, names, places and what comes near an original, since many people can read a tracking server.
            Pages that a folder holds unredacted are then left out.

    Raises:
        DataError: if the folder holds no audit.
        IntegrationError: if MLflow refuses.
        MissingExtraError: without the package mlflow-skinny.
    """
    tracking = import_optional("mlflow.tracking", "mlflow", PURPOSE)
    entries = entries_of(audit, redact)
    entries.tags |= {"leakgauge.kind": entries.kind, "leakgauge.redacted": str(redact).lower()}
    entries.tags |= {
        f"version.{name}": version for name in ("leakgauge", "torch", "mlflow-skinny") if (version := _version(name))
    }
    try:
        client = tracking.MlflowClient(tracking_uri=tracking_uri)
        if run_id is None:
            found = client.get_experiment_by_name(experiment)
            place = found.experiment_id if found is not None else client.create_experiment(experiment)
            run_id = str(client.create_run(place, run_name=run_name).info.run_id)
            _send(client, run_id, entries)
            client.set_terminated(run_id)
        else:
            _send(client, run_id, entries)
    except (import_optional("mlflow.exceptions", "mlflow", PURPOSE).MlflowException, ImportError, OSError) as error:
        raise IntegrationError(f"MLflow refused the audit: {' '.join(str(error).split())[:700]}") from error
    return run_id


def _send(client: Any, run_id: str, entries: Entries) -> None:
    entities, now = import_optional("mlflow.entities", "mlflow", PURPOSE), int(time.time() * 1000)
    params = [entities.Param(clean(key), text_of(value)[:LONGEST]) for key, value in entries.params.items()]
    tags = [entities.RunTag(key, text_of(value)[:LONGEST]) for key, value in entries.tags.items()]
    metrics = [entities.Metric(name, value, now, step) for name, value, step in entries.metrics]
    for start in range(0, max(len(params), len(tags), len(metrics)), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        client.log_batch(run_id, metrics=metrics[part], params=params[part], tags=tags[part])
    with tempfile.TemporaryDirectory() as folder:
        entries.write(Path(folder))
        if any(Path(folder).iterdir()):
            client.log_artifacts(run_id, folder)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
