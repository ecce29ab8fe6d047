"""`leakgauge doctor`: what this installation has, and what is broken in it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakgauge.cli.options import Json

EXTRAS = {
    "text": ("transformers", "tokenizers"),
    "vision": ("torchvision", "timm"),
    "medical": ("pydicom",),
    "perceptual": ("lpips",),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox")


def doctor_command(as_json: Json = False) -> None:
    """Say what this installation has: Python, torch, extras (broken ones too), device, data folder, places to write."""
    from leakgauge.cli.console import print_json, say

    facts = findings()
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name == "problems":
            continue
        text = "; ".join(f"{key}: {entry}" for key, entry in value.items()) if isinstance(value, dict) else value
        say(f"{name.replace('_', ' '):<16} {text}")
    for problem in facts["problems"]:
        say(f"Problem: {problem}")
    if not facts["problems"]:
        say("No problem found.")


def findings() -> dict[str, Any]:
    """Everything, with a list of problems in sentences."""
    from importlib import metadata

    problems: list[str] = []
    facts: dict[str, Any] = {
        "leakgauge": metadata.version("leakgauge"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    facts |= _guarded(_torch, problems)
    states = {package: state_of(package) for packages in EXTRAS.values() for package in packages}
    facts["torchvision"] = states["torchvision"]
    facts["extras"] = {extra: _extra_state([states[name] for name in packages]) for extra, packages in EXTRAS.items()}
    for package, state in states.items():
        if state.startswith("broken"):
            problems.append(
                f"{package} is installed but cannot be imported ({state.removeprefix('broken: ')}); leakgauge works without it, "
                f"other packages that import it may not: reinstall or remove it."
            )
    if facts["extras"]["text"] != "installed":
        facts["texts"] = "not available: pip install 'leakgauge[text]' gives 'hf:' models, tokenisers and attacks on texts"
    facts["data_folder"] = _data_folder()
    facts["temporary_folder"] = _temporary(problems)
    facts["browser"] = next((found for name in BROWSERS if (found := shutil.which(name))), "none found")
    facts["problems"] = problems
    return facts


def _torch() -> dict[str, Any]:
    import torch

    device = f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}


def _guarded(ask: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - whatever a broken installation throws
        problems.append(f"torch cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:200]}).")
        return {"torch": "broken", "threads": 0, "device": "none"}


def state_of(package: str) -> str:
    """The version, 'not installed', or 'broken: why'."""
    import importlib
    from importlib import metadata, util

    try:
        if util.find_spec(package) is None:
            return "not installed"
        module = importlib.import_module(package)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation throws
        return f"broken: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", "installed"))


def _extra_state(states: list[str]) -> str:
    if any(state.startswith("broken") for state in states):
        return "broken"
    return "missing" if "not installed" in states else "installed"


def _data_folder() -> str:
    given = os.environ.get("LEAKGAUGE_DATA")
    if given is None:
        return "LEAKGAUGE_DATA is not set; bundled pictures only"
    return given if Path(given).is_dir() else f"{given} (no such folder)"


def _temporary(problems: list[str]) -> str:
    try:
        with tempfile.TemporaryFile():
            return tempfile.gettempdir()
    except OSError as error:
        problems.append(f"No temporary folder can be written to ({error.strerror or error}).")
        return "not writable"
