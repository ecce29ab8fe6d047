"""Networks of timm and torchvision, always with random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from leakgauge.errors import ModelError, did_you_mean
from leakgauge.models.optional import import_optional


def prepare_timm(name: str, num_classes: int | None, input_shape: tuple[int, ...] | None) -> Callable[[], nn.Module]:
    """Prepares a timm network; `img_size` is passed to those that are built for one size.

    Raises:
        MissingExtraError: if timm is absent or broken.
        ModelError: if there is no such network, or it does not take the shape.
    """
    timm = import_optional("timm", "vision", f"The model 'timm:{name}'")
    if not timm.is_model(name):
        raise ModelError(f"timm has no network {name!r}.{_near(name, timm.list_models())}")
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if input_shape is not None:
        channels, height, width = _picture(f"timm:{name}", input_shape)
        arguments["in_chans"] = channels
        if getattr(timm.models.get_pretrained_cfg(name), "fixed_input_size", False):
            arguments["img_size"] = (height, width)
    return partial(_build, f"timm:{name}", timm.create_model, name, {"pretrained": False, **arguments})


def prepare_torchvision(name: str, num_classes: int | None, input_shape: tuple[int, ...] | None) -> Callable[[], nn.Module]:
    """Prepares a torchvision classifier; `image_size` is passed to the vision transformers.

    Raises:
        MissingExtraError: if torchvision is absent or broken.
        ModelError: if there is no such classifier, or it does not take the shape.
    """
    torchvision = import_optional("torchvision", "vision", f"The model 'torchvision:{name}'")
    models = import_optional("torchvision.models", "vision", f"The model 'torchvision:{name}'")
    known = torchvision.models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}.{_near(name, known)}")
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if input_shape is not None:
        channels, height, width = _picture(f"torchvision:{name}", input_shape)
        if channels != 3:
            raise ModelError(f"The model 'torchvision:{name}' takes 3 channels; input_shape is {input_shape}.")
        if name.startswith("vit_"):
            if height != width:
                raise ModelError(f"The model 'torchvision:{name}' takes square pictures; input_shape is {input_shape}.")
            arguments["image_size"] = height
    return partial(_build, f"torchvision:{name}", models.get_model, name, {"weights": None, **arguments})


def _picture(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ModelError(f"The model {name!r} takes pictures (C, H, W); input_shape is {input_shape}.")
    return input_shape[0], input_shape[1], input_shape[2]


def _build(name: str, create: Any, library_name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        model = create(library_name, **arguments)
    except Exception as error:
        raise ModelError(f"The model {name!r} cannot be built ({type(error).__name__}: {error}).") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model {name!r} is a {type(model).__name__}; expected a torch.nn.Module.")
    return model


def _near(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if "Did you mean" in hint else ""
