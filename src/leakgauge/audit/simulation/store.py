"""A simulation's folder: one JSON (and one safetensors) file per finished attack, and the rounds with what was observed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from leakgauge.audit.folder import strict_json
from leakgauge.audit.record import Conditions
from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.simulation.record import Leak, LeakPictures, PictureScore, RoundFacts, Setting
from leakgauge.errors import DataError

FORMAT = 1
RECORDS, ROUNDS, OBSERVATIONS = "records", "rounds", "observations"


@dataclass(frozen=True)
class Heard:
    """One message of a finished round, as it stands on disk.

    Args:
        sender, receiver, members, exact: as in `Message`.
        file: name of its observation in `observations/`, or '' where none was kept (it is not attacked).
    """

    sender: str
    receiver: str
    members: tuple[str, ...]
    exact: bool
    file: str


def plan_digest(plan: SimulationPlan, *further: str) -> str:
    """A digest of everything that the federation's course depends on, and of `further` texts."""
    kept = plan.model_dump(exclude={"name", "delta", "attack", "tradeoff", "rounds"})
    text = json.dumps([kept, *further], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def leak_key(plan: SimulationPlan, source: str, heard: Heard, number: int, attack: str, variant: str) -> str:
    """The same for the same attack on the same message with the same budget."""
    settings = plan.attack
    identity = (
        source,
        number,
        heard.sender,
        heard.receiver,
        attack,
        variant,
        settings.prior,
        settings.budget,
        settings.time_limit,
    )
    digest = plan_digest(plan, repr(identity))
    words = re.sub("[^A-Za-z0-9]+", "-", f"round-{number}-{heard.sender}-{heard.receiver}-{attack.partition(':')[0]}-{variant}")
    return f"{words.strip('-')}-{digest}"


def save_leak(leak: Leak, folder: Path) -> None:
    """Writes a finished attack; the JSON file comes last, so that what is there is whole.

    Raises:
        DataError: if the folder cannot be written.
    """
    root = folder / RECORDS
    try:
        root.mkdir(parents=True, exist_ok=True)
        if leak.pictures is not None:
            tensors = {name: getattr(leak.pictures, name).contiguous() for name in ("truth", "guess", "prior")}
            temporary = root / f".{leak.key}.{os.getpid()}.safetensors"
            save_file(tensors, str(temporary))
            temporary.replace(root / f"{leak.key}.safetensors")
        write_json(root / f"{leak.key}.json", {"format": FORMAT, "pictures": leak.pictures is not None} | leak_to_json(leak))
    except (OSError, SafetensorError) as error:
        raise DataError(f"The record cannot be written to {str(root)!r}: {getattr(error, 'strerror', None) or error}.") from error


def load_leak(key: str, folder: Path) -> Leak | None:
    """A finished attack, or None where it is not there.

    Raises:
        DataError: if it is damaged.
    """
    path = folder / RECORDS / f"{key}.json"
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        pictures = LeakPictures(**load_file(str(path.with_suffix(".safetensors")))) if entries["pictures"] else None
        return leak_from_json(entries, pictures)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"The record {str(path)!r} is damaged ({error}); delete it and run again.") from error


def leak_to_json(leak: Leak) -> dict[str, Any]:
    """A leak as strict JSON, without its pictures."""
    entries = {name: value for name, value in vars(leak).items() if name not in ("pictures", "scores", "conditions", "setting")}
    entries |= {"scores": [asdict(score) for score in leak.scores]}
    entries |= {"conditions": asdict(leak.conditions), "setting": asdict(leak.setting)}
    strict: dict[str, Any] = strict_json(entries)
    return strict


def leak_from_json(entries: Mapping[str, Any], pictures: LeakPictures | None) -> Leak:
    """The inverse of `leak_to_json`.

    Raises:
        KeyError, TypeError, ValueError: if an entry is missing or of the wrong kind.
    """
    conditions, setting = entries["conditions"], entries["setting"]
    kept = ("key", "round", "sender", "receiver", "attack", "variant", "skipped", "outcome", "outcome_text", "cause")
    return Leak(
        **{name: entries[name] for name in kept},
        evaluations=int(entries["evaluations"]),
        seconds=_number(entries["seconds"]),
        members=tuple(entries["members"]),
        notes=tuple(entries["notes"]),
        scores=tuple(_score(score) for score in entries["scores"]),
        conditions=Conditions(**{**conditions, "shape": tuple(conditions["shape"]), "knowledge": tuple(conditions["knowledge"])}),
        setting=Setting(**{**setting, "accuracy": _number(setting["accuracy"])}),
        pictures=pictures,
    )


def save_round(facts: RoundFacts, heard: tuple[Heard, ...], folder: Path) -> None:
    """Writes a finished round.

    Raises:
        DataError: if the folder cannot be written.
    """
    entries = strict_json(asdict(facts)) | {"format": FORMAT, "messages": [asdict(message) for message in heard]}
    try:
        (folder / ROUNDS).mkdir(parents=True, exist_ok=True)
        write_json(folder / ROUNDS / f"{facts.index}.json", entries)
    except OSError as error:
        raise DataError(f"The round cannot be written to {str(folder)!r}: {error.strerror or error}.") from error


def load_round(index: int, folder: Path) -> tuple[RoundFacts, tuple[Heard, ...]] | None:
    """A finished round, or None where it is not there.

    Raises:
        DataError: if it is damaged.
    """
    path = folder / ROUNDS / f"{index}.json"
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        heard = tuple(Heard(**{**message, "members": tuple(message["members"])}) for message in entries["messages"])
        facts = RoundFacts(
            index=int(entries["index"]),
            accuracy=_number(entries["accuracy"]),
            loss=_number(entries["loss"]),
            dropped=tuple((str(name), str(reason)) for name, reason in entries["dropped"]),
            seconds=_number(entries["seconds"]),
            note=str(entries["note"]),
        )
        return facts, heard
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The round {str(path)!r} is damaged ({error}); delete it and run again.") from error


def write_json(path: Path, entries: Mapping[str, Any]) -> None:
    """Strict JSON under a temporary name, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _score(entries: Mapping[str, Any]) -> PictureScore:
    numbers = ("mse", "psnr", "ssim", "mse_unclamped", "rdlv", "rdlv_released", "prior_ssim", "probability")
    return PictureScore(**{**entries, **{name: _number(entries[name]) for name in numbers}})


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
