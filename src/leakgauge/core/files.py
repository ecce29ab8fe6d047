"""Observations on disk: one safetensors file with a JSON manifest. Nothing is ever unpickled."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from leakgauge.core.batch_statistics import BatchStatistics, batch_norm_layers, kept_share
from leakgauge.core.callables import Loss, loss_from_json, loss_to_json
from leakgauge.core.observation import Knowledge, Observation, check_names
from leakgauge.core.provenance import provenance_from_json
from leakgauge.core.spec import spec_from_json
from leakgauge.core.state_files import load_state, open_tensors, opened, read_state, state_hash
from leakgauge.core.training import training_from_json
from leakgauge.core.update import DefenceRecord, strip_wrappers
from leakgauge.errors import UpdateError

FORMAT = 1
KEY = "leakgauge-observation"


def save_observation(seen: Observation, path: str | Path, *, include_state: bool = True) -> None:
    """Writes an observation to one safetensors file.

    Keys are `tensor/NAME`, `buffer/NAME`, `state/NAME`, `batch_norm.mean/NAME`, `batch_norm.var/NAME` and `labels`.

    Args:
        seen: the observation.
        path: file to write.
        include_state: also write the model's parameters and buffers; without them only their hash is written, and
            loading asks for the weights.

    Raises:
        UpdateError: if the file cannot be written.
    """
    tensors = {f"tensor/{name}": tensor for name, tensor in seen.tensors.items()}
    tensors |= {f"buffer/{name}": tensor for name, tensor in seen.buffers.items()}
    for name, statistics in seen.batch_norm.items():
        tensors |= {f"batch_norm.mean/{name}": statistics.mean, f"batch_norm.var/{name}": statistics.var}
    if include_state:
        tensors |= {f"state/{name}": tensor for name, tensor in seen.model.state_dict().items()}
    if seen.labels is not None:
        tensors["labels"] = seen.labels
    manifest = {
        "format": FORMAT,
        "kind": seen.kind,
        "loss": loss_to_json(seen.loss),
        "training": seen.training.to_json(),
        "spec": seen.spec.to_json() if seen.spec else None,
        "num_examples": seen.num_examples,
        "withheld": list(seen.withheld),
        "frozen": [name for name, parameter in seen.model.named_parameters() if not parameter.requires_grad],
        "defences": [{"name": record.name, "parameters": dict(record.parameters)} for record in seen.defences],
        "knowledge": sorted(fact.name for fact in seen.knowledge),
        "threat": seen.threat,
        "model_name": seen.model_name,
        "state_sha256": state_hash(seen.model),
        "state_included": include_state,
        "batch_norm": {name: {"steps": entry.steps, "exact": entry.exact} for name, entry in seen.batch_norm.items()},
        "provenance": None if seen.provenance is None else seen.provenance.to_json(),
        "versions": {"torch": torch.__version__},
    }
    try:
        save_file(_apart(tensors), str(path), metadata={KEY: json.dumps(manifest)})
    except (OSError, SafetensorError) as error:
        raise UpdateError(f"The observation cannot be written to {path} ({error}).") from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory, copied only where they must be."""
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
        if not whole or plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        ready[name] = plain
    return ready


def load_observation(
    path: str | Path, model: nn.Module, weights: str | Path | None = None, loss: Loss | None = None
) -> Observation:
    """Reads an observation; `model` gives the architecture, the file (or `weights`) its state.

    Args:
        path: file that `save_observation` wrote.
        model: module with the same architecture; it is copied, never changed.
        loss: the callable, for an update that was made with one; a file never names code to run.
        weights: state dict (safetensors, or a weights-only torch file) for a file that holds only the state's hash.

    Raises:
        UpdateError: if the file is missing, truncated, no safetensors file or no observation, or if the state is missing
            or differs from the one the update was computed at.
        ModelError: if the model does not fit the file.
        ShapeError: if a tensor has another shape than the model's parameter.
    """
    manifest, tensors = _read(Path(path))
    try:
        return _assemble(Path(path), manifest, tensors, model, weights, loss)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UpdateError(f"The manifest of {path} is damaged ({type(error).__name__}: {error}).") from error


