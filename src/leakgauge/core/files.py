"""Observations on disk: one safetensors file with a JSON manifest. Nothing is ever unpickled."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from leakgauge.core.batch_statistics import BatchStatistics, batch_norm_layers, kept_share
from leakgauge.core.callables import Loss, loss_from_json, loss_to_json
from leakgauge.core.engine_files import INDEX, is_numpy, is_record, read_folder, read_index, read_numpy, read_record
from leakgauge.core.observation import Knowledge, Observation, check_names
from leakgauge.core.provenance import provenance_from_json
from leakgauge.core.spec import spec_from_json
from leakgauge.core.training import training_from_json
from leakgauge.core.update import DefenceRecord, strip_wrappers
from leakgauge.errors import ModelError, ShapeError, UpdateError

FORMAT = 1
KEY = "leakgauge-observation"


def state_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a model's parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in strip_wrappers(model.state_dict()).items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    except (KeyError, TypeError, ValueError) as error:
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


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, a torch file that holds nothing but weights, or what an engine saved.

    Numpy files, Flower's records and folders of shards are read by `core.engine_files`; arrays without names are called '#0',
    '#1', ... in order. Names lose the prefixes of wrappers; a `state_dict`, `model_state_dict` or `model` entry around the
    tensors (as in NVFlare's model file) is opened.

    Raises:
        UpdateError: if the file is missing, broken, or would need unpickling of anything but tensors.
    """
    path = Path(path)
    if path.is_dir():
        return strip_wrappers(read_folder(path, read_state))
    if not path.is_file():
        raise UpdateError(f"There is no file {path}; expected a safetensors or torch weights file.")
    if path.name.endswith(INDEX):
        return strip_wrappers(read_index(path, read_state))
    with path.open("rb") as stream:
        head = stream.read(16)
    if is_numpy(path):
        return strip_wrappers(read_numpy(path))
    if _looks_like_torch(head):
        return strip_wrappers(_read_torch(path))
    if is_record(head):
        return strip_wrappers(read_record(path))
    if head.startswith(b"ArrayRecord "):
        raise UpdateError(
            f"{path} is a deflated Flower ArrayRecord, which holds references to its arrays and no values; save "
            "record.to_torch_state_dict() with safetensors or torch.save."
        )
    _, tensors = _open(path)
    return strip_wrappers(tensors)


def _read_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UpdateError(
            f"{path} cannot be read as a file of plain weights; it is broken or holds pickled objects, which leakgauge "
            "never loads. Expected safetensors, or torch.save of a state dict."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if isinstance(loaded, list | tuple):
        loaded = {f"#{index}": tensor for index, tensor in enumerate(loaded)}
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UpdateError(f"{path} holds something else than tensors by name; expected a state dict.")
    return {str(name): tensor for name, tensor in loaded.items()}


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Loads a whole state into `model`, in place.

    Raises:
        ModelError: if names are missing or unknown.
        ShapeError: if a tensor has the wrong shape.
    """
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        told = "; ".join(
            f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for what, names in (("missing:", missing), ("unknown:", unknown))
            if names
        )
        raise ModelError(f"The weights in {origin} do not fit the model ({told}). Is it the right model?")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ShapeError(
                f"Weight {name!r} in {origin} has shape {tuple(tensor.shape)}; the model has {tuple(own[name].shape)}. "
                "Is it the right model, with the right number of classes?"
            )
    for name, tensor in state.items():
        if own[name].dtype != tensor.dtype and own[name].is_floating_point():
            model.to(tensor.dtype)
            break
    model.load_state_dict(dict(state))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    metadata, tensors = _open(path)
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
    return manifest, tensors


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise UpdateError(f"There is no file {path}; expected a safetensors file.")
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise UpdateError(f"{path} cannot be read ({error}).") from error
    if _looks_like_torch(head):
        raise UpdateError(
            f"{path} is a pickle or torch file, not a safetensors file; leakgauge never unpickles what it is given. "
            "Use `leakgauge pack` for files of plain weights."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UpdateError(f"{path} cannot be read as safetensors; it is truncated or of another format ({error}).") from error


def _looks_like_torch(head: bytes) -> bool:
    return head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
