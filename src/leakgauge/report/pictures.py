"""Tensors into PNG data URIs, at their own size; the page enlarges them without smoothing."""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DIFFERENCE_GAIN = 4
PREFIX = "data:image/png;base64,"


def png_bytes(picture: Tensor) -> bytes:
    """One picture as PNG, without metadata.

    Args:
        picture: (C, H, W) in [0, 1]; one channel is grey, three are colour, any other number is averaged to grey.
    """
    pixels = np.clip(np.nan_to_num(picture.detach().cpu().double().numpy()), 0, 1)
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.mean(axis=0, keepdims=True)
    levels = np.rint(pixels * 255).astype(np.uint8)
    array = levels[0] if levels.shape[0] == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG", compress_level=6)
    return out.getvalue()


def data_uri(picture: Tensor) -> str:
    """One picture (C, H, W) in [0, 1] as a data URI."""
    return PREFIX + base64.b64encode(png_bytes(picture)).decode("ascii")


def uri_digest(uri: str) -> str:
    """SHA-256 of the PNG behind a data URI, by which a list entry and a picture on a page find each other."""
    return hashlib.sha256(base64.b64decode(uri.removeprefix(PREFIX))).hexdigest()


def difference(truth: Tensor, guess: Tensor) -> Tensor:
    """|truth - guess|, four times amplified and clamped, (C, H, W)."""
    return ((truth.double() - guess.double()).abs() * DIFFERENCE_GAIN).clamp(0, 1)


def shrunk(picture: Tensor, largest: int) -> Tensor:
    """The picture (C, H, W), averaged down so that neither side exceeds `largest` pixels."""
    height, width = picture.shape[-2:]
    if max(height, width) <= largest:
        return picture
    scale = largest / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    channels = picture.detach().cpu().float().numpy()
    small = [Image.fromarray(channel).resize(size[::-1], Image.Resampling.BOX) for channel in channels]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in small]))


def is_picture(candidate: Tensor) -> bool:
    """Whether a tensor (C, H, W) can be shown: three dimensions, and at least one finite value."""
    return candidate.dim() == 3 and candidate.numel() > 0 and bool(candidate.isfinite().any())
