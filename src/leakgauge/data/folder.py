"""Folders of pictures: labels from labels.csv, from class sub-folders, or none."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from leakgauge.data.item import Item
from leakgauge.data.pictures import is_picture, read_picture
from leakgauge.errors import DataError

LABELS = "labels.csv"
PATIENT = ("patient", "subject")  # columns that say whose picture it is
PARTS = ("train", "val", "valid", "test")


def list_folder(
    path: Path,
    split: str | None = None,
    accepts: Callable[[Path], bool] = is_picture,
    read: Callable[[Path], Tensor] = read_picture,
) -> list[Item]:
    """The pictures of a folder, in name order.

    Labels come from `labels.csv` if it is there (a header with the columns `file` and `label`; labels are numbers, or
    texts, which are numbered in name order; a column `patient` or `subject` says whose picture it is). Otherwise from
    sub-folders, one per class: a sub-folder named with a number has that label, others are numbered in name order. Otherwise
    every label is 0.

    Args:
        path: the folder, or one picture.
        split: a sub-folder to go into first.
        accepts: which files count.
        read: how one is read.

    Raises:
        DataError: if the folder is missing, has both pictures and class sub-folders, or does not agree with labels.csv.
    """
    if split is not None:
        path = path / split
    if path.is_file():
        return [Item(path.name, 0, partial(read, path))]
    if not path.is_dir():
        raise DataError(f"There is no folder {path}.")
    loose = [child for child in sorted(path.iterdir()) if child.is_file() and accepts(child)]
    if (path / LABELS).is_file():
        return _from_table(path, loose, read)
    classes = [child for child in sorted(path.iterdir()) if child.is_dir() and any(map(accepts, child.iterdir()))]
    if loose and classes:
        raise DataError(
            f"The folder {path} holds both pictures and class folders ({classes[0].name}); expected one of them, or a {LABELS}."
        )
    if loose:
        return [Item(child.name, 0, partial(read, child)) for child in loose]
    parts = [name for name in PARTS if (path / name).is_dir()]
    if not classes and parts:
        raise DataError(f"The folder {path} has the parts {', '.join(parts)}; say split=train or split=test.")
    numbered = all(child.name.isascii() and child.name.isdigit() for child in classes)
    items = []
    for position, child in enumerate(classes):
        label = int(child.name) if numbered else position
        files = [file for file in sorted(child.iterdir()) if file.is_file() and accepts(file)]
        items += [Item(f"{child.name}/{file.name}", label, partial(read, file)) for file in files]
    if not items:
        raise DataError(f"The folder {path} holds no files of the expected kind.")
    return items


def _from_table(path: Path, loose: list[Path], read: Callable[[Path], Tensor]) -> list[Item]:
    table = path / LABELS
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error}).") from error
    if not rows or any(not row.get("file") or row.get("label") in (None, "") for row in rows):
        raise DataError(f"{table} has no rows, or a row without file or label; expected a header with the columns file,label.")
    labels = {row["file"]: row["label"].strip() for row in rows}
    if len(labels) != len(rows):
        raise DataError(f"{table} names a file twice.")
    known = {name: number for number, name in enumerate(sorted(set(labels.values())))}
    if all(label.isascii() and label.isdigit() for label in labels.values()):
        known = {name: int(name) for name in known}
    for child in loose:
        if child.name not in labels:
            raise DataError(f"{table} has no row for {child.name}; expected one for every picture beside it.")
    patients = {row["file"]: next((row[name].strip() for name in PATIENT if row.get(name)), "") for row in rows}
    items = []
    for name in sorted(labels):
        file_path = path / name
        if not file_path.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{table} names {name!r}, which lies outside the folder.")
        if not file_path.is_file():
            raise DataError(f"{table} names {name!r}, which is not there.")
        items.append(Item(name, known[labels[name]], partial(read, file_path), patients[name]))
    return items
