"""Picture files into pixels, and the one way in which pictures are cropped, resized and turned grey here.

Pixels are float32 in [0, 1], (C, H, W) with C = 1 or 3. Resizing: centre crop to the wanted aspect ratio, then Pillow's
Lanczos filter (with its built-in widening of the filter when shrinking, no reducing_gap) on float32 channels, then clamp.
Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). Transparency is laid over white.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from leakgauge.errors import DataError, ShapeError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 64_000_000
LUMA = (0.299, 0.587, 0.114)


def is_picture(path: Path) -> bool:
    """Whether a file's name ends like a picture that `read_picture` reads."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: Path) -> Tensor:
    """A picture file as pixels, upright according to its EXIF orientation.

    Eight bits per channel, 16-bit grey, and float grey within [0, 1]; 16-bit colour is read with 8 bits.

    Args:
        path: PNG, JPEG, BMP, TIFF or WebP.

    Returns:
        (1, H, W) for a grey file, else (3, H, W); float32 in [0, 1].

    Raises:
        DataError: if the file is missing, broken, no picture, or has more than `MAX_PIXELS` pixels.
    """
    if not path.is_file():
        raise DataError(f"There is no picture {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"The picture {path} has {image.width}x{image.height} pixels; "
                        f"at most {MAX_PIXELS // 1_000_000} million are read."
                    )
                image.load()
                upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"The picture {path} cannot be read ({' '.join(str(error).split())}).") from error
    return _pixels(upright, path)


def from_array(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Bytes (H, W), (H, W, 1) or (H, W, 3) as pixels (C, H, W)."""
    stacked = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(stacked.transpose(2, 0, 1).astype(np.float32, order="C")) / 255


def with_channels(pixels: Tensor, channels: int) -> Tensor:
    """The picture with 1 or 3 channels: colour to grey by BT.601, grey to colour by repetition.

    Args:
        pixels: (C, H, W) with C = 1 or 3.
        channels: 1 or 3.
    """
    if len(pixels) == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1).clone()
    return (pixels * torch.tensor(LUMA).reshape(3, 1, 1)).sum(0, keepdim=True).clamp(0, 1)


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture at a size, by the crop and filter that this file states; untouched if it has that size.

    Args:
        pixels: (C, H, W) in [0, 1].
        size: (H, W) wanted.

    Returns:
        (C, *size) in [0, 1].
    """
    cropped = _centre_crop(pixels, size)
    height, width = size
    if tuple(cropped.shape[1:]) == size:
        return cropped.clone()
    channels = [
        np.asarray(Image.fromarray(channel.numpy()).resize((width, height), Image.Resampling.LANCZOS)) for channel in cropped
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 1)


def one_shape(pictures: list[Tensor], names: list[str], size: tuple[int, int] | None, channels: int | None) -> Tensor:
    """Pictures stacked to (N, C, H, W).

    Args:
        pictures: (C, H, W) each, C = 1 or 3.
        names: their names, for the error.
        size: (H, W) to bring them to; None if they must agree already.
        channels: 1 or 3; None for 3 if any has colour, else 1.

    Raises:
        ShapeError: if size is None and they differ.
    """
    channels = channels or max(len(picture) for picture in pictures)
    if size is None:
        first = tuple(pictures[0].shape[1:])
        for picture, name in zip(pictures, names, strict=True):
            if tuple(picture.shape[1:]) != first:
                raise ShapeError(
                    f"The picture {name} is {picture.shape[1]}x{picture.shape[2]} (height by width) and {names[0]} is "
                    f"{first[0]}x{first[1]}; say size=32 or another size to bring all to one."
                )
        return torch.stack([with_channels(picture, channels) for picture in pictures])
    return torch.stack([resized(with_channels(picture, channels), size) for picture in pictures])


def _centre_crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[1:]
    tall, wide = size
    if height * wide > width * tall:  # taller than wanted
        keep_height, keep_width = max(1, round(width * tall / wide)), width
    else:
        keep_height, keep_width = height, max(1, round(height * wide / tall))
    top, left = (height - keep_height) // 2, (width - keep_width) // 2
    return pixels[:, top : top + keep_height, left : left + keep_width]


def _pixels(image: Image.Image, path: Path) -> Tensor:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64) / (1 if image.mode == "F" else 65535)
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise DataError(f"The picture {path} has values outside its range; expected 16-bit grey, or float grey in [0, 1].")
        return torch.from_numpy(values.astype(np.float32))[None]
    if image.has_transparency_data or image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        grey = image.mode in ("L", "LA", "La", "1")
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("L" if grey else "RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    return from_array(np.asarray(image))
