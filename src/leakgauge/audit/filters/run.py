"""audit_filter: feeds planted updates through a filter and reports what it really removes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from leakgauge.audit.filters.calls import Caller, Filter, Reply
from leakgauge.audit.filters.claim import Claimed, read_claim
from leakgauge.audit.filters.clipping import clip_facts
from leakgauge.audit.filters.epsilon import epsilon_bound
from leakgauge.audit.filters.findings import findings_of
from leakgauge.audit.filters.form import cosine, differs, levels, one_sided, precision, sparsity
from leakgauge.audit.filters.measured import Measured
from leakgauge.audit.filters.noise import noise_facts, tensor_facts
from leakgauge.audit.filters.planted import Planter
from leakgauge.audit.filters.record import FilterAudit
from leakgauge.errors import IntegrationError, OptionError, did_you_mean

PROBES = ("zero", "negated", "spike", "heavy-tailed", "sizes", "buffers", "offset", "neighbours")
NORMS = tuple(10.0**power for power in range(-3, 5))
Replies = list[Reply]


def audit_filter(
    filter: Filter,
    model: nn.Module,
    *,
    claim: Claimed | None = None,
    probes: Sequence[str] = PROBES,
    seed: int = 0,
    repeats: int = 20,
    name: str = "",
    model_name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> FilterAudit:
    """What a deployed filter really removes, measured from outside.

    The filter gets planted updates of the model's names and shapes: a typical Gaussian one many times (always), zeros, its
    negative, one spike, a heavy-tailed one, sizes by powers of ten, large changes of buffers, and the same change beside other
    weights. Nothing is known of the filter but what it returns. All decisions from chance are taken so that a filter that keeps
    its claim is called faulty in fewer than 1 of 500 audits; with neither noise nor claim there is no chance involved.

    Args:
        filter: (state dict before, state dict after local training) -> the state dict that leaves; arrays or tensors by name.
            Flower mods and NVFlare filters become one by the adapters of `leakgauge.integrations`.
        model: gives names, shapes and buffers; its weights play no part.
        claim: defences that the filter is said to apply, in order: `Clip(1.0)`, `GaussianNoise(0.01)`, `LaplacianNoise(0.01)` or
            their names ('clip:norm=1'). With a Gaussian claim, an epsilon for one round is bounded from below as well.
        probes: which of `PROBES` to use besides the repeated one.
        seed: of the planted updates. The filter draws its noise itself, so that two audits differ within their stated limits.
        repeats: calls on one and the same update, >= 4; more calls see smaller deviations.
        name, model_name: for the record.
        progress: called before each call of the filter with its number and the number of calls planned at most.

    Raises:
        OptionError: for an unknown probe, too few repeats, or a claim that cannot be checked.
        IntegrationError: if the filter fails on every update, or returns no mapping of arrays.
    """
    for probe in probes:
        if probe not in PROBES:
            raise OptionError(f"There is no probe {probe!r}.{did_you_mean(probe, PROBES)}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 4:
        raise OptionError(f"repeats is {repeats!r}; expected a whole number >= 4.")
    started = time.monotonic()
    stated, planter, few = read_claim(claim), Planter(model, seed), max(5, repeats // 2)
    planned = 5 * repeats + (len(NORMS) + 2) * few + (20 * repeats if stated.family == "gaussian" else 0)
    caller = Caller(filter, seed, None if progress is None else lambda calls: progress(min(calls, planned), planned))
    names = planter.parameters

    def replies(probe: str, planted: Any, times: int) -> Replies:
        return caller.repeat(probe, planted, times) if probe in probes else []

    typical = caller.repeat("typical", planter.gaussian(), repeats)
    zero = replies("zero", planter.zero(), repeats)
    negated = replies("negated", planter.gaussian(-1.0), few)
    spike = replies("spike", planter.spike(), few)
    heavy = replies("heavy-tailed", planter.heavy_tailed(), few)
    by_norm = {
        norm: found
        for norm in (NORMS if "sizes" in probes else ())
        if (found := caller.repeat("sizes", planter.of_norm(norm), repeats if norm == NORMS[-1] else few))
    }
    factor = 3 * NORMS[-1] / max(planter.buffer_norm(), 1e-9)
    large_buffers = replies("buffers", planter.of_norm(NORMS[-1], factor), repeats) if planter.buffer_norm() else []
    offset = replies("offset", planter.gaussian(offset=True), repeats)
    if not typical and not by_norm:
        raise IntegrationError(f"The filter fails on every planted update ({next(iter(caller.failures.values()), 'no reply')}).")
    tensors = tuple(tensor_facts(name, role, typical) for name, role in planter.roles.items())
    noise = noise_facts(names, zero, typical, negated, by_norm)
    trials = 10 * repeats if "neighbours" in probes else 0
    measured = Measured(
        claim=stated,
        repeats=repeats,
        tensors=tensors,
        noise=noise,
        clipping=clip_facts(names, by_norm, large_buffers),
        epsilon=epsilon_bound(caller, planter, stated, tensors, trials) if trials else None,
        dropped=tuple(sorted(caller.dropped)),
        added=tuple(sorted(caller.added)),
        misshapen=tuple(sorted(caller.misshapen)),
        not_finite=tuple(sorted(caller.not_finite)),
        changed_in_place=tuple(sorted(caller.changed_in_place, reverse=True)),
        zero_stays_zero=_all_zero(zero, names),
        levels=levels(typical[0], names) if typical else 0,
        precision=precision(typical[0], names) if typical else "",
        sparsity=sparsity(typical, names),
        one_sided=one_sided([*typical, *heavy], names),
        support=_support(spike, names),
        cosine=cosine(typical, names),
        uses_weights=bool(typical and offset) and differs(offset, typical, names),
        largest=max((float(typical[0][name].planted.abs().max()) for name in names if name in typical[0]), default=0.0)
        if typical
        else 0.0,
        failures=dict(caller.failures),
    )
    return FilterAudit(
        filter=name or _words(filter),
        model=model_name or type(model).__name__,
        claim=stated.text,
        seed=seed,
        repeats=repeats,
        calls=caller.calls,
        seconds=time.monotonic() - started,
        tensors=tensors,
        noise=noise,
        clipping=measured.clipping,
        epsilon=measured.epsilon,
        dropped=measured.dropped,
        added=measured.added,
        changed_in_place=measured.changed_in_place,
        zero_stays_zero=measured.zero_stays_zero,
        levels=measured.levels,
        precision=measured.precision,
        sparsity=measured.sparsity,
        cosine=measured.cosine,
        uses_weights=measured.uses_weights,
        failures=measured.failures,
        findings=findings_of(measured),
    )


def _all_zero(replies: Replies, names: Sequence[str]) -> bool | None:
    if not replies:
        return None
    return all(reply[name].square == 0 for reply in replies for name in names if name in reply)


def _support(replies: Replies, names: Sequence[str]) -> float:
    """Share of the unchanged parameter entries that leave unchanged."""
    pieces = [reply[name] for reply in replies for name in names if name in reply]
    return sum(piece.empty for piece in pieces) / max(1, sum(piece.size - piece.changed for piece in pieces))


def _words(filter: object) -> str:
    return getattr(filter, "__qualname__", "") or type(filter).__name__
