"""The layer that reads a picture's patches: found by running the network on numbered pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PatchLayer:
    """A linear layer or convolution that turns each patch of a picture into one token.

    Args:
        name: the layer's name.
        weight: its parameter's name.
        width: D, numbers per token.
        pixels: (T, K) which of the picture's C H W numbers stand in each patch, in the order of the weight's columns.
    """

    name: str
    weight: str
    width: int
    pixels: Tensor = field(repr=False)

    def cut(self, picture: Tensor) -> Tensor:
        """Patches (T, K) of one picture (C, H, W)."""
        return picture.flatten()[self.pixels.to(picture.device)]

    def joined(self, patches: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The picture (C, H, W) of patches (T, K); a pixel of several patches is their mean, one of none is 0."""
        flat = self.pixels.flatten().to(patches.device)
        size = int(torch.tensor(shape).prod())
        total = patches.new_zeros(size).index_add(0, flat, patches.flatten())
        return (total / self.seen(size).to(patches).clamp(min=1)).reshape(shape)

    def seen(self, size: int) -> Tensor:
        """(size,) how many patches hold each pixel."""
        return torch.bincount(self.pixels.flatten(), minlength=size)


def patch_layer(module: nn.Module, shape: tuple[int, int, int], like: Tensor) -> PatchLayer | None:
    """The first layer that sees the pixels as they are, T patches of them; None where there is none.

    Args:
        module: a network in eval mode.
        shape: (C, H, W).
        like: a tensor of the network's dtype, on its device.
    """
    size = shape[0] * shape[1] * shape[2]
    numbered = torch.arange(1, size + 1, dtype=torch.float64, device=like.device).reshape(1, *shape)
    found: list[PatchLayer] = []

    def look(name: str, part: nn.Module) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], __: Any) -> None:
            values = given[0] if given and isinstance(given[0], Tensor) else None
            pixels = None if values is None or found else _pixels(part, values.double(), numbered)
            if pixels is not None:
                weight = part.get_parameter("weight")
                found.append(PatchLayer(name, f"{name}.weight" if name else "weight", len(weight), pixels.cpu()))

        return hook

    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    hooks = [part.register_forward_hook(look(name, part)) for name, part in parts]
    try:
        with torch.no_grad():
            module(numbered.to(like.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _pixels(part: nn.Module, values: Tensor, numbered: Tensor) -> Tensor | None:
    """(T, K) pixel numbers from 0 behind a layer's input for the numbered picture; None where it sees anything else."""
    size = numbered.numel()
    if isinstance(part, nn.Conv2d):
        padded = part.padding not in ("valid", (0, 0))
        if part.groups != 1 or padded or values.shape != numbered.shape or not torch.equal(values, numbered):
            return None
        columns = functional.unfold(values, part.kernel_size, dilation=part.dilation, stride=part.stride)[0].T
    else:
        columns = values.reshape(-1, values.shape[-1])
    whole = bool((columns == columns.round()).all()) and bool((columns >= 1).all()) and bool((columns <= size).all())
    return columns.long() - 1 if whole and len(columns) > 1 else None


def position_rows(tensor: Tensor, width: int) -> Tensor | None:
    """(R, width) rows of a parameter or gradient of the shape of a position embedding; None for any other shape."""
    lean = tensor.reshape([side for side in tensor.shape if side != 1] or [1])
    if tensor.ndim == 4 and tensor.shape[0] == 1 and tensor.shape[1] == width:
        return tensor[0].flatten(1).T  # one row per place of a map (width, H, W)
    if lean.ndim == 1 and lean.shape[0] == width:
        return lean[None]
    return lean.reshape(-1, width) if lean.ndim in (2, 3) and lean.shape[-1] == width else None


def gradients_at(module: nn.Module, picture: Tensor, pull: Tensor | None, generator: torch.Generator) -> Mapping[str, Tensor]:
    """Gradients of a random combination of the network's outputs for one public picture (1, C, H, W), parameter -> tensor."""
    parameters = dict(module.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = module(picture)
            values: Tensor = output.logits if hasattr(output, "logits") else output
            pull = torch.randn(values.shape, generator=generator, dtype=torch.float64) if pull is None else pull
            found = torch.autograd.grad((values * pull.to(values)).sum(), list(parameters.values()), allow_unused=True)
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
    return {name: part for name, part in zip(parameters, found, strict=True) if part is not None}
