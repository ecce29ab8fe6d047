"""load_data: a text becomes a batch."""

from __future__ import annotations

from pathlib import Path

import torch

from leakgauge.core.spec import ImageSpec
from leakgauge.data.arrays import list_npz
from leakgauge.data.cats_dogs import list_cats_dogs
from leakgauge.data.cifar import list_cifar
from leakgauge.data.demo import DEFAULT_SIZE, list_demo
from leakgauge.data.dicom import list_dicom
from leakgauge.data.folder import list_folder
from leakgauge.data.item import Item
from leakgauge.data.mnist import list_mnist
from leakgauge.data.pictures import one_shape
from leakgauge.data.spec import DataSpec, parse_data_spec
from leakgauge.data.text import is_text, load_texts
from leakgauge.errors import DataError
from leakgauge.truth import Batch


def load_data(text: str) -> Batch:
    """The examples that a text names, as a batch in model space.

    Args:
        text: 'SOURCE:PATH?key=value&...', see `parse_data_spec` and `names()`. Without `size` all pictures must agree in
            theirs (demo pictures become 32x32). 'text:PATH?tokeniser=FOLDER&...' and 'demo:texts?...' give texts, see
            `parse_text_data`.

    Returns:
        Inputs (N, C, H, W), float32, (pixel - mean) / std with pixels in [0, 1]; labels (N,), int64; the spec; and file
        names for the truth's own record.

    Raises:
        OptionError: for an unknown source, key or value.
        DataError: if something is missing or cannot be read; the sentence names the file.
        ShapeError: if the pictures differ in size and none was asked for.
        MissingExtraError: for DICOM without pydicom.
    """
    if is_text(text):
        return load_texts(text)
    spec = parse_data_spec(text)
    items = list_items(spec)
    chosen = [items[index] for index in spec.select(len(items))]
    size = spec.size or (DEFAULT_SIZE if spec.source == "demo" else None)
    names = [item.name for item in chosen]
    pixels = one_shape([item.pixels() for item in chosen], names, size, spec.channels)
    image_spec = ImageSpec((pixels.shape[1], pixels.shape[2], pixels.shape[3]), spec.mean, spec.std)
    labels = torch.tensor([item.label for item in chosen], dtype=torch.int64)
    return Batch(image_spec.normalise(pixels), labels, image_spec, tuple(names))


def list_items(spec: DataSpec) -> list[Item]:
    """Every example of a source, before indices are chosen; pictures are not decoded yet.

    Raises:
        DataError: if the path is not there, or holds nothing of the source's kind.
    """
    if spec.source == "demo":
        return list_demo(spec.path.split(","))
    path = Path(spec.path).expanduser()
    if not path.exists():
        raise DataError(f"There is no {path} to read {spec.source!r} from.")
    if spec.source in ("cifar10", "cifar100"):
        return list_cifar(spec.source, path, spec.split)
    if spec.source in ("npz", "medmnist"):
        return list_npz(spec.source, path, spec.split)
    if spec.source == "mnist":
        return list_mnist(path, spec.split)
    if spec.source == "cats-dogs":
        return list_cats_dogs(path, spec.split)
    return list_dicom(path) if spec.source == "dicom" else list_folder(path, spec.split)
