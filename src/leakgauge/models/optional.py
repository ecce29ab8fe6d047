"""Optional libraries: absent or broken, they cost one sentence and nothing else."""

from __future__ import annotations

import importlib
from typing import Any

from leakgauge.errors import MissingExtraError


def import_optional(package: str, extra: str, purpose: str) -> Any:
    """The imported package.

    Args:
        package: its import name.
        extra: which extra of leakgauge brings it.
        purpose: what needs it, as the subject of the sentence.

    Raises:
        MissingExtraError: if it is not installed; or is, but raises while it is imported, as a torchvision built for
            another torch does (RuntimeError).
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtraError(package, extra, purpose) from error
        raise MissingExtraError(package, extra, purpose, broken(error)) from error
    except Exception as error:
        raise MissingExtraError(package, extra, purpose, broken(error)) from error


def root_cause(error: BaseException) -> BaseException:
    """The error at the bottom of a chain of 'raise ... from ...'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def broken(error: BaseException) -> str:
    """What an import error says, as the reason of a MissingExtraError."""
    text = " ".join(str(error).split())
    return f"is installed but cannot be imported ({type(error).__name__}: {text[:300]})"
