"""What a simulation's page holds, as values: the answer, figures, pictures, tables with every condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.audit.simulation.record import CONTROL, FOUND, PLAIN, PRIOR, Leak, SimulationResult, leak_verdicts
from leakgauge.report.charts import Chart
from leakgauge.report.gallery import Picture
from leakgauge.report.page import condition_rows
from leakgauge.report.pictures import data_uri, shrunk
from leakgauge.report.simulation.charts import picture_of, simulation_charts
from leakgauge.report.simulation.facts import Find, best_finds, finds_of
from leakgauge.report.simulation.redaction import redacted_result
from leakgauge.report.simulation.words import SILENT, answers, conditions_text, headline, identification, ratio, untested
from leakgauge.report.words import NOT_FOUND, SEVERITY, UNKNOWN, decibels, seconds_in_words, similarity

SENDERS, ROUNDS, SIDE = 10, 6, 128  # pictures on a page: senders, rounds of each, and pixels of the longer side
HEADINGS = (
    "Round", "Sender", "Attack", "Verdict", "RDLV, largest (mean)", "RDLV as released", "SSIM, largest (mean)",
    "SSIM of the prior", "PSNR, largest", "Control", "Identification", "Outcome", "Work",
)  # fmt: skip
SETTINGS = {
    "local_steps": "Local steps",
    "batch_norm_mode": "BatchNorm of the client",
    "exact": "Known start",
    "prior": "Prior of the attack",
    "guarantee": "Guarantee",
}
EXACT = {True: "the sender's true start", False: "an estimate of the sender's start"}


@dataclass(frozen=True)
class Row:
    """A row of a table: its heading and cells."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """One message on the page: its heading, its best picture as every attack saw it."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class SimulationPage:
    """Everything that the page shows.

    Args:
        title, verdict, headline: the answer.
        answers, conditions, untested: sentences.
        remarks: what must be known about the run as a whole, such as bundled pictures.
        charts: figures.
        strips: pictures by message.
        rows: one per record.
        shared: conditions that all records have in common, named.
        varying_names, varying: those that differ, one row per record.
        clients: one row per client.
        dropped: who dropped out of which round, with the reason.
        guarantees: the accountant's verdicts, each with the clients it holds for.
        redacted: whether originals and what comes near them are left out.
    """

    title: str
    verdict: str
    headline: str
    answers: tuple[str, ...]
    conditions: tuple[str, ...]
    untested: tuple[str, ...]
    remarks: tuple[str, ...]
    charts: tuple[Chart, ...]
    strips: tuple[Strip, ...]
    rows: tuple[Row, ...]
    shared: tuple[tuple[str, str], ...]
    varying_names: tuple[str, ...]
    varying: tuple[Row, ...]
    clients: tuple[Row, ...]
    dropped: tuple[str, ...]
    guarantees: tuple[str, ...]
    redacted: bool


def simulation_page(result: SimulationResult, redact: bool = False) -> SimulationPage:
    """The page; with `redact` without anything that shows or names a private picture."""
    words = headline(result), answers(result)
    shown = redacted_result(result) if redact else result
    finds = finds_of(shown)
    verdict = max((find.verdict for find in finds), key=lambda it: SEVERITY[it], default=UNKNOWN if not finds else NOT_FOUND)
    conditions = [conditions_of_leak(leak) for leak in shown.attacks]
    names = list(dict.fromkeys(name for entry in conditions for name in entry))
    varying = [name for name in names if len({entry.get(name, "") for entry in conditions}) > 1]
    shared = [(name, conditions[0][name]) for name in names if name not in varying]
    return SimulationPage(
        title=f"Leakage round by round: {shown.plan.name}" if shown.plan.name else "Leakage round by round",
        verdict="no attack" if not finds else verdict,
        headline=words[0],
        answers=words[1],
        conditions=conditions_text(shown),
        untested=untested(shown),
        remarks=_remarks(shown),
        charts=simulation_charts(shown),
        strips=_strips(shown, best_finds(result), redact),
        rows=tuple(_row(shown, leak) for leak in shown.leaks),
        shared=tuple(shared),
        varying_names=tuple(varying),
        varying=tuple(
            Row(f"Round {leak.round}, {leak.channel}, {_attack(leak)}", tuple(entry.get(name, "") for name in varying))
            for leak, entry in zip(shown.attacks, conditions, strict=True)
        ),
        clients=tuple(
            Row(facts.name, (str(facts.examples), facts.training, facts.batch_norm, facts.defence)) for facts in shown.clients
        ),
        dropped=tuple(f"Round {facts.index}, {name}: {reason}" for facts in shown.rounds for name, reason in facts.dropped)
        + tuple(f"Round {facts.index}: {facts.note}" for facts in shown.rounds if facts.note),
        guarantees=_guarantees(shown),
        redacted=redact,
    )


def _remarks(result: SimulationResult) -> tuple[str, ...]:
    remarks = []
    if result.bundled:
        remarks.append(f"The pictures are {result.source}; nothing follows from them about your data.")
    if not result.complete:
        done = len(result.attacks)
        remarks.append(
            f"The run was stopped: {len(result.rounds)} of {result.plan.rounds} rounds and {done} of {result.planned} "
            "attacks are here. The same command continues it."
        )
    if any(leak.variant == "adaptive" for leak in result.attacks):
        remarks.append(
            "Where there is a defence each attack that can be fitted to it was played twice: plain, and adaptive, knowing "
            "the defence."
        )
    return tuple(remarks)


