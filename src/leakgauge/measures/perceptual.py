"""LPIPS, a learned perceptual distance; optional, and loaded only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.errors import MissingExtraError, OptionError, ShapeError, did_you_mean
from leakgauge.measures.image import Measure, same_shape

NETWORKS = ("alex", "vgg", "squeeze")


def lpips(truth: Tensor, guess: Tensor, network: str = "alex") -> Tensor:
    """Learned perceptual distance of each example; 0 for identical pictures, lower is nearer.

    Grey pictures are repeated to three channels.

    Args:
        truth: private pictures, (N, C, H, W) with C 1 or 3, pixels in [0, 1].
        guess: reconstructed pictures, the same shape.
        network: 'alex', 'vgg' or 'squeeze'.

    Returns:
        (N,) float64 tensor.

    Raises:
        MissingExtraError: if the package lpips, or what it needs, cannot be imported.
        ShapeError: if the two differ in shape, or C is neither 1 nor 3.
        OptionError: for an unknown network.

    Source: Zhang et al. 2018; the package lpips.
    """
    same_shape(truth, guess)
    if truth.shape[1] not in (1, 3):
        raise ShapeError(f"LPIPS takes pictures of 1 or 3 channels; these have {truth.shape[1]}.")
    if network not in NETWORKS:
        raise OptionError(f"LPIPS has no network {network!r}.{did_you_mean(network, NETWORKS)}")
    try:
        import lpips as package
    except ImportError as error:
        raise MissingExtraError("lpips", "perceptual", "LPIPS") from error
    except (RuntimeError, OSError, AttributeError) as error:  # an installed but broken torchvision
        raise MissingExtraError("lpips", "perceptual", "LPIPS", f"cannot be imported ({error})") from error
    distance = package.LPIPS(net=network, verbose=False).eval()
    pairs = [pixels.detach().float().cpu().expand(-1, 3, -1, -1) * 2 - 1 for pixels in (truth, guess)]
    with torch.no_grad():
        values: Tensor = distance(*pairs)
    return values.reshape(-1).double()


@dataclass(frozen=True)
class LPIPS(Measure):
    """Learned perceptual distance (Zhang et al. 2018); lower is nearer.

    Args:
        network: 'alex', 'vgg' or 'squeeze'.
    """

    network: str = "alex"
    name: ClassVar[str] = "lpips"
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    higher_is_better: ClassVar[bool] = False

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """See `lpips`."""
        return lpips(truth, guess, self.network)
