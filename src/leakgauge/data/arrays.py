"""Numpy archives: MedMNIST, and npz files with x_train, y_train, x_test, y_test."""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leakgauge.data.item import Item
from leakgauge.data.pictures import from_array
from leakgauge.errors import DataError, did_you_mean

KEYS = {"npz": ("x_{}", "y_{}"), "medmnist": ("{}_images", "{}_labels")}


def list_npz(source: str, path: Path, split: str | None = None) -> list[Item]:
    """The pictures of one archive in order; by default of the training part.

    Nothing is unpickled (`allow_pickle=False`).

    Args:
        source: 'medmnist' (train_images, train_labels, ...) or 'npz' (x_train, y_train, ...).
        path: the .npz file; pictures are bytes, (N, H, W) or channels last (N, H, W, 1 or 3); labels (N,) or (N, 1).
        split: 'train', 'test', and for MedMNIST 'val'.

    Raises:
        DataError: if the file is missing or broken, lacks the arrays, or they are not of these shapes.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz archive.")
    part = split or "train"
    pictures_key, labels_key = (key.format(part) for key in KEYS[source])
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in (pictures_key, labels_key):
                if key not in archive.files:
                    raise DataError(f"{path} has no array {key!r}.{did_you_mean(key, archive.files)}")
            pictures, labels = archive[pictures_key], archive[labels_key]
    except (OSError, ValueError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is broken or holds Python objects, which are never unpickled; expected arrays ({type(error).__name__})."
        ) from error
    if not isinstance(pictures, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(f"{path} is broken: {pictures_key} or {labels_key} in it is not a numpy array.")
    if pictures.dtype != np.uint8 or not (pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] in (1, 3))):
        raise DataError(
            f"{pictures_key} in {path} is {pictures.dtype} {pictures.shape}; expected bytes (N, H, W) or (N, H, W, 1 or 3)."
        )
    flat = labels.reshape(-1)
    if labels.ndim == 2 and labels.shape[1] != 1:
        raise DataError(f"{labels_key} in {path} has {labels.shape[1]} columns; several labels per picture are not read yet.")
    if not np.issubdtype(flat.dtype, np.integer) or len(flat) != len(pictures):
        raise DataError(f"{labels_key} in {path} is {labels.dtype} {labels.shape}; expected {len(pictures)} integers.")
    return [Item(f"{path.stem}/{part}[{row}]", int(flat[row]), partial(_pixels, pictures, row)) for row in range(len(flat))]


def _pixels(pictures: np.ndarray[Any, np.dtype[np.uint8]], row: int) -> Tensor:
    return from_array(pictures[row])