def _row(result: SimulationResult, leak: Leak) -> Row:
    if leak.skipped:
        blank = ("",) * (len(HEADINGS) - 4)
        return Row(str(leak.round), (leak.channel, _attack(leak), leak.skipped, *blank))
    verdicts = leak_verdicts(result, leak)
    worst = max(range(len(leak.scores)), key=lambda place: (SEVERITY[verdicts[place]], _low(leak.scores[place].ssim)))
    score = leak.scores[worst]
    control = result.control_of(leak)
    against = control.scores[worst] if control is not None and leak.is_attack else None
    verdict = verdicts[worst] if leak.is_attack else "control" if leak.variant == CONTROL else "prior"
    several = len(leak.scores) > 1
    if several and leak.is_attack:
        found = sum(entry in FOUND for entry in verdicts)
        verdict = f"{verdict} ({found} of {len(verdicts)} found)"
    cells = (
        leak.channel,
        _attack(leak),
        verdict,
        _most(leak, "rdlv", ratio),
        _most(leak, "rdlv_released", ratio),
        _most(leak, "ssim", similarity),
        similarity(score.prior_ssim),
        decibels(max((entry.psnr for entry in leak.scores if not math.isnan(entry.psnr)), default=math.nan)),
        f"{decibels(against.psnr)}, SSIM {similarity(against.ssim)}" if against is not None else "",
        identification(score),
        leak.outcome if leak.is_attack else "",
        f"{leak.evaluations} evaluations, {seconds_in_words(leak.seconds)}" if leak.is_attack else "none",
    )
    return Row(str(leak.round), cells)


def _most(leak: Leak, measure: str, words: object) -> str:
    """Largest over the pictures, with the mean in brackets where there are several."""
    assert callable(words)
    values = [value for score in leak.scores if not math.isnan(value := getattr(score, measure))]
    if not values:
        return str(words(math.nan))
    text = str(words(max(values)))
    return text if len(leak.scores) == 1 else f"{text} ({words(sum(values) / len(values))})"


def conditions_of_leak(leak: Leak) -> dict[str, str]:
    """Every condition of a record in words, by its name on the page."""
    found = dict(condition_rows(leak.conditions))
    for name, title in SETTINGS.items():
        value = getattr(leak.setting, name)
        found[title] = EXACT[value] if name == "exact" else str(value) or "none"
    return found


def _strips(result: SimulationResult, best: dict[str, tuple[Find, ...]], redacted: bool) -> tuple[Strip, ...]:
    """For the senders that leaked most, in each of a few rounds: the picture that leaked most, as every attack saw it."""
    order = sorted(best, key=lambda client: best[client][0].rank, reverse=True)[:SENDERS]
    strips = []
    for client in order:
        finds = best[client]
        places: dict[tuple[int, str, str], int] = {}
        for find in finds:
            places.setdefault((find.leak.round, find.leak.sender, find.leak.receiver), find.place)
        rounds = sorted(places)
        chosen = rounds if len(rounds) <= ROUNDS else [rounds[round(i * (len(rounds) - 1) / (ROUNDS - 1))] for i in range(ROUNDS)]
        for key in chosen:
            leaks = [leak for leak in result.leaks if (leak.round, leak.sender, leak.receiver) == key and leak.scores]
            strips.append(_strip(client, key[0], leaks, places[key], redacted))
    return tuple(strips)


def _strip(client: str, number_of_round: int, leaks: Sequence[Leak], place: int, redacted: bool) -> Strip:
    first = leaks[0]
    where = f"of {client} in round {number_of_round}"
    score = first.scores[place]
    pictures = [
        picture_cell("original", first, place, "truth", f"Original {where}", "Original", redacted),
        picture_cell(
            "prior", first, place, "prior", f"Class mean {where}, SSIM {similarity(score.prior_ssim)}",
            f"Class mean, SSIM {similarity(score.prior_ssim)}", redacted,
        ),
    ]  # fmt: skip
    for leak in leaks:
        if leak.variant == PRIOR:
            continue
        score = leak.scores[place]
        words = f"{_attack(leak)}: {decibels(score.psnr)}, SSIM {similarity(score.ssim)}, RDLV {ratio(score.rdlv)}"
        words += " (the update holds no signal)" if leak.outcome == SILENT else ""
        what = "control" if leak.variant == CONTROL else "reconstruction"
        pictures.append(picture_cell(what, leak, place, "guess", f"{what.capitalize()} {where} by {words}", words, redacted))
    title = f"{first.channel}, round {number_of_round}" + (f", picture of {client}" if client not in first.channel else "")
    return Strip(title, tuple(pictures))


def picture_cell(what: str, leak: Leak, place: int, which: str, alt: str, caption: str, redacted: bool) -> Picture:
    pixels = picture_of(leak, place, which)
    if pixels is None:
        missing = "left out: redacted" if redacted else "no picture"
        return Picture(what, caption, f"{alt}: {missing}", place + 1, missing=missing)
    small = shrunk(pixels, SIDE)
    height, width = small.shape[-2:]
    return Picture(what, caption, alt, place + 1, data_uri(small), width, height)


def _attack(leak: Leak) -> str:
    """The attack with its form where it is not the plain one."""
    if leak.variant in (CONTROL, PRIOR):
        return "control: no update" if leak.variant == CONTROL else "prior alone: no update"
    return leak.attack if leak.variant == PLAIN else f"{leak.attack} (adaptive)"


def _guarantees(result: SimulationResult) -> tuple[str, ...]:
    groups: dict[str, list[str]] = {}
    for facts in result.clients:
        groups.setdefault(facts.guarantee, []).append(facts.name)
    return tuple(f"{', '.join(names)}: {text}" for text, names in groups.items())


def _low(value: float) -> float:
    return -1.0 if math.isnan(value) else value
