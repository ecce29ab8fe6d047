"""The Kaggle cats and dogs: 0 = cat, 1 = dog."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from leakgauge.data.folder import LABELS, list_folder
from leakgauge.data.item import Item
from leakgauge.data.pictures import is_picture, read_picture
from leakgauge.errors import DataError

NAME = re.compile(r"(cat|dog)s?(?![a-z])", re.IGNORECASE)
PARTS = {"train": ("train", "training_set"), "test": ("test", "test_set", "validation")}


def list_cats_dogs(path: Path, split: str | None = None) -> list[Item]:
    """Cats and dogs in name order, the label taken from the file's name (cat.0.jpg), its folder's (Cats/0.jpg) or labels.csv.

    Args:
        path: the folder; may hold the parts train and test (or training_set, test_set), of which train is the default.
        split: 'train' or 'test'.

    Raises:
        DataError: if the folder is missing or empty, or a picture is neither called cat nor dog.
    """
    folder = _part(path, split)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    if (folder / LABELS).is_file():
        return list_folder(folder)
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and is_picture(file)]
    for child in sorted(folder.iterdir()):
        if child.is_dir() and NAME.fullmatch(child.name):
            files += [file for file in sorted(child.iterdir()) if file.is_file() and is_picture(file)]
    if not files:
        raise DataError(
            f"The folder {folder} holds no cats and dogs; expected cat.0.jpg, dog.0.jpg, ..., or folders cats and dogs."
        )
    return [Item(str(file.relative_to(folder).as_posix()), _label(file, folder), partial(read_picture, file)) for file in files]


def _part(path: Path, split: str | None) -> Path:
    found = [path / name for name in PARTS[split or "train"] if (path / name).is_dir()]
    if split is not None and not found:
        raise DataError(f"{path} has no part {split!r}; expected a folder {' or '.join(PARTS[split])}.")
    return found[0] if found else path


def _label(file: Path, folder: Path) -> int:
    word = file.parent.name if file.parent != folder else file.name
    match = NAME.match(word)
    if match is None:
        raise DataError(f"The picture {file} is called neither cat nor dog; expected names such as cat.0.jpg.")
    return int(match.group(1).lower() == "dog")