def _assemble(
    path: Path,
    manifest: dict[str, Any],
    tensors: dict[str, Tensor],
    model: nn.Module,
    weights: str | Path | None,
    loss: Loss | None,
) -> Observation:
    model = copy.deepcopy(model).eval()
    state = _part(tensors, "state/")
    updated = strip_wrappers(_part(tensors, "tensor/"))
    withheld = tuple(manifest["withheld"])
    check_names(updated, dict(model.named_parameters()), withheld)
    if weights is not None:
        state = read_state(weights)
    if state:
        load_state(model, state, str(weights or path))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in manifest["frozen"])
    if state_hash(model) != manifest["state_sha256"]:
        if not state:
            raise UpdateError(
                f"{path} holds only the hash of the model's weights, and the given model's weights are others; "
                "hand over the weights the update was computed at (--weights FILE)."
            )
        raise UpdateError(
            f"The weights in {weights or path} are not those that the update in {path} was computed at (their hash differs)."
        )
    statistics = {name: _statistics(model, name, entry, tensors) for name, entry in manifest["batch_norm"].items()}
    return Observation(
        model=model,
        tensors=updated,
        kind=manifest["kind"],
        loss=loss_from_json(manifest["loss"], loss),
        training=training_from_json(manifest["training"]),
        spec=spec_from_json(manifest["spec"]) if manifest["spec"] else None,
        num_examples=int(manifest["num_examples"]),
        labels=tensors.get("labels"),
        buffers=_part(tensors, "buffer/"),
        batch_norm=statistics,
        defences=tuple(DefenceRecord(entry["name"], entry["parameters"]) for entry in manifest["defences"]),
        withheld=withheld,
        knowledge=frozenset(Knowledge[name] for name in manifest["knowledge"]),
        threat=manifest["threat"],
        model_name=manifest["model_name"],
        provenance=provenance_from_json(manifest["provenance"]) if manifest.get("provenance") else None,
    )


def _statistics(model: nn.Module, name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchStatistics:
    """One layer's statistics; how noise on them is amplified follows from the layer and its counter."""
    layers, steps = batch_norm_layers(model), int(entry["steps"])
    if name not in layers or steps < 1:
        raise ValueError(f"the model has no BatchNorm layer {name!r} with {steps} step(s)")
    counter = layers[name].num_batches_tracked
    keep = kept_share(layers[name].momentum, 0 if counter is None else int(counter), steps)
    mean, var = tensors[f"batch_norm.mean/{name}"], tensors[f"batch_norm.var/{name}"]
    return BatchStatistics(mean, var, steps, bool(entry["exact"]), 1.0 / (1.0 - keep))


def client_of(path: str | Path) -> str:
    """The client that a recording's provenance names, read without its tensors; '' where it names none.

    Raises:
        UpdateError: if the file is missing, broken or no observation.
    """
    with opened(Path(path)) as file:
        manifest = _manifest(Path(path), dict(file.metadata() or {}))
    provenance = manifest.get("provenance")
    return str(provenance.get("client", "")) if isinstance(provenance, dict) else ""


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    metadata, tensors = open_tensors(path)
    return _manifest(path, metadata), tensors


def _manifest(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        manifest = json.loads(metadata.get(KEY, "null"))
    except json.JSONDecodeError as error:
        raise UpdateError(f"The manifest of {path} is damaged ({error}).") from error
    if not isinstance(manifest, dict):
        raise UpdateError(
            f"{path} is a safetensors file without a leakgauge manifest; turn a system's own tensors into an observation "
            "with `leakgauge pack`."
        )
    if manifest.get("format") != FORMAT:
        raise UpdateError(f"{path} has observation format {manifest.get('format')!r}; this version reads format {FORMAT}.")
    return manifest


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
