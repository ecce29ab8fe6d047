"""ImagePrior: what an attacker knows about a picture before it sees anything, as a covariance that is never stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leakgauge.errors import OptionError, ShapeError, did_you_mean

KINDS = ("natural", "white")
VARIANCE = 1.0 / 16.0  # of one value in [0, 1] about 1/2
CORNER = 1.0 / 3.0  # cycles per picture below which the spectrum is flat
CORRELATION = 0.87  # between the values of two channels at one place
COLOURS = (2, 3, 4)  # channel counts for which channels are taken for colours


@dataclass(frozen=True)
class ImagePrior:
    r"""The covariance $\Sigma_x$ of a picture with values in [0, 1], applied without being stored.

    'natural': diagonal in the two-dimensional discrete cosine basis, with the power spectrum $1 / (f^2 + f_0^2)$, f the
    frequency in cycles per picture (along its longer side) and $f_0 = 1/3$; 2 to 4 channels correlate by 0.87, more are
    independent. 'white': all values independent. Either way the mean variance of a value is 1/16.

    Args:
        shape: (C, H, W); a table row is (1, 1, D).
        kind: 'natural' or 'white'.

    Raises:
        ShapeError: if the shape is not three positive integers.
        OptionError: for an unknown kind.

    Source: the 1/f^2 law of natural pictures (Field 1987). The constants were measured on 2,000 public CIFAR-10 pictures:
        mean square about 1/2 0.065, share of the mean brightness 0.31, mean correlation of two channels 0.865. Above six
        cycles those pictures fall off faster than 1/f^2, so that the prior leaves an attacker more to find out than they do.
    """

    shape: tuple[int, int, int]
    kind: str = "natural"

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ShapeError(f"ImagePrior.shape is {tuple(self.shape)}; expected three positive integers (C, H, W).")
        if self.kind not in KINDS:
            raise OptionError(f"There is no prior {self.kind!r}.{did_you_mean(self.kind, KINDS)}")

    @property
    def size(self) -> int:
        """Number of values in one picture."""
        return math.prod(self.shape)

    @property
    def error(self) -> float:
        """Mean squared error per value of an attacker who sees nothing: tr(Sigma) / n."""
        return VARIANCE

    def root(self, vectors: Tensor) -> Tensor:
        """The symmetric square root of the covariance applied to each row; (..., n) to (..., n), in float64."""
        if self.kind == "white":
            return vectors * math.sqrt(VARIANCE)
        channels, height, width = self.shape
        rows, columns, colours, scale = (part.to(vectors) for part in self._parts)
        pictures = vectors.reshape(*vectors.shape[:-1], channels, height, width)
        spectrum = rows @ pictures @ columns.T * scale
        mixed = torch.einsum("cd,...dhw->...chw", colours, spectrum)
        return (rows.T @ mixed @ columns).reshape(vectors.shape)

    def leading(self, count: int) -> Tensor:
        """Orthonormal directions of large variance, eigenvectors of the covariance: the grey waves of lowest frequency.

        Returns:
            (k, n) in float64, k = min(count, H W); none for the white prior, where no direction stands out.
        """
        if self.kind == "white":
            return torch.zeros(0, self.size, dtype=torch.float64)
        channels, height, width = self.shape
        rows, columns, _, scale = self._parts
        order = scale.reshape(-1).argsort(descending=True, stable=True)[:count]
        waves = torch.einsum("kh,kw->khw", rows[order // width], columns[order % width])
        return waves.reshape(-1, 1, height, width).expand(-1, channels, -1, -1).reshape(-1, self.size) / math.sqrt(channels)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Pictures about mid-grey with this covariance, clamped to [0, 1]; (count, C, H, W), float64."""
        noise = torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        return (0.5 + self.root(noise)).clamp(0.0, 1.0).reshape(count, *self.shape)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cosine bases (H, H) and (W, W), root of the channels' correlation (C, C), root of the spectrum (H, W)."""
        channels, height, width = self.shape
        longest = max(height, width)
        down = torch.arange(height, dtype=torch.float64) * (longest / (2 * height))  # cycles per longer side
        across = torch.arange(width, dtype=torch.float64) * (longest / (2 * width))
        power = 1.0 / (down[:, None].square() + across.square() + CORNER**2)
        scale = (power * (VARIANCE / power.mean())).sqrt()
        common = CORRELATION if channels in COLOURS else 0.0
        mean = torch.full((channels, channels), 1.0 / channels, dtype=torch.float64)
        rest = torch.eye(channels, dtype=torch.float64) - mean
        colours = math.sqrt(1.0 + (channels - 1) * common) * mean + math.sqrt(1.0 - common) * rest
        return _cosines(height), _cosines(width), colours, scale


def _cosines(side: int) -> Tensor:
    """The orthonormal basis of the discrete cosine transform, one frequency per row, (side, side)."""
    frequency = torch.arange(side, dtype=torch.float64)[:, None]
    place = torch.arange(side, dtype=torch.float64) + 0.5
    basis = torch.cos(math.pi / side * frequency * place) * math.sqrt(2.0 / side)
    basis[0] /= math.sqrt(2.0)
    return basis
