"""Hugging Face folders: 'hf:PATH'."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leakgauge.errors import MissingExtraError, ModelError
from leakgauge.models.optional import broken, import_optional, root_cause

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def prepare_folder(path: str, num_classes: int | None) -> Callable[[], nn.Module]:
    """Prepares the model that a folder's config.json describes, with the folder's safetensors weights if it has them.

    The class is the config's first entry of `architectures`. No code of the folder runs, no pickle is read and nothing is
    downloaded; a name from the hub works once it is in the local cache. Attention is the plain ('eager') one, because
    the fused ones cannot be differentiated twice.

    Args:
        path: a folder, its config.json, or a name in the local Hugging Face cache.
        num_classes: sets `num_labels` of a model with fresh weights; None leaves the config's.

    Returns:
        What builds it; it raises ModelError if the class does not take the config, or the weights cannot be read.

    Raises:
        MissingExtraError: without transformers, or if something it needs is broken, as torchvision may be.
        ModelError: if the config cannot be read, or names no class that transformers has.
    """
    transformers = import_optional("transformers", "text", f"The model 'hf:{path}'")
    place = Path(path).expanduser()
    source = str(place) if place.exists() else path
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ModelError(
            f"The model 'hf:{path}' has no config that transformers can read (nothing is downloaded, no remote code is run): "
            f"{_short(error)}"
        ) from error
    model_class = _model_class(path, transformers, config)
    folder = place if place.is_dir() else place.parent
    weights = place.exists() and any((folder / name).is_file() for name in WEIGHTS)
    if place.exists() and not weights and any((folder / name).is_file() for name in PICKLES):
        raise ModelError(
            f"The folder {folder} holds weights only as a pickle ({PICKLES[0]}), which is never read; convert them to "
            f"{WEIGHTS[0]}."
        )
    if num_classes is not None and num_classes != config.num_labels:
        if weights:
            raise ModelError(f"The weights in {folder} were saved with {config.num_labels} labels; num_classes is {num_classes}.")
        config.num_labels = num_classes
    saved = str(folder) if weights else None if place.exists() else path
    return partial(_build, path, model_class, config, saved)


def holds_weights(path: str) -> bool:
    """Whether the model of a folder, its config.json or a cached name comes with weights; without them they are drawn afresh."""
    place = Path(path).expanduser()
    folder = place if place.is_dir() else place.parent
    return not place.exists() or any((folder / name).is_file() for name in WEIGHTS)


def _build(path: str, model_class: Any, config: Any, saved: str | None) -> nn.Module:
    try:
        if saved is None:
            config._attn_implementation = "eager"
            model = model_class(config)
        else:
            model = model_class.from_pretrained(
                saved,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="eager",
                dtype=torch.float32,
            )
    except Exception as error:
        raise ModelError(f"The model 'hf:{path}' ({model_class.__name__}) cannot be built: {_short(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model 'hf:{path}' is a {type(model).__name__}; expected a torch.nn.Module.")
    return model


def _model_class(path: str, transformers: Any, config: Any) -> Any:
    architectures = getattr(config, "architectures", None) or []
    if not architectures:
        raise ModelError(f"The config of 'hf:{path}' has no 'architectures'; expected a class such as 'BertForMaskedLM'.")
    name = architectures[0]
    try:
        model_class = getattr(transformers, name, None) if str(name).isidentifier() else None
    except Exception as error:  # transformers imports its modules late, and a broken torchvision breaks them
        purpose = f"The model 'hf:{path}' ({name})"
        raise MissingExtraError("transformers", "text", purpose, broken(root_cause(error))) from error
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        raise ModelError(
            f"The config of 'hf:{path}' names the class {name!r}, which transformers {transformers.__version__} does "
            "not have; code that comes with a model is never run."
        )
    return model_class


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
