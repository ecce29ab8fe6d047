"""What a sweep over defences found: one point per defence, the frontier, and the defence that meets the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.simulation.record import IDENTIFIED, PictureScore, SimulationResult
from leakgauge.audit.tradeoff.strength import NONE, Strength
from leakgauge.measures.identification import FEWEST_DECOYS

PER_PICTURE = ("rdlv", "ssim", "psnr")


@dataclass(frozen=True)
class Leakage:
    """What one attack in one form found over all attacked rounds and clients.

    Args:
        attack, variant: which.
        pictures: scores behind the numbers.
        undefined: of them, pictures whose RDLV is undefined.
        mean, largest: by measure; NaN where nothing was measured.
        identified: share of the pictures that rank among the decoys with a probability of at most 0.05; NaN: not testable.
        probability: that a reconstruction that knows nothing ranks so well on all pictures together (Fisher); NaN: not testable.
    """

    attack: str
    variant: str
    pictures: int
    undefined: int
    mean: dict[str, float]
    largest: dict[str, float]
    identified: float
    probability: float


@dataclass(frozen=True)
class TradeoffPoint:
    """One defence: what it costs and what still leaks.

    Args:
        strength: which defence, how strong.
        seed: of the run.
        accuracy: after the last round.
        leakages: one per attack and form.
        guarantee, epsilon: of the attacked client that has the weakest.
        broken: the policy's rules that do not hold; empty where all do.
        frontier: whether no other point has at least its accuracy with less leakage.
        skipped: attacks that did not apply, with the reason.
        seconds: of the run.
        result: the simulation behind it.
    """

    strength: Strength
    seed: int
    accuracy: float
    leakages: tuple[Leakage, ...]
    guarantee: str
    epsilon: float | None
    broken: tuple[str, ...]
    frontier: bool = False
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0
    result: SimulationResult | None = field(default=None, repr=False, compare=False)

    def leakage(self, measure: str, over: str = "mean", variant: str | None = None) -> float:
        """The largest over attacks and forms (of one form, if given); for 'identification' the share identified."""
        chosen = [entry for entry in self.leakages if variant in (None, entry.variant)]
        if measure == "identification":
            values = [entry.identified for entry in chosen]
        else:
            values = [(entry.mean if over == "mean" else entry.largest)[measure] for entry in chosen]
        return max((value for value in values if not math.isnan(value)), default=math.nan)

    def values(self) -> dict[tuple[str, str], float]:
        """What a policy's rules are about, keyed by (measure, over)."""
        found = {(measure, over): self.leakage(measure, over) for measure in PER_PICTURE for over in ("mean", "max")}
        probabilities = [entry.probability for entry in self.leakages if not math.isnan(entry.probability)]
        found[("identification", "max")] = min(probabilities, default=math.nan)
        found[("accuracy", "max")] = self.accuracy
        found[("epsilon", "max")] = math.nan if self.epsilon is None else self.epsilon
        for measure in ("identification", "accuracy", "epsilon"):
            found[(measure, "mean")] = found[(measure, "max")]
        return found


@dataclass(frozen=True)
class Trend:
    """Spearman's rank correlation of leakage with strength over one family and one form of attack; NaN where undefined."""

    family: str
    variant: str
    points: int
    correlation: float


@dataclass(frozen=True)
class Choice:
    """The first defence of the list that meets the policy, and the fresh runs that were made to verify it.

    Args:
        policy: the rules in words.
        chosen: the verified point, or None.
        tried: pairs (point of the sweep, fresh run with another seed), in the order in which they were tried.
        verdict: in a sentence.
    """

    policy: str
    chosen: TradeoffPoint | None
    tried: tuple[tuple[TradeoffPoint, TradeoffPoint], ...]
    verdict: str


@dataclass(frozen=True)
class TradeoffResult:
    """Everything that a sweep found; `complete` is False where it was stopped before the end."""

    plan: SimulationPlan
    source: str
    bundled: bool
    points: tuple[TradeoffPoint, ...]
    trends: tuple[Trend, ...]
    choice: Choice | None
    complete: bool
    seconds: float


def leakages_of(result: SimulationResult) -> tuple[Leakage, ...]:
    """One entry per attack and form, over everything that it scored."""
    groups: dict[tuple[str, str], list[PictureScore]] = {}
    for leak in result.attacks:
        groups.setdefault((leak.attack, leak.variant), []).extend(leak.scores)
    return tuple(_leakage(attack, variant, scores) for (attack, variant), scores in groups.items())


def _leakage(attack: str, variant: str, scores: list[PictureScore]) -> Leakage:
    mean, largest = {}, {}
    for measure in PER_PICTURE:
        values = [value for score in scores if not math.isnan(value := getattr(score, measure))]
        mean[measure] = sum(values) / len(values) if values else math.nan
        largest[measure] = max(values, default=math.nan)
    tested = [score.probability for score in scores if score.decoys >= FEWEST_DECOYS and not math.isnan(score.probability)]
    return Leakage(
        attack=attack,
        variant=variant,
        pictures=len(scores),
        undefined=sum(math.isnan(score.rdlv) for score in scores),
        mean=mean,
        largest=largest,
        identified=sum(value <= IDENTIFIED for value in tested) / len(tested) if tested else math.nan,
        probability=combined(tested),
    )


def combined(probabilities: Sequence[float]) -> float:
    """Fisher's combination: how often independent reconstructions that know nothing rank so well all together; NaN for none."""
    from scipy.stats import chi2

    if not probabilities:
        return math.nan
    statistic = -2.0 * sum(math.log(value) for value in probabilities)
    return float(chi2.sf(statistic, 2 * len(probabilities)))


def non_dominated(points: Sequence[TradeoffPoint], measure: str) -> tuple[bool, ...]:
    """For each point whether no other is at least as good in accuracy and leakage, and better in one of them."""
    places = [(point.accuracy, point.leakage(measure)) for point in points]
    found = []
    for accuracy, leak in places:
        beaten = any(
            (other >= accuracy and less <= leak) and (other > accuracy or less < leak)
            for other, less in places
            if not (math.isnan(other) or math.isnan(less))
        )
        found.append(not beaten and not math.isnan(accuracy) and not math.isnan(leak))
    return tuple(found)


def trends_of(points: Sequence[TradeoffPoint], measure: str) -> tuple[Trend, ...]:
    """Spearman's correlation over each family with at least three strengths, 'none' counted as the weakest of each."""
    from scipy.stats import spearmanr

    none = [point for point in points if point.strength.family == NONE]
    found = []
    for family in dict.fromkeys(point.strength.family for point in points if point.strength.option):
        own = sorted((point for point in points if point.strength.family == family), key=lambda point: point.strength.order)
        if len(own) < 2 or len(own) + len(none) < 3:
            continue
        for variant in ("plain", "adaptive"):
            members = [*none, *own]
            values = [point.leakage(measure, variant=None if point in none else variant) for point in members]
            pairs = [(place, value) for place, value in enumerate(values) if not math.isnan(value)]
            if len(pairs) < 3:
                continue
            constant = len({value for _, value in pairs}) == 1
            correlation = math.nan if constant else float(spearmanr(*zip(*pairs, strict=True)).statistic)
            found.append(Trend(family, variant, len(pairs), correlation))
    return tuple(found)
