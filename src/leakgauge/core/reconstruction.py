"""What an attack returns: the rebuilt examples, and what the solver can know about them without the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Outcome(Enum):
    """What a solver can know. Never 'success': that is for measures, which see the truth."""

    DETERMINED = "The update determines the result, up to rounding."
    UNDERDETERMINED = "The update leaves part of the input open; many inputs explain it equally well."
    INCONSISTENT = "No input explains the update exactly; it was probably rounded, noised or made by another protocol."
    CONVERGED = "The search stopped at a point that explains the update to its tolerance."
    STEP_LIMIT = "The search used up its budget of gradient evaluations before it converged."
    TIMEOUT = "The search was stopped by the clock or by hand; this is the best it had by then."
    NONFINITE = "The search ran into values that are not finite."
    SATURATED = "The network's activations are saturated: the update hardly depends on the input."
    NO_GRADIENT_SIGNAL = "The update is zero, or does not depend on the input."
    UNSUPPORTED = "This method cannot treat this network or protocol."


@dataclass(frozen=True)
class CurvePoint:
    """Objective of the best candidate after so many gradient evaluations."""

    evaluations: int
    objective: float


@dataclass(frozen=True)
class Frame:
    """The best candidate after so many gradient evaluations: one picture of the filmstrip."""

    evaluations: int
    inputs: Tensor  # (N, *shape) in model space


@dataclass(frozen=True)
class LayerReport:
    """One row of a closed form's table: what a layer's equations gave.

    Args:
        name: of the layer, or of several solved together.
        method: which equations were used.
        unknowns: values of the layer's input.
        equations: rows of the system, dependent ones counted too.
        rank: of the system; below `unknowns` the input is not determined by this layer alone.
        condition: largest over smallest singular value of the balanced system that the solver met.
        residual: ||A x - b|| / ||b||.
        predicted_error: expected error of a value of the input, root mean square; inf where rank is missing.
    """

    name: str
    method: str
    unknowns: int
    equations: int
    rank: int
    condition: float
    residual: float
    predicted_error: float

    @property
    def rank_deficiency(self) -> int:
        """unknowns - rank."""
        return self.unknowns - self.rank


@dataclass(frozen=True)
class Stats:
    """Work done and what it led to.

    Args:
        evaluations: gradient evaluations (or products of a linear operator) over all restarts.
        restarts: independent searches begun.
        objective: the attack's own objective at the result; NaN for a closed form without one.
        residual: ||recomputed update - observed update|| / ||observed update||; NaN where it was not recomputed.
        curve: objective over evaluations, of the restart that was chosen.
        frames: candidates over evaluations, of the restart that was chosen.
        restart_objectives: final objective of each restart, in order.
        restart_outcomes: outcome of each restart, in order.
        cause: one sentence about why the search ended as it did, or ''.
        notes: conditions that the attack itself states, such as how labels were found.
        options: the options the attack ran with.
        seed: the seed of its draws, where it was called with one.
        layers: what each layer's equations gave, output side first; empty for attacks that solve no layers.
        radius: error radius that the attack itself states, as a share of the range; inf where there is none, NaN where the
            attack states none.
    """

    evaluations: int = 0
    restarts: int = 1
    objective: float = float("nan")
    residual: float = float("nan")
    curve: tuple[CurvePoint, ...] = ()
    frames: tuple[Frame, ...] = ()
    restart_objectives: tuple[float, ...] = ()
    restart_outcomes: tuple[Outcome, ...] = ()
    cause: str = ""
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    layers: tuple[LayerReport, ...] = ()
    radius: float = float("nan")


@dataclass(frozen=True)
class Reconstruction:
    """Rebuilt examples, with a verdict that does not need the truth.

    Args:
        inputs: (N, *shape) in model space; may hold fewer records than the batch.
        labels: (N,) class indices, or None where the attack names none.
        outcome: what the solver can know.
        explains: the update recomputed from the result agrees with the observed one to rounding. Necessary only.
        certified: (N,) bool: explains, and locally unique (DESIGN rule 2).
        confidence: (N,) in [0, 1], the attack's own.
        stats: work and diagnostics.
        seconds: wall-clock time.
        attack: the attack's name.
    """

    inputs: Tensor
    labels: Tensor | None
    outcome: Outcome
    explains: bool
    certified: Tensor
    confidence: Tensor
    stats: Stats
    seconds: float
    attack: str = ""

    def __len__(self) -> int:
        return len(self.inputs)


def unverified(num_records: int) -> Tensor:
    """(N,) bool tensor of False: nothing is certified."""
    return torch.zeros(num_records, dtype=torch.bool)
