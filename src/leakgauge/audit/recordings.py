"""Recordings of a running system: which files there are, whose they are, and leakage per round and client."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakgauge.audit.record import Record, finite, verdict_of
from leakgauge.audit.text_record import TextScore
from leakgauge.core.observation import Observation
from leakgauge.errors import DataError
from leakgauge.measures.rdlv import rdlv
from leakgauge.truth import Batch

TRUTH = "truth"
LEAKAGE_FILE = "leakage.json"


@dataclass(frozen=True)
class Recording:
    """One recorded observation.

    Args:
        path: of the observation.
        truth: of the private batch, or None where it was not kept.
    """

    path: Path
    truth: Path | None = None


@dataclass(frozen=True)
class Leakage:
    """What one attack got out of one recording; NaN where the truth is not known.

    Args:
        file: name of the observation's file.
        round, client: as the engine counts and names them; None and '' where the recording does not say.
        outcome: name of the Outcome.
        explains: whether a reconstruction explains the update to rounding.
        certified: reconstructions that are certified without the truth.
        residual: relative distance between the recorded update and the one recomputed from the reconstruction.
        examples: in the client's batch.
        verdict: 'rebuilt', 'partly', 'not found' for the example that came out best; '' without a truth.
        psnr, ssim, rdlv: of the example that came out best.
        seconds: that the attack took.
        token_accuracy, rougeL: of the text that came out best.
    """

    file: str
    round: int | None
    client: str
    outcome: str
    explains: bool
    certified: int
    residual: float
    examples: int
    verdict: str
    psnr: float
    ssim: float
    rdlv: float
    seconds: float
    token_accuracy: float = math.nan
    rougeL: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


def find_recordings(folder: str | Path, truths: str | Path | None = None) -> list[Recording]:
    """Every observation below a folder, in the order of their names, each with its truth where one of the same name exists.

    A safetensors file whose name or folder contains 'truth' is a truth, every other one an observation.

    Args:
        folder: searched with all its subfolders.
        truths: folder of truths; without it none is used.

    Raises:
        DataError: if a folder is missing, or there is no observation in it.
    """
    root = Path(folder)
    for place in (root, *([Path(truths)] if truths is not None else [])):
        if not place.is_dir():
            raise DataError(f"There is no folder {str(place)!r}; expected a folder of recordings.")
    found = [path for path in sorted(root.rglob("*.safetensors")) if not _is_truth(path.relative_to(root))]
    if not found:
        raise DataError(f"There is no observation in {str(root)!r}; expected files NAME.safetensors as a recorder writes them.")
    known = {} if truths is None else {_stem(path): path for path in sorted(Path(truths).rglob("*.safetensors"))}
    return [Recording(path, known.get(path.name.removesuffix(".safetensors"))) for path in found]


def title_of(seen: Observation, path: Path, attack: str) -> str:
    """The title of a recording's record: engine, round and client where they are known."""
    source = seen.provenance
    return f"{attack} on {path.name}" if source is None else f"{source.words}: {attack}"


def leakage_of(seen: Observation, record: Record, path: Path, prior: Tensor | None) -> Leakage:
    """The line of one recording.

    Args:
        seen: the observation.
        record: of the attack on it.
        path: of the observation.
        prior: (C, H, W) in [0, 1] for RDLV, or None.
    """
    source, best = seen.provenance, record.worst
    base = Leakage(
        file=path.name,
        round=None if source is None else source.round,
        client="" if source is None else source.client,
        outcome=record.outcome,
        explains=record.explains,
        certified=record.certified,
        residual=record.residual,
        examples=seen.num_examples,
        verdict="",
        psnr=math.nan,
        ssim=math.nan,
        rdlv=math.nan,
        seconds=record.seconds,
    )
    if best is None:
        return replace(base, verdict="not found") if record.scores else base
    control = record.control.scores[best.index] if record.control else None
    if isinstance(best, TextScore):
        return replace(base, verdict=verdict_of(best, control), token_accuracy=best.token_accuracy, rougeL=best.rougeL)
    values = [score.ssim for score in record.picture_scores if not math.isnan(score.ssim)]
    relative = math.nan
    shown = record.pictures
    if prior is not None and shown is not None and shown.truth is not None and min(prior.shape[1:]) >= 3:
        known = rdlv(shown.truth, shown.guess, prior)
        known = known[~known.isnan()]
        relative = float(known.max()) if len(known) else math.nan
    return replace(
        base, verdict=verdict_of(best, control), psnr=best.psnr, ssim=max(values, default=math.nan), rdlv=relative
    )  # fmt: skip


def mean_of_others(batches: Mapping[str, Batch], name: str, whose: Mapping[str, str]) -> Tensor | None:
    """The mean picture, (C, H, W) in [0, 1], of all truths of other clients; None where there is none of the same shape.

    Args:
        batches: name of a recording -> its truth.
        name: the recording whose client is left out.
        whose: name of a recording -> its client.
    """
    own = batches.get(name)
    if own is None or own.pictures is None or not isinstance(own.inputs, Tensor):
        return None
    rows = [
        batch.pictures.denormalise(batch.inputs.to(torch.float64)).clamp(0, 1)
        for other, batch in batches.items()
        if whose.get(other) != whose.get(name)
        and batch.pictures is not None
        and isinstance(batch.inputs, Tensor)
        and batch.pictures.shape == own.pictures.shape
    ]
    return torch.cat(rows).mean(0) if rows else None


def save_leakage(lines: Sequence[Leakage], attack: str, folder: Path) -> Path:
    """Writes all lines to `leakage.json`.

    Raises:
        DataError: if it cannot be written.
    """
    path = folder / LEAKAGE_FILE
    content = {"attack": attack, "recordings": [line.to_json() for line in lines]}
    try:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}).") from error
    return path


def _is_truth(path: Path) -> bool:
    return any(TRUTH in part for part in path.parts)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".safetensors").removesuffix(f".{TRUTH}")
