"""Tensors into PNG data URIs, at their own size; the page enlarges them without smoothing."""

from __future__ import annotations

import base64
import hashlib
import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

DIFFERENCE_GAIN = 4
PREFIX = "data:image/png;base64,"


def png_bytes(picture: Tensor) -> bytes:
    """One picture as PNG, without metadata.

    Args:
        picture: (C, H, W) in [0, 1]; one channel is grey, three are colour, any other number is averaged to grey.
    """
    pixels = picture.detach().to("cpu", torch.float64).nan_to_num(0.0).clamp(0, 1)
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.mean(dim=0, keepdim=True)
    levels = (pixels * 255).round().to(torch.uint8)
    array = levels[0].numpy() if levels.shape[0] == 1 else levels.permute(1, 2, 0).contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG", compress_level=9)
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
    return functional.interpolate(picture.detach().cpu().double()[None], size=size, mode="area")[0]


def is_picture(candidate: Tensor) -> bool:
    """Whether a tensor (C, H, W) can be shown: three dimensions, and at least one finite value."""
    return candidate.dim() == 3 and candidate.numel() > 0 and bool(candidate.isfinite().any())
