"""DICOM files. Only pixels and what is needed to show them are looked at; no field about the patient is read or shown."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakgauge.data.folder import list_folder
from leakgauge.data.item import Item
from leakgauge.data.pictures import MAX_PIXELS, from_array
from leakgauge.errors import DataError, MissingExtraError

SUFFIXES = (".dcm", ".dicom", ".ima")


def list_dicom(path: Path) -> list[Item]:
    """A DICOM file, or those of a folder in name order, labelled as `list_folder` says.

    Raises:
        MissingExtraError: if pydicom is absent or broken.
        DataError: if there is nothing to read.
    """
    _pydicom()
    return list_folder(path, accepts=is_dicom, read=read_dicom)


def is_dicom(path: Path) -> bool:
    """Whether a file's name ends like DICOM, or it has no ending and carries DICOM's mark at byte 128."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix or path.name.startswith(".") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> Tensor:
    """One DICOM picture as pixels.

    Stored values become slope * value + intercept, then the file's first window (centre and width) maps them to [0, 1];
    without a window the range that the stored bits allow does, never that of the picture itself. MONOCHROME1 is inverted.

    Returns:
        (1, H, W), or (3, H, W) for colour; float32 in [0, 1].

    Raises:
        DataError: if the file is broken, holds several frames or a palette, or needs a decoder that is not installed.

    Source: DICOM PS3.3, C.7.6.3.1.2 (MONOCHROME1), C.11.1 (rescale), C.11.2.1.2 and C.11.2.1.3 (window functions).
    """
    pydicom = _pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path)
            meaning = str(data.PhotometricInterpretation)
            if int(data.Rows) * int(data.Columns) > MAX_PIXELS:
                raise DataError(f"The DICOM file {path} has {data.Rows}x{data.Columns} pixels; that is more than is read.")
            if int(data.get("NumberOfFrames", 1) or 1) != 1:
                raise DataError(f"The DICOM file {path} holds several frames; expected one picture.")
            if meaning.startswith("MONOCHROME"):
                return _grey(data, meaning)
            if meaning.startswith("PALETTE"):
                raise DataError(f"The DICOM file {path} uses a colour palette, which is not read yet.")
            colour = np.asarray(importlib.import_module("pydicom.pixels").pixel_array(path))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001
        # pydicom's own messages may quote a field, so only the kind of error is repeated
        raise DataError(f"The DICOM file {path} cannot be read ({type(error).__name__}).") from None
    if colour.dtype != np.uint8 or colour.ndim != 3:
        raise DataError(f"The DICOM file {path} has {colour.dtype} colour of shape {colour.shape}; expected bytes (H, W, 3).")
    return from_array(colour)


def _grey(data: Any, meaning: str) -> Tensor:
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    if slope == 0:
        raise ValueError("a rescale slope of zero")
    values = np.asarray(data.pixel_array).astype(np.float64) * slope + intercept
    centre, width = _first(data.get("WindowCenter")), _first(data.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        pixels = _window(values, centre, width, str(data.get("VOILUTFunction", "LINEAR")))
    else:
        bits, signed = int(data.BitsStored), int(data.PixelRepresentation) == 1
        lowest = -(2 ** (bits - 1)) if signed else 0
        ends = sorted((lowest * slope + intercept, (lowest + 2**bits - 1) * slope + intercept))
        pixels = (values - ends[0]) / (ends[1] - ends[0])
    pixels = np.clip(pixels, 0, 1)
    if meaning == "MONOCHROME1":
        pixels = 1 - pixels
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None]


def _window(values: Any, centre: float, width: float, function: str) -> Any:
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _pydicom() -> Any:
    purpose = "The data source 'dicom'"
    try:
        return importlib.import_module("pydicom")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pydicom", "medical", purpose) from error
    except Exception as error:
        reason = f"is installed but cannot be imported ({type(error).__name__}: {error})"
        raise MissingExtraError("pydicom", "medical", purpose, reason) from error
