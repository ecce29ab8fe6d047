"""The state of a cell's network: as it starts, from a checkpoint, or trained here by federated rounds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.states import Trained, trained_of
from leakgauge.audit.plan.tables import UNTRAINED, TrainedTable
from leakgauge.audit.store.failures import told
from leakgauge.audit.text_case import load_batch
from leakgauge.core.state_files import load_state, read_state
from leakgauge.errors import DataError
from leakgauge.federated.federation import Federation
from leakgauge.federated.member import Member
from leakgauge.federated.records import FederationProgress, Round
from leakgauge.models import ModelName, load_model
from leakgauge.models.huggingface import holds_weights
from leakgauge.randomness import rng
from leakgauge.truth import Batch

FOLDER = "states"


@dataclass(frozen=True)
class TrainedFile:
    """A trained state on disk.

    Args:
        path: of the file.
        words: the model's state for the record.
        data: what it was trained on.
    """

    path: str
    words: str
    data: str


@dataclass(frozen=True)
class Weights:
    """What a network is loaded with.

    Args:
        words: the model's state for the record.
        place: the file as a reader of the record would name it.
        tensors: parameters and buffers by name.
        data: what it was trained on, where that is known.
    """

    words: str
    place: str
    tensors: Mapping[str, Tensor]
    data: str = ""

    def load_into(self, model: nn.Module) -> None:
        """Loads all tensors, in place.

        Raises:
            ModelError, ShapeError: if they do not fit.
        """
        load_state(model, self.tensors, self.place)


def state_words(model: str) -> str:
    """What is said of a network that is loaded with nothing: 'untrained', or 'as given' where its name brings weights."""
    parsed = ModelName.parse(model)
    fresh = parsed.place in ("network", "timm", "torchvision") or (parsed.place == "hf" and not holds_weights(parsed.name))
    return UNTRAINED if fresh else "as given"


def checkpoint(path: str) -> Weights:
    """The weights in a file.

    Raises:
        UpdateError: if it cannot be read.
    """
    return Weights(f"weights from {Path(path).name}", path, read_state(Path(path).expanduser()))


def trained(
    cell: Cell,
    table: TrainedTable,
    folder: Path,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[FederationProgress], None] | None = None,
) -> TrainedFile | None:
    """The file of a cell's trained state, made where it is not there yet; None where cancelled.

    The file's name is a hash over everything that the training depends on, so what is there is never trained again.

    Args:
        cell: its state is 'trained:..'.
        table: the plan's [training].
        folder: of the run; the file is in `states/`.
        cancelled: polled before each client's turn; finished rounds are kept.
        progress: called after each client's turn.

    Raises:
        LeakgaugeError: for options or data that cannot be used, or a folder that cannot be written.
    """
    plan = trained_of(cell.state, table)
    batch, model = load_batch(plan.data, cell.model), _network(cell)
    path = folder / FOLDER / f"{_digest(cell, plan, batch)}.safetensors"
    words = _words_in(path)
    if words is not None:
        return TrainedFile(str(path), words, plan.data)
    members, validation = _shared_out(plan, batch)
    federation = Federation(model, members, loss=cell.loss, validation=validation)
    rounds = path.with_suffix(".rounds")
    last: Round | None = None
    for played in federation.run(plan.rounds, plan.seed, rounds, progress, cancelled):
        last = played
    if last is None:  # all of them had been done before a kill
        last = next((played for played in federation.finished(rounds, plan.seed) if played.index == plan.rounds), None)
    if last is None or last.index < plan.rounds:
        return None
    known = "" if math.isnan(last.accuracy) else f" ({last.accuracy:.0%} accuracy)".replace("%", " %")
    words = f"trained here for {plan.rounds} round{'s' if plan.rounds > 1 else ''}{known}"
    _write(folder, path, save({name: tensor.cpu().contiguous() for name, tensor in last.state.items()}, {"words": words}))
    shutil.rmtree(rounds, ignore_errors=True)
    return TrainedFile(str(path), words, plan.data)


def weights_in(content: bytes, file: TrainedFile) -> Weights:
    """The weights of a trained state, from the bytes of its file.

    Raises:
        DataError: if they are damaged.
    """
    name = Path(file.path).name
    try:
        return Weights(file.words, f"{FOLDER}/{name}", load(content), file.data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"The trained state {name} is damaged ({error}); delete the file and run again.") from error


def _network(cell: Cell) -> nn.Module:
    batch = load_batch(cell.data, cell.model)
    shape = batch.pictures.shape if batch.pictures else None
    return load_model(cell.model, num_classes=cell.num_classes, input_shape=shape, seed=cell.seed)


def _shared_out(plan: Trained, batch: Batch) -> tuple[tuple[Member, ...], Batch | None]:
    """The clients, with equal shares of the shuffled examples, and the examples held back."""
    left = len(batch) - plan.validation
    if left < plan.clients:
        raise DataError(
            f"training.data has {len(batch)} example(s); expected at least {plan.clients + plan.validation}, one for each of "
            f"{plan.clients} clients and {plan.validation} for validation."
        )
    order = torch.randperm(len(batch), generator=rng(plan.seed, "audit", "training")).tolist()
    members = tuple(
        Member(f"client-{place + 1}", _part(batch, order[place : left : plan.clients]), plan.training)
        for place in range(plan.clients)
    )
    return members, _part(batch, order[left:]) if plan.validation else None


def _part(batch: Batch, rows: list[int]) -> Batch:
    inputs = batch.inputs[rows] if isinstance(batch.inputs, Tensor) else {key: each[rows] for key, each in batch.inputs.items()}
    return Batch(inputs, batch.labels[rows], batch.spec)


def _digest(cell: Cell, plan: Trained, batch: Batch) -> str:
    """32 hex digits over everything that the training depends on, the examples' content included."""
    facts = [repr(plan), cell.model, cell.num_classes, cell.seed, cell.loss, version("leakgauge"), version("torch")]
    digest = hashlib.sha256(json.dumps(facts).encode())
    held = batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}
    shape = load_batch(cell.data, cell.model).pictures
    digest.update(repr(shape and shape.shape).encode())
    for tensor in (*held.values(), batch.labels):
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _words_in(path: Path) -> str | None:
    """What a state's file says about itself; None where there is no whole file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return str((file.metadata() or {})["words"])
    except (OSError, SafetensorError, KeyError):
        return None


def _write(folder: Path, path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.stem}.new")
    with told(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
