"""A trade-off in words: what the sweep shows, which defence meets the policy, and what that does not say."""

from __future__ import annotations

import math

from leakgauge.audit.simulation.record import ADAPTIVE
from leakgauge.audit.tradeoff.record import Choice, TradeoffPoint, TradeoffResult
from leakgauge.report.simulation.words import ratio
from leakgauge.report.words import NOT_FOUND_SENTENCE, count, decibels, listed, similarity

MEASURES = {"rdlv": "RDLV", "ssim": "SSIM", "psnr": "PSNR in dB", "identification": "share of pictures identified"}
READING = (
    "Each point is a federation of its own, trained with that defence on every client. Leakage is the larger of what "
    "the plain and the adaptive attack found, as the mean over the attacked pictures. A point is on the frontier if no "
    "other has at least its accuracy with less leakage. Small differences between neighbouring points are within "
    "the spread of pictures and seeds."
)


def headline(result: TradeoffResult) -> str:
    """The answer in one or two sentences."""
    if not result.points:
        return "The sweep was stopped before any defence had been played, so there is nothing to report."
    if not result.complete and len(result.points) < _wanted(result):
        return (
            f"The sweep was stopped: {len(result.points)} of {_wanted(result)} defences are here. The same command continues it."
        )
    if result.choice is not None:
        return result.choice.verdict
    first, last = result.points[0], min(result.points, key=lambda point: _high(point.leakage(_measure(result))))
    return (
        f"Between {first.strength.text} (accuracy {percent(first.accuracy)}, {leakage_in_words(result, first)}) and "
        f"{last.strength.text}, which leaked least (accuracy {percent(last.accuracy)}, {leakage_in_words(result, last)}), lie "
        f"{count(max(0, len(result.points) - 2), 'other setting')}. Where little was found, {NOT_FOUND_SENTENCE}."
    )


def verification_sentences(choice: Choice | None) -> tuple[str, ...]:
    """One sentence for every fresh run that was made to verify the choice."""
    lines = []
    for point, fresh in choice.tried if choice is not None else ():
        outcome = "broke the policy: " + "; ".join(fresh.broken) if fresh.broken else "met the policy again"
        lines.append(
            f"{point.strength.text}: seed {point.seed} gave accuracy {percent(point.accuracy)}, {_numbers(point)}; a "
            f"fresh run with seed {fresh.seed} gave {percent(fresh.accuracy)}, {_numbers(fresh)}, and {outcome}."
        )
    return tuple(lines)


def trend_sentences(result: TradeoffResult) -> tuple[str, ...]:
    """Spearman's correlation of leakage with strength, per family, for the plain and the adaptive attack."""
    measure = MEASURES[_measure(result)]
    lines = []
    for family in dict.fromkeys(trend.family for trend in result.trends):
        own = [trend for trend in result.trends if trend.family == family]
        texts = [
            f"{number(trend.correlation)} for the {trend.variant} attack over {count(trend.points, 'strength')}" for trend in own
        ]
        lines.append(f"{family}: Spearman correlation of leakage ({measure}) with strength {listed(texts)}.")
    return tuple(lines)


def adaptive_sentences(result: TradeoffResult) -> tuple[str, ...]:
    """Whether the adaptive attack found at least as much as the plain one, over the points that have both."""
    measure = _measure(result)
    pairs = [
        (point, plain, adaptive)
        for point in result.points
        if not math.isnan(plain := point.leakage(measure, variant="plain"))
        and not math.isnan(adaptive := point.leakage(measure, variant=ADAPTIVE))
    ]
    if not pairs:
        return ()
    more = [point.strength.text for point, plain, adaptive in pairs if adaptive >= plain]
    return (f"The adaptive attack found at least as much as the plain one at {len(more)} of {count(len(pairs), 'setting')}.",)


def leakage_in_words(result: TradeoffResult, point: TradeoffPoint) -> str:
    """'RDLV 0.70'."""
    value, measure = point.leakage(_measure(result)), _measure(result)
    words = {"rdlv": ratio, "ssim": similarity, "psnr": decibels}.get(measure, share)
    name = "RDLV" if measure == "rdlv" else "SSIM" if measure == "ssim" else "PSNR" if measure == "psnr" else "identified"
    return f"{name} {words(value)}"


def percent(value: float) -> str:
    """'62 %', or 'not measured'."""
    return "not measured" if math.isnan(value) else f"{100 * value:.0f} %"


def share(value: float) -> str:
    """A share of pictures, or 'not testable'."""
    return "not testable" if math.isnan(value) else f"{100 * value:.0f} %"


def number(value: float) -> str:
    """A correlation with two decimals."""
    return "undefined (no change at all)" if math.isnan(value) else f"{value:.2f}"


def untested(result: TradeoffResult) -> tuple[str, ...]:
    """What the sweep says nothing about, in phrases."""
    names = list(dict.fromkeys(text.partition(":")[0] for text in result.plan.attack.attacks))
    gaps = [
        f"attacks other than {listed(names)}, or the same with more effort than '{result.plan.attack.budget}'",
        "defences in combination, and strengths between or beyond those of the list",
        "how accuracy and leakage vary from seed to seed: every setting but the chosen one was played once",
        "an attacker who combines several rounds, or who works together with other clients",
        "a malicious server, which alters the model or the protocol so that it leaks more",
    ]
    if result.bundled:
        gaps.append("your own data: these are bundled pictures")
    return tuple(gaps)


def _numbers(point: TradeoffPoint) -> str:
    return f"RDLV {ratio(point.leakage('rdlv', 'max'))} and SSIM {similarity(point.leakage('ssim', 'max'))} at most"


def _measure(result: TradeoffResult) -> str:
    assert result.plan.tradeoff is not None
    return result.plan.tradeoff.measure


def _wanted(result: TradeoffResult) -> int:
    assert result.plan.tradeoff is not None
    return len(result.plan.tradeoff.defences)


def _high(value: float) -> float:
    return math.inf if math.isnan(value) else value
