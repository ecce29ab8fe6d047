"""`run_tradeoff`: one federation per defence, its accuracy beside what still leaks, and the weakest that meets a policy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from leakgauge.audit.case import defences_of
from leakgauge.audit.simulation.attacker import check_adaptive
from leakgauge.audit.simulation.plan import SimulationPlan, TradeoffTable
from leakgauge.audit.simulation.record import SimulationResult
from leakgauge.audit.simulation.run import run_simulation
from leakgauge.audit.simulation.split import share_out
from leakgauge.audit.tradeoff.policy import Rule, broken_rules, parse_policy
from leakgauge.audit.tradeoff.record import (
    Choice,
    TradeoffPoint,
    TradeoffResult,
    leakages_of,
    non_dominated,
    trends_of,
)
from leakgauge.audit.tradeoff.strength import NONE, Strength, strengths
from leakgauge.errors import OptionError
from leakgauge.measures.identification import FEWEST_DECOYS

FRESH = 1  # added to the seed for the run that verifies the choice
Tell = Callable[[float, str], None]


def run_tradeoff(
    plan: SimulationPlan,
    folder: str | Path,
    *,
    beside: Path | None = None,
    cancelled: Callable[[], bool] | None = None,
    progress: Tell | None = None,
) -> TradeoffResult:
    """Plays the plan once for each defence of [tradeoff], put on every client in place of the clients' own.

    Args:
        plan: what to play; it needs a table [tradeoff].
        folder: where the runs are kept, each in a folder of its own; what is there is read.
        beside: folder of the plan's file.
        cancelled: polled; True ends the sweep with what is done.
        progress: called now and then with the share done and a remark.

    Raises:
        OptionError: for a plan without [tradeoff], or a policy that cannot be judged.
    """
    if plan.tradeoff is None:
        raise OptionError("The plan has no table [tradeoff]; expected tradeoff.defences = [...].")
    check_adaptive(plan)
    rules = parse_policy(plan.tradeoff.policy)
    _check_identification(plan, rules, beside)
    sweep = _Sweep(plan, plan.tradeoff, rules, Path(folder), beside, cancelled or (lambda: False), progress or (lambda *_: None))
    return sweep.result()


@dataclass
class _Sweep:
    """One call of `run_tradeoff`."""

    plan: SimulationPlan
    table: TradeoffTable
    rules: tuple[Rule, ...]
    folder: Path
    beside: Path | None
    cancelled: Callable[[], bool]
    progress: Tell
    done: int = 0

    def result(self) -> TradeoffResult:
        """Plays or reads every run."""
        started = time.monotonic()
        self.entries = strengths(self.table.defences)
        points: list[TradeoffPoint] = []
        for strength in self.entries:
            if self.cancelled():
                break
            point = self._point(strength, self.plan.seed)
            if point is not None:
                points.append(point)
        marked = [
            replace(point, frontier=frontier)
            for point, frontier in zip(points, non_dominated(points, self.table.measure), strict=True)
        ]
        complete = len(points) == len(self.entries)
        choice = self._choice(marked) if self.rules and complete else None
        first = next((point.result for point in marked if point.result is not None), None)
        return TradeoffResult(
            plan=self.plan,
            source=first.source if first else "",
            bundled=bool(first and first.bundled),
            points=tuple(marked),
            trends=trends_of(marked, self.table.measure),
            choice=choice,
            complete=complete and not self.cancelled(),
            seconds=time.monotonic() - started,
        )

    def _point(self, strength: Strength, seed: int) -> TradeoffPoint | None:
        """One run; None where it was stopped before its end."""
        name = re.sub("[^A-Za-z0-9.]+", "-", strength.text).strip("-")
        place = self.folder / "runs" / f"{name}-seed-{seed}"
        runs = len(self.entries) + (1 if self.rules else 0)

        def tell(share: float, text: str) -> None:
            self.progress(min((self.done + share) / runs, 1.0), f"{strength.text}: {text}")

        plan = defended(self.plan, strength.text, seed)
        result = run_simulation(plan, place, beside=self.beside, cancelled=self.cancelled, progress=tell)
        self.done += 1
        return point_of(result, strength, seed, self.rules) if result.complete else None

    def _choice(self, points: list[TradeoffPoint]) -> Choice:
        """The first defence that meets the policy and still does so with another seed."""
        policy = " and ".join(map(str, self.rules))
        tried: list[tuple[TradeoffPoint, TradeoffPoint]] = []
        for point in points:
            if point.broken or self.cancelled():
                continue
            fresh = self._point(point.strength, self.plan.seed + FRESH)
            if fresh is None:
                break
            tried.append((point, fresh))
            if not fresh.broken:
                break
        met = [point for point, fresh in tried if not fresh.broken]
        return Choice(policy, met[0] if met else None, tuple(tried), _verdict(policy, points, tried))


def defended(plan: SimulationPlan, text: str, seed: int) -> SimulationPlan:
    """The plan with one defence on every client (or at the server, where it acts there), and another seed."""
    assert plan.tradeoff is not None
    server = text != NONE and defences_of((text,))[0].stage == "server"
    own = [] if text == NONE or server else [text]
    rounds = plan.tradeoff.rounds
    attack = plan.attack if rounds is None else plan.attack.model_copy(update={"rounds": rounds, "every": None})
    return plan.model_copy(
        update={
            "seed": seed,
            "clients": [client.model_copy(update={"defences": own}) for client in plan.clients],
            "federation": plan.federation.model_copy(update={"server_defence": text if server else ""}),
            "attack": attack,
            "tradeoff": None,
        }
    )


def point_of(result: SimulationResult, strength: Strength, seed: int, rules: tuple[Rule, ...]) -> TradeoffPoint:
    """What a run says about its defence."""
    attacked = [fact for fact in result.clients if fact.name in result.plan.attacked_clients]
    weakest = next((fact for fact in attacked if fact.epsilon is None), None) or max(attacked, key=lambda it: it.epsilon or 0.0)
    skipped = dict.fromkeys(f"{leak.attack} ({leak.variant}): {leak.skipped}" for leak in result.leaks if leak.skipped)
    point = TradeoffPoint(
        strength=strength,
        seed=seed,
        accuracy=result.rounds[-1].accuracy,
        leakages=leakages_of(result),
        guarantee=weakest.guarantee,
        epsilon=weakest.epsilon,
        broken=(),
        skipped=tuple(skipped),
        seconds=result.seconds,
        result=result,
    )
    return replace(point, broken=broken_rules(rules, point.values()))


def _verdict(policy: str, points: list[TradeoffPoint], tried: list[tuple[TradeoffPoint, TradeoffPoint]]) -> str:
    if not tried:
        met = [point for point in points if not point.broken]
        return (
            f"None of the {len(points)} tested settings meets the policy {policy}." if not met else "Stopped before verification."
        )
    failed = [point.strength.text for point, fresh in tried if fresh.broken]
    before = ""
    if failed:
        before = f" ({', '.join(failed)} met it with seed {tried[0][0].seed} but broke it with seed {tried[0][1].seed})"
    point, fresh = tried[-1]
    if fresh.broken:
        return f"No tested setting meets the policy {policy} with both seeds{before}."
    return (
        f"The policy {policy} is first met by {point.strength.text}, with seed {point.seed} and again with seed "
        f"{fresh.seed}{before}; that holds against these attacks and is no proof of safety."
    )


def _check_identification(plan: SimulationPlan, rules: tuple[Rule, ...], beside: Path | None) -> None:
    """Raises OptionError where the policy asks for identification and there are too few decoys for it."""
    if not any(rule.measure == "identification" for rule in rules):
        return
    pictures = share_out(plan, beside)
    for name in plan.attacked_clients:
        for place in pictures.clients[name]:
            count = len(pictures.line_up(place))
            if count < FEWEST_DECOYS:
                raise OptionError(
                    f"tradeoff.policy asks for identification, which needs {FEWEST_DECOYS} decoys of the picture's class; "
                    f"client {name!r} has a picture with {count}. Raise data.decoys."
                )
