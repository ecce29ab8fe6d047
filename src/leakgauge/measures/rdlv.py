"""RDLV: how much nearer to a private picture a reconstruction is than a picture that anybody could have guessed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.errors import OptionError, ShapeError, did_you_mean
from leakgauge.measures.image import Measure, ssim

VARIANTS = ("default", "released")
SMALLEST_PRIOR = 0.05  # SSIM of the prior below which the default is undefined
RELEASED_RANGE = 256.0  # the data range of the released code, on pixels of 0 to 255


def rdlv(truth: Tensor, guess: Tensor, prior: Tensor | None, variant: str = "default") -> Tensor:
    """Relative data leakage value of each private picture.

    RDLV_i = (max_j SSIM(x_i, g_j) - SSIM(x_i, p)) / SSIM(x_i, p): the nearest reconstruction g_j for each private picture x_i
    (one reconstruction may serve several), against the prior p. 0 is no nearer than the prior, below 0 is worse.

    'default': everything clamped to [0, 1], SSIM as in `ssim`; NaN (undefined) where SSIM(x_i, p) < 0.05, because a small
    denominator makes any number out of nothing.

    'released': as in the code released with the paper: pixels on 0 to 255, each reconstruction stretched on its own so that its
    smallest pixel is 0 and its largest 255 (the prior is not), data range 256, nothing clamped, NaN only where SSIM(x_i, p) is
    0. It is unstable where the prior's SSIM is near 0, changes sign with it, and the stretching repairs brightness and contrast
    that a reconstruction got wrong. The window of SSIM is that of `ssim` in both.

    Args:
        truth: private pictures, (N, C, H, W), pixels in [0, 1].
        guess: reconstructions, (M, C, H, W). One that is not finite (for 'released' also one that is constant, which cannot be
            stretched) counts for none.
        prior: (C, H, W) for all or (N, C, H, W) for each, pixels in [0, 1]; or None, which gives max_j SSIM(x_i, g_j) itself, as
            the released code does without a prior.
        variant: 'default' or 'released'.

    Returns:
        (N,) float64 tensor; NaN where undefined, or where no reconstruction counts.

    Raises:
        ShapeError: if shapes do not fit together.
        OptionError: for an unknown variant.

    Source: Hatamizadeh et al. 2023 and its released code in NVFlare.
    """
    if variant not in VARIANTS:
        raise OptionError(f"There is no variant {variant!r} of RDLV.{did_you_mean(str(variant), VARIANTS)}")
    _check_shapes(truth, guess, prior)
    released = variant == "released"
    data_range = RELEASED_RANGE if released else 1.0
    truth, guess = _prepared(truth, released), _prepared(guess, released)
    if released:
        guess = _stretched(guess)
    best = torch.full((len(truth),), float("nan"), dtype=torch.float64)
    for record in guess:
        best = torch.fmax(best, ssim(truth, record.expand_as(truth), data_range))
    if prior is None:
        return best
    base = ssim(truth, _prepared(prior, released).expand_as(truth), data_range)
    defined = base != 0 if released else base >= SMALLEST_PRIOR
    return torch.where(defined, (best - base) / base, float("nan"))


def _check_shapes(truth: Tensor, guess: Tensor, prior: Tensor | None) -> None:
    if truth.ndim != 4 or len(truth) == 0:
        raise ShapeError(f"Truth has shape {tuple(truth.shape)}; expected (N, C, H, W) with at least one picture.")
    if guess.ndim != 4 or guess.shape[1:] != truth.shape[1:]:
        wanted = ", ".join(map(str, truth.shape[1:]))
        raise ShapeError(f"Guess has shape {tuple(guess.shape)}; expected (M, {wanted}), as the truth has.")
    if prior is not None and prior.shape not in (truth.shape, truth.shape[1:]):
        raise ShapeError(
            f"The prior has shape {tuple(prior.shape)}; expected {tuple(truth.shape[1:])}, or {tuple(truth.shape)} for one each."
        )


def _prepared(pixels: Tensor, released: bool) -> Tensor:
    pixels = pixels.detach().to("cpu", torch.float64)
    return pixels * 255.0 if released else pixels.clamp(0.0, 1.0)


def _stretched(pictures: Tensor) -> Tensor:
    """Each picture with its smallest value at 0 and its largest at 255; NaN where it is constant or not finite."""
    flat = pictures.flatten(1)
    if flat.numel() == 0:
        return pictures
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    usable = (high > low) & torch.isfinite(flat).all(1, keepdim=True)
    scaled = (flat - low) / torch.where(usable, high - low, 1.0) * 255.0
    return torch.where(usable, scaled, float("nan")).reshape(pictures.shape)


@dataclass(frozen=True)
class RDLV(Measure):
    """Relative data leakage value: how much nearer than a prior picture, by SSIM; 0 is no nearer.

    Args:
        prior: (C, H, W) or (N, C, H, W), pixels in [0, 1]; None gives plain SSIM of the nearest reconstruction.
        variant: 'default' or 'released'.
    """

    prior: Tensor | None = field(default=None, repr=False)
    variant: str = "default"
    name: ClassVar[str] = "rdlv"
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    higher_is_better: ClassVar[bool] = True

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """See `rdlv`; the number of reconstructions may differ from the number of pictures."""
        return rdlv(truth, guess, self.prior, self.variant)
