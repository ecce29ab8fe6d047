"""A simulation in words: who leaked in which round, what that rests on, and what it does not say."""

from __future__ import annotations

import math

from leakgauge.audit.record import ABOVE_CONTROL_DB, PARTLY_DB, REBUILT_DB
from leakgauge.audit.simulation.record import (
    ABOVE_CONTROL_SSIM,
    FOUND,
    PARTLY_RDLV,
    PARTLY_SSIM,
    REBUILT_SSIM,
    PictureScore,
    SimulationResult,
)
from leakgauge.report.simulation.facts import Find, best_finds, skipped_of
from leakgauge.report.words import NOT_FOUND_SENTENCE, REBUILT, count, decibels, listed, similarity

RULE = (
    f"A picture counts as rebuilt from a PSNR of {REBUILT_DB:.0f} dB, or from an SSIM of {REBUILT_SSIM:g}; as partly "
    f"rebuilt from {PARTLY_DB:.0f} dB if that is {ABOVE_CONTROL_DB:.0f} dB above the control, or from an SSIM of "
    f"{PARTLY_SSIM:g} with an RDLV of {PARTLY_RDLV:g}. By SSIM it must also be {ABOVE_CONTROL_SSIM:g} above the "
    "control. Structure counts beside pixels because BatchNorm hides brightness and contrast from an update. Otherwise "
    f"it was not found: {NOT_FOUND_SENTENCE}. The limits are a convention; the pictures decide."
)
MEASURES = (
    "RDLV, the relative data leakage value, says by which share the structural similarity (SSIM) of a reconstruction "
    "exceeds that of the prior, here the mean of all other pictures of the same class: 0 is no better than the prior, "
    "1 twice as similar, and it is undefined where the prior's SSIM is below 0.05. 'Released' is the same as the code "
    "published with the paper computes it. PSNR compares pixel by pixel, in decibels (dB). Identification is the rank "
    "of the private picture among decoys of its class by nearness to the reconstruction, with the probability that "
    "a reconstruction that knows nothing ranks so well."
)


SILENT = "NO_GRADIENT_SIGNAL"


def headline(result: SimulationResult) -> str:
    """The answer in one sentence or two."""
    if not result.attacks:
        return _nothing_attacked(result)
    best = best_finds(result)
    leaking = {client: [find for find in finds if find.verdict in FOUND] for client, finds in best.items()}
    leaking = {client: finds for client, finds in leaking.items() if finds}
    what = "the sum of the clients' updates" if result.plan.federation.secure_aggregation else ""
    stopped = "" if result.complete else " (the run was stopped before its end)"
    if not leaking:
        behind = _behind(result)
        return f"No picture of {_clients_attacked(best)} was found{behind}{stopped}: {NOT_FOUND_SENTENCE}."
    if len(leaking) == 1:
        ((client, finds),) = leaking.items()
        others = [name for name in best if name != client]
        rest = f"; {'no other attacked client' if len(others) > 1 else others[0]} did{'' if len(others) > 1 else ' not'}"
        where = f" through {what}" if what else ""
        text = f"In {_rounds(finds)} client {client} leaked{where}: {_clause(finds, _pictures_of(result, client))}"
        return text + (rest if others else "") + f"{stopped}."
    order = sorted(leaking, key=lambda client: leaking[client][0].rank, reverse=True)
    first = leaking[order[0]]
    where = f" through {what}" if what else ""
    return (
        f"{len(order)} of {count(len(best), 'attacked client')} leaked{where}: {listed(order)}. Most in "
        f"{_rounds(first[:1])}, client {order[0]}: {_clause(first, _pictures_of(result, order[0]))}{stopped}."
    )


def answers(result: SimulationResult) -> tuple[str, ...]:
    """One sentence per attacked client, and one per client that was not attacked."""
    lines = []
    for client, finds in best_finds(result).items():
        leaking = [find for find in finds if find.verdict in FOUND]
        top = finds[0]
        if leaking:
            lines.append(f"{client}: {_clause(leaking, _pictures_of(result, client))} in {_rounds(leaking)}.")
        else:
            numbers = scores_in_words(top.score, top.control)
            lines.append(f"{client}: not found in {_rounds(finds)}; nearest {numbers}.")
    lines += [
        f"{who}: not attacked, {reason}." if who in _names(result) else f"{who} {reason}."
        for who, reason in skipped_of(result.leaks)
    ]
    return tuple(lines)


def scores_in_words(score: PictureScore, control: PictureScore | None) -> str:
    """'RDLV 0.70 against 0 for the prior, SSIM 0.95 against 0.40 for the control, 31.2 dB'."""
    parts = [
        "RDLV undefined, since the prior is too far off"
        if math.isnan(score.rdlv)
        else f"RDLV {ratio(score.rdlv)} against 0 for the prior"
    ]
    against = f" against {similarity(control.ssim)} for the control" if control is not None else ""
    parts += [f"SSIM {similarity(score.ssim)}{against}", decibels(score.psnr)]
    return ", ".join(parts)


def ratio(value: float) -> str:
    """An RDLV with two decimals, or 'undefined'."""
    return "undefined" if math.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")


