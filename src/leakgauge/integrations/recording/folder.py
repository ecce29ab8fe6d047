"""A folder of recordings: how its files are called, each written whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

from leakgauge.core.observation import Observation
from leakgauge.errors import DataError
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.truth.batch import Batch

TRUTH = "truth"
MODEL_FILE = "MODEL"


def free_name(folder: Path, exchange: Exchange) -> str:
    """'round-0001-client-NAME', with a number behind it where a client sent several messages in a round."""
    client = re.sub(r"[^A-Za-z0-9_-]+", "-", exchange.client).strip("-") or "unnamed"
    stem = f"round-{exchange.round or 0:04d}-client-{client}"
    name, again = stem, 2
    while (folder / f"{name}.safetensors").exists():
        name, again = f"{stem}-{again}", again + 1
    return name


def write_observation(folder: Path, name: str, seen: Observation, model_name: str) -> Path:
    """Writes an observation, and beside the first one the network's name.

    Raises:
        OSError, UpdateError: if it cannot be written.
    """
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if model_name and not (folder / MODEL_FILE).is_file():
        (folder / MODEL_FILE).write_text(model_name + "\n", encoding="utf-8")
    part = path.with_suffix(".part")
    try:
        seen.save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_truth(folder: Path, name: str, batch: Batch) -> Path:
    """Writes a private batch to a folder of its own, under the observation's name.

    Raises:
        DataError: if it cannot be written.
    """
    path = folder / TRUTH / f"{name}.{TRUTH}.safetensors"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        batch.save(part)
        part.replace(path)
    except Exception as error:
        raise DataError(f"The truth cannot be written to {path} ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
    return path
