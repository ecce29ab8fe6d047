"""Leak: one attack on one message of one round, scored, with every condition; and what a whole simulation found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from leakgauge.audit.record import ABOVE_CONTROL_DB, PARTLY_DB, REBUILT_DB, Conditions
from leakgauge.audit.simulation.plan import SimulationPlan

PLAIN, ADAPTIVE, CONTROL, PRIOR = "plain", "adaptive", "control", "prior"
REBUILT_SSIM, PARTLY_SSIM, PARTLY_RDLV, ABOVE_CONTROL_SSIM = 0.9, 0.6, 0.3, 0.2
FOUND = ("rebuilt", "partly")
IDENTIFIED = 0.05


@dataclass(frozen=True)
class PictureScore:
    """One private picture and the reconstruction assigned to it; pixels in [0, 1] after clamping.

    Args:
        client: whose picture it is.
        name: the truth's own name for it.
        mse, psnr, ssim, mse_unclamped: against the truth.
        rdlv: relative data leakage value, nearest match; NaN where the prior's SSIM is too low.
        rdlv_released: the same as the released code computes it.
        prior_ssim: SSIM of the prior: the mean of all other pictures of the class.
        rank: among decoys of the class, 1 = nearer than all; 0 where there is no decoy.
        probability: of such a rank for a reconstruction that knows nothing; NaN without decoys.
        decoys: how many.
        label, label_guess: true class, and the attack's; None where there is none.
    """

    client: str
    name: str
    mse: float
    psnr: float
    ssim: float
    mse_unclamped: float
    rdlv: float
    rdlv_released: float
    prior_ssim: float
    rank: int = 0
    probability: float = math.nan
    decoys: int = 0
    label: int | None = None
    label_guess: int | None = None


@dataclass(frozen=True)
class Setting:
    """What a figure depends on beyond `Conditions`.

    Args:
        accuracy: of the model that the message started from, on the validation pictures; NaN where not measured.
        local_steps: optimiser steps of the sender (the largest number, for a sum of several clients).
        batch_norm_mode: 'shared', 'local' or 'frozen'.
        exact: whether the attacker knows the sender's true start.
        prior: the attacker's idea of a picture, in words.
        guarantee: the verdict of the accountant on this message's clients.
        epsilon: the largest over its clients, or None.
    """

    accuracy: float
    local_steps: int
    batch_norm_mode: str
    exact: bool
    prior: str
    guarantee: str
    epsilon: float | None = None


@dataclass(frozen=True)
class LeakPictures:
    """Pixels in [0, 1], (N, C, H, W) each, in the order of the scores; NaN where no reconstruction was assigned."""

    truth: Tensor
    guess: Tensor
    prior: Tensor


@dataclass(frozen=True)
class Leak:
    """One attack (or control) on one message.

    Args:
        key: unique within a simulation.
        round: number of the round, from 1.
        sender, receiver: of the message; members: whose data it holds.
        attack: as in the plan; 'control' and 'prior' are no attacks.
        variant: 'plain', 'adaptive' (fitted to the defence), 'control' or 'prior'.
        skipped: why it was not attacked, or ''.
        outcome, outcome_text, cause, notes: what the attack itself states.
        evaluations, seconds: work done.
        scores: one per private picture; empty where nothing was attacked.
        conditions, setting: under which the scores hold.
        pictures: the tensors behind the pictures.
    """

    key: str
    round: int
    sender: str
    receiver: str
    members: tuple[str, ...]
    attack: str
    variant: str
    skipped: str
    outcome: str
    outcome_text: str
    cause: str
    notes: tuple[str, ...]
    evaluations: int
    seconds: float
    scores: tuple[PictureScore, ...]
    conditions: Conditions
    setting: Setting
    pictures: LeakPictures | None = field(default=None, repr=False)

    @property
    def is_attack(self) -> bool:
        """Whether it counts as an attempt: no control, and something was attacked."""
        return self.variant in (PLAIN, ADAPTIVE) and not self.skipped

    @property
    def channel(self) -> str:
        """Who sent it, and to whom where that is not the server."""
        return self.sender if self.receiver == "server" else f"{self.sender} to {self.receiver}"


@dataclass(frozen=True)
class RoundFacts:
    """One round: what became of the model, and who dropped out (name, reason)."""

    index: int
    accuracy: float
    loss: float
    dropped: tuple[tuple[str, str], ...]
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class ClientFacts:
    """One client in words: what it trains on, how, with which defences, and what the accountant says."""

    name: str
    examples: int
    training: str
    batch_norm: str
    defence: str
    guarantee: str
    epsilon: float | None
    uncovered: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class SimulationResult:
    """Everything that a simulation found.

    Args:
        plan: what was played.
        source: the pictures in words.
        bundled: whether they are bundled ones.
        clients, rounds, leaks: the findings.
        planned: attacks that the plan asks for.
        complete: False where it was stopped before the end.
        seconds: of this call.
    """

    plan: SimulationPlan
    source: str
    bundled: bool
    clients: tuple[ClientFacts, ...]
    rounds: tuple[RoundFacts, ...]
    leaks: tuple[Leak, ...]
    planned: int
    complete: bool
    seconds: float

    @property
    def attacks(self) -> tuple[Leak, ...]:
        """Attempts, without controls and without what was not attacked."""
        return tuple(leak for leak in self.leaks if leak.is_attack)

    def control_of(self, leak: Leak, variant: str = CONTROL) -> Leak | None:
        """The control (or the prior itself) on the same message."""
        same = (leak.round, leak.sender, leak.receiver)
        return next((it for it in self.leaks if it.variant == variant and (it.round, it.sender, it.receiver) == same), None)


def picture_verdict(score: PictureScore, control: PictureScore | None) -> str:
    """'rebuilt', 'partly' or 'not found': the rule that every page of a simulation states.

    By pixels: PSNR of 30 dB or more is rebuilt; 20 dB or more, and 3 dB above the control, is partly rebuilt. By structure,
    since BatchNorm hides brightness and contrast from an update: SSIM of 0.9 or more is rebuilt, 0.6 or more with an RDLV of
    0.3 or more is partly rebuilt, each only if it is at least 0.2 above the control's SSIM.
    """
    above = control is None or score.psnr >= control.psnr + ABOVE_CONTROL_DB
    structure = control is None or score.ssim >= control.ssim + ABOVE_CONTROL_SSIM
    if score.psnr >= REBUILT_DB or (score.ssim >= REBUILT_SSIM and structure):
        return "rebuilt"
    exceeds_prior = math.isnan(score.rdlv) or score.rdlv >= PARTLY_RDLV
    if (score.psnr >= PARTLY_DB and above) or (score.ssim >= PARTLY_SSIM and structure and exceeds_prior):
        return "partly"
    return "not found"


def leak_verdicts(result: SimulationResult, leak: Leak) -> tuple[str, ...]:
    """One verdict per picture of a message."""
    control = result.control_of(leak)
    others = control.scores if control is not None else ()
    return tuple(
        picture_verdict(score, others[place] if place < len(others) else None) for place, score in enumerate(leak.scores)
    )
