"""From measurements to findings: plain sentences, each with its numbers, worst first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from leakgauge.audit.filters.measured import Measured, listed, named, percent
from leakgauge.audit.filters.noise_rules import noise_missing, noise_quality, noise_size
from leakgauge.audit.filters.record import (
    BUFFER,
    COUNTER,
    EACH_ENTRY,
    EACH_TENSOR,
    FAULT,
    NO_CLIP,
    NOTE,
    PARAMETER,
    UNCLEAR,
    WARNING,
    WHOLE,
    FilterFinding,
)


def findings_of(measured: Measured) -> tuple[FilterFinding, ...]:
    """All findings: faults, then warnings, then notes."""
    rules = (noise_missing, noise_quality, noise_size, _clip, _order, _epsilon, _form, _buffers, _handling, _facts)
    found = [finding for rule in rules for finding in rule(measured)]
    return tuple(finding for severity in (FAULT, WARNING, NOTE) for finding in found if finding.severity == severity)


def _clip(m: Measured) -> Iterator[FilterFinding]:
    claimed, clip = m.claim.clip_norm, m.clipping
    if clip.unclipped:
        bound = (
            "others are bounded" if claimed is None else f"a bound of {claimed:g} on the 2-norm of the whole update is claimed"
        )
        yield FilterFinding(
            WARNING if claimed is None else FAULT,
            "layers-unclipped",
            f"{len(clip.unclipped)} of {len(m.of(PARAMETER))} parameter tensors ({listed(clip.unclipped)}) may grow without "
            f"limit, while {bound}.",
        )
    if claimed is None:
        return
    norm, passed = clip.passed[-1] if clip.passed else (math.nan, math.nan)
    if clip.scope == NO_CLIP:
        yield FilterFinding(
            FAULT,
            "no-clip",
            f"A bound of {claimed:g} on the 2-norm is claimed; an update of 2-norm {norm:g} passes with {passed:.4g}.",
        )
    elif passed > 1.01 * claimed + 6 * clip.error:
        how = {EACH_TENSOR: " The bound is taken for each tensor by itself", EACH_ENTRY: " The bound is taken for each entry"}
        more = f"{how[clip.scope]} ({clip.bound:.3g})." if clip.scope in how else ""
        yield FilterFinding(
            FAULT,
            "clip-too-wide",
            f"A bound of {claimed:g} on the 2-norm of the whole update is claimed; of an update of 2-norm {norm:g} there passes "
            f"{passed:.4g}.{more}",
        )
    elif clip.scope == UNCLEAR:
        yield FilterFinding(
            NOTE, "clip-unclear", f"The noise hides over what the bound is taken (standard error {clip.error:.2g}); repeat more."
        )


def _order(m: Measured) -> Iterator[FilterFinding]:
    if m.clipping.after_noise:
        yield FilterFinding(
            FAULT if m.claim.private or (m.claim.std and m.claim.clip_norm) else WARNING,
            "noise-before-clip",
            f"The noise is added before the clip: what leaves always has the same 2-norm, so that the noise shrinks with a large "
            f"update ({_pairs(m.noise.by_size)}).",
        )
    if m.uses_weights and m.clipping.scope != NO_CLIP:
        yield FilterFinding(
            FAULT if m.claim.clip_norm is not None else WARNING,
            "clips-weights",
            "The result depends on the weights before, not only on the change: the bound is not one on the update.",
        )
    elif m.uses_weights:
        yield FilterFinding(
            NOTE,
            "uses-weights",
            "The result depends on the weights before, not only on the change (as rounding of weights does).",
        )


def _epsilon(m: Measured) -> Iterator[FilterFinding]:
    bound = m.epsilon
    if bound is None:
        return
    broken = bound.lower > bound.claimed
    yield FilterFinding(
        FAULT if broken else NOTE,
        "epsilon",
        f"Two updates {bound.distance:.3g} apart were told apart by {bound.test}: epsilon is at least {bound.lower:.2f} at delta "
        f"{bound.delta:g} for one round ({bound.level:.1%} confidence, {bound.calls} calls); the claim gives {bound.claimed:.2f}"
        f"{', which is contradicted' if broken else ''}.",
    )


def _form(m: Measured) -> Iterator[FilterFinding]:
    if m.one_sided:
        yield FilterFinding(
            FAULT if m.claim.std else WARNING,
            "one-sided",
            f"No {m.one_sided} change ever leaves, although half of the planted ones were: values are cut off at zero.",
        )
    if m.not_finite:
        yield FilterFinding(FAULT, "not-finite", f"Values that are not finite leave in {listed(m.not_finite)}.")
    if m.misshapen:
        yield FilterFinding(WARNING, "shape", f"Tensors leave in another shape: {listed(m.misshapen)}.")


def _buffers(m: Measured) -> Iterator[FilterFinding]:
    bare = [facts for facts in m.of(BUFFER) if facts.unchanged > 0 or (facts.noise_std == 0 and facts.zeroed < 1)]
    if bare:
        share = sum(facts.unchanged * facts.size for facts in bare) / sum(facts.size for facts in bare)
        covered = m.noisy or bool(m.claim.text)
        yield FilterFinding(
            FAULT if m.claim.buffers else WARNING if covered else NOTE,
            "buffers-un-noised",
            f"{len(bare)} of {len(m.of(BUFFER))} floating buffers leave without noise ({named(bare)}; {percent(share)} of their "
            "entries bit for bit): running statistics tell mean and variance of the private batch, and no epsilon covers them.",
        )
    counters = [facts for facts in m.of(COUNTER) if facts.unchanged > 0]
    if counters:
        yield FilterFinding(
            NOTE, "counters", f"{len(counters)} counter(s) leave as they are: they tell the number of local steps."
        )


def _handling(m: Measured) -> Iterator[FilterFinding]:
    if m.changed_in_place:
        yield FilterFinding(
            WARNING, "in-place", f"The filter writes into the arrays that it is handed ({' and '.join(m.changed_in_place)})."
        )
    for probe, text in m.failures.items():
        yield FilterFinding(WARNING, "failure", f"The filter fails on the planted update {probe!r} ({text}).")
    if m.noisy and m.zero_stays_zero:
        yield FilterFinding(
            WARNING,
            "zero-without-noise",
            "An update of zeros leaves as zeros, without noise: that a client learnt nothing shows.",
        )
    if m.dropped:
        yield FilterFinding(NOTE, "dropped", f"{len(m.dropped)} tensor(s) do not leave: {listed(m.dropped)}.")
    if m.added:
        yield FilterFinding(NOTE, "added", f"{len(m.added)} entries appear that the update did not have: {listed(m.added)}.")


def _facts(m: Measured) -> Iterator[FilterFinding]:
    parameters, clip = m.of(PARAMETER), m.clipping
    unchanged = sum(facts.unchanged * facts.size for facts in parameters) / max(1, sum(facts.size for facts in parameters))
    if not m.noisy:
        everything = unchanged == 1 and clip.scope == NO_CLIP
        yield FilterFinding(
            WARNING if everything else NOTE,
            "passes",
            f"{percent(unchanged)} of the parameters' entries leave bit for bit as planted"
            f"{': the filter removes nothing' if everything else ''}.",
        )
    elif not m.noise.repeats:
        yield FilterFinding(
            NOTE,
            "noise",
            f"Noise of standard deviation {m.noise.std:.4g} on the parameters' entries that are sent, "
            f"{m.noise.family or 'of unknown'} in distribution, new in each call.",
        )
    if clip.scope in (WHOLE, EACH_TENSOR, EACH_ENTRY):
        words = "" if clip.buffers is None else ", buffers counted in" if clip.buffers else ", buffers not counted"
        what = "magnitude" if clip.scope == EACH_ENTRY else "2-norm"
        yield FilterFinding(
            NOTE,
            "clip",
            f"The {what} of {'the ' if clip.scope == WHOLE else ''}{clip.scope} is bounded by {clip.bound:.4g} (standard error "
            f"{clip.error:.1g}){words}.",
        )
    if abs(clip.gain - 1) > 0.01 and not math.isnan(clip.gain) and m.sparsity < 0.01:
        yield FilterFinding(NOTE, "scale", f"Small updates pass {clip.gain:.3g} times as large as they were.")
    if m.cosine < 0.995:
        yield FilterFinding(NOTE, "cosine", f"What leaves of one typical update has cosine similarity {m.cosine:.3g} with it.")
    if m.sparsity > 0.001:
        yield FilterFinding(NOTE, "sparsity", f"{percent(m.sparsity)} of the parameters' changed entries leave as zero.")
    if m.levels:
        yield FilterFinding(
            NOTE, "levels", f"The largest tensor's changes leave as at most {m.levels} different values besides zero."
        )
    if m.precision:
        yield FilterFinding(NOTE, "precision", f"Changes are rounded to {m.precision}.")


def _pairs(pairs: Sequence[tuple[float, float]]) -> str:
    ends = (pairs[0], pairs[-1])
    return "; ".join(f"2-norm {norm:g}: standard deviation {std:.3g}" for norm, std in ends)
