"""FilterAudit: what a filter was measured to do, as data, with findings in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from leakgauge.audit.folder import strict_json

FAULT, WARNING, NOTE = "fault", "warning", "note"
PARAMETER, BUFFER, COUNTER = "parameter", "buffer", "counter"
NO_CLIP, WHOLE, EACH_TENSOR, EACH_ENTRY, UNCLEAR = "none", "whole update", "each tensor", "each entry", "cannot tell"


@dataclass(frozen=True)
class FilterFinding:
    """One thing that a reader should know.

    Args:
        severity: 'fault' (it contradicts the claim, or makes the noise useless), 'warning' (it weakens the protection, and may be
            meant so) or 'note'.
        kind: a fixed word for programs, such as 'un-noised'.
        text: a sentence with the numbers.
    """

    severity: str
    kind: str
    text: str


@dataclass(frozen=True)
class TensorFacts:
    """What happens to one tensor of the update.

    Args:
        name: in the state dict.
        role: 'parameter', 'buffer' (floating, such as BatchNorm's running statistics) or 'counter' (integers).
        size: number of entries.
        sent: whether it leaves the client at all.
        unchanged: share of the changed entries that leave bit for bit as planted, over all repeats of one update.
        zeroed: share of the changed entries whose change leaves as zero.
        still: share of the changed entries that leave with the same non-zero value in every repeat.
        noise_std: standard deviation between repeats, in the units of the update; 0 without noise, NaN where not measurable.
        noise_low, noise_high: interval for it, were the noise Gaussian.
        distinct: different results among the repeats.
    """

    name: str
    role: str
    size: int
    sent: bool
    unchanged: float
    zeroed: float
    still: float
    noise_std: float
    noise_low: float
    noise_high: float
    distinct: int


@dataclass(frozen=True)
class NoiseFacts:
    """The noise on the parameters.

    Args:
        std: standard deviation over all parameters together; 0 without noise.
        family: 'gaussian', 'laplacian', 'uniform', 'other' or ''.
        repeats: whether the same noise was seen twice.
        shared: names of two tensors that get the same noise, or of one whose entries all get the same; else ().
        by_size: (2-norm of the planted update, standard deviation of the noise) pairs.
        follows_data: whether the noise's size depends on the update.
    """

    std: float
    family: str
    repeats: bool
    shared: tuple[str, ...]
    by_size: tuple[tuple[float, float], ...]
    follows_data: bool


@dataclass(frozen=True)
class ClipFacts:
    """What limits the size of an update.

    Args:
        scope: 'none', 'whole update', 'each tensor', 'each entry' or 'cannot tell' (the noise hides it).
        bound: 2-norm (largest magnitude for 'each entry') that passes; infinite for 'none'.
        error: standard error of the bound.
        passed: (2-norm of the planted update, 2-norm that passes along it) pairs, parameters only.
        gain: factor by which small updates pass; 1 where they pass as they are.
        unclipped: parameters that pass whole while others are bounded; `passed` and `bound` leave them out.
        buffers: whether buffers count into the norm; None where it was not seen.
        buffers_scaled: whether buffers are scaled with the parameters; None where it was not seen.
        after_noise: whether the noise is added before the clip, and so clipped away with the update.
    """

    scope: str
    bound: float
    error: float
    passed: tuple[tuple[float, float], ...]
    gain: float
    unclipped: tuple[str, ...]
    buffers: bool | None
    buffers_scaled: bool | None
    after_noise: bool


@dataclass(frozen=True)
class EpsilonBound:
    """Empirical lower bound on epsilon for one round, from telling two planted neighbours apart.

    Args:
        claimed: epsilon of the claimed mechanism for neighbours at this distance.
        lower: epsilon that holds at least, at confidence `level`; >= 0.
        delta: of both.
        distance: 2-norm between the neighbours.
        calls: of the filter, both neighbours together.
        level: confidence of the lower bound.
        test: what told them apart.
    """

    claimed: float
    lower: float
    delta: float
    distance: float
    calls: int
    level: float
    test: str


@dataclass(frozen=True)
class FilterAudit:
    """What a filter was measured to do to what leaves a client.

    Args:
        filter, model, claim: in words.
        seed: of the planted updates; the filter's own draws are its own.
        repeats: calls on one and the same update.
        calls: of the filter altogether.
        seconds: spent.
        tensors: one entry per tensor of the state dict.
        noise, clipping: over the parameters.
        epsilon: where Gaussian noise is claimed.
        dropped, added: names that do not leave, or that appear.
        changed_in_place: 'before' and 'after', as far as the filter writes into what it is handed.
        zero_stays_zero: whether an update of zeros leaves as zeros; None where the filter fails on it.
        levels: different values of a parameter's change where they are few (quantisation); 0 otherwise.
        precision: 'float16' or 'bfloat16' where all values are rounded to it, else ''.
        sparsity: share of the parameters' entries that leave as zero.
        cosine: similarity between a typical update and what leaves of it in one call, parameters only; NaN where nothing does.
        uses_weights: whether the result depends on the weights before, not only on the change.
        failures: probe -> what the filter raised.
        findings: worst first.
    """

    filter: str
    model: str
    claim: str
    seed: int
    repeats: int
    calls: int
    seconds: float
    tensors: tuple[TensorFacts, ...]
    noise: NoiseFacts
    clipping: ClipFacts
    epsilon: EpsilonBound | None
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    changed_in_place: tuple[str, ...]
    zero_stays_zero: bool | None
    levels: int
    precision: str
    sparsity: float
    cosine: float
    uses_weights: bool
    failures: Mapping[str, str]
    findings: tuple[FilterFinding, ...]

    @property
    def faults(self) -> tuple[FilterFinding, ...]:
        """The findings that contradict the claim, or make the noise useless."""
        return tuple(finding for finding in self.findings if finding.severity == FAULT)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.faults:
            kinds = ", ".join(dict.fromkeys(finding.kind for finding in self.faults))
            return f"Faulty: {len(self.faults)} fault(s) found in {self.calls} calls ({kinds})."
        warnings = sum(finding.severity == WARNING for finding in self.findings)
        claim = "the claim" if self.claim else "what it seems to do"
        return f"No fault found in {self.calls} calls: nothing that was measured contradicts {claim}; {warnings} warning(s)."

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        facts: dict[str, Any] = strict_json({"verdict": self.verdict, **asdict(self), "failures": dict(self.failures)})
        return facts
