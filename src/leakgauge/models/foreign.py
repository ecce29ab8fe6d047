"""Networks of one's own: 'pkg.mod:callable'."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from leakgauge.errors import ModelError, did_you_mean


def prepare_call(name: str, num_classes: int | None, input_shape: tuple[int, ...] | None, seed: int) -> Callable[[], nn.Module]:
    """Imports 'pkg.mod:callable' and prepares its call with those of num_classes, input_shape and seed that it names.

    The current folder is importable for the import and the call. An argument that is None is left to the callable's own default.

    Returns:
        What makes the call; it raises ModelError if the callable raises, or returns no torch module.

    Raises:
        ModelError: if the module or the callable cannot be found, or the call cannot be made.
    """
    with current_folder_importable():
        builder = find_callable(name)
    arguments = _arguments(name, builder, {"num_classes": num_classes, "input_shape": input_shape, "seed": seed})
    return partial(_call, name, builder, arguments)


def _call(name: str, builder: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    with current_folder_importable():
        try:
            model = builder(**arguments)
        except Exception as error:
            called = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise ModelError(f"The model {name!r} raised {type(error).__name__} when called with ({called}): {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model {name!r} returned {type(model).__name__}; expected a torch.nn.Module.")
    return model


def find_callable(name: str) -> Callable[..., Any]:
    """The object that 'pkg.mod:callable' names; dots after the colon reach into it.

    Raises:
        ModelError: if the module is not there or cannot be imported, has no such name, or the object cannot be called.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ModelError(
                f"The model {name!r} needs the module {module_name!r}, which is neither installed nor in the current folder "
                f"({Path.cwd()})."
            ) from error
        raise ModelError(f"The module {module_name!r} of the model {name!r} cannot be imported: {error}.") from error
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(f"The module {module_name!r} of the model {name!r} cannot be imported ({kind}: {error}).") from error
    for part in path.split("."):
        if not hasattr(found, part):
            public = [word for word in dir(found) if not word.startswith("_")]
            hint = did_you_mean(part, public)
            raise ModelError(f"{module_name!r} has no {path!r}.{hint if 'Did you mean' in hint else ''}")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise ModelError(f"The model {name!r} is a ready module; expected a function or class that builds one.")
    if not callable(found):
        raise ModelError(f"The model {name!r} is a {type(found).__name__}, which cannot be called; expected a function or class.")
    builder: Callable[..., Any] = found
    return builder


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Puts the current folder first on the import path for the body."""
    folder = str(Path.cwd())
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _arguments(name: str, builder: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError) as error:
        raise ModelError(f"The signature of the model {name!r} cannot be read; wrap it in a function.") from error
    arguments: dict[str, Any] = {}
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if key in offered and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            if offered[key] is not None:
                arguments[key] = offered[key]
            elif required:
                raise ModelError(f"The model {name!r} needs {key}, which was not given.")
        elif required:
            raise ModelError(
                f"The model {name!r} has the parameter {key!r} without a default; only num_classes, input_shape and seed "
                "are passed to it by name."
            )
    return arguments
