"""Architecture: what a network gives away by counting, beside the records of a run, on disk as `DIR/architectures.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from leakgauge.analysis.rank_profile import LayerRank, profile_of
from leakgauge.analysis.security import security_of
from leakgauge.audit.folder import strict_json
from leakgauge.chain.trace import trace
from leakgauge.errors import DataError, LeakgaugeError, UnsupportedError

FILE = "architectures.json"
KINDS = {"name": str, "type": str, "method": str, "reason": str, "verdict": str, "side": bool, "limited": bool}  # the others: int


@dataclass(frozen=True)
class Architecture:
    """A network's rank profile, for one example and one shared gradient.

    Args:
        model: name of the network, with options.
        shape: (C, H, W) of one input.
        layers: as in `RankProfile`, input side first.
        deficit: of the security metric; None where nothing can be counted.
        undetermined: input values that the first layer leaves open, at least; None where that is not known.
        verdict: the profile in a sentence.
        reasons: every layer that cannot be counted, with why.
    """

    model: str
    shape: tuple[int, ...]
    layers: tuple[LayerRank, ...]
    deficit: float | None
    undetermined: int | None
    verdict: str
    reasons: tuple[str, ...] = ()

    @property
    def inputs(self) -> int:
        """Values of one input."""
        return prod(self.shape)


def architecture_of(network: nn.Module, model: str, shape: tuple[int, ...]) -> Architecture:
    """Counts a network; one that cannot be read comes back without layers, with the reason.

    Args:
        network: any module.
        model: its name.
        shape: of one input.
    """
    try:
        profile = profile_of(network, trace(network, shape))
    except LeakgaugeError as error:
        return Architecture(model, shape, (), None, None, "Nothing can be counted here.", (str(error).rstrip("."),))
    try:
        deficit = security_of(profile).deficit
    except UnsupportedError:
        deficit = None
    return Architecture(model, shape, profile.layers, deficit, profile.undetermined, profile.verdict, profile.reasons)


def save_architectures(architectures: Sequence[Architecture], directory: str | Path) -> None:
    """Writes them into a run folder, in place of those that are there.

    Raises:
        DataError: if the folder cannot be written.
    """
    text = json.dumps(strict_json([asdict(one) for one in architectures]), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{FILE} cannot be written to {str(directory)!r}: {error.strerror or error}.") from error


def load_architectures(directory: str | Path) -> tuple[Architecture, ...]:
    """Those of a run folder; none where there is no such file.

    Raises:
        DataError: if the file is damaged.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        return ()
    try:
        return tuple(_read(entries) for entries in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{str(path)!r} is damaged ({error}); delete it and run again.") from error


def _read(entries: dict[str, Any]) -> Architecture:
    layers = tuple(_layer(layer) for layer in entries["layers"])
    deficit, undetermined = entries["deficit"], entries["undetermined"]
    return Architecture(
        model=str(entries["model"]),
        shape=tuple(int(side) for side in entries["shape"]),
        layers=layers,
        deficit=None if deficit is None else float(deficit),
        undetermined=None if undetermined is None else int(undetermined),
        verdict=str(entries["verdict"]),
        reasons=tuple(str(reason) for reason in entries["reasons"]),
    )


def _layer(entries: dict[str, Any]) -> LayerRank:
    given = {item.name: entries[item.name] for item in fields(LayerRank)}
    for name, value in given.items():
        kind = KINDS.get(name, int)
        if not (isinstance(value, kind) or (value is None and name in ("rank", "rank_deficiency"))):
            raise TypeError(f"{name!r} of a layer is {value!r}")
    return LayerRank(**given)
