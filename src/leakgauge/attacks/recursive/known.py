"""What the sweep knows at one place of the chain, with samples of the error, and how it passes links without weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.chain.activations import Activation
from leakgauge.chain.link import Link, State

SAMPLES = 2  # error samples carried along
DOUBT = 4.0  # expected errors around a kink within which the side is open
ALIVE = 8.0  # expected errors above zero at which a ReLU counts as active
SATURATED = 0.3  # expected error of z, relative to 1 + |z|, from which the value before an activation counts as unknown


@dataclass(frozen=True)
class View:
    """A linear map of the tensor at a cut: the part of it that is known. S samples in the first dimension.

    Args:
        apply, adjoint: the map and its transpose.
        outputs: shape of its result, without the samples.
    """

    apply: Callable[[Tensor], Tensor] = field(repr=False)
    adjoint: Callable[[Tensor], Tensor] = field(repr=False)
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """Values and output gradient at a cut.

    Args:
        value: the tensor's values (*shape), 0 where unknown; or what `view` shows of it.
        mask: (like value) bool, where the value is known.
        sigma: (like value) expected error of each value.
        errors: (R, like value) samples of the error.
        cotangent: (*shape) gradient of the loss in the tensor.
        cotangent_errors: (R, *shape) samples of its error.
        cotangent_sigma: (*shape) expected error of the cotangent.
        flips: (*shape) by how much the cotangent changes if the value lies on the other side of a kink, where that is possible;
            None right behind links without a kink.
        view: set where only a linear map of the tensor is known; None for the values themselves.
    """

    value: Tensor
    mask: Tensor
    sigma: Tensor
    errors: Tensor
    cotangent: Tensor
    cotangent_errors: Tensor
    cotangent_sigma: Tensor
    flips: Tensor | None = None
    view: View | None = None

    @property
    def complete(self) -> bool:
        """Whether every value is known."""
        return self.view is None and bool(self.mask.all())

    def seen(self, inputs: Tensor) -> Tensor:
        """The known part of (S, *shape)."""
        return (inputs if self.view is None else self.view.apply(inputs)) * self.mask

    def seen_adjoint(self, values: Tensor) -> Tensor:
        """The transpose of `seen`."""
        values = values * self.mask
        return values if self.view is None else self.view.adjoint(values)


class NotSeparable(Exception):
    """A link that cannot be passed with what is known: only the layers around it together can be solved."""


def through(known: Known, link: Link, state: State) -> Known:
    """From the output of a link without weights to its input.

    Raises:
        NotSeparable: for an activation of which only a linear map, such as a pooled value, is known, and for a block.
    """
    if link.kind == "identity":
        return known
    if link.activation is not None:
        return _through_activation(known, link.activation)
    if link.kind == "affine":
        return _through_affine(known, link, state)
    if link.kind in ("reshape", "pool"):
        return _through_linear(known, link, state)
    raise NotSeparable(f"{link.name!r} ({link.type}) has side branches: it is solved together with the layers before it")


def _through_activation(known: Known, activation: Activation) -> Known:
    if known.view is not None:
        raise NotSeparable(f"only pooled values of {activation.name} are known: the layers around it are solved together")
    if not bool(known.mask.all()):
        raise NotSeparable(f"some values behind {activation.name} are unknown, and so are its slopes there")
    usable = activation.known(known.value)
    if activation.partial:  # rounding must not bring dead units to life
        usable = usable & (known.value > ALIVE * known.sigma)
    z = torch.where(usable, activation.inverse(known.value), 0.0)
    slope = torch.where(usable, activation.derivative(z), 0.0)  # where the output says nothing, the function is flat
    if not activation.homogeneous:  # saturated: the error of z would be as large as z
        usable = usable & (known.sigma < SATURATED * slope.abs() * (1 + z.abs()))
        z = torch.where(usable, z, 0.0)
    steep = torch.where(usable & (slope != 0), slope, 1.0)
    other = known.value + known.errors  # the samples go through the function itself: signs may change
    moved = torch.where(usable, activation.inverse(other), 0.0)
    slopes = torch.where(usable, activation.derivative(moved), 0.0)
    return replace(
        known,
        value=z,
        mask=usable,
        sigma=known.sigma / steep.abs(),
        errors=torch.where(usable & activation.known(other), moved - z, 0.0),
        cotangent=known.cotangent * slope,
        cotangent_errors=(known.cotangent + known.cotangent_errors) * slopes - known.cotangent * slope,
        cotangent_sigma=_cotangent_sigma(known, activation, slope),
        flips=_flips(known, activation, slope),
    )


def _cotangent_sigma(known: Known, activation: Activation, slope: Tensor) -> Tensor:
    """Expected error of k a'(z): from k, and from how much a' changes within the error of the value (thrice it at a kink)."""
    reach = (3.0 if activation.homogeneous else 1.0) * known.sigma
    sides = [activation.derivative(activation.inverse(known.value + side * reach)) for side in (-1.0, 1.0)]
    change = torch.maximum((sides[0] - slope).abs(), (sides[1] - slope).abs())
    change = torch.where(slope != 0, torch.nan_to_num(change, nan=0.0, posinf=0.0), 0.0)
    return torch.hypot(known.cotangent_sigma * slope.abs(), known.cotangent * change)


def _flips(known: Known, activation: Activation, slope: Tensor) -> Tensor | None:
    """Change of k a'(z) if z has the other sign, where its error allows that."""
    if not activation.homogeneous or activation.partial:
        return None
    possible = (known.value.abs() < DOUBT * known.sigma) & (known.value != 0)
    other = activation.derivative(activation.inverse(-known.value))
    return torch.where(possible, known.cotangent * (other - slope), 0.0)


