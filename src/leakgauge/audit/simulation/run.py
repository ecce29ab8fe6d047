"""`run_simulation`: plays a federation round by round and attacks what leaves the clients; resumes where it stopped."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from leakgauge.attacks.base import Progress
from leakgauge.audit.simulation.attacker import Attacker, Target, check_adaptive
from leakgauge.audit.simulation.clients import client_facts, federation_of
from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.simulation.record import PLAIN, ClientFacts, Leak, RoundFacts, Setting, SimulationResult
from leakgauge.audit.simulation.split import Pictures, share_out
from leakgauge.audit.simulation.store import (
    OBSERVATIONS,
    Heard,
    leak_key,
    load_leak,
    load_round,
    plan_digest,
    save_leak,
    save_round,
)
from leakgauge.core.observation import Observation
from leakgauge.core.threat import ThreatModel
from leakgauge.federated.evaluate import evaluate
from leakgauge.federated.federation import Federation
from leakgauge.federated.records import Message, Round
from leakgauge.models import load_model

ROUND_WORK = 0.1  # a round against an attack, for the progress line
Tell = Callable[[float, str], None]


def run_simulation(
    plan: SimulationPlan,
    folder: str | Path,
    *,
    beside: Path | None = None,
    cancelled: Callable[[], bool] | None = None,
    progress: Tell | None = None,
) -> SimulationResult:
    """Plays the plan; rounds and attacks that the folder already holds are read from it.

    Args:
        plan: what to play.
        folder: where rounds, observations and records are kept.
        beside: folder of the plan's file, where data is also looked for.
        cancelled: polled; True ends the simulation with what is done.
        progress: called now and then with the share done and a remark.

    Raises:
        OptionError: for a plan that contradicts itself.
        LeakgaugeError: for data or a model that cannot be used.
    """
    check_adaptive(plan.model_copy(update={"tradeoff": None}))
    pictures = share_out(plan, beside)
    model = load_model(plan.model, num_classes=plan.classes, input_shape=plan.shape, seed=plan.seed)
    federation = federation_of(plan, model, pictures)
    facts = client_facts(plan, model, federation.members)
    attacker = Attacker(plan, pictures, beside)
    run = _Run(plan, Path(folder), pictures, federation, {fact.name: fact for fact in facts}, attacker, cancelled, progress)
    return run.result()


@dataclass
class _Run:
    """One call of `run_simulation`."""

    plan: SimulationPlan
    folder: Path
    pictures: Pictures
    federation: Federation
    clients: dict[str, ClientFacts]
    attacker: Attacker
    cancelled: Callable[[], bool] | None
    progress: Tell | None
    started: float = field(default_factory=time.monotonic)
    work: float = 0.0

    @property
    def state(self) -> Path:
        """Where rounds and observations of this very plan are kept."""
        observed = (repr(self.plan.attacked_rounds), repr(self.plan.attacked_clients))
        return self.folder / "state" / plan_digest(self.plan, self.pictures.pool.source, *observed)

    def result(self) -> SimulationResult:
        """Plays or reads everything."""
        rounds: list[RoundFacts] = []
        leaks: list[Leak] = []
        before = math.nan
        if self.federation.validation is not None:
            before = evaluate(self.federation.model, self.federation.validation, self.plan.loss)[0]
        for facts, heard in self._rounds():
            rounds.append(facts)
            self._worked(ROUND_WORK, f"round {facts.index} of {self.plan.rounds}")
            if facts.index in self.plan.attacked_rounds:
                for message in heard:
                    if not self._stopped():
                        leaks += self._attacked(facts.index, message, before)
            before = facts.accuracy
            if self._stopped():
                break
        return SimulationResult(
            plan=self.plan,
            source=self.pictures.pool.source,
            bundled=self.pictures.pool.bundled,
            clients=tuple(self.clients.values()),
            rounds=tuple(rounds),
            leaks=tuple(leaks),
            planned=self.planned,
            complete=len(rounds) == self.plan.rounds and not self._stopped(),
            seconds=time.monotonic() - self.started,
        )

    @property
    def planned(self) -> int:
        """Attacks that are expected: where clients are drawn or drop out there will be fewer."""
        return sum(self._attacks_on(sender) for sender in self._senders()) * len(self.plan.attacked_rounds)

    def _senders(self) -> list[str]:
        """One name for each message of a round that is to be attacked."""
        names = self.plan.attacked_clients
        if self.plan.federation.secure_aggregation:
            return ["sum"]
        topology = self.federation.topology
        if topology is None:
            return list(names)
        return [name for name in names for _ in topology.neighbours(name)]

    def _attacks_on(self, sender: str) -> int:
        members = [sender] if sender in self.clients else list(self.clients)
        if self._too_many(members):
            return 0
        return sum(len(self.attacker.variants(text, self._defended(members))) for text in self.plan.attack.attacks)

    def _too_many(self, members: list[str]) -> str:
        """Why a message is not attacked, or ''."""
        count, most = sum(self.clients[name].examples for name in members), self.plan.attack.examples_at_most
        return f"not attacked: too many examples ({count}, and examples_at_most is {most})" if most and count > most else ""

    def _defended(self, members: list[str]) -> bool:
        """Whether the message has been through a defence; one at the server comes too late unless it sees the sum only."""
        table = self.plan.federation
        at_server = table.secure_aggregation and bool(table.server_defence)
        return at_server or any(member.defences for member in self.federation.members if member.name in members)

    def _rounds(self) -> Iterator[tuple[RoundFacts, tuple[Heard, ...]]]:
        """Every round: those on disk with what was observed of them, then those that are played."""
        number = 1
        while number <= self.plan.rounds and (found := load_round(number, self.state)) is not None:
            yield found
            number += 1
        if number > self.plan.rounds or self._stopped():
            return
        folder = self.state / "federation"
        for played in self.federation.run(
            self.plan.rounds, seed=self.plan.seed, folder=folder, cancelled=self._stopped, start=number
        ):
            yield self._keep(played)

    def _keep(self, played: Round) -> tuple[RoundFacts, tuple[Heard, ...]]:
        """Writes a round and the observations that will be attacked; observations of other rounds are not kept."""
        facts = RoundFacts(
            index=played.index,
            accuracy=played.accuracy,
            loss=played.loss,
            dropped=tuple((entry.name, entry.reason) for entry in played.dropped),
            seconds=played.seconds,
            note=played.note,
        )
        heard = []
        wanted = set(self.plan.attacked_clients)
        for message in played.messages if played.index in self.plan.attacked_rounds else ():
            if wanted & set(message.members):
                heard.append(self._heard(played.index, message))
        save_round(facts, tuple(heard), self.state)
        return facts, tuple(heard)

    def _heard(self, number: int, message: Message) -> Heard:
        threat = self.plan.threat
        if message.receiver == "server":
            watcher = ThreatModel.honest_but_curious(labels=threat.labels, batch_norm=threat.batch_norm, defence=True)
        else:
            assert self.federation.topology is not None
            watcher = ThreatModel.neighbour(
                mixing=self.federation.topology.mixing(), labels=threat.labels, batch_norm=threat.batch_norm, defence=True
            )
        seen = message.observe(watcher, self.pictures.pool.spec, model_name=self.plan.model)
        words = re.sub("[^A-Za-z0-9]+", "-", f"round-{number}-{message.sender}-{message.receiver}")
        place = self.state / OBSERVATIONS
        place.mkdir(parents=True, exist_ok=True)
        seen.save(place / f"{words}.safetensors")
        return Heard(message.sender, message.receiver, message.members, message.exact, f"{words}.safetensors")

    def _attacked(self, number: int, heard: Heard, accuracy: float) -> Iterator[Leak]:
        """Control, prior and every attack on one message, read from disk where they are finished."""
        members = list(heard.members)
        target: Target | None = None

        def opened() -> Target:
            nonlocal target
            target = target or self._target(number, heard, accuracy)
            return target

        def key(attack: str, variant: str) -> str:
            return leak_key(self.plan, self.pictures.pool.source, heard, number, attack, variant)

        reason = self._too_many(members)
        if reason:
            yield self.attacker.not_attacked(opened(), ", ".join(self.plan.attack.attacks), reason, key("none", PLAIN))
            return
        named = [("control", "control"), ("prior", "prior")]
        kept = [load_leak(key(*name), self.folder) for name in named]
        if all(kept):
            yield from (self._current(leak) for leak in kept if leak is not None)
        else:
            for leak in self.attacker.controls(opened(), key):
                save_leak(leak, self.folder)
                yield leak
        for text in self.plan.attack.attacks:
            for variant in self.attacker.variants(text, self._defended(members)):
                if self._stopped():
                    return
                found = load_leak(key(text, variant), self.folder)
                if found is None:
                    what = f"round {number}, {heard.sender}, {text.partition(':')[0]}"
                    found = self.attacker.play(opened(), text, variant, key(text, variant), self._stopped, self._watch(what))
                    if self._stopped():
                        return  # what was cut short is played again the next time
                    save_leak(found, self.folder)
                self._worked(1.0, f"round {number}, {heard.sender}")
                yield self._current(found)

    def _target(self, number: int, heard: Heard, accuracy: float) -> Target:
        seen = Observation.load(self.state / OBSERVATIONS / heard.file, self.federation.model)
        return Target(number, heard, seen, _state_words(number, accuracy), self._setting(heard, accuracy))

    def _setting(self, heard: Heard, accuracy: float) -> Setting:
        facts = [self.clients[name] for name in heard.members]
        members = [member for member in self.federation.members if member.name in heard.members]
        model = self.federation.model
        uncovered = next((fact for fact in facts if fact.epsilon is None), None)
        weakest = uncovered or max(facts, key=lambda fact: fact.epsilon or 0.0)
        modes = dict.fromkeys(fact.batch_norm for fact in facts)
        return Setting(
            accuracy=accuracy,
            local_steps=max(member.protocol(model).steps_for(len(member.batch)) for member in members),
            batch_norm_mode=" and ".join(modes),
            exact=heard.exact,
            prior="",
            guarantee=weakest.guarantee,
            epsilon=weakest.epsilon,
        )

    def _current(self, leak: Leak) -> Leak:
        """A kept record with today's guarantee, which also depends on the number of rounds and on delta."""
        heard = Heard(leak.sender, leak.receiver, leak.members, leak.setting.exact, "")
        now = self._setting(heard, leak.setting.accuracy)
        return replace(leak, setting=replace(leak.setting, guarantee=now.guarantee, epsilon=now.epsilon))

    def _stopped(self) -> bool:
        return self.cancelled is not None and self.cancelled()

    def _worked(self, work: float, text: str) -> None:
        self.work += work
        self._tell(self.work, text)

    def _watch(self, text: str) -> Callable[[Progress], None]:
        def tell(at: Progress) -> None:
            self._tell(self.work + min(at.evaluations / max(at.planned, 1), 1.0), text)

        return tell

    def _tell(self, work: float, text: str) -> None:
        if self.progress is not None:
            self.progress(min(work / (self.planned + ROUND_WORK * self.plan.rounds), 1.0), text)


def _state_words(number: int, accuracy: float) -> str:
    """'untrained', or 'after 4 rounds (62 % accuracy)'."""
    if number == 1:
        return "untrained"
    known = "" if math.isnan(accuracy) else f" ({accuracy:.0%} accuracy)".replace("%", " %")
    return f"after {number - 1} round{'s' if number > 2 else ''}{known}"
