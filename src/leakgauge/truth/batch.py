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

from leakgauge.core.spec import ImageSpec, Spec, spec_from_json
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import DataError, ShapeError

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Private inputs and labels of one client.

    Args:
        inputs: (N, C, H, W) in model space, that is (pixel - mean) / std; or a dict of tensors with N rows each.
        labels: (N,) class indices, (N, K) soft labels, or what the loss expects.
        spec: what one input looks like: an ImageSpec, or a TextSpec for a dict with 'input_ids' (N, L) and, where texts are
            padded, 'attention_mask'.
        names: one public-free name per example for the truth's own records, never shown to an attack.
        order: mini-batches as the client took them, where that is known: for each optimiser step a tuple of mini-batches, each
            a tuple of row indices. `validate` then need not search for it.

    Raises:
        ShapeError: if inputs, labels, spec and order disagree.
    """

    inputs: Inputs
    labels: Tensor
    spec: Spec | None = None
    names: tuple[str, ...] = ()
    order: tuple[tuple[tuple[int, ...], ...], ...] | None = None

    def __post_init__(self) -> None:
        first = self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values()))
        if first.ndim == 0 or len(first) == 0:
            raise ShapeError("Batch.inputs holds no example; expected at least one.")
        if len(self.labels) != len(first):
            raise ShapeError(f"Batch has {len(first)} inputs and {len(self.labels)} labels; expected as many of both.")
        shape = self.pictures.shape if self.pictures is not None else None
        if isinstance(self.inputs, Tensor) and shape is not None and tuple(self.inputs.shape[1:]) != shape:
            raise ShapeError(f"Batch.inputs has shape {tuple(self.inputs.shape)}; expected (N, {', '.join(map(str, shape))}).")
        if isinstance(self.spec, TextSpec):
            check_tokens(self.inputs, self.spec)
        if self.names and len(self.names) != len(first):
            raise ShapeError(f"Batch has {len(first)} inputs and {len(self.names)} names; expected as many of both.")
        rows = [row for step in self.order or () for mini_batch in step for row in mini_batch]
        if rows and not 0 <= min(rows) <= max(rows) < len(first):
            raise ShapeError(f"Batch.order names row {max(rows)}, but there are {len(first)} examples, counted from 0.")

    @property
    def pictures(self) -> ImageSpec | None:
        """The spec where inputs are pictures; None where they are texts or not known."""
        return self.spec if isinstance(self.spec, ImageSpec) else None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def model_inputs(self) -> Inputs:
        """What the network is called with: for texts a dict with an attention mask, which hides padding."""
        if not isinstance(self.spec, TextSpec):
            return self.inputs
        found = dict(self.inputs) if isinstance(self.inputs, dict) else {"input_ids": self.inputs}
        if "attention_mask" not in found:
            ids = found["input_ids"]
            kept = torch.ones_like(ids) if self.spec.padding is None else (ids != self.spec.padding).long()
            found["attention_mask"] = kept
        return found

    @property
    def model_labels(self) -> Tensor:
        """The labels as the loss takes them: for texts with one label per token, -100 on padding."""
        inputs = self.model_inputs
        if not isinstance(self.spec, TextSpec) or self.labels.ndim != 2 or not isinstance(inputs, dict):
            return self.labels
        return torch.where(inputs["attention_mask"] == 0, IGNORED, self.labels)

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


def check_tokens(inputs: Inputs, spec: TextSpec) -> None:
    """Raises ShapeError unless `inputs` holds token ids (N, L) within the vocabulary, with masks of the same shape."""
    ids = inputs.get("input_ids") if isinstance(inputs, dict) else inputs
    if ids is None:
        raise ShapeError("Batch.inputs holds no 'input_ids'; a text needs token ids (N, L).")
    if ids.is_floating_point() or ids.ndim != 2 or ids.shape[1] != spec.length:
        raise ShapeError(
            f"Batch.inputs has token ids of shape {tuple(ids.shape)} and type {ids.dtype}; expected whole numbers "
            f"(N, {spec.length})."
        )
    if int(ids.min()) < 0 or int(ids.max()) >= spec.vocabulary:
        raise ShapeError(
            f"Batch.inputs holds the token ids {int(ids.min())} to {int(ids.max())}; the vocabulary has {spec.vocabulary}, "
            "from 0."
        )
    for name, tensor in inputs.items() if isinstance(inputs, dict) else ():
        if len(tensor) != len(ids):
            raise ShapeError(
                f"Batch.inputs[{name!r}] has {len(tensor)} rows and 'input_ids' {len(ids)}; expected as many of both."
            )


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of several with the same spec, in order."""
    if any(batch.spec != batches[0].spec or isinstance(batch.inputs, dict) for batch in batches):
        raise ShapeError("Batches differ in spec; expected one shape and one normalisation.")
    inputs = torch.cat([batch.inputs for batch in batches if isinstance(batch.inputs, Tensor)])
    names = tuple(name for batch in batches for name in batch.names)
    return Batch(inputs, torch.cat([batch.labels for batch in batches]), batches[0].spec, names)
