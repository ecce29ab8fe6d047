"""What a simulation's records say, gathered: the best find per client and round, leakage over rounds, attacks side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.audit.simulation.record import (
    ADAPTIVE,
    CONTROL,
    FOUND,
    PRIOR,
    Leak,
    PictureScore,
    SimulationResult,
    leak_verdicts,
)
from leakgauge.report.words import SEVERITY


@dataclass(frozen=True)
class Find:
    """One picture as one attack saw it.

    Args:
        leak: the record.
        place: of the picture in it.
        verdict: 'rebuilt', 'partly' or 'not found'.
        control: the control's score for the same picture, or None.
    """

    leak: Leak
    place: int
    verdict: str
    control: PictureScore | None

    @property
    def score(self) -> PictureScore:
        """The picture's score."""
        return self.leak.scores[self.place]

    @property
    def rank(self) -> tuple[int, float]:
        """For ordering: the verdict first, then SSIM."""
        return SEVERITY[self.verdict], -1.0 if math.isnan(self.score.ssim) else self.score.ssim


@dataclass(frozen=True)
class Point:
    """Leakage of one message: over its pictures, by the attack whose mean is largest."""

    round: int
    mean: float
    low: float
    high: float
    attack: str


@dataclass(frozen=True)
class Line:
    """One sender (or edge) over the rounds; `examples` in its message."""

    name: str
    examples: int
    points: tuple[Point, ...]
    leaked: bool


@dataclass(frozen=True)
class Bar:
    """One attack (or control) over the messages on which all were played."""

    name: str
    attack: bool
    values: tuple[float, ...]
    evaluations: int

    @property
    def mean(self) -> float:
        """Mean over pictures; NaN without any. Infinite PSNR counts as 100 dB."""
        kept = [min(value, 100.0) for value in self.values if not math.isnan(value)]
        return sum(kept) / len(kept) if kept else math.nan


def finds_of(result: SimulationResult) -> tuple[Find, ...]:
    """Every picture as every attack saw it, in the order of the records."""
    found = []
    for leak in result.attacks:
        control = result.control_of(leak)
        others = control.scores if control is not None else ()
        for place, verdict in enumerate(leak_verdicts(result, leak)):
            found.append(Find(leak, place, verdict, others[place] if place < len(others) else None))
    return tuple(found)


def best_finds(result: SimulationResult) -> dict[str, tuple[Find, ...]]:
    """For each attacked client the best find of each of its pictures in each round, best first."""
    best: dict[tuple[str, int, str, str], Find] = {}
    for find in finds_of(result):
        key = (find.score.client, find.leak.round, find.leak.channel, f"{find.place}")
        if key not in best or find.rank > best[key].rank:
            best[key] = find
    clients: dict[str, list[Find]] = {}
    for (client, *_), find in best.items():
        clients.setdefault(client, []).append(find)
    return {client: tuple(sorted(finds, key=lambda find: find.rank, reverse=True)) for client, finds in clients.items()}


def lines_of(result: SimulationResult, measure: str) -> tuple[Line, ...]:
    """Leakage over the rounds, one line per sender or edge; measure is 'rdlv', 'ssim' or 'psnr'."""
    groups: dict[str, list[Leak]] = {}
    for leak in result.attacks:
        groups.setdefault(leak.channel, []).append(leak)
    found = []
    for name, leaks in groups.items():
        points = []
        for number in sorted({leak.round for leak in leaks}):
            candidates = [_point(leak, measure) for leak in leaks if leak.round == number]
            points.append(max(candidates, key=lambda point: -math.inf if math.isnan(point.mean) else point.mean))
        leaked = any(verdict in FOUND for leak in leaks for verdict in leak_verdicts(result, leak))
        found.append(Line(name, len(leaks[0].scores), tuple(points), leaked))
    return tuple(found)


def references_of(result: SimulationResult, measure: str) -> tuple[tuple[int, float], ...]:
    """Mean over pictures of what the prior (the left-out class mean) reaches in each attacked round; SSIM only."""
    if measure != "ssim":
        return ()
    rounds: dict[int, list[float]] = {}
    for leak in result.leaks:
        if leak.variant == CONTROL:
            rounds.setdefault(leak.round, []).extend(score.prior_ssim for score in leak.scores)
    return tuple((number, sum(values) / len(values)) for number, values in sorted(rounds.items()) if values)


def bars_of(result: SimulationResult, measure: str) -> tuple[Bar, ...]:
    """Attacks side by side, on the messages with the fewest pictures on which all of them were played."""
    messages = compared_messages(result)
    names: dict[tuple[str, str], list[Leak]] = {}
    for leak in result.leaks:
        if (leak.round, leak.sender, leak.receiver) in messages and leak.scores:
            names.setdefault((leak.attack, leak.variant), []).append(leak)
    bars = []
    for (attack, variant), leaks in names.items():
        values = tuple(getattr(score, measure) for leak in leaks for score in leak.scores)
        evaluations = round(sum(leak.evaluations for leak in leaks) / len(leaks))
        label = attack if variant != ADAPTIVE else f"{attack}, adaptive"
        bars.append(Bar(label, variant not in (CONTROL, PRIOR), values, evaluations))
    return tuple(sorted(bars, key=lambda bar: not bar.attack))


def compared_messages(result: SimulationResult) -> set[tuple[int, str, str]]:
    """The messages of the comparison: those of the fewest pictures, on which every attack was played."""
    played: dict[tuple[int, str, str], set[tuple[str, str]]] = {}
    sizes: dict[tuple[int, str, str], int] = {}
    for leak in result.attacks:
        key = (leak.round, leak.sender, leak.receiver)
        played.setdefault(key, set()).add((leak.attack, leak.variant))
        sizes[key] = len(leak.scores)
    most = max((len(kinds) for kinds in played.values()), default=0)
    whole = [key for key, kinds in played.items() if len(kinds) == most]
    fewest = min((sizes[key] for key in whole), default=0)
    return {key for key in whole if sizes[key] == fewest}


def skipped_of(leaks: Sequence[Leak]) -> tuple[tuple[str, str], ...]:
    """Who (or which attack) was passed over, with the reason, each once."""
    entries: dict[tuple[str, str], None] = {}
    for leak in leaks:
        if leak.skipped:
            who = leak.channel if leak.skipped.startswith("not attacked") else leak.attack
            entries[(who, leak.skipped.removeprefix("not attacked: "))] = None
    return tuple(entries)


def _point(leak: Leak, measure: str) -> Point:
    values = [min(value, 100.0) for score in leak.scores if not math.isnan(value := getattr(score, measure))]
    if not values:
        return Point(leak.round, math.nan, math.nan, math.nan, leak.attack)
    return Point(leak.round, sum(values) / len(values), min(values), max(values), leak.attack)
