"""Every source of data that has a name here."""

from __future__ import annotations

from dataclasses import dataclass

from leakgauge.data.demo import DEMO, SERIES
from leakgauge.data.spec import KEYS, SPLITS
from leakgauge.data.text import DEMO_TEXTS
from leakgauge.data.text import KEYS as TEXT_KEYS


@dataclass(frozen=True)
class DataEntry:
    """One line of `names()`: what a person may write as SPEC, its options, what it reads, and whose data that is."""

    name: str
    options: tuple[str, ...]
    description: str
    source: str


OWN = "your own files; their licence is theirs"
KINDS = {
    "folder": ("a folder of PNG, JPEG, BMP, TIFF or WebP pictures; labels.csv, class sub-folders, or label 0", OWN),
    "cifar10": ("the Python batches of CIFAR-10, or a folder of pictures", "Krizhevsky 2009; licence not stated"),
    "cifar100": ("the Python batches of CIFAR-100 (fine labels), or a folder of pictures", "Krizhevsky 2009; licence not stated"),
    "mnist": ("IDX files (.gz or not) of MNIST and its relatives, or a folder of pictures", "LeCun, Cortes, Burges; not stated"),
    "cats-dogs": ("the Kaggle cats and dogs, 0 = cat, 1 = dog", "Elson et al. 2007, Asirra; Kaggle competition terms"),
    "medmnist": (
        "a MedMNIST .npz file with two-dimensional pictures and one label each",
        "Yang et al. 2023; terms differ by set",
    ),
    "npz": ("an .npz file with x_train, y_train, x_test, y_test", OWN),
    "dicom": ("DICOM files, windowed; needs the extra 'medical'", OWN),
}


def names() -> tuple[DataEntry, ...]:
    """Every source with its options, then every demo picture with its licence as the installed packages state it."""
    entries = [
        DataEntry(f"{name}:PATH", tuple(key for key in KEYS if key != "split" or SPLITS[name]), description, source)
        for name, (description, source) in KINDS.items()
    ]
    keys = tuple(key for key in KEYS if key != "split")
    entries.append(
        DataEntry("text:PATH", TEXT_KEYS, "a table (.tsv, .csv) of texts, or one text per line; needs the extra 'text'", OWN)
    )
    own = DataEntry(
        DEMO_TEXTS, TEXT_KEYS, "32 invented notes of a clinic, 1 = urgent; needs the extra 'text'", "written for this package"
    )
    return (
        *entries,
        own,
        *(DataEntry(f"demo:{name}", keys, it.description, it.licence) for name, it in {**DEMO, **SERIES}.items()),
    )
