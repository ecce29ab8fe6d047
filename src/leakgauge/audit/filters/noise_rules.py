"""Rules on noise: from what was measured to findings."""

from __future__ import annotations

from collections.abc import Iterator

from scipy import stats

from leakgauge.audit.filters.measured import Measured, named, percent
from leakgauge.audit.filters.record import FAULT, NOTE, PARAMETER, WARNING, FilterFinding, TensorFacts

CHANCE = 1e-9  # a share of equal bits that rounding explains with a smaller probability is a finding
STEP = {"": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def noise_missing(m: Measured) -> Iterator[FilterFinding]:
    """What should have noise and has none."""
    parameters = m.of(PARAMETER)
    if not m.noisy:
        if m.claim.std:
            yield FilterFinding(
                FAULT,
                "no-noise",
                f"Noise of standard deviation {m.claim.std:g} is claimed, and none was seen: {m.repeats} calls on one update "
                "gave the same result.",
            )
        return
    bare = [facts for facts in parameters if facts.noise_std == 0 and facts.zeroed < 1 and not m.noise.repeats]
    if bare:
        size = sum(facts.size for facts in bare)
        yield FilterFinding(
            FAULT,
            "layers-without-noise",
            f"{len(bare)} of {len(parameters)} parameter tensors leave without noise ({named(bare)}; entries: {size}; the "
            f"same whenever they leave, in {m.repeats} calls), while the others get noise of {m.noise.std:.3g}.",
        )
    partly = [facts for facts in parameters if facts not in bare and _too_many_alike(m, facts)]
    if partly:
        worst = max(partly, key=lambda facts: max(facts.unchanged, facts.still))
        yield FilterFinding(
            FAULT,
            "un-noised",
            f"{percent(worst.unchanged)} of the entries of {worst.name!r} leave bit for bit as they were planted"
            f"{'' if worst.still == 0 else f', and {percent(worst.still)} leave the same in every call'}, while others get noise "
            f"of standard deviation {m.noise.std:.3g} ({len(partly)} of {len(parameters)} parameter tensors, {m.repeats} calls).",
        )
    if m.support > 0.5 and m.sparsity < 0.01:
        yield FilterFinding(
            FAULT if m.claim.std else WARNING,
            "noise-follows-update",
            f"Where an update is zero, no noise is added ({percent(m.support)} of such entries): which entries changed shows.",
        )


def _too_many_alike(m: Measured, facts: TensorFacts) -> bool:
    """Whether more entries leave as planted, or always the same, than rounding explains."""
    if m.levels or not facts.noise_std > 0:
        return False
    calls = facts.size * m.repeats
    expected = calls * min(1.0, m.largest * STEP[m.precision] / facts.noise_std)
    seen = round(facts.unchanged * calls)
    alike = seen >= 2 and float(stats.poisson.sf(seen - 1, expected)) < CHANCE
    return alike or (facts.still > 0 and expected < 0.1 * calls)


def noise_quality(m: Measured) -> Iterator[FilterFinding]:
    """Noise that is used twice, follows the data, or is of another kind than claimed."""
    if m.noise.repeats:
        yield FilterFinding(
            FAULT,
            "noise-repeats",
            f"The same noise (standard deviation {m.noise.std:.3g}) was added in different calls: a server that has seen it "
            "once, or knows its seed, subtracts it.",
        )
    if m.noise.shared:
        text = (
            f"All entries of {m.noise.shared[0]!r} get one and the same draw of noise"
            if len(m.noise.shared) == 1
            else f"The tensors {m.noise.shared[0]!r} and {m.noise.shared[1]!r} get the same noise"
        )
        yield FilterFinding(FAULT, "noise-shared", f"{text}: what is known of one entry uncovers the others.")
    if m.noise.follows_data and not (m.clipping.after_noise or m.noise.shared or m.one_sided):
        low, high = (end(m.noise.by_size, key=lambda pair: pair[1]) for end in (min, max))
        yield FilterFinding(
            FAULT if m.claim.std else WARNING,
            "noise-follows-size",
            f"The noise depends on the update: its standard deviation is {low[1]:.3g} for an update of 2-norm {low[0]:g} and "
            f"{high[1]:.3g} for one of {high[0]:g}; no privacy can be claimed for noise of a size that private data decide.",
        )
    if m.claim.family and m.noise.family not in ("", m.claim.family) and not (m.noise.shared or m.one_sided):
        yield FilterFinding(
            FAULT, "noise-distribution", f"{m.claim.family.capitalize()} noise is claimed; what is added looks {m.noise.family}."
        )


def noise_size(m: Measured) -> Iterator[FilterFinding]:
    """Noise that is smaller or larger than claimed."""
    claimed = m.claim.std
    if not claimed or not m.noisy or m.noise.repeats or m.noise.shared or m.one_sided:
        return
    weak = [facts for facts in m.of(PARAMETER) if facts.noise_std > 0 and facts.noise_high < 0.95 * claimed]
    if weak:
        worst = min(weak, key=lambda facts: facts.noise_std)
        yield FilterFinding(
            FAULT,
            "noise-too-small",
            f"Noise of standard deviation {claimed:g} is claimed; {worst.name!r} gets {worst.noise_std:.3g} (at most "
            f"{worst.noise_high:.3g}); {len(weak)} of {len(m.of(PARAMETER))} parameter tensors get less than claimed.",
        )
    strong = [facts for facts in m.of(PARAMETER) if facts.noise_low > 1.05 * claimed]
    if strong:
        yield FilterFinding(
            NOTE,
            "noise-larger",
            f"{len(strong)} parameter tensor(s) get more noise than the claimed {claimed:g} ({named(strong)}).",
        )
