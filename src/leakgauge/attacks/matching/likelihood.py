"""Distances that fit a defence: what of the update is still known after pruning, rounding, signs or a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.attacks.matching.norms import Distance, SquaredL2, Tensors, squared_norm


@dataclass(frozen=True)
class Kept(Distance):
    """A distance over the entries that a defence kept: those that are not zero in the observed update.

    Args:
        distance: applied to the kept entries; the others count as equal.
        below: what is known of the others: '' nothing; 'tensor' that each is smaller, in magnitude, than every kept entry of its
            tensor; 'whole' the same for the whole update. The squared excess, relative to the observed update, is added.
        bounded: whether kept entries that tie for the largest magnitude were cut off there, so that larger ones agree as well.
        limits: tensor name -> smallest kept magnitude, where it is known already.
    """

    distance: Distance = SquaredL2()  # noqa: RUF009 - frozen
    below: str = ""
    bounded: bool = False
    limits: Mapping[str, float] | None = field(default=None, repr=False, compare=False)

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        total = self.distance(self._kept(found, target), target)
        if self.below:
            total = total + torch.stack([part.square().sum() for part in self._excess(found, target)]).sum()
        return total

    def fitted(self, target: Tensors) -> Kept:
        limits = self._limits(target) if self.below else None
        return replace(self, distance=self.distance.fitted(target), limits=limits)

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        part = self.distance.residual(self._kept(found, target), target)
        if part is None or not self.below:
            return part
        return torch.cat([part, *(excess.reshape(-1) for excess in self._excess(found, target))])

    def _kept(self, found: Tensors, target: Tensors) -> Tensors:
        kept = {name: found[name] * (tensor != 0) for name, tensor in target.items()}
        if not self.bounded:
            return kept
        largest = torch.stack([tensor.abs().max() for tensor in target.values()]).max() * (1 - 1e-6)
        at_bound = {name: tensor.abs() >= largest for name, tensor in target.items()}
        several = torch.stack([held.sum() for held in at_bound.values()]).sum() > 1
        beyond = {name: (kept[name] * tensor.sign() > tensor.abs()) & at_bound[name] for name, tensor in target.items()}
        return {name: torch.where(beyond[name] & several, tensor, kept[name]) for name, tensor in target.items()}

    def _excess(self, found: Tensors, target: Tensors) -> list[Tensor]:
        limits = self._limits(target) if self.limits is None else self.limits
        size = squared_norm(target).sqrt()
        return [
            (found[name].abs() - limits[name]).clamp(min=0) * found[name].sign() * (tensor == 0) / size
            for name, tensor in target.items()
        ]

    def _limits(self, target: Tensors) -> dict[str, float]:
        """Smallest magnitude that is not zero, of each tensor or of all; infinity where it says nothing of the others."""
        limits = {}
        for name, tensor in target.items():
            magnitudes = tensor.abs()[tensor != 0]
            limits[name] = float(magnitudes.min()) if len(magnitudes) else float("inf")
        if self.below == "tensor":
            return limits
        least, largest = min(limits.values()), max(float(tensor.abs().max()) for tensor in target.values())
        return dict.fromkeys(limits, float("inf") if self.bounded and least > largest * (1 - 1e-6) else least)


@dataclass(frozen=True)
class Rounded(Distance):
    """A distance with a dead zone: numbers that would be rounded to the observed ones agree with them.

    Args:
        distance: applied to what exceeds the dead zone.
        levels: evenly spaced levels between zero and the largest magnitude of each tensor (`Quantise`), or 0.
        relative: half a step of a floating format as a share of the number: 2^-11 for 16-bit floats, 2^-8 for bfloat16; or 0.
        steps: half width of the dead zone in steps: 0.5 for rounding to the nearest, 1 for stochastic rounding.
        tie: weight of the plain distance beside it, which chooses among candidates that all agree.
        widths: tensor name -> half width, where it is known already.
    """

    distance: Distance = SquaredL2()  # noqa: RUF009 - frozen
    levels: int = 0
    relative: float = 0.0
    steps: float = 0.5
    tie: float = 1e-4
    widths: Tensors | None = field(default=None, repr=False, compare=False)

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        return self.distance(self._beyond(found, target), target) + self.tie * self.distance(found, target)

    def fitted(self, target: Tensors) -> Rounded:
        return replace(self, distance=self.distance.fitted(target), widths=self._widths(target))

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        part = self.distance.residual(self._beyond(found, target), target)
        plain = self.distance.residual(found, target)
        return None if part is None or plain is None else torch.cat([part, self.tie**0.5 * plain])

    def _beyond(self, found: Tensors, target: Tensors) -> Tensors:
        widths = self._widths(target) if self.widths is None else self.widths
        after = {}
        for name, tensor in target.items():
            off = found[name] - tensor
            width = widths[name].to(off)
            after[name] = tensor + off - torch.maximum(torch.minimum(off, width), -width)
        return after

    def _widths(self, target: Tensors) -> Tensors:
        if self.levels:
            largest = {name: tensor.abs().max() for name, tensor in target.items()}
            return {name: (self.steps / self.levels * largest[name]).expand(tensor.shape) for name, tensor in target.items()}
        least = 0.5 * _spacing(target)
        return {name: (self.relative * tensor.abs()).clamp(min=least) for name, tensor in target.items()}


def _spacing(target: Tensors) -> float:
    """Smallest difference between two magnitudes: the spacing of a floating format near zero, whatever the update's units."""
    magnitudes = torch.cat([tensor.detach().abs().reshape(-1) for tensor in target.values()]).sort().values
    steps = magnitudes.diff()
    steps = steps[steps > 1e-5 * magnitudes[1:]]  # what rounding in the attack's arithmetic leaves between equal numbers
    return float(steps.min()) if len(steps) else 0.0


