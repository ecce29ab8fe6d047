"""`protocol_from_toml`: a client's protocol as a person writes it down, P.toml, for `pack`."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakgauge.core.callables import LOSSES
from leakgauge.core.spec import ImageSpec, Spec
from leakgauge.core.text_spec import TextSpec
from leakgauge.core.training import LocalTraining, training_from_json
from leakgauge.errors import OptionError, UpdateError, did_you_mean

TABLES = ("training", "spec")
TRAINING_KEYS = tuple(field.name for field in dataclasses.fields(LocalTraining))
PICTURE_KEYS = ("shape", "mean", "std")
TEXT_KEYS = ("length", "vocabulary", "padding", "task")
SPEC_KEYS = (*PICTURE_KEYS, *TEXT_KEYS)
OWN_KEYS = ("num_examples", "loss", "labels", "withheld", "model")


@dataclass(frozen=True)
class Protocol:
    """What a protocol file says.

    Args:
        training: the local training protocol.
        num_examples: examples in the client's batch, or None where the file does not say.
        loss: name of the loss.
        labels: (N,) labels if the attacker is to know them, else None.
        spec: what one input looks like, a picture or a text; None where neither shape nor length is given.
        withheld: names of parameters that were not shared.
        model: the model's name, '' where the file does not say.
    """

    training: LocalTraining
    num_examples: int | None = None
    loss: str = "cross_entropy"
    labels: Tensor | None = None
    spec: Spec | None = None
    withheld: tuple[str, ...] = ()
    model: str = ""


def protocol_from_toml(path: str | Path) -> Protocol:
    """Reads a protocol file.

    Every key stands at the top, or those of LocalTraining under [training] and those of one input under [spec]; only what
    differs from the default needs to be written:

        num_examples = 8
        loss = "cross_entropy"              # or binary_cross_entropy, mse
        labels = [3, 5, 0, 0, 1, 9, 2, 2]   # only if the attacker is to know them
        withheld = ["fc.bias"]              # parameters that were not shared
        model = "lenet-dlg"                 # optional, for the record

        [training]                          # any field of LocalTraining; without lr a gradient is shared
        lr = 0.1
        steps = 5
        mode = "train"

        [spec]
        shape = [3, 32, 32]
        mean = [0.49, 0.48, 0.45]           # one number, or one per channel
        std = 0.25

    or, where inputs are texts:

        [spec]
        length = 24                         # tokens of one padded text
        vocabulary = 30522
        padding = 0                         # id of the padding token; left out where texts are never padded
        task = "classification"             # or masked, causal

    Raises:
        UpdateError: if the file is missing or is no TOML; the sentence names the line.
        OptionError: for an unknown key (the nearest is suggested), one given twice, keys of pictures beside keys of texts, or a
            value of the wrong kind.
        ShapeError: if the shape is not three positive integers.
    """
    keys = _flat(_table(Path(path)), str(path))
    count, loss, labels = keys.get("num_examples"), keys.get("loss", "cross_entropy"), keys.get("labels")
    _expect(count is None or (_whole(count) and count >= 1), path, "num_examples", count, "a whole number >= 1")
    _expect(isinstance(loss, str), path, "loss", loss, "a name in quotes")
    if loss not in LOSSES:
        hint = " A file never names code to run; hand a callable over as loss=." if ":" in loss else did_you_mean(loss, LOSSES)
        raise OptionError(f"{path} names the loss {loss!r}, which is none of the built-in ones.{hint}")
    fits = labels is None or (isinstance(labels, list) and labels != [] and all(_label(entry) for entry in labels))
    _expect(fits and _even(labels), path, "labels", labels, "a list of numbers, or of lists of one length with one per token")
    withheld = keys.get("withheld", [])
    _expect(
        isinstance(withheld, list) and all(isinstance(name, str) for name in withheld),
        path, "withheld", withheld, "a list of parameter names",
    )  # fmt: skip
    model = keys.get("model", "")
    _expect(isinstance(model, str), path, "model", model, "a name in quotes")
    return Protocol(
        training=training_from_json({key: value for key, value in keys.items() if key in TRAINING_KEYS}),
        num_examples=count,
        loss=loss,
        labels=None if labels is None else torch.tensor(labels),
        spec=_spec(path, keys),
        withheld=tuple(withheld),
        model=model,
    )


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UpdateError(f"The protocol file {path} is not TOML: {error}.") from error
    except UnicodeDecodeError as error:
        raise UpdateError(f"The protocol file {path} is not text in UTF-8 ({error.reason}).") from error
    except OSError as error:
        raise UpdateError(f"The protocol file {path} cannot be read ({error.strerror}).") from error


def _flat(table: dict[str, Any], path: str) -> dict[str, Any]:
    """All keys on one level, each known and given once."""
    allowed = {"training": TRAINING_KEYS, "spec": SPEC_KEYS}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in allowed:
            _expect(isinstance(value, dict), path, key, value, f"a table, [{key}]")
        entries = value if key in allowed else {key: value}
        known = allowed.get(key, (*OWN_KEYS, *SPEC_KEYS, *TRAINING_KEYS))
        for name, entry in entries.items():
            if name not in known:
                where = f"[{key}] of {path}" if key in allowed else path
                raise OptionError(f"{where} has the unknown key {name!r}.{did_you_mean(name, (*known, *TABLES))}")
            if name in found:
                raise OptionError(f"{path} gives {name!r} twice; expected it at the top or in its table, not both.")
            found[name] = entry
    return found


def _spec(path: str | Path, keys: dict[str, Any]) -> Spec | None:
    texts = [key for key in TEXT_KEYS if key in keys]
    pictures = [key for key in PICTURE_KEYS if key in keys]
    if texts and pictures:
        raise OptionError(f"{path} gives {pictures[0]!r}, of a picture, and {texts[0]!r}, of a text; expected one of the two.")
    if texts:
        missing = [key for key in ("length", "vocabulary") if key not in keys]
        if missing:
            raise OptionError(f"{path} gives {texts[0]!r} of a text without {missing[0]!r}; add both length and vocabulary.")
        return TextSpec(**{key: keys[key] for key in texts})
    if "shape" not in keys:
        if "mean" in keys or "std" in keys:
            raise OptionError(f"{path} gives mean or std without a shape; add shape = [C, H, W].")
        return None
    shape = keys["shape"]
    _expect(isinstance(shape, list) and all(_whole(side) for side in shape), path, "shape", shape, "[C, H, W]")
    for name in ("mean", "std"):
        value = keys.get(name, 0.0)
        _expect(
            _number(value) or (isinstance(value, list) and all(_number(entry) for entry in value)),
            path, name, value, "a number, or one per channel",
        )  # fmt: skip
    mean, std = (tuple(value) if isinstance(value, list) else value for value in (keys.get("mean", 0.0), keys.get("std", 1.0)))
    return ImageSpec(shape=tuple(shape), mean=mean, std=std)


def _expect(held: bool, path: str | Path, key: str, value: Any, expected: str) -> None:
    if not held:
        raise OptionError(f"{path} gives {key} = {value!r}; expected {expected}.")


def _label(value: object) -> bool:
    return _number(value) or (isinstance(value, list) and value != [] and all(_whole(entry) for entry in value))


def _even(labels: list[Any] | None) -> bool:
    """Whether all labels are numbers, or lists of one length."""
    return len({len(entry) if isinstance(entry, list) else None for entry in labels or ()}) < 2


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
