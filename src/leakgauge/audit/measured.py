"""Measures beyond the built-in scores, by name: a plug-in's own, or LPIPS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leakgauge.core.reconstruction import Reconstruction
from leakgauge.errors import OptionError
from leakgauge.measures.assign import assign
from leakgauge.measures.image import Measure
from leakgauge.registry import make, parse_call
from leakgauge.truth import Batch


@dataclass(frozen=True)
class Measured:
    """One measure of one record.

    Args:
        name: as it was asked for, options included.
        unit: '' where it has none.
        higher_is_better: for the attacker: a nearer reconstruction.
        values: one per private example, NaN where nothing was assigned to it.
    """

    name: str
    unit: str
    higher_is_better: bool
    values: tuple[float, ...]


def measures_of(texts: Sequence[str]) -> tuple[tuple[str, Measure], ...]:
    """Measures from 'NAME:k=v' texts, each with its text.

    Raises:
        OptionError: for an unknown name or option.
    """
    made = []
    for text in texts:
        name, options = parse_call(text)
        made.append((text, make("measures", name, **options)))
    return tuple(made)


def measured_by(texts: Sequence[str], batch: Batch, guess: Reconstruction) -> tuple[Measured, ...]:
    """Pictures denormalised, clamped to [0, 1] and assigned by least summed MSE, then measured.

    Raises:
        OptionError: for an unknown measure, or one that does not return one number per example.
        MissingExtraError: if a measure needs a package that is not there.
    """
    if not texts or batch.pictures is None or not isinstance(batch.inputs, torch.Tensor):
        return ()
    pair = (batch.pictures.denormalise(one.detach().to("cpu", torch.float64)) for one in (batch.inputs, guess.inputs))
    truth, found = (one.clamp(0.0, 1.0) for one in pair)
    order = assign(truth, found)
    rows = order >= 0
    results = []
    for text, measure in measures_of(texts):
        values = torch.full((len(batch),), float("nan"), dtype=torch.float64)
        if bool(rows.any()):
            numbers = measure(truth[rows], found[order[rows]])
            if numbers.shape != (int(rows.sum()),):
                raise OptionError(
                    f"The measure {text!r} returned numbers of shape {tuple(numbers.shape)}; expected one per example, "
                    f"({int(rows.sum())},)."
                )
            values[rows] = numbers.detach().to("cpu", torch.float64)
        results.append(Measured(text, measure.unit, measure.higher_is_better, tuple(values.tolist())))
    return tuple(results)
