"""Pixel measures of pictures: MSE, PSNR and SSIM, each as a pure function and as a small record that declares itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.errors import OptionError, ShapeError

SIGMA = 1.5  # of SSIM's Gaussian window (Wang et al. 2004)
FULL_SIDE = 16  # pixels from which SIGMA is used as it is
SMALLEST_SIDE = 3  # pixels below which no window fits


def same_shape(truth: Tensor, guess: Tensor) -> None:
    """Raises ShapeError unless both are (N, C, H, W) of one shape."""
    if truth.ndim != 4 or truth.shape != guess.shape:
        raise ShapeError(
            f"Truth has shape {tuple(truth.shape)} and guess {tuple(guess.shape)}; expected (N, C, H, W) for both, the same."
        )


def mse(truth: Tensor, guess: Tensor) -> Tensor:
    """Mean squared error of each example, in squared pixel units.

    Args:
        truth: private pictures, (N, C, H, W).
        guess: reconstructed pictures, the same shape.

    Returns:
        (N,) float64 tensor on the CPU, >= 0.

    Raises:
        ShapeError: if the two differ in shape or are not (N, C, H, W).
    """
    same_shape(truth, guess)
    return (_double(truth) - _double(guess)).square().flatten(1).mean(1)


def psnr(truth: Tensor, guess: Tensor, data_range: float = 1.0) -> Tensor:
    r"""Peak signal-to-noise ratio of each example, in dB.

    $10 \log_{10}(R^2 / \mathrm{MSE})$ with $R$ the data range.

    Args:
        truth: private pictures, (N, C, H, W), in the units of `data_range`.
        guess: reconstructed pictures, the same shape.
        data_range: largest minus smallest possible value, > 0.

    Returns:
        (N,) float64 tensor; +inf where the two are identical.

    Raises:
        ShapeError: if the two differ in shape or are not (N, C, H, W).
        OptionError: if the data range is not positive.
    """
    _check_range(data_range)
    return 10.0 * torch.log10(data_range**2 / mse(truth, guess))


def ssim(truth: Tensor, guess: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity of each example, at most 1, the mean over channels.

    Computed by scikit-image with gaussian_weights=True, use_sample_covariance=False and interior pixels only, sigma 1.5 (a
    window of 11 pixels). Where the shorter side s has fewer than 16 pixels the window would cover most of the picture, so
    sigma is 1.5 s / 16 (a window of 7 pixels for s = 8, of 3 for s = 4). Below 3 pixels no window fits and the result is NaN.

    Args:
        truth: private pictures, (N, C, H, W), in the units of `data_range`.
        guess: reconstructed pictures, the same shape.
        data_range: largest minus smallest possible value, > 0.

    Returns:
        (N,) float64 tensor; 1 where the two are identical, NaN for pictures of fewer than 3 pixels on a side.

    Raises:
        ShapeError: if the two differ in shape or are not (N, C, H, W).
        OptionError: if the data range is not positive.

    Source: Wang et al. 2004, equation 13; skimage.metrics.structural_similarity.
    """
    from skimage.metrics import structural_similarity

    same_shape(truth, guess)
    _check_range(data_range)
    side = min(truth.shape[2:])
    if side < SMALLEST_SIDE:
        return torch.full((len(truth),), float("nan"), dtype=torch.float64)
    values = [
        float("nan")
        if not bool(torch.isfinite(pair).all())
        else float(
            structural_similarity(
                pair[0].numpy(),
                pair[1].numpy(),
                data_range=data_range,
                channel_axis=0,
                gaussian_weights=True,
                sigma=ssim_sigma(side),
                use_sample_covariance=False,
            )
        )
        for pair in torch.stack([_double(truth), _double(guess)], dim=1)
    ]
    return torch.tensor(values, dtype=torch.float64)


def ssim_sigma(side: int) -> float:
    """Standard deviation of SSIM's window, in pixels, for a picture whose shorter side has so many pixels."""
    return SIGMA * min(1.0, side / FULL_SIDE)


def _double(pictures: Tensor) -> Tensor:
    return pictures.detach().to("cpu", torch.float64)


def _check_range(data_range: float) -> None:
    if not data_range > 0:
        raise OptionError(f"The data range is {data_range!r}; expected a number > 0, the largest minus the smallest value.")


class Measure(ABC):
    """A measure that declares its unit, range and direction; final classes are frozen records of its settings."""

    name: ClassVar[str]
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    higher_is_better: ClassVar[bool]
    """Better for the attacker: a nearer reconstruction."""

    @abstractmethod
    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """One value per example, (N,), of two (N, C, H, W) tensors with pixels in [0, 1]."""


@dataclass(frozen=True)
class MSE(Measure):
    """Mean squared error of pixels in [0, 1]; lower is nearer."""

    name: ClassVar[str] = "mse"
    unit: ClassVar[str] = "squared pixel range"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    higher_is_better: ClassVar[bool] = False

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """See `mse`."""
        return mse(truth, guess)


@dataclass(frozen=True)
class PSNR(Measure):
    """Peak signal-to-noise ratio in dB; higher is nearer, infinite for identical pictures.

    Args:
        data_range: largest minus smallest possible pixel.
    """

    data_range: float = 1.0
    name: ClassVar[str] = "psnr"
    unit: ClassVar[str] = "dB"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    higher_is_better: ClassVar[bool] = True

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """See `psnr`."""
        return psnr(truth, guess, self.data_range)


@dataclass(frozen=True)
class SSIM(Measure):
    """Structural similarity, 1 for identical pictures; higher is nearer.

    Args:
        data_range: largest minus smallest possible pixel.
    """

    data_range: float = 1.0
    name: ClassVar[str] = "ssim"
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    higher_is_better: ClassVar[bool] = True

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """See `ssim`."""
        return ssim(truth, guess, self.data_range)
