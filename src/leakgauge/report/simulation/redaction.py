"""Redaction of a simulation: originals, priors, names, places and every reconstruction that comes near an original go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from leakgauge.audit.record import PARTLY_DB
from leakgauge.audit.simulation.record import FOUND, Leak, LeakPictures, SimulationResult, leak_verdicts
from leakgauge.report.redaction import scrubber

EXPLANATION = (
    "This page is redacted: it leaves out originals, priors made of other pictures, file names, places and every "
    f"reconstruction of {PARTLY_DB:.0f} dB or more, or of which the verdict says that it was found."
)


def redacted_result(result: SimulationResult) -> SimulationResult:
    """The result without anything that shows or names a private picture; scores stay."""
    names = {score.name for leak in result.leaks for score in leak.scores}
    clean = scrubber(names)
    verdicts = [leak_verdicts(result, leak) for leak in result.leaks]
    leaks = tuple(_leak(leak, found, clean) for leak, found in zip(result.leaks, verdicts, strict=True))
    source = result.source if result.bundled else f"{result.source.partition(':')[0]} (name left out)"
    data = result.plan.data.model_copy(update={"source": clean(result.plan.data.source)})
    attack = result.plan.attack.model_copy(update={"prior": clean(result.plan.attack.prior)})
    plan = result.plan.model_copy(update={"data": data, "attack": attack, "name": clean(result.plan.name)})
    return replace(result, plan=plan, source=source, leaks=leaks)


def _leak(leak: Leak, verdicts: Iterable[str], clean: Callable[[str], str]) -> Leak:
    setting = replace(leak.setting, prior=clean(leak.setting.prior))
    scores = tuple(replace(score, name="") for score in leak.scores)
    notes = tuple(clean(note) for note in leak.notes)
    told = replace(leak, scores=scores, setting=setting, notes=notes, cause=clean(leak.cause), skipped=clean(leak.skipped))
    if leak.pictures is None:
        return told
    truth, guess = leak.pictures.truth, leak.pictures.guess.clone()
    for place, (score, verdict) in enumerate(zip(leak.scores, verdicts, strict=True)):
        errors = (truth.double() - guess[place].double()).flatten(1).square().mean(1)
        near = not bool((errors > 10 ** (-PARTLY_DB / 10)).all())  # to any original of the message, or not finite
        if near or verdict in FOUND or not score.psnr < PARTLY_DB:
            guess[place] = torch.nan
    gone = torch.full_like(truth, torch.nan)
    return replace(told, pictures=LeakPictures(truth=gone, guess=guess, prior=gone))
