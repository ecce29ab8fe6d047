"""Probe: one attack within a time limit on one observation, and what it found, in a few numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leakgauge.attacks.run import attack
from leakgauge.audit.case import attack_call
from leakgauge.audit.record import finite
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.spec import ImageSpec
from leakgauge.errors import KnowledgeError, OptionError, ShapeError, UnsupportedError
from leakgauge.measures.identification import identification
from leakgauge.measures.rdlv import rdlv
from leakgauge.measures.score import score_tensor
from leakgauge.registry import find, make
from leakgauge.truth.batch import Batch


@dataclass(frozen=True)
class Private:
    """What only the client has: the batch, and with what a reconstruction of it is compared.

    Args:
        batch: the private examples of this update.
        decoys: (M, *shape) in model space: other examples of the same class and source, for identification; or None.
        prior: (C, H, W) in model space: what anybody could guess, for RDLV; by default the mean of the decoys.

    Raises:
        ShapeError: if decoys or prior do not have the shape of the batch's inputs.
    """

    batch: Batch
    decoys: Tensor | None = field(default=None, repr=False)
    prior: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.batch.inputs, Tensor):
            return
        shape = tuple(self.batch.inputs.shape[1:])
        for name, given in (("decoys", None if self.decoys is None else self.decoys.shape[1:]), ("prior", _shape(self.prior))):
            if given is not None and tuple(given) != shape:
                raise ShapeError(f"Private.{name} has inputs of shape {tuple(given)}; the batch's have {shape}.")


@dataclass(frozen=True)
class Finding:
    """What a probe found. Numbers that need the truth are NaN without it.

    Args:
        attack: as it was called.
        outcome: name of the Outcome.
        explains: the recomputed update agrees to rounding.
        records: number of reconstructions.
        certified: how many of them are certified without the truth.
        psnr, ssim, rdlv: of the private example that came out best; dB, and without unit.
        rank: best rank of a private example among decoys, 1 = nearer than all; 0 where there is no decoy.
        probability: of such a rank for a reconstruction that knows nothing.
        decoys: how many.
        seconds: of the attack and its scores.
        notes: what the attack states, and why it did not apply where it did not.
    """

    attack: str
    outcome: str
    explains: bool = False
    records: int = 0
    certified: int = 0
    psnr: float = math.nan
    ssim: float = math.nan
    rdlv: float = math.nan
    rank: int = 0
    probability: float = math.nan
    decoys: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: NaN as null, infinity as 'inf'."""
        return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Probe:
    """An attack as on the command line, with a limit in seconds.

    Args:
        attack: 'NAME' or 'NAME:k=v,..'.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        time_limit: seconds after which the attack ends with its best so far, > 0.
        seed: of its draws.

    Raises:
        OptionError: for an unknown attack or option, or a time limit that is no number > 0.
    """

    attack: str = "linear-layer"
    budget: str | int = "fast"
    time_limit: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        name, options = attack_call(self.attack)
        make("attacks", name, **options)
        if isinstance(self.time_limit, bool) or not isinstance(self.time_limit, int | float) or not self.time_limit > 0:
            raise OptionError(f"Probe.time_limit is {self.time_limit!r}; expected seconds > 0.")

    def run(
        self,
        seen: Observation,
        private: Private | None = None,
        *,
        time_limit: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Finding:
        """Attacks the observation and, where the truth is at hand, compares; an attack that does not apply is a finding too.

        Args:
            seen: the observation; the attack sees nothing else but the prior.
            private: the truth, on the client's own machine.
            time_limit: seconds, where less than the probe's own are left.
            cancelled: polled during the attack; True ends it with what was best so far.

        Raises:
            LeakgaugeError: for an observation or truth that cannot be used.
        """
        name, options = attack_call(self.attack)
        takes = inspect.signature(find("attacks", name)).parameters
        if private is not None and private.prior is not None and "prior" in takes and seen.pictures is not None:
            options.setdefault("prior", _pixels(private.prior, seen.pictures))
        try:
            guess = attack(
                seen,
                name,
                seed=self.seed,
                budget=self.budget,
                time_limit=min(self.time_limit, math.inf if time_limit is None else time_limit),
                device="cpu",
                cancelled=cancelled,
                **options,
            )
        except (UnsupportedError, KnowledgeError) as reason:
            return Finding(self.attack, "UNSUPPORTED", notes=(str(reason),))
        found = Finding(
            attack=self.attack,
            outcome=guess.outcome.name,
            explains=guess.explains,
            records=len(guess.inputs),
            certified=int(guess.certified.sum()),
            seconds=guess.seconds,
            notes=guess.stats.notes,
        )
        return found if private is None else compared(found, guess, private)


def compared(found: Finding, guess: Reconstruction, private: Private) -> Finding:
    """A finding with the numbers that need the truth; the same where the truth is no picture."""
    batch = private.batch
    if batch.pictures is None or not isinstance(batch.inputs, Tensor):
        return found
    scores = score_tensor(batch, guess.inputs, guess.labels)
    found = replace(found, psnr=_largest(scores.psnr), ssim=_largest(scores.ssim))
    truth, guessed = _pixels(batch.inputs, batch.pictures), _pixels(guess.inputs, batch.pictures)
    prior = private.prior
    if prior is None and private.decoys is not None:
        prior = private.decoys.mean(0)
    if prior is not None and min(batch.pictures.shape[1:]) >= 3:
        found = replace(found, rdlv=_largest(rdlv(truth, guessed, _pixels(prior, batch.pictures))))
    matched = scores.order >= 0
    if private.decoys is not None and bool(matched.any()):
        line_up = identification(truth[matched], guessed[scores.order[matched]], _pixels(private.decoys, batch.pictures))
        best = int(line_up.rank.min())
        found = replace(found, rank=best, probability=best / (line_up.decoys + 1), decoys=line_up.decoys)
    return found


def _pixels(inputs: Tensor, spec: ImageSpec) -> Tensor:
    return spec.denormalise(inputs.detach().to("cpu", torch.float64)).clamp(0.0, 1.0)


def _largest(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.max()) if len(known) else math.nan


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
