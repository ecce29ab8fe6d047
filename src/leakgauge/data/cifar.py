"""CIFAR-10 and CIFAR-100: the distributed Python batches, or folders of pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leakgauge.data.folder import LABELS, list_folder
from leakgauge.data.item import Item
from leakgauge.data.pictures import from_array, is_picture
from leakgauge.data.safe_pickle import read_pickle
from leakgauge.errors import DataError, OptionError

FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
LABEL_KEYS = {"cifar10": "labels", "cifar100": "fine_labels"}
CLASSES = {"cifar10": 10, "cifar100": 100}


def list_cifar(source: str, path: Path, split: str | None = None) -> list[Item]:
    """The pictures of a CIFAR folder in the order of its batches; by default of the training part.

    Batch files that are missing are left out as long as one is there. The files are read without unpickling objects
    (`safe_pickle`); CIFAR-100 has its fine labels.

    Args:
        source: 'cifar10' or 'cifar100'.
        path: the folder with the batches, the one above it, one batch file, or a folder of pictures (`list_folder`).
        split: 'train' or 'test'.

    Raises:
        DataError: if nothing is there, or a batch is broken.
        OptionError: if a split is asked of one batch file.
    """
    if path.is_file() and not is_picture(path):
        if split is not None:
            raise OptionError(f"{path} is one batch file and has no parts; leave split={split} out.")
        return _batch(source, path)
    folder = path / FOLDERS[source] if (path / FOLDERS[source]).is_dir() else path
    files = [folder / name for name in FILES[source][split or "train"] if (folder / name).is_file()]
    if files:
        return [item for file in files for item in _batch(source, file)]
    try:
        return list_folder(path, split)
    except DataError as error:
        if (path / LABELS).is_file():
            raise
        first = FILES[source][split or "train"][0]
        raise DataError(f"{path} holds neither the Python batches of {source} ({first}, ...) nor pictures. {error}") from error


def _batch(source: str, path: Path) -> list[Item]:
    content = read_pickle(path)
    data, labels = content.get("data"), content.get(LABEL_KEYS[source])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path} has no 'data' of bytes with 3,072 columns; expected a Python batch of {source}.")
    if labels is None or len(labels) != len(data):
        found = "none" if labels is None else str(len(labels))
        raise DataError(f"{path} has {len(data)} pictures and {found} under {LABEL_KEYS[source]!r}; expected as many of both.")
    if not all(isinstance(label, int | np.integer) and 0 <= label < CLASSES[source] for label in labels):
        raise DataError(f"{path} has a label that is not from 0 to {CLASSES[source] - 1}.")
    names = _names(content.get("filenames"), path.name, len(data))
    return [
        Item(name, int(label), partial(_pixels, data, row)) for row, (name, label) in enumerate(zip(names, labels, strict=True))
    ]


def _names(found: Any, file: str, count: int) -> list[str]:
    if not isinstance(found, list) or len(found) != count:
        return [f"{file}[{row}]" for row in range(count)]
    return [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in found]


def _pixels(data: np.ndarray[Any, np.dtype[np.uint8]], row: int) -> Tensor:
    return from_array(data[row].reshape(3, 32, 32).transpose(1, 2, 0))