def _through_affine(known: Known, link: Link, state: State) -> Known:
    zeros = torch.zeros(1, *link.input_shape, dtype=known.value.dtype, device=known.value.device)
    shift = link.function(zeros, state)[0]
    scale = link.function(torch.ones_like(zeros), state)[0] - shift
    known = replace(
        known,
        cotangent=known.cotangent * scale,
        cotangent_errors=known.cotangent_errors * scale,
        cotangent_sigma=known.cotangent_sigma * scale.abs(),
        flips=None if known.flips is None else known.flips * scale,
    )
    if known.view is not None:
        old = known.view
        view = View(lambda x: old.apply(x * scale), lambda y: old.adjoint(y) * scale, old.outputs)
        return replace(known, value=known.value - old.apply(shift[None])[0] * known.mask, view=view)
    mask = known.mask & (scale != 0)
    safe = torch.where(scale != 0, scale, 1.0)
    return replace(
        known,
        value=torch.where(mask, (known.value - shift) / safe, 0.0),
        mask=mask,
        sigma=known.sigma / safe.abs(),
        errors=known.errors / safe * mask,
    )


def _through_linear(known: Known, link: Link, state: State) -> Known:
    if link.kind == "reshape" and known.view is None:
        shape = link.input_shape
        return replace(
            known,
            value=known.value.reshape(shape),
            mask=known.mask.reshape(shape),
            sigma=known.sigma.reshape(shape),
            errors=known.errors.reshape(-1, *shape),
            cotangent=known.cotangent.reshape(shape),
            cotangent_errors=known.cotangent_errors.reshape(-1, *shape),
            cotangent_sigma=known.cotangent_sigma.reshape(shape),
            flips=None if known.flips is None else known.flips.reshape(shape),
        )
    apply, adjoint = linear_map(link, state, known.value)
    old = known.view
    if old is None:
        view = View(apply, adjoint, link.output_shape)
    else:
        view = View(lambda x: old.apply(apply(x)), lambda y: adjoint(old.adjoint(y)), old.outputs)
    return replace(
        known,
        view=view,
        cotangent=adjoint(known.cotangent[None])[0],
        cotangent_errors=adjoint(known.cotangent_errors),
        cotangent_sigma=adjoint(known.cotangent_sigma[None])[0].abs(),
        flips=None,
    )


def linear_map(link: Link, state: State, like: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A linear link and its transpose (by reverse-mode differentiation), on S samples."""

    def one(inputs: Tensor) -> Tensor:
        return link.function(inputs[None], state)[0]

    zeros = torch.zeros(link.input_shape, dtype=like.dtype, device=like.device)
    pull = torch.func.vjp(one, zeros)[1]
    return torch.func.vmap(one), torch.func.vmap(lambda values: pull(values)[0])
