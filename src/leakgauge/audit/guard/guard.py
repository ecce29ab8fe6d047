"""Guard: whether an update may leave a client, decided within a time limit; a guard that fails has a stated default."""

from __future__ import annotations

import atexit
import math
import operator
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leakgauge.audit.guard.probe import Finding, Private, Probe
from leakgauge.audit.making import bound_of
from leakgauge.audit.record import finite
from leakgauge.core.observation import Observation
from leakgauge.errors import LeakgaugeError, OptionError, did_you_mean
from leakgauge.randomness import beside

WITH_TRUTH = ("identification", "rdlv", "ssim", "psnr")
BY_ATTACK = ("certified", "explains")
BY_ARCHITECTURE = ("deficit", "determinable")
MEASURES = (*WITH_TRUTH, *BY_ATTACK, *BY_ARCHITECTURE)
SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
RULE = re.compile(r"\s*([a-z]+)\s*(<=|>=|==|<|>)\s*([-+]?[0-9.]+(?:e[-+]?\d+)?)\s*(?:db)?\s*")
FAILURES = ("block", "send")
TIME_FOR_ATTACK = 0.9  # share of a guard's time after which its attack has to end; the rest is for the comparison
LAST_SECONDS = 5.0  # what a process that ends waits for a guard that ran over its time
_late: list[threading.Thread] = []


@atexit.register
def _wait_for_late_guards() -> None:
    """A thread inside torch while Python shuts down ends the process by a signal."""
    until = time.monotonic() + LAST_SECONDS
    for thread in _late:
        thread.join(max(0.0, until - time.monotonic()))


