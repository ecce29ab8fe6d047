"""A penalty for natural pictures: total variation of luminance, and more strongly of colour differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.core.spec import ImageSpec


@dataclass(frozen=True)
class PicturePrior:
    """Smoothed total variation of luminance plus `colour` times that of the colour differences, plus a wall at the range.

    Edges of natural pictures stand in all channels at once, so that differences between channels vary little: an orthogonal
    change of the channels (mean, and differences) takes them apart.

    Args:
        colour: weight of the colour differences, >= 0.
        corner: width of the rounded corner of the absolute value, in units of the range.
        wall: weight of the squared distance from the range.

    Source: Rudin, Osher & Fatemi 1992 for total variation; the weight of colour was chosen on public pictures.
    """

    colour: float = 4.0
    corner: float = 0.01
    wall: float = 100.0

    def value(self, inputs: Tensor, spec: ImageSpec) -> Tensor:
        """The penalty of one picture (C, H, W) in model space."""
        pixels = spec.denormalise(inputs[None])
        steps = _steps(_mixed(pixels, _mixing(pixels)))[0]
        total = _variation(steps[:, :1], self.corner)
        if len(inputs) > 1:
            total = total + self.colour * _variation(steps[:, 1:], self.corner)
        beyond = (pixels - 1).clamp(min=0).square().sum() + (-pixels).clamp(min=0).square().sum()
        return total + self.wall * beyond

    def smooth(self, inputs: Tensor, spec: ImageSpec) -> Tensor:
        """The same with squares instead of absolute values: convex and easy, for a start."""
        return smooth_rows(spec.denormalise(inputs[None]), self.colour).square().sum()


def smooth_rows(inputs: Tensor, colour: float) -> Tensor:
    """Differences (S, 2, C, H, W) of neighbouring pixels of (S, C, H, W), of the mean and, sqrt(colour) times, of colours."""
    return _steps(_mixed(inputs, _weighted_mixing(inputs, colour)))


def smooth_rows_adjoint(rows: Tensor, colour: float) -> Tensor:
    """The transpose of `smooth_rows`: (S, 2, C, H, W) -> (S, C, H, W)."""
    right, down = rows[:, 0, :, :, :-1], rows[:, 1, :, :-1]
    found = functional.pad(right, (1, 0)) - functional.pad(right, (0, 1))
    found = found + functional.pad(down, (0, 0, 1, 0)) - functional.pad(down, (0, 0, 0, 1))
    return _mixed(found, _weighted_mixing(rows, colour).T)


def _mixed(inputs: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,sjhw->sihw", matrix, inputs)


def _mixing(like: Tensor) -> Tensor:
    """Orthogonal (C, C): the mean of the channels first (Helmert's matrix)."""
    channels = like.shape[-3]
    rows = [torch.ones(channels)]
    for index in range(1, channels):
        row = torch.zeros(channels)
        row[:index], row[index] = 1.0, -float(index)
        rows.append(row)
    matrix = torch.stack(rows).to(like)
    lengths: Tensor = matrix.norm(dim=1, keepdim=True)
    return matrix / lengths


def _weighted_mixing(like: Tensor, colour: float) -> Tensor:
    weights = torch.full((like.shape[-3], 1), colour**0.5).to(like)
    weights[0] = 1.0
    return _mixing(like) * weights


def _steps(planes: Tensor) -> Tensor:
    """Differences (S, 2, C, H, W) of (S, C, H, W) to the right and downwards, 0 at the border."""
    right = functional.pad(planes[..., 1:] - planes[..., :-1], (0, 1))
    down = functional.pad(planes[..., 1:, :] - planes[..., :-1, :], (0, 0, 0, 1))
    return torch.stack([right, down], 1)


def _variation(steps: Tensor, corner: float) -> Tensor:
    """Isotropic total variation from differences (2, C, H, W), over space and over the planes together."""
    return (steps.square().sum((0, 1)) + corner**2).sqrt().sum()
