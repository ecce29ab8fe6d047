"""MNIST and its relatives in IDX files, plain or gzipped, or as folders of pictures."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leakgauge.data.folder import list_folder
from leakgauge.data.item import Item
from leakgauge.data.pictures import from_array
from leakgauge.errors import DataError

STEMS = {"train": "train", "test": "t10k"}
PLACES = (".", "raw", "MNIST/raw")
MAX_BYTES = 1 << 31


def list_mnist(path: Path, split: str | None = None) -> list[Item]:
    """The pictures of an MNIST folder in file order, grey; by default of the training part.

    Args:
        path: a folder with train-images-idx3-ubyte and its companions (.gz or not), the folder above 'raw' as torchvision
            lays it out, or a folder of pictures (`list_folder`).
        split: 'train' or 'test'.

    Raises:
        DataError: if nothing is there, or a file is broken.
    """
    stem = STEMS[split or "train"]
    pictures_file = _find(path, f"{stem}-images", "idx3-ubyte")
    if pictures_file is None:
        if any(_find(path, f"{other}-images", "idx3-ubyte") for other in STEMS.values()):
            raise DataError(f"{path} has no {stem}-images-idx3-ubyte; it holds the other part only.")
        return list_folder(path, split)
    labels_file = _find(path, f"{stem}-labels", "idx1-ubyte")
    if labels_file is None:
        raise DataError(f"{path} has {pictures_file.name}, but no {stem}-labels-idx1-ubyte beside it.")
    pictures, labels = read_idx(pictures_file, 3), read_idx(labels_file, 1)
    if len(pictures) != len(labels):
        raise DataError(f"{pictures_file} holds {len(pictures)} pictures and {labels_file} {len(labels)} labels.")
    return [Item(f"{stem}[{row}]", int(labels[row]), partial(_pixels, pictures, row)) for row in range(len(labels))]


def read_idx(path: Path, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An IDX file of bytes with the given number of dimensions.

    Raises:
        DataError: if the header is not that of such a file, or its content is shorter or longer than the header says.

    Source: format notes on the MNIST page of LeCun, Cortes and Burges: 0, 0, type (8 = bytes), number of dimensions, then
    one big-endian 32-bit size each.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{path} is not an IDX file of bytes with {dimensions} dimensions; expected MNIST's own format.")
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
            wanted = prod(shape)
            if wanted > MAX_BYTES:
                raise DataError(f"{path} claims {wanted} bytes of content, which is more than is read.")
            content = file.read(wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    if len(content) != wanted:
        kind = "shorter" if len(content) < wanted else "longer"
        raise DataError(f"{path} is {kind} than its header says ({' x '.join(map(str, shape))}).")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(path: Path, stem: str, kind: str) -> Path | None:
    for place in PLACES:
        for name in (f"{stem}-{kind}", f"{stem}.{kind}", f"{stem}-{kind}.gz", f"{stem}.{kind}.gz"):
            if (path / place / name).is_file():
                return path / place / name
    return None


def _pixels(pictures: np.ndarray[Any, np.dtype[np.uint8]], row: int) -> Tensor:
    return from_array(pictures[row])
