"""Results of simulations and sweeps made of structured pictures, without any attack: what pages are made of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from report_examples import conditions, scene
from torch import Tensor

from leakgauge.audit.plan_file import parse_plan
from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.simulation.record import (
    ClientFacts,
    Leak,
    LeakPictures,
    PictureScore,
    RoundFacts,
    Setting,
    SimulationResult,
)
from leakgauge.audit.tradeoff.record import Choice, TradeoffPoint, TradeoffResult, leakages_of, non_dominated, trends_of
from leakgauge.audit.tradeoff.strength import strengths
from leakgauge.measures.image import mse, psnr, ssim
from leakgauge.measures.rdlv import rdlv

NOISE = "gaussian-noise (std 0.001)"
NO_GUARANTEE = "no guarantee: not covered is the shared parameters: no defence is applied."


def plan(**changes: Any) -> SimulationPlan:
    table: dict[str, Any] = {
        "name": "two sites",
        "model": "lenet-dlg",
        "input": "1x16x16",
        "classes": 2,
        "rounds": 3,
        "data": {"source": "folder:/home/anna/mueller", "validation": 4, "public": 2, "decoys": 40},
        "clients": [{"name": "alone", "examples": 1}, {"name": "many", "examples": 3}],
        "attack": {"with": ["inverting-gradients", "dlg"], "rounds": [1, 3], "budget": 100},
        **changes,
    }
    return parse_plan(table)


def leak(number: int, sender: str, attack: str, variant: str, std: float, *, defence: str = "none", **changes: Any) -> Leak:
    """A record whose reconstructions are the originals plus noise, scored by the package's own measures."""
    count = 1 if sender == "alone" else 3
    seed = 10 if sender == "alone" else 20
    truth = torch.stack([scene(seed + place, channels=1) for place in range(count)]).float()
    generator = torch.Generator().manual_seed(number)
    guess = (truth + std * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    prior = (truth * 0.4 + 0.3 + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    return Leak(
        key=f"round-{number}-{sender}-{attack}-{variant}",
        round=number,
        sender=sender,
        receiver="server",
        members=(sender,),
        attack=attack,
        variant=variant,
        skipped="",
        outcome="STEP_LIMIT",
        outcome_text="The search used up its budget.",
        cause="",
        notes=("seen at /home/anna/mueller.png",),
        evaluations=100 if variant in ("plain", "adaptive") else 0,
        seconds=1.5,
        scores=_scores(sender, truth, guess, prior),
        conditions=conditions(
            model="lenet-dlg", shape=(1, 16, 16), batch_size=count, defence=defence, model_state=f"round {number}"
        ),
        setting=Setting(0.5, 1, "none in the network", True, "mid-grey", NO_GUARANTEE),
        pictures=LeakPictures(truth=truth, guess=guess, prior=prior),
        **changes,
    )


def _scores(sender: str, truth: Tensor, guess: Tensor, prior: Tensor) -> tuple[PictureScore, ...]:
    values = zip(
        mse(truth, guess).tolist(), psnr(truth, guess).tolist(), ssim(truth, guess).tolist(), rdlv(truth, guess, prior).tolist(),
        ssim(truth, prior).tolist(), strict=True,
    )  # fmt: skip
    return tuple(
        PictureScore(
            client=sender,
            name=f"mueller-{place}.png",
            mse=error,
            psnr=decibels,
            ssim=similarity,
            mse_unclamped=error,
            rdlv=leaked,
            rdlv_released=leaked,
            prior_ssim=near,
            rank=1,
            probability=1 / 21,
            decoys=20,
            label=0,
        )
        for place, (error, decibels, similarity, leaked, near) in enumerate(values)
    )


def result(leaks: tuple[Leak, ...] | None = None, **changes: Any) -> SimulationResult:
    """Client 'alone' is rebuilt in rounds 1 and 3, client 'many' is not."""
    if leaks is None:
        leaks = tuple(
            entry
            for number in (1, 3)
            for sender in ("alone", "many")
            for entry in (
                leak(number, sender, "control", "control", 0.5),
                leak(number, sender, "prior", "prior", 0.6),
                leak(number, sender, "inverting-gradients", "plain", 0.01 if sender == "alone" else 0.7),
                leak(number, sender, "dlg", "plain", 0.6),
            )
        )
    facts = tuple(
        ClientFacts(name, count, "one gradient", "none in the network", "none", NO_GUARANTEE, None)
        for name, count in (("alone", 1), ("many", 3))
    )
    rounds = tuple(RoundFacts(number, 0.3 + 0.1 * number, 1.0, (), 0.1) for number in (1, 2, 3))
    whole = SimulationResult(plan(), "folder: mueller", False, facts, rounds, leaks, 8, True, 12.0)
    return replace(whole, **changes)


def undefined(entry: Leak) -> Leak:
    """The same with a prior that is too far off for RDLV."""
    return replace(entry, scores=tuple(replace(score, rdlv=math.nan, prior_ssim=0.01) for score in entry.scores))


def skipped(entry: Leak, reason: str) -> Leak:
    return replace(entry, skipped=reason, scores=(), pictures=None, outcome="")


def sweep(complete: bool = True) -> TradeoffResult:
    """Three strengths of noise beside no defence; the second meets the policy."""
    settings = {
        "defences": ["none", *(f"gaussian-noise:std={std}" for std in (0.1, 0.2, 0.4))],
        "policy": "ssim <= 0.5",
        "measure": "ssim",
    }
    whole = plan(tradeoff=settings)
    points = []
    for strength, std, accuracy in zip(
        strengths(settings["defences"]), (0.01, 0.1, 0.5, 1.5), (0.9, 0.88, 0.8, 0.5), strict=True
    ):
        found = [leak(1, "alone", "control", "control", 0.5), leak(1, "alone", "dlg", "plain", std, defence=strength.text)]
        if strength.text != "none":
            found.append(leak(1, "alone", "dlg", "adaptive", 0.9 * std, defence=strength.text))
        own = result(tuple(found))
        leaks = leakages_of(own)
        broken = () if max(entry.largest["ssim"] for entry in leaks) <= 0.5 else ("max ssim <= 0.5 (it is more)",)
        points.append(TradeoffPoint(strength, 0, accuracy, leaks, NO_GUARANTEE, None, broken, result=own))
    marked = tuple(replace(point, frontier=kept) for point, kept in zip(points, non_dominated(points, "ssim"), strict=True))
    met = next(point for point in marked if not point.broken)
    choice = Choice(
        "max ssim <= 0.5", met, ((met, replace(met, seed=1)),), f"The policy max ssim <= 0.5 is first met by {met.strength.text}."
    )
    if not complete:
        return TradeoffResult(whole, "folder: mueller", False, marked[:2], (), None, False, 3.0)
    return TradeoffResult(whole, "folder: mueller", False, marked, trends_of(marked, "ssim"), choice, True, 3.0)
