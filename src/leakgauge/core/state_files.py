"""Weights on disk: tensors by name from whatever holds nothing but tensors. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from leakgauge.core.engine_files import INDEX, is_numpy, is_record, read_folder, read_index, read_numpy, read_record
from leakgauge.core.update import strip_wrappers
from leakgauge.errors import ModelError, ShapeError, UpdateError


def state_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a model's parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in strip_wrappers(model.state_dict()).items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    _, tensors = open_tensors(path)
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
    """Loads a whole state into `model`, in place; a tied weight may stand in it under one of its names only.

    Raises:
        ModelError: if names are missing or unknown.
        ShapeError: if a tensor has the wrong shape.
    """
    own = model.state_dict()
    state = _under_all_names(state, model)
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


def open_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
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
    with opened(path) as file:
        return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise UpdateError(f"{path} cannot be read as safetensors; it is truncated or of another format ({error}).") from error


def _looks_like_torch(head: bytes) -> bool:
    return head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")


def once(tensors: Mapping[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """Tensors by the names under which the model lists its parameters: a tied weight stands in a state dict once per name.

    Raises:
        UpdateError: if two names of one parameter hold different tensors.
    """
    listed = {id(parameter): name for name, parameter in model.named_parameters()}
    own = {name: listed[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        held = own.get(name, name)
        if held in found and not torch.equal(found[held], tensor):
            raise UpdateError(
                f"The {what} hold(s) different tensors for {held!r} and {name!r}, which are one parameter of the model (tied "
                "weights); give it once."
            )
        found[held] = tensor
    return found


def _under_all_names(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same with each tied weight under every name that the model's state dict has for it."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    added: dict[str, Tensor] = {}
    for group in names.values():
        held = [name for name in group if name in state]
        added |= {name: state[held[0]] for name in group if held and name not in state}
    return {**state, **added}
