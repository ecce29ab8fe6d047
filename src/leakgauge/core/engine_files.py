"""What federated engines and their users leave on disk, read without unpickling anything.

    numpy       `.npz` (by name, or arr_0, arr_1, ... in order) and `.npy` (one array), as NVFlare's numpy persistor writes
    Flower      an ArrayRecord or RecordDict as protobuf bytes (the message API's own form); needs no Flower to be read
    a folder    `model.safetensors`, or shards with an index, as Hugging Face's save_pretrained writes

Torch files and safetensors are read by `core.files.read_state`, which sends the others here. Values stay as they are, bit by bit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakgauge.errors import UpdateError

NEVER = "which leakgauge never loads"
INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")


def is_numpy(path: Path) -> bool:
    """Whether a file is an `.npy`, or a zip of them."""
    with path.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(b"\x93NUMPY"):
        return True
    if not head.startswith(b"PK\x03\x04") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_numpy(path: Path) -> dict[str, Tensor]:
    """Arrays by name; '#0', '#1', ... where they have none.

    Raises:
        UpdateError: for a broken file, pickled objects, or entries that are no numbers.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"#0": tensor_of(loaded, path.name, str(path))}
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UpdateError(
            f"{path} cannot be read as plain numpy arrays; it is broken or holds pickled objects, {NEVER}. Write the arrays "
            "themselves: np.savez(file, **{name: array}) or np.savez(file, *arrays)."
        ) from error
    return numbered({name: tensor_of(array, name, str(path)) for name, array in arrays.items()}, "arr_")


def is_record(head: bytes) -> bool:
    """Whether the first bytes look like protobuf of a Flower record, and not like safetensors or a deflated record."""
    return head[:1] == b"\x0a" and head[8:9] != b"{"


def read_record(path: Path) -> dict[str, Tensor]:
    """Arrays of Flower's ArrayRecord, or of the one ArrayRecord in a RecordDict, from `SerializeToString()` of its protobuf.

    Raises:
        UpdateError: if the file is broken or holds no ArrayRecord, or several.
    """
    data = path.read_bytes()
    try:
        items = [dict(_fields(item)) for number, item in _fields(data) if number == 1]
        found = {_text(item[1]): item[2] for item in items if 2 in item}
        bodies = {name: dict(_fields(body)) for name, body in found.items()}
        if bodies and all(set(body) == {1} for body in bodies.values()):  # a RecordDict: name -> ArrayRecord
            if len(bodies) > 1:
                raise UpdateError(f"{path} holds several array records ({', '.join(bodies)}); expected one. Save it by itself.")
            items = [dict(_fields(item)) for number, item in _fields(next(iter(found.values()))) if number == 1]
            bodies = {_text(item[1]): dict(_fields(item[2])) for item in items}
        arrays = {name: _array(body) for name, body in bodies.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise UpdateError(
            f"{path} cannot be read as safetensors, nor as the bytes of a Flower record; it is truncated or of another format. "
            "Save record.to_torch_state_dict() with safetensors or torch.save."
        ) from error
    if not arrays:
        raise UpdateError(f"{path} holds no array at all; expected a Flower ArrayRecord.")
    return numbered({name: tensor_of(array, name, str(path)) for name, array in arrays.items()})


def read_folder(folder: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of a folder of weights: of its one file, or of all shards that its index names.

    Args:
        folder: as Hugging Face's save_pretrained writes it.
        read: reads one file.

    Raises:
        UpdateError: if there is neither, or a shard is missing or named outside the folder.
    """
    indices = sorted(folder.glob(f"*{INDEX}"))
    single = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if single and not indices:
        return dict(read(single[0]))
    if not indices:
        raise UpdateError(f"The folder {folder} holds neither {', '.join(WEIGHTS)} nor an index of shards (*{INDEX}).")
    return read_index(next((one for one in indices if "safetensors" in one.name), indices[0]), read)


def read_index(index: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all shards that an index (JSON with `weight_map`) names.

    Raises:
        UpdateError: if the index is damaged, or a shard or tensor is missing.
    """
    try:
        places: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        shards = {name: read(index.parent / _inside(name)) for name in sorted(set(places.values()))}
        return {name: shards[shard][name] for name, shard in places.items()}
    except (OSError, ValueError, TypeError) as error:
        raise UpdateError(f"The index {index} is damaged ({error}); expected JSON with a weight_map.") from error
    except KeyError as error:
        raise UpdateError(f"The index {index} does not fit its shards: {error} is missing.") from error


def tensor_of(entry: Any, name: str, where: str) -> Tensor:
    """A numpy array, a tensor, or an engine's array with a `numpy()` method, as a tensor with the same bits.

    Raises:
        UpdateError: for anything else.
    """
    try:
        if not isinstance(entry, Tensor | np.ndarray) and callable(getattr(entry, "numpy", None)):
            entry = entry.numpy()
        if isinstance(entry, np.ndarray):
            entry = np.array(entry, dtype=entry.dtype.newbyteorder("="))
        return torch.as_tensor(entry).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"array of {entry.dtype}" if isinstance(entry, np.ndarray) else type(entry).__name__
        raise UpdateError(f"Entry {name!r} of {where} is a {kind}; expected a tensor or array of numbers.") from error


def numbered(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Names '#0', '#1', ... in order, where all names are a prefix and consecutive numbers; else the tensors as they are."""
    numbers = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    if sorted(numbers) != sorted(map(str, range(len(tensors)))):
        return tensors
    return {f"#{number}": tensors[f"{prefix}{number}"] for number in range(len(tensors))}


def _inside(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"the shard {name!r} is no plain file name")
    return name


def _array(body: Mapping[int, Any]) -> np.ndarray[Any, Any]:
    if _text(body[3]) != "numpy.ndarray":
        raise ValueError(f"an array is stored as {_text(body[3])!r}")
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(body[4]), allow_pickle=False)
    return array


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8")


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """(field number, value) pairs of one protobuf message; length-delimited values as memoryview, varints as int."""
    view, place = memoryview(data), 0
    while place < len(view):
        key, place = _varint(view, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(view, place)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        size, place = _varint(view, place) if wire == 2 else (8 if wire == 1 else 4, place)
        if place + size > len(view) or number == 0:
            raise ValueError("the message is truncated")
        yield number, view[place : place + size]
        place += size


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")
