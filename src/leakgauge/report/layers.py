"""Layers in words: how a closed form solved a network layer by layer, and what counting says of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leakgauge.audit.architecture import Architecture
from leakgauge.audit.record import Record
from leakgauge.report.words import listed, number

HEADINGS = ("Layer", "How its input was computed", "Unknown values", "Equations", "Missing equations", "Expected error")
COUNTED = ("Layer", "Kind", "Unknown values", "Equations", "Independent", "Missing", "What it means")
STORY = (
    "The attack went back through the network, from its output to the picture, and computed what entered each layer from that "
    "layer's equations."
)
ABOUT_COUNTS = (
    "Counted from the architecture alone, for one picture and one gradient, without any data: how many values enter a layer, and "
    "how many independent equations about them a gradient contains. What the first layer leaves open only prior knowledge can "
    "fill in."
)


@dataclass(frozen=True)
class LayerRow:
    """One line of a table of layers, in words; `cells` follow the headings after the first."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """What counting says of one network, in words."""

    name: str
    shape: str
    verdict: str
    deficit: str
    rows: tuple[LayerRow, ...]


def estimate(missing: int) -> str:
    """A rank that is missing; attacks estimate it from one random direction, so that larger numbers get two digits."""
    return f"about {float(f'{missing:.1e}'):,.0f}" if missing > 20 else f"{missing}"


def layer_rows(record: Record) -> tuple[LayerRow, ...]:
    """The closed form's table, output side first."""
    rows = []
    for layer in record.layers:
        error = "not determined" if math.isinf(layer.predicted_error) else number(layer.predicted_error, 2)
        counts = (f"{layer.unknowns:,}", f"{layer.equations:,}", estimate(layer.rank_deficiency))
        rows.append(LayerRow(layer.name, (layer.method, *counts, error)))
    return tuple(rows)


def layers_sentence(record: Record) -> str:
    """What the table shows, in one or two sentences; '' without a table."""
    if not record.layers:
        return ""
    short = [layer for layer in record.layers if layer.rank_deficiency]
    if not short:
        return f"{STORY} In the end none of them lacked equations."
    last = record.layers[-1]
    lacking = listed([f"{layer.name} lacked {estimate(layer.rank_deficiency)} for {layer.unknowns:,} values" for layer in short])
    if not last.rank_deficiency:
        return f"{STORY} Not every layer had enough of them by itself: {lacking}. {last.name}: {last.method}."
    return (
        f"{STORY} Not every layer had enough of them: {lacking}. So many values of what enters {last.name} do not follow from "
        "the update, and what stands there instead is a guess."
    )


def architecture_rows(architecture: Architecture) -> tuple[LayerRow, ...]:
    """The count's table, input side first."""
    rows = []
    for layer in architecture.layers:
        if layer.rank is None:
            counts = (f"{layer.unknowns:,}", "-", "-", "-")
        else:
            equations = layer.weight_equations + layer.gradient_equations
            counts = (f"{layer.unknowns:,}", f"{equations:,}", f"{layer.rank:,}", f"{layer.rank_deficiency or 0:,}")
        rows.append(LayerRow(layer.name, (layer.type, *counts, layer.verdict)))
    return tuple(rows)


def network_in_words(architecture: Architecture) -> Network:
    """A network's table with what it means."""
    shape = " x ".join(map(str, architecture.shape))
    return Network(
        architecture.model, shape, architecture.verdict, deficit_sentence(architecture), architecture_rows(architecture)
    )


def deficit_sentence(architecture: Architecture) -> str:
    """The security metric in a sentence; why there is none otherwise."""
    if architecture.deficit is None:
        return f"No layer can be counted: {'; '.join(architecture.reasons)}." if architecture.reasons else ""
    if architecture.deficit == 0:
        text = "Security deficit (Chen & Campbell 2022) 0: every layer that was counted has enough equations."
    else:
        text = (
            f"Security deficit (Chen & Campbell 2022) {architecture.deficit:,.0f}: equations missing, weighted by depth. "
            "It predicts attacks layer by layer, and only those."
        )
    return text + (f" Not counted: {'; '.join(architecture.reasons)}." if architecture.reasons else "")
