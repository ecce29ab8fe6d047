"""Public pictures: what an attacker may know about pictures in general, without having seen a private one."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.data.bundled import bundled_picture
from leakgauge.data.pictures import resized, with_channels
from leakgauge.errors import ShapeError
from leakgauge.randomness import rng

# Package, file, licence as the wheel states it. None of them is a demo picture. Colour first: grey pictures may come from all.
COLOUR = (
    ("sklearn", "datasets/images/china.jpg", "CC BY 2.0, danielbuechele"),
    ("skimage", "data/ihc.png", "no known copyright restrictions"),
    ("sklearn", "datasets/images/flower.jpg", "CC BY 2.0, vultilion"),
    ("skimage", "data/hubble_deep_field.jpg", "NASA, public domain"),
    ("skimage", "data/motorcycle_left.png", "not stated; Middlebury stereo 2014, Scharstein et al."),
)
GREY = (
    ("skimage", "data/coins.png", "no known copyright restrictions"),
    ("skimage", "data/camera.png", "CC0, Lav Varshney"),
    ("skimage", "data/brick.png", "CC0"),
    ("skimage", "data/moon.png", "not stated"),
    ("skimage", "data/gravel.png", "CC0"),
    ("skimage", "data/clock_motion.png", "public domain, Stefan van der Walt"),
    ("skimage", "data/grass.png", "CC0"),
    ("skimage", "data/cell.png", "CC0; Müller et al. 2018"),
)


def public_pictures(shape: tuple[int, int, int], count: int, seed: int = 0) -> Tensor:
    """Crops of bundled public pictures, for calibration and controls.

    The sources take turns (colour ones only for C = 3), each time with a crop of the wanted aspect ratio, between half
    and all of the largest that fits, at a random place, resized as `pictures` states. None of the sources is a demo
    picture.

    Args:
        shape: (C, H, W) with C = 1 or 3.
        count: how many, > 0.
        seed: the first n pictures are the same for every count.

    Returns:
        (count, C, H, W) pixels in [0, 1], not normalised.

    Raises:
        ShapeError: for another number of channels, or sides or a count that are not positive.
        DataError: if the installed packages lack a file.
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1 or count < 1:
        raise ShapeError(
            f"public_pictures got the shape {tuple(shape)} and count {count}; expected (1 or 3, H, W) and a positive count."
        )
    channels, height, width = shape
    sources = (
        COLOUR
        if channels == 3
        else tuple(source for pair in zip(GREY, COLOUR, strict=False) for source in pair) + GREY[len(COLOUR) :]
    )
    generator = rng(seed, "public-pictures", *shape)
    pictures = []
    for number in range(count):
        package, file, _ = sources[number % len(sources)]
        pixels = bundled_picture(package, file)
        share, down, right = torch.rand(3, generator=generator).tolist()
        scale = (0.5 + 0.5 * share) * min(pixels.shape[1] / height, pixels.shape[2] / width)
        tall, wide = (
            max(1, min(whole, round(side * scale))) for whole, side in zip(pixels.shape[1:], (height, width), strict=True)
        )
        top, left = (
            round(at * (whole - side)) for at, whole, side in zip((down, right), pixels.shape[1:], (tall, wide), strict=True)
        )
        crop = pixels[:, top : top + tall, left : left + wide]
        pictures.append(resized(with_channels(crop, channels), (height, width)))
    return torch.stack(pictures)
