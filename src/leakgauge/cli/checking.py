"""The parts of `check`, and how a minute is divided among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from torch import nn

from leakgauge.attacks.base import Progress
from leakgauge.audit.case import Case, observed, run_case, scored
from leakgauge.audit.making import unsupported
from leakgauge.audit.record import Record
from leakgauge.cli.alarm import at_most
from leakgauge.cli.pictures import bundled_batch
from leakgauge.cli.progress import Bar
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import LeakgaugeError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.registry import catalogue
from leakgauge.truth import Batch

EVALUATION = 4.0  # an evaluation of a matching attack costs about so many gradients of the client, both restarts together
FEWEST = 6.0  # evaluations below which a matching attack is not begun
PRODUCTS = 100.0  # gradients of the client that a closed form costs at least; below, it is not begun
LEAST = 1.0  # seconds
GRACE = 1.25  # of its share, after which a closed form that does not look at the clock is ended
CLOSED = {  # closed forms layer by layer, as far as they are registered
    "recursive": "closed form layer by layer (R-GAP)",
    "hybrid": "closed form layer by layer, what it leaves open filled in by a prior",
}


@dataclass(frozen=True)
class Part:
    """One attack on one batch, and its share of the time that is left when it begins."""

    case: Case
    share: float
    searches: bool

    @property
    def solves_layers(self) -> bool:
        """Whether it is a closed form layer by layer."""
        return self.case.attack in CLOSED


def planned_parts(
    network: nn.Module,
    name: str,
    state: str,
    shape: tuple[int, int, int],
    batch_size: int,
    classes: int,
    training: LocalTraining,
    seed: int,
    command: str,
) -> tuple[Part, ...]:
    """Closed forms and matching for one picture, then for the batch."""
    parts = []
    for size in dict.fromkeys((1, batch_size)):
        batch = bundled_batch(shape, size, classes)
        what = "One bundled picture" if size == 1 else f"{size} bundled pictures in one batch"
        base = Case(
            network,
            batch,
            "",
            model_name=name,
            model_state=state,
            training=training,
            seed=seed,
            attack_seed=seed,
            command=command,
        )
        for attack, how, share in _attacks(size, batch_size):
            title = f"{what}, {how}"
            parts.append(Part(replace(base, attack=attack, title=title), share, attack in ("idlg", "inverting-gradients")))
    return tuple(parts)


def _attacks(size: int, largest: int) -> Iterator[tuple[str, str, float]]:
    """Name, what it is, and share of the time left. Of the closed forms layer by layer, one says why it takes no batch."""
    first = size == 1 < largest
    yield "linear-layer", "closed form of a linear first layer", 1.0
    known = {entry.name for entry in catalogue("attacks")} & set(CLOSED)
    for name, how in CLOSED.items():
        if name in known and (size == 1 or name == "recursive"):
            yield name, how, 0.3
    yield "idlg", "gradient matching with second-order steps", 0.3 if first else 0.5
    yield "inverting-gradients", "gradient matching with a prior", 0.3 if first else 1.0


def run_parts(parts: Sequence[Part], deadline: float, stopped: Callable[[], bool], bar: Bar) -> Iterator[Record]:
    """Plays the parts until the deadline; what does not apply, or would take too long, comes back with its reason."""
    begun = time.monotonic()
    clock = Clock()
    solved: Record | None = None
    for part in parts:
        if stopped():
            return
        if part.case.attack == "hybrid" and solved is not None and (solved.certified or solved.outcome == "UNSUPPORTED"):
            continue  # it would find the same, or refuse for the same reasons
        left = deadline - time.monotonic()
        limit = max(LEAST, left * part.share)

        def tell(at: Progress, case: Case = part.case) -> None:  # noqa: ARG001 - as attacks call it
            bar.show((time.monotonic() - begun) / (deadline - begun), case.title)

        reason = clock.reason_against(part, limit)
        record = clock.left_out(part.case, reason) if reason else _played(part, limit, stopped, tell, clock)
        solved = record if part.case.attack == "recursive" else solved
        yield record


def _played(part: Part, limit: float, stopped: Callable[[], bool], tell: Callable[[Progress], None], clock: Clock) -> Record:
    """The part's record, or one that states why there is no result."""
    case = replace(part.case, time_limit=limit)
    try:
        with at_most(GRACE * limit, _late(limit)) if part.solves_layers else nullcontext():
            return run_case(case, cancelled=stopped, progress=tell, keep_unsupported=True)
    except LeakgaugeError as error:
        return clock.left_out(part.case, error)
    except (RuntimeError, NotImplementedError) as error:  # torch says so where an operation has no second derivative
        text = " ".join(str(error).split())[:200]
        reason = UnsupportedError(f"torch cannot differentiate this network as the attack needs it ({text}).")
        return clock.left_out(part.case, reason)


@dataclass
class Clock:
    """What the client's own training costs, and what it shares, once for each batch."""

    _seconds: dict[int, float] = field(default_factory=dict)
    _held: dict[int, Observation] = field(default_factory=dict)

    def reason_against(self, part: Part, limit: float) -> UnsupportedError | None:
        """Why a part is not begun: a batch where only one example can be solved, or far too little time."""
        batch = _batch_of(part.case)
        if part.solves_layers and len(batch) > 1:
            return UnsupportedError(
                f"layer equations hold for one example; a batch shares a sum over its {len(batch)} examples, which mixes them. "
                "Use a matching attack."
            )
        least = FEWEST * EVALUATION if part.searches else PRODUCTS if part.solves_layers else 0.0
        spent = self._gradient(part.case, limit / FEWEST) if least else 0.0
        if spent * least <= limit:
            return None
        what = f"one evaluation takes about {EVALUATION * spent:.0f} s and a search needs hundreds"
        if part.solves_layers:
            what = f"one gradient takes about {spent:.2g} s and the systems of the layers cost as much as hundreds"
        return UnsupportedError(
            f"There is no time for it here: {what}, but {limit:.0f} s are left of the minute. Use `leakgauge capture` and "
            "`leakgauge attack`, which have no such limit."
        )

    def left_out(self, case: Case, reason: LeakgaugeError) -> Record:
        """The record of an attack that was not run, with the reason."""
        assert isinstance(case.model, nn.Module)
        batch = _batch_of(case)
        if len(batch) not in self._held:
            self._held[len(batch)] = observed(case, case.model, batch)
        seen = self._held[len(batch)]
        return scored(case, seen, unsupported(seen, case.attack, reason), batch, "cpu")

    def _gradient(self, case: Case, enough: float) -> float:
        """Seconds of the client's own training: the better of two, since the first also warms up; one if it takes too long."""
        assert isinstance(case.model, nn.Module)
        batch = _batch_of(case)
        if len(batch) not in self._seconds:
            client = Client(case.model, loss=case.loss, training=case.training)
            spent: list[float] = []
            while len(spent) < 2 and sum(spent) < enough:
                began = time.monotonic()
                client.train(batch, seed=case.seed)
                spent.append(time.monotonic() - began)
            self._seconds[len(batch)] = min(spent)
        return self._seconds[len(batch)]


def _batch_of(case: Case) -> Batch:
    assert isinstance(case.data, Batch)
    return case.data


def _late(limit: float) -> UnsupportedError:
    return UnsupportedError(
        f"It did not end within the {limit:.0f} s that are left for it here. Use `leakgauge capture` and `leakgauge attack`, "
        "which have no such limit."
    )