@dataclass(frozen=True)
class BlockRule:
    """A measure, a comparison and a limit: the update is blocked where it holds."""

    measure: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.measure} {self.sign} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether it holds; never for a value that is not known."""
        return not math.isnan(value) and SIGNS[self.sign](value, self.limit)


@dataclass(frozen=True)
class Decision:
    """Whether an update may leave, and why.

    Args:
        send: True if it may.
        reason: one sentence.
        values: measure -> value, for every measure that the rules name.
        seconds: that the decision took.
        failure: why the guard could not decide, '' where it could; the stated default applied then.
        finding: what the attack found, if one was run.
    """

    send: bool
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str = ""
    finding: Finding | None = None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "send": self.send,
            "reason": self.reason,
            "values": {name: finite(value) for name, value in self.values.items()},
            "seconds": self.seconds,
            "failure": self.failure,
            "finding": None if self.finding is None else self.finding.to_json(),
        }


@dataclass(frozen=True)
class Guard:
    """A policy: rules of which none may hold for an update that leaves.

    Args:
        block: rules, as one text with commas or several texts. MEASURE SIGN NUMBER with the measures
            'identification' (probability of the rank, where a private example ranks first among the decoys),
            'rdlv', 'ssim', 'psnr' (of the example that came out best), 'certified' (reconstructions that the attack certifies),
            'explains' (1 if a reconstruction explains the update), 'deficit' (equations that the layers lack for one example; 0
            means that every layer can be solved) and 'determinable' (1 unless the counting bound rules the batch out).
            The first four need the truth; the last two need no attack.
        probe: the attack behind the measures.
        time_limit: seconds for the whole decision, > 0.
        on_failure: 'block' or 'send': what happens where the guard raises, lacks what a rule needs or runs over its time.

    Raises:
        OptionError: for a rule that cannot be read, or a value out of range.
    """

    block: str | tuple[str, ...]
    probe: Probe = Probe()  # noqa: RUF009 - frozen
    time_limit: float = 20.0
    on_failure: str = "block"

    def __post_init__(self) -> None:
        if self.on_failure not in FAILURES:
            raise OptionError(f"Guard.on_failure is {self.on_failure!r}; expected 'block' or 'send'.")
        if isinstance(self.time_limit, bool) or not isinstance(self.time_limit, int | float) or not self.time_limit > 0:
            raise OptionError(f"Guard.time_limit is {self.time_limit!r}; expected seconds > 0.")
        if not isinstance(self.block, str):
            object.__setattr__(self, "block", tuple(self.block))
        if not self.rules:
            raise OptionError("Guard.block holds no rule; expected such as 'identification < 0.05' or 'rdlv > 0.3'.")

    @property
    def rules(self) -> tuple[BlockRule, ...]:
        """The rules, read."""
        parts = self.block.split(",") if isinstance(self.block, str) else self.block
        return tuple(_rule(part) for part in parts if part.strip())

    def check(self, seen: Observation, private: Private | None = None) -> Decision:
        """Decides within the time limit; never raises.

        Args:
            seen: the update as the server would see it.
            private: the truth, on the client's own machine.
        """
        start = time.perf_counter()
        answers: queue.Queue[Decision | Exception] = queue.Queue()
        late = threading.Event()

        def work() -> None:
            with beside():
                try:
                    answers.put(self._decide(seen, private, start, late))
                except Exception as error:  # noqa: BLE001 - whatever fails, the stated default applies
                    answers.put(error)

        thread = threading.Thread(target=work, name="leakgauge-guard", daemon=True)
        thread.start()
        try:
            answer = answers.get(timeout=self.time_limit)
        except queue.Empty:
            late.set()
            _late.append(thread)
            return self._failed(f"it ran over its {self.time_limit:g} s", start)
        if isinstance(answer, LeakgaugeError):
            return self._failed(str(answer).rstrip("."), start)
        if isinstance(answer, Exception):
            return self._failed(f"{type(answer).__name__}: {' '.join(str(answer).split())}".rstrip(". :"), start)
        return Decision(answer.send, answer.reason, answer.values, time.perf_counter() - start, answer.failure, answer.finding)

    def unable(self, reason: str) -> Decision:
        """The decision where there is nothing to check, such as a message that could not be read."""
        return self._failed(reason, time.perf_counter())

    def _decide(self, seen: Observation, private: Private | None, start: float, late: threading.Event) -> Decision:
        rules = self.rules
        values: dict[str, float] = {}
        wanted = {rule.measure for rule in rules}
        missing = sorted(wanted & set(WITH_TRUTH))
        if missing and private is None:
            raise OptionError(f"The rule on {missing[0]} needs the truth, and none was given to the guard")
        if "identification" in wanted and private is not None and private.decoys is None:
            raise OptionError("The rule on identification needs decoys (Private.decoys), and there are none")
        if wanted & set(BY_ARCHITECTURE):
            values |= _architecture(seen, wanted)
        finding = None
        if wanted & {*WITH_TRUTH, *BY_ATTACK} and not any(rule.holds(values.get(rule.measure, math.nan)) for rule in rules):
            left = max(TIME_FOR_ATTACK * self.time_limit - (time.perf_counter() - start), 0.01)
            finding = self.probe.run(seen, private, time_limit=left, cancelled=late.is_set)
            if finding.outcome == "UNSUPPORTED":
                raise OptionError(f"The guard's attack does not apply: {finding.notes[0].rstrip('.')}")
            values |= {name: float(getattr(finding, name)) for name in wanted & {*BY_ATTACK, "rdlv", "ssim", "psnr"}}
            values["identification"] = finding.probability if finding.rank == 1 else 1.0
        values = {name: value for name, value in values.items() if name in wanted}
        broken = [
            f"{rule} (it is {values[rule.measure]:.3g})" for rule in rules if rule.holds(values.get(rule.measure, math.nan))
        ]
        how = "" if finding is None else f", by {finding.attack} ({finding.outcome})"
        if broken:
            return Decision(False, f"Blocked: {'; '.join(broken)}{how}.", values, finding=finding)
        unknown = [name for name in sorted(wanted) if math.isnan(values.get(name, math.nan))]
        if unknown:
            raise OptionError(f"The rule on {unknown[0]} could not be measured")
        said = ", ".join(f"{name} {value:.3g}" for name, value in sorted(values.items()) if not math.isnan(value))
        return Decision(True, f"Sent: no rule holds ({said}){how}.", values, finding=finding)

    def _failed(self, why: str, start: float) -> Decision:
        send = self.on_failure == "send"
        reason = f"{'Sent' if send else 'Blocked'} without a check, as configured (on_failure={self.on_failure!r}): {why}."
        return Decision(send, reason, {}, time.perf_counter() - start, failure=why)


def _architecture(seen: Observation, wanted: set[str]) -> dict[str, float]:
    from leakgauge.analysis.security import security

    values: dict[str, float] = {}
    if seen.pictures is None:
        raise OptionError("The rules on deficit and determinable need the shape of an input (spec), which is not known")
    if "deficit" in wanted:
        counted = security(seen.model, seen.pictures.shape)
        if counted.reasons:
            raise OptionError(f"The rule on deficit cannot be judged: {counted.reasons[0].rstrip('.')}")
        values["deficit"] = float(counted.deficit)
    if "determinable" in wanted:
        bound = bound_of(seen)
        values["determinable"] = math.nan if bound is None else float(bound.determinable)
    return values


def _rule(text: str) -> BlockRule:
    match = RULE.fullmatch(text.lower())
    if match is None:
        raise OptionError(f"Guard.block has the rule {text.strip()!r}; expected MEASURE SIGN NUMBER, such as 'rdlv > 0.3'.")
    if match[1] not in MEASURES:
        raise OptionError(f"Guard.block names the measure {match[1]!r}.{did_you_mean(match[1], MEASURES)}")
    try:
        return BlockRule(match[1], match[2], float(match[3]))
    except ValueError:
        raise OptionError(f"Guard.block has the limit {match[3]!r}; expected a number.") from None