def identification(score: PictureScore) -> str:
    """'rank 1 of 20, p = 0.05', or why there is none."""
    if not score.decoys:
        return "no decoys"
    if not score.rank:
        return "no reconstruction"
    if score.decoys < 19:
        return f"rank {score.rank} of {score.decoys + 1}, not testable"
    return f"rank {score.rank} of {score.decoys + 1}, p = {score.probability:.2g}"


def conditions_text(result: SimulationResult) -> tuple[str, ...]:
    """Who attacks and with what, in sentences."""
    plan = result.plan
    lines = []
    realistic = not plan.threat.labels
    watcher = "a neighbour in gossip" if plan.federation.topology != "server" else "an honest-but-curious server"
    lines.append(
        f"{watcher} that follows the protocol and keeps what it receives"
        + ("" if realistic else "; the labels are granted to it, which a real one would have to recover (diagnostic)")
    )
    granted = [
        ("BatchNorm statistics after local training", plan.threat.batch_norm),
        ("which defence is used", plan.threat.defence),
    ]
    lines.append(
        "it holds the model and its state, the protocol, the number of examples"
        + "".join(f", {text}" for text, given in granted if given)
    )
    lines.append(f"pictures: {result.source}; {count(len(result.rounds), 'round')} of {plan.model}, inputs {plan.input}")
    return tuple(lines)


def untested(result: SimulationResult) -> tuple[str, ...]:
    """What the run says nothing about, in phrases."""
    plan = result.plan
    names = list(dict.fromkeys(text.partition(":")[0] for text in plan.attack.attacks))
    gaps = [f"attacks other than {listed(names)}, or the same with more effort than '{plan.attack.budget}'"]
    missing = [number for number in range(1, len(result.rounds) + 1) if number not in plan.attacked_rounds]
    if missing:
        gaps.append(f"{'round' if len(missing) == 1 else 'rounds'} {listed([str(number) for number in missing])}")
    if not result.complete:
        gaps.append("what the run had not reached when it was stopped")
    gaps += [
        "an attacker who combines several rounds, or who works together with other clients",
        "a malicious server, which alters the model or the protocol so that it leaks more",
        "other questions about the data: whether somebody is in it (membership) or what it has in common (properties)",
        "other pictures and other seeds: a client's risk varies with the picture",
    ]
    if result.bundled:
        gaps.append("your own data: these are bundled pictures")
    return tuple(gaps)


def _silent(result: SimulationResult) -> list[str]:
    """Senders whose update said nothing in some rounds, so that no attack could begin."""
    rounds: dict[str, set[int]] = {}
    for leak in result.attacks:
        if leak.outcome == SILENT:
            rounds.setdefault(leak.channel, set()).add(leak.round)
    return [
        f"{who}: in round{'s' if len(numbers) > 1 else ''} {listed([str(number) for number in sorted(numbers)])} its "
        "update was zero, or did not depend on the picture: a model that already fits its data sends next to nothing. Other "
        "rounds may differ."
        for who, numbers in rounds.items()
    ]


def _nothing_attacked(result: SimulationResult) -> str:
    if not result.complete:
        return "The run was stopped before any attack had ended, so there is nothing to report."
    reasons = [f"{who}: {reason}" for who, reason in skipped_of(result.leaks)]
    if reasons:
        return f"Nothing was attacked, so nothing is known about what leaks ({'; '.join(reasons[:3])})."
    return "Nothing was attacked, so nothing is known about what leaks: no message arrived in the rounds of the plan."


def _clause(finds: list[Find], pictures: int) -> str:
    """'its only picture was rebuilt (RDLV 0.70 ...)', '2 of its 4 pictures were rebuilt, at best ...'."""
    top = finds[0]
    places = {find.score.name for find in finds}
    rebuilt = {find.score.name for find in finds if find.verdict == REBUILT}
    numbers = scores_in_words(top.score, top.control)
    if pictures == 1:
        return f"its only picture was {'rebuilt' if rebuilt else 'partly rebuilt'} ({numbers})"
    if rebuilt:
        extra = len(places) - len(rebuilt)
        more = f" and {extra} partly" if extra else ""
        were = "was" if len(rebuilt) == 1 else "were"
        return f"{len(rebuilt)} of its {pictures} pictures {were} rebuilt{more} (at best {numbers})"
    return f"{len(places)} of its {pictures} pictures {'was' if len(places) == 1 else 'were'} partly rebuilt (at best {numbers})"


def _pictures_of(result: SimulationResult, client: str) -> int:
    return next(facts.examples for facts in result.clients if facts.name == client)


def _rounds(finds: list[Find] | tuple[Find, ...]) -> str:
    numbers = sorted({find.leak.round for find in finds})
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"rounds {numbers[0]} to {numbers[-1]}"
    return f"round{'s' if len(numbers) > 1 else ''} {listed([str(number) for number in numbers])}"


def _behind(result: SimulationResult) -> str:
    defences = list(dict.fromkeys(leak.conditions.defence for leak in result.attacks))
    if defences == ["none"] or not defences:
        return ""
    if "none" in defences:
        return ""
    return f" behind the defence {listed([repr(text) for text in defences], 'or')}"


def _clients_attacked(best: dict[str, tuple[Find, ...]]) -> str:
    names = list(best)
    return f"client {names[0]}" if len(names) == 1 else f"any of the {len(names)} attacked clients"


def _names(result: SimulationResult) -> set[str]:
    return {leak.channel for leak in result.leaks}
