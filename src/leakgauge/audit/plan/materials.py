"""Batches and networks of a plan, tried once: whether they are there, and whether they fit each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from leakgauge.audit.networks import label_problem, outputs_of
from leakgauge.audit.plan.expand import grid_of
from leakgauge.audit.plan.states import is_checkpoint
from leakgauge.audit.plan.tables import AuditPlan
from leakgauge.audit.text_case import check_network, load_batch
from leakgauge.audit.toml.lines import Place
from leakgauge.audit.toml.sentences import path_of
from leakgauge.core.state_files import read_state
from leakgauge.data.demo import DEFAULT_SIZE
from leakgauge.data.load import list_items
from leakgauge.data.spec import parse_data_spec
from leakgauge.data.text import is_text
from leakgauge.errors import DataError, LeakgaugeError, ModelError
from leakgauge.models import ModelName, load_model
from leakgauge.truth import Batch

LARGEST_BATCH = 2**29  # bytes of pixels
LARGEST_NETWORK = 2**36  # bytes of weights
LARGE = 2**28  # bytes of weights beyond which a network is looked at without them
WEIGHTLESS = ("network", "timm", "torchvision")  # places whose networks are built without memory for a first look


def material_problems(plan: AuditPlan) -> Iterator[tuple[Place, str]]:
    """(place, sentence) for every batch, network or checkpoint that is not there or does not fit."""
    used = {(cell.data, cell.model) for cell in grid_of(plan)}
    for index, state in enumerate(plan.states):
        if is_checkpoint(state.strip()):
            yield from tried(("states", index), read_state, state.strip())
    batches: dict[tuple[str, str], Batch] = {}
    for index, data in enumerate(text.strip() for text in plan.data):
        for model in (text.strip() for text in plan.models):
            if (data, model) not in used:
                continue
            same = (data, model if is_text(data) else "")
            if same not in batches:
                yield from tried(("data", index), lambda at=same: batches.update({at: _batch(*at)}))
    networks: dict[tuple[Any, ...], nn.Module] = {}
    for index, model in enumerate(text.strip() for text in plan.models):
        for data in (text.strip() for text in plan.data):
            if (data, model) in used:
                batch = batches[data, model if is_text(data) else ""]
                yield from tried(("models", index), _fit, plan, model, batch, networks)


def tried(place: Place, act: Callable[..., object], *arguments: Any) -> Iterator[tuple[Place, str]]:
    """The sentence of what goes wrong. Networks of one's own are built here, and may raise anything."""
    try:
        act(*arguments)
    except LeakgaugeError as error:
        yield place, f"{path_of(place)}: {error}"
    except Exception as error:  # noqa: BLE001 - a network's own, or Python's for a value that nobody checked
        text = " ".join(str(error).split())[:200].rstrip(".")
        yield place, f"{path_of(place)} cannot be used ({type(error).__name__}: {text})."


def _batch(data: str, model: str) -> Batch:
    if not is_text(data):
        spec = parse_data_spec(data)
        side = math.prod(spec.size or (DEFAULT_SIZE if spec.source == "demo" else (1, 1)))
        count = len(spec.select(len(list_items(spec))))
        if 12 * side * count > LARGEST_BATCH:
            raise DataError(
                f"The batch {data!r} takes {12 * side * count / 1e9:.1f} GB; expected at most {LARGEST_BATCH / 1e9:.1f}."
            )
    return load_batch(data, model)


def _fit(plan: AuditPlan, model: str, batch: Batch, networks: dict[tuple[Any, ...], nn.Module]) -> None:
    """Builds a network once for each shape of inputs, and looks whether it takes the batch and has an output for each label."""
    shape = batch.pictures.shape if batch.pictures else None
    if (model, shape) not in networks:
        networks[model, shape] = _built(plan, model, shape)
    network = networks[model, shape]
    if shape is None:
        check_network(network, batch, model)
        return
    outputs = outputs_of(network, model, shape)
    problem = label_problem(batch, outputs, plan.loss, model, "num_classes = ")
    if problem:
        raise ModelError(problem)


def _built(plan: AuditPlan, model: str, shape: tuple[int, ...] | None) -> nn.Module:
    """As it is; without memory for its weights where they are many."""
    blank = weightless(model, plan.num_classes, shape)
    size = 0 if blank is None else bytes_of(blank)
    if size > LARGEST_NETWORK:
        raise ModelError(f"The model {model!r} has {size / 1e9:.0f} GB of weights; expected at most {LARGEST_NETWORK / 1e9:.0f}.")
    return blank if blank is not None and size > LARGE else load_model(model, num_classes=plan.num_classes, input_shape=shape)


def weightless(model: str, num_classes: int | None, shape: tuple[int, ...] | None) -> nn.Module | None:
    """A network without memory for its weights; None where it cannot be built so, and the true one says what is wrong."""
    if shape is None or ModelName.parse(model).place not in WEIGHTLESS:
        return None
    try:
        with torch.device("meta"):
            return load_model(model, num_classes=num_classes, input_shape=shape)
    except Exception:  # noqa: BLE001 - a library's network may do anything while it is built
        return None


def bytes_of(network: nn.Module) -> int:
    """Bytes of a network's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
