"""Pictures that came with scikit-image and scikit-learn, read from the installed files; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakgauge.data.pictures import read_picture
from leakgauge.errors import DataError

FACES = 100  # the first half of lfw_subset; the second half shows background


def bundled_file(package: str, relative: str) -> Path:
    """A data file inside an installed package, found without importing it.

    Raises:
        DataError: if the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"The bundled pictures need the package {package!r}, which is not installed.")
    path = Path(spec.origin).parent / relative
    if not path.is_file():
        raise DataError(f"This installation of {package!r} lacks {relative}; nothing is downloaded in its place.")
    return path


@lru_cache(maxsize=32)
def bundled_picture(package: str, relative: str) -> Tensor:
    """A bundled picture as pixels (C, H, W); the tensor is shared, so do not write to it."""
    return read_picture(bundled_file(package, relative))


@lru_cache(maxsize=1)
def _faces() -> Tensor:
    stored = np.load(bundled_file("skimage", "data/lfw_subset.npy"), allow_pickle=False)
    return torch.from_numpy(stored[:FACES].astype(np.float32)).clamp(0, 1)


def face(number: int) -> Tensor:
    """Face `number` (0 to 99) of lfw_subset, (1, 25, 25)."""
    return _faces()[number][None]


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """scikit-learn's 1,797 digits: values 0 to 16 as (N, 8, 8), and labels (N,)."""
    with gzip.open(bundled_file("sklearn", "datasets/data/digits.csv.gz"), "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def digit(number: int) -> Tensor:
    """Digit `number` (0 to 1,796), (1, 8, 8)."""
    return torch.from_numpy(digits()[0][number].astype(np.float32))[None] / 16
