"""Provenance: where an observation of a running system was recorded, and what of its protocol was assumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leakgauge.errors import OptionError

SIDES = ("client", "server")


@dataclass(frozen=True)
class Provenance:
    """Where and when an observation was recorded. Everything in it is known to the server.

    Args:
        engine: 'flower', 'nvflare', 'opacus', 'transformers', 'torch', ...
        side: on whose machine it was recorded: 'client' or 'server'.
        round: number of the round as the engine counts it, or None.
        client: the client's name as the server knows it.
        run: the engine's own name of the run.
        assumed: fields of LocalTraining, and 'num_examples', that no configuration stated.
        notes: what the recorder saw that no field can say, as sentences.
        digests: name -> SHA-256 of the array as it crossed the wire (`array_digest`), so that a recording can be told from
            another one even where a difference of weights was rounded.

    Raises:
        OptionError: if the side is unknown.
    """

    engine: str
    side: str = "client"
    round: int | None = None
    client: str = ""
    run: str = ""
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise OptionError(f"Provenance.side is {self.side!r}; expected one of {', '.join(SIDES)}.")

    @property
    def words(self) -> str:
        """In one phrase, such as 'flower, round 3, client 17'."""
        parts = [self.engine]
        parts += [f"round {self.round}"] if self.round is not None else []
        parts += [f"client {self.client}"] if self.client else []
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `provenance_from_json` reads it."""
        return {
            "engine": self.engine,
            "side": self.side,
            "round": self.round,
            "client": self.client,
            "run": self.run,
            "assumed": list(self.assumed),
            "notes": list(self.notes),
            "digests": dict(self.digests),
        }


def provenance_from_json(record: Mapping[str, Any]) -> Provenance:
    """The provenance that a manifest describes."""
    return Provenance(
        engine=str(record["engine"]),
        side=str(record["side"]),
        round=None if record["round"] is None else int(record["round"]),
        client=str(record["client"]),
        run=str(record["run"]),
        assumed=tuple(str(entry) for entry in record["assumed"]),
        notes=tuple(str(entry) for entry in record["notes"]),
        digests={str(name): str(value) for name, value in record["digests"].items()},
    )


def array_digest(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of one array."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
