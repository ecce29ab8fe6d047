"""What a model's input looks like: shape, normalisation and therefore the range of values. Public knowledge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, ShapeError


@dataclass(frozen=True)
class ImageSpec:
    """Shape and normalisation of one picture; pixels lie in [0, 1], model space is (pixel - mean) / std.

    Args:
        shape: (C, H, W).
        mean: one number, or one per channel.
        std: one number, or one per channel, > 0.

    Raises:
        ShapeError: if the shape is not three positive integers.
        OptionError: if std is not positive, or mean or std has neither one entry nor C.
    """

    shape: tuple[int, int, int]
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        shape = tuple(int(side) for side in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ShapeError(f"ImageSpec.shape is {tuple(self.shape)}; expected three positive integers (C, H, W).")
        object.__setattr__(self, "shape", shape)
        for name in ("mean", "std"):
            value = getattr(self, name)
            entries = (float(value),) if isinstance(value, int | float) else tuple(float(entry) for entry in value)
            if len(entries) not in (1, shape[0]):
                raise OptionError(f"ImageSpec.{name} has {len(entries)} entries; expected 1 or {shape[0]} (one per channel).")
            object.__setattr__(self, name, entries[0] if len(entries) == 1 else entries)
        if min(self._entries("std")) <= 0:
            raise OptionError(f"ImageSpec.std is {self.std}; expected positive numbers.")

    def _entries(self, name: str) -> tuple[float, ...]:
        value: float | tuple[float, ...] = getattr(self, name)
        return (value,) if isinstance(value, float) else value

    def _column(self, name: str, like: Tensor) -> Tensor:
        return torch.tensor(self._entries(name), dtype=like.dtype, device=like.device).reshape(-1, 1, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] to model space; both (..., C, H, W)."""
        return (pixels - self._column("mean", pixels)) / self._column("std", pixels)

    def denormalise(self, inputs: Tensor) -> Tensor:
        """Model space to pixels, not clamped; both (..., C, H, W)."""
        return inputs * self._column("std", inputs) + self._column("mean", inputs)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest possible value in model space, each broadcastable to (..., C, H, W)."""
        mean, std = self._column("mean", like), self._column("std", like)
        return (0.0 - mean) / std, (1.0 - mean) / std

    @property
    def size(self) -> int:
        """Number of unknown values in one picture."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `spec_from_json` reads it."""
        return {"type": "image", "shape": list(self.shape), "mean": self.mean, "std": self.std}


Spec = ImageSpec | TextSpec


def spec_from_json(record: dict[str, Any]) -> Spec:
    """The spec that `to_json` described.

    Raises:
        OptionError: if the type of spec is unknown.
    """
    if record.get("type") == "text":
        padding = record["padding"]
        return TextSpec(
            int(record["length"]), int(record["vocabulary"]), None if padding is None else int(padding), record["task"]
        )
    if record.get("type") != "image":
        raise OptionError(f"The spec has type {record.get('type')!r}; expected 'image' or 'text'.")
    mean, std = (tuple(v) if isinstance(v, list) else float(v) for v in (record["mean"], record["std"]))
    return ImageSpec(shape=tuple(record["shape"]), mean=mean, std=std)
