"""Reads pickled dictionaries of plain values and number arrays without running anything that the file names.

CIFAR is distributed as pickles, and a pickle may call any function. Here every global is refused but the few that
numpy arrays are pickled with, and those are replaced by placeholders: no numpy code sees the file's own
words, and the bytes become an array only after their length and type are checked.
"""

from __future__ import annotations

import pickle
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from leakgauge.errors import DataError

NUMBERS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1")


class _Type:
    """Stands for a numpy dtype."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else str(code)
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            order = state[1]
            self.order = order.decode("ascii", "replace") if isinstance(order, bytes) else str(order)


class _Array:
    """Stands for a numpy array while the file is read."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The array, if type, shape and bytes agree; otherwise ValueError."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("an array without content")
        _, shape, kind, fortran, data = self.state
        if not isinstance(kind, _Type) or kind.code.lstrip("<>|=") not in NUMBERS or kind.order not in ("|", "<", ">", "="):
            raise ValueError("an array that does not hold numbers")
        if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("an array without a shape")
        dtype = np.dtype(kind.order.replace("|", "=") + kind.code.lstrip("<>|="))
        if not isinstance(data, bytes | bytearray) or len(data) != prod(shape) * dtype.itemsize:
            raise ValueError("an array whose bytes do not fill its shape")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.state = (1, shape, kind, order in ("F", b"F"), data)
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("an encoding other than latin1")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _encode}
for _core in ("numpy.core", "numpy._core"):
    ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _frombuffer


class _Refused(Exception):
    """The file names something that is not allowed."""


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        allowed = ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise _Refused(f"{module_name}.{global_name}")
        return allowed


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, as Python 2 or 3 wrote it; keys as text, arrays as numpy arrays.

    Values are what the file holds: texts may be bytes.

    Raises:
        DataError: if the file is missing or broken, names anything but number arrays (nothing of it is run), or does not
            hold a dictionary.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            content = _Reader(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise DataError(f"{path} holds a {type(content).__name__}; expected a dictionary with data and labels.")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): value.to_numpy() if isinstance(value, _Array) else value
            for key, value in content.items()
        }
    except _Refused as error:
        raise DataError(
            f"{path} asks to run {error}, which a data file has no need of; it was refused and nothing was run. "
            "Expected a pickle of plain values and number arrays."
        ) from error
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as a pickle ({type(error).__name__}: {error}).") from error
