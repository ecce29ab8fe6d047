"""What privacy can honestly be claimed for what leaves a client: epsilon only where every number is covered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.core.training import LocalTraining
from leakgauge.defences.accounting import epsilon
from leakgauge.defences.base import Defence, is_number
from leakgauge.errors import OptionError
from leakgauge.local.private import mixing_layers

SHRINKING = ("clip", "prune", "top-k", "percentile-sharing")  # these never make the 2-norm of an update larger
NOISE_SOURCE = (
    "The noise comes from a seeded pseudo-random generator, so that runs can be repeated, and is added in floating point; a "
    "deployed system needs a cryptographically secure source and noise that is safe on a grid of numbers."
)
PUBLIC_COUNT = "the number of examples, the batch counters and the protocol are public and the same in both"


@dataclass(frozen=True)
class Guarantee:
    """What can be claimed about everything that leaves a client, in words that can be printed.

    Args:
        epsilon: of (epsilon, delta)-differential privacy; None where there is no guarantee.
        delta: in (0, 1).
        unit: 'record' or 'client': whose presence is hidden; '' without a guarantee.
        neighbours: which two data sets are to be indistinguishable.
        composition: how steps and rounds add up.
        noise_source: where the noise comes from.
        uncovered: what leaves the client without being covered.
        verdict: all of it in one sentence; begins with 'no guarantee' where epsilon is None.
    """

    epsilon: float | None
    delta: float
    unit: str
    neighbours: str
    composition: str
    noise_source: str
    uncovered: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class _Claim:
    """A mechanism that covers the shared parameters: its noise multiplier, how often it acts on one unit, and in words."""

    unit: str
    noise_multiplier: float
    times: int
    neighbours: str
    composition: str


def guarantee(
    model: nn.Module,
    training: LocalTraining,
    defences: Sequence[Defence],
    *,
    num_examples: int,
    rounds: int,
    delta: float = 1e-5,
    shares_buffers: bool,
    shares_metrics: bool = False,
) -> Guarantee:
    """What an honest-but-curious server cannot learn, for certain, from everything that one client sends.

    Parameters are covered by DP-SGD (per record), or by `Clip` followed by Gaussian noise (per client). Buffers that local
    training changes (BatchNorm's running statistics in train mode) are not; buffers it leaves alone are public constants.
    Neighbours differ by REPLACING one record (or client), so that example counts are public; a clipped sum then changes by
    up to 2 C, and the noise counts as sigma / 2. Mini-batches are shuffled, not Poisson samples, and the server sees who takes
    part, so that no amplification by sampling is claimed: every participation counts in full.

    Args:
        model: the network that is trained.
        training: the local protocol.
        defences: of the client, in order; a server's may be among them.
        num_examples: of this client, >= 1.
        rounds: in which the client takes part, >= 1.
        delta: in (0, 1).
        shares_buffers: whether buffers (BatchNorm's running statistics) leave the client.
        shares_metrics: whether losses or accuracies computed on private data leave it.

    Raises:
        OptionError: for a count or delta out of range.
        MissingExtraError: where epsilon is due and the package opacus is absent.
    """
    for name, count in (("num_examples", num_examples), ("rounds", rounds)):
        if not (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
            raise OptionError(f"guarantee's {name} is {count!r}; expected a whole number >= 1.")
    if not (is_number(delta) and 0 < delta < 1):
        raise OptionError(f"guarantee's delta is {delta!r}; expected a number in (0, 1).")
    claim = _claim(training, defences, num_examples, rounds)
    uncovered = [] if isinstance(claim, _Claim) else [f"the shared parameters: {claim}"]
    changing = batch_norm_layers(model) if training.mode == "train" else {}
    if shares_buffers and changing:
        uncovered.append(
            f"the running statistics of {len(changing)} BatchNorm layer(s), which local training computes from private data"
        )
    mixing = mixing_layers(model, training.mode)
    if isinstance(claim, _Claim) and claim.unit == "record" and mixing:
        uncovered.append(
            f"the shared parameters: BatchNorm ({mixing[0]!r}) mixes examples, so that DP-SGD cannot run on this network"
        )
    if shares_metrics:
        uncovered.append("the metrics (loss, accuracy), which the client computes on private data")
    if not isinstance(claim, _Claim) or uncovered:
        note = _central(defences, rounds, delta, shares_metrics or bool(shares_buffers and changing))
        neighbours, composition = ("", "") if not isinstance(claim, _Claim) else (claim.neighbours, claim.composition)
        noise = NOISE_SOURCE if _has_noise(defences) else ""
        verdict = f"no guarantee: not covered is {'; nor '.join(uncovered)}.{note}"
        return Guarantee(None, delta, "", neighbours, composition, noise, tuple(uncovered), verdict)
    found = epsilon(claim.noise_multiplier / 2, 1.0, claim.times, delta)
    if not math.isfinite(found):
        reason = ("the shared parameters: the noise is too small for any finite epsilon",)
        verdict = f"no guarantee: not covered is {reason[0]}."
        return Guarantee(None, delta, "", claim.neighbours, claim.composition, NOISE_SOURCE, reason, verdict)
    verdict = (
        f"({found:.3g}, {delta:g})-differential privacy per {claim.unit}, towards the server and all others, for all "
        f"that the client sends in {rounds} round(s); {claim.neighbours}"
    )
    return Guarantee(found, delta, claim.unit, claim.neighbours, claim.composition, NOISE_SOURCE, (), verdict)


def _claim(training: LocalTraining, defences: Sequence[Defence], num_examples: int, rounds: int) -> _Claim | str:
    """The mechanism that covers the shared parameters, or why there is none."""
    for defence in defences:
        mechanism = defence.mechanism()
        if mechanism is not None and mechanism.kind == "dp-sgd":
            assert mechanism.std is not None and mechanism.clip_norm is not None
            if mechanism.std == 0:
                later = _client_claim([other for other in defences if other.name != defence.name], rounds)
                return later if isinstance(later, _Claim) else f"{defence.name} with noise multiplier 0 adds no noise"
            passes, most = participations(training, num_examples)
            words = f"a record takes part in at most {passes} mini-batch(es) a round"
            words += f", up to {most} of them in one optimiser step" if most > 1 else ""
            return _Claim(
                "record",
                mechanism.std / mechanism.clip_norm,
                passes * most * rounds,
                f"neighbours differ in one record that is replaced by another; {PUBLIC_COUNT}.",
                f"{words}, times {rounds} round(s), composed one after another by RDP with sample rate 1: mini-batches are "
                "shuffled, not Poisson samples, and the server sees who takes part, so that no amplification is claimed.",
            )
    return _client_claim(defences, rounds)


def _client_claim(defences: Sequence[Defence], rounds: int) -> _Claim | str:
    bound: float | None = None
    clipped = noise_before = broken = False
    for defence in defences:
        mechanism = defence.mechanism()
        if mechanism is not None and mechanism.kind == "clip":
            assert mechanism.clip_norm is not None
            clipped, bound = True, mechanism.clip_norm if bound is None else min(bound, mechanism.clip_norm)
        elif mechanism is not None and mechanism.kind == "gaussian" and mechanism.std:
            if bound is not None:
                return _Claim(
                    "client",
                    mechanism.std / bound,
                    rounds,
                    f"neighbours differ in one client, all of whose records are replaced by others; {PUBLIC_COUNT}.",
                    f"one Gaussian mechanism in each of {rounds} round(s), composed one after another by RDP; the server sees "
                    "who takes part, so that no amplification by sampling is claimed.",
                )
            noise_before, broken = True, broken or clipped
        elif defence.stage == "update" and defence.name not in SHRINKING:
            bound = None  # it may have made the update longer
    names = [defence.name for defence in defences]
    if broken:
        return "between clip and noise stands a defence that may make the update longer"
    if noise_before and clipped:
        return "the noise comes before the clip, so that nothing bounds what it has to hide"
    if noise_before:
        return "there is noise but no clip before it, so that nothing bounds what it has to hide"
    if clipped and "laplacian-noise" in names:
        return "the clip bounds the 2-norm, and Laplacian noise would need a bound on the sum of magnitudes"
    if clipped and "percentile-noise" in names:
        return "the size of the noise depends on the private data"
    if clipped and "gaussian-noise" in names:
        return "the clip is there, but the noise is zero"
    if clipped:
        return "clipping alone hides nothing; it needs Gaussian noise after it"
    client_side = [name for name, defence in zip(names, defences, strict=True) if defence.stage != "server"]
    if client_side:
        return f"{', '.join(dict.fromkeys(client_side))} is no mechanism of differential privacy"
    if names:
        return "no defence acts before the update reaches the server"
    return "no defence is applied"


def participations(training: LocalTraining, num_examples: int) -> tuple[int, int]:
    """In how many mini-batches of one round a record can be, and in how many of one optimiser step, at most.

    A pass over the data holds each record once. Steps that accumulate several mini-batches may reach over the end of a pass.
    """
    size = min(training.batch_size or num_examples, num_examples)
    in_pass = num_examples // size if training.drop_last else math.ceil(num_examples / size)
    in_pass = max(1, in_pass)
    steps = training.steps_for(num_examples)
    batches = training.epochs * in_pass if training.epochs is not None else steps * training.accumulation
    most = 1
    for first in range(0, batches, training.accumulation):
        last = min(first + training.accumulation, batches) - 1
        most = max(most, last // in_pass - first // in_pass + 1)
    return math.ceil(batches / in_pass), most


def _has_noise(defences: Sequence[Defence]) -> bool:
    return any("noise" in defence.name or defence.name in ("dp-sgd", "central-dp", "svt") for defence in defences)


def _central(defences: Sequence[Defence], rounds: int, delta: float, leaks: bool) -> str:
    """What central differential privacy is worth, in a sentence; '' without it."""
    for defence in defences:
        mechanism = defence.mechanism()
        if mechanism is not None and mechanism.kind == "central":
            assert mechanism.std is not None and mechanism.clip_norm is not None
            words = " central-dp adds its noise at the server, and never protects against the server itself"
            if leaks or not mechanism.std:
                return f"{words}, nor, here, against those who see the aggregate only."
            found = epsilon(mechanism.std / mechanism.clip_norm / 2, 1.0, rounds, delta)
            return (
                f"{words}; towards those who see nothing but the averaged parameters it is ({found:.3g}, {delta:g})-differential "
                f"privacy per client over {rounds} round(s)."
            )
    return ""
