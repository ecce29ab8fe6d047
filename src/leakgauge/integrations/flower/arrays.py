"""Flower's arrays and records as tensors, and the other way round, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from leakgauge.errors import IntegrationError


def to_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """The arrays of an ArrayRecord as tensors, bit for bit, in order.

    Raises:
        IntegrationError: for an array that was serialised otherwise than by numpy, or whose type torch does not have.
    """
    found = {}
    for name, array in arrays.items():
        try:
            found[name] = torch.from_numpy(array.numpy())
        except (TypeError, ValueError, OSError) as error:
            raise IntegrationError(f"Array {name!r} of the message cannot be read ({' '.join(str(error).split())}).") from error
    return found


def to_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """An ArrayRecord of tensors, bit for bit, in order.

    Raises:
        IntegrationError: for a type that numpy does not have, such as bfloat16; Flower cannot send those.
    """
    record = ArrayRecord()
    for name, tensor in tensors.items():
        try:
            record[name] = Array(tensor.detach().cpu().numpy())
        except TypeError as error:
            raise IntegrationError(f"Tensor {name!r} has the type {tensor.dtype}, which Flower cannot send.") from error
    return record


def array_record(content: RecordDict, key: str, what: str) -> Any:
    """The ArrayRecord under `key`, or the only one there is.

    Raises:
        IntegrationError: if there is none, or several under other names.
    """
    records = content.array_records
    if key in records:
        return records[key]
    if len(records) == 1:
        return next(iter(records.values()))
    held = f"the ArrayRecords {', '.join(map(repr, records))}" if records else "no ArrayRecord"
    raise IntegrationError(f"The message {what} holds {held}; expected one, or name it (arrayrecord_key={key!r}).")
