"""Results with their pictures as a report needs them, so that a large grid fits into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from safetensors import SafetensorError, safe_open
from torch import Tensor

from leakgauge.audit.record import Pictures
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.store import Store
from leakgauge.audit.store.tensors import tensor_path

STILLS = ("guess", "truth", "control")


def results_with_stills(store: Store) -> list[CellResult]:
    """The ended cells of the plan, in its order, with reconstruction, original and control, and without filmstrips.

    Originals and controls are the same in many cells, and are held once.

    Raises:
        DataError: if a result is damaged.
    """
    held: dict[bytes, Tensor] = {}
    return [_with_stills(store, result, key, held) for key, result in zip(store.keys(), store.results(), strict=True)]


def _with_stills(store: Store, result: CellResult, key: str, held: dict[bytes, Tensor]) -> CellResult:
    if result.record is None:
        return result
    path = tensor_path(store.folder, key)
    try:
        with safe_open(str(path), "pt") as file:
            names: Sequence[str] = [name for name in STILLS if name in file.keys()]  # noqa: SIM118 - no mapping
            found = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError):  # there is none, or the store tells what is wrong with it
        return replace(result, record=store.result(key).record)
    for name in ("truth", "control"):
        if name in found:
            digest = hashlib.sha256(found[name].contiguous().numpy().tobytes()).digest()
            found[name] = held.setdefault(digest, found[name])
    return replace(result, record=replace(result.record, pictures=Pictures(**found)))
