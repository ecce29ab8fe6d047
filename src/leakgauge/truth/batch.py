"""Batch: a client's private examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leakgauge.core.spec import ImageSpec, spec_from_json
from leakgauge.errors import DataError, ShapeError

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Private inputs and labels of one client.

    Args:
        inputs: (N, C, H, W) in model space, that is (pixel - mean) / std; or a dict of tensors with N rows each.
        labels: (N,) class indices, (N, K) soft labels, or what the loss expects.
        spec: shape and normalisation of one input; None only for a dict.
        names: one public-free name per example for the truth's own records, never shown to an attack.
        order: mini-batches as the client took them, where that is known: for each optimiser step a tuple of mini-batches, each
            a tuple of row indices. `validate` then need not search for it.

    Raises:
        ShapeError: if inputs, labels, spec and order disagree.
    """

    inputs: Inputs
    labels: Tensor
    spec: ImageSpec | None = None
    names: tuple[str, ...] = ()
    order: tuple[tuple[tuple[int, ...], ...], ...] | None = None

    def __post_init__(self) -> None:
        first = self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values()))
        if first.ndim == 0 or len(first) == 0:
            raise ShapeError("Batch.inputs holds no example; expected at least one.")
        if len(self.labels) != len(first):
            raise ShapeError(f"Batch has {len(first)} inputs and {len(self.labels)} labels; expected as many of both.")
        if isinstance(self.inputs, Tensor) and self.spec is not None and tuple(self.inputs.shape[1:]) != self.spec.shape:
            raise ShapeError(
                f"Batch.inputs has shape {tuple(self.inputs.shape)}; expected (N, {', '.join(map(str, self.spec.shape))})."
            )
        if self.names and len(self.names) != len(first):
            raise ShapeError(f"Batch has {len(first)} inputs and {len(self.names)} names; expected as many of both.")
        rows = [row for step in self.order or () for mini_batch in step for row in mini_batch]
        if rows and not 0 <= min(rows) <= max(rows) < len(first):
            raise ShapeError(f"Batch.order names row {max(rows)}, but there are {len(first)} examples, counted from 0.")

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, path: str | Path) -> None:
        """Writes inputs, labels, spec, names and order to one safetensors file."""
        tensors = {"labels": self.labels.contiguous()}
        if isinstance(self.inputs, Tensor):
            tensors["inputs"] = self.inputs.contiguous()
        else:
            tensors |= {f"inputs/{name}": tensor.contiguous() for name, tensor in self.inputs.items()}
        manifest: dict[str, Any] = {"format": 1, "spec": self.spec.to_json() if self.spec else None, "names": list(self.names)}
        if self.order is not None:
            manifest["order"] = [[list(mini_batch) for mini_batch in step] for step in self.order]
        save_file(tensors, str(path), metadata={"leakgauge-truth": json.dumps(manifest)})

    @staticmethod
    def load(path: str | Path) -> Batch:
        """Reads a file that `save` wrote.

        Raises:
            DataError: if the file is missing, broken or not a saved batch.
        """
        if not Path(path).is_file():
            raise DataError(f"There is no file {path} to read the truth from.")
        try:
            with safe_open(str(path), framework="pt") as file:
                manifest = json.loads((file.metadata() or {}).get("leakgauge-truth", "null"))
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, json.JSONDecodeError, OSError) as error:
            raise DataError(f"{path} cannot be read as a safetensors file with the truth ({error}).") from error
        if not isinstance(manifest, dict) or "labels" not in tensors:
            raise DataError(f"{path} holds no saved batch; expected a file that `capture` or `Batch.save` wrote.")
        inputs: Inputs = (
            tensors["inputs"]
            if "inputs" in tensors
            else {name.removeprefix("inputs/"): tensor for name, tensor in tensors.items() if name.startswith("inputs/")}
        )
        spec = spec_from_json(manifest["spec"]) if manifest.get("spec") else None
        order = manifest.get("order")
        if order is not None:
            order = tuple(tuple(tuple(mini_batch) for mini_batch in step) for step in order)
        return Batch(inputs, tensors["labels"], spec, tuple(manifest.get("names", ())), order)


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of several with the same spec, in order."""
    if any(batch.spec != batches[0].spec or isinstance(batch.inputs, dict) for batch in batches):
        raise ShapeError("Batches differ in spec; expected one shape and one normalisation.")
    inputs = torch.cat([batch.inputs for batch in batches if isinstance(batch.inputs, Tensor)])
    names = tuple(name for batch in batches for name in batch.names)
    return Batch(inputs, torch.cat([batch.labels for batch in batches]), batches[0].spec, names)