@dataclass(frozen=True)
class Signs(Distance):
    """Agreement of signs: the mean squared distance of each entry, relative to its tensor's root mean square, to the right side.

    The observed update holds signs times each tensor's mean magnitude (`Sign`), so that the candidate's mean magnitudes are
    compared, too. No scale of a single entry is.

    Args:
        margin: distance from zero that is asked for, in root mean squares.
        kept: whether zeros in the observed update were left out by another defence and say nothing.
        magnitudes: weight of the squared relative difference of the mean magnitudes.
        scale_free: whether a clip lost the common factor of the magnitudes.
    """

    margin: float = 0.0
    kept: bool = False
    magnitudes: float = 1e-2
    scale_free: bool = False

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        return self.residual(found, target).square().sum()

    def residual(self, found: Tensors, target: Tensors) -> Tensor:
        parts = []
        count = sum(tensor.numel() for tensor in target.values())
        for name, tensor in target.items():
            size = found[name].square().mean().clamp(min=1e-30).sqrt()
            scaled = found[name] / size
            silent = torch.zeros_like(scaled) if self.kept else scaled
            wrong = torch.where(tensor == 0, silent, (self.margin - scaled * tensor.sign()).clamp(min=0))
            parts.append(wrong.reshape(-1) / count**0.5)
        if self.magnitudes:
            parts.append(self._sizes_apart(found, target))
        return torch.cat(parts)

    def _sizes_apart(self, found: Tensors, target: Tensors) -> Tensor:
        """(tensors,) relative differences of the mean magnitudes, weighted."""
        own = {name: found[name] * (tensor != 0) if self.kept else found[name] for name, tensor in target.items()}
        means = torch.stack([own[name].abs().mean() for name in target])
        wanted = torch.stack([tensor.abs().mean() for tensor in target.values()])
        if self.scale_free:
            means = means * (wanted.sum() / means.sum().clamp(min=1e-30))
        known = (wanted > 0).to(wanted) / wanted.clamp(min=1e-30)
        apart: Tensor = (self.magnitudes / len(target)) ** 0.5 * (known * (means - wanted))
        return apart


@dataclass(frozen=True)
class Rescaled(Distance):
    """A distance after the candidate's update was scaled to fit best: for defences that lose the norm, such as clipping.

    The factor is that of least squares, max(0, <g', g> / ||g'||^2); with squared L2 the distance is 1 - cos^2.

    Args:
        distance: applied after scaling.
    """

    distance: Distance = SquaredL2()  # noqa: RUF009 - frozen

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        return self.distance(self._scaled(found, target), target)

    def fitted(self, target: Tensors) -> Rescaled:
        return replace(self, distance=self.distance.fitted(target))

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        return self.distance.residual(self._scaled(found, target), target)

    def _scaled(self, found: Tensors, target: Tensors) -> Tensors:
        compared = {name: found[name] for name in target}
        if isinstance(self.distance, Kept):
            compared = {name: tensor * (target[name] != 0) for name, tensor in compared.items()}
        inner = torch.stack([(compared[name] * tensor).sum() for name, tensor in target.items()]).sum()
        factor = inner.clamp(min=0) / squared_norm(compared)
        return {name: factor * found[name] for name in target}
