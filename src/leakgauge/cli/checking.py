"""The parts of `check`, and how a minute is divided among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from leakgauge.attacks.base import Progress
from leakgauge.audit.case import Case, observed, run_case, scored
from leakgauge.audit.making import unsupported
from leakgauge.audit.record import Record
from leakgauge.cli.pictures import bundled_batch
from leakgauge.cli.progress import Bar
from leakgauge.core.training import LocalTraining
from leakgauge.errors import LeakgaugeError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.truth import Batch

EVALUATION = 4.0  # an evaluation of a matching attack costs about so many gradients of the client, both restarts together
FEWEST = 6.0  # evaluations below which a matching attack is not begun
LEAST = 1.0  # seconds


@dataclass(frozen=True)
class Part:
    """One attack on one batch, and its share of the time that is left when it begins."""

    case: Case
    share: float
    searches: bool


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
    """Closed form and matching for one picture, then for the batch."""
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
        for attack, how, share in (
            ("linear-layer", "closed form of a linear first layer", 1.0),
            ("idlg", "gradient matching with second-order steps", 0.3 if size == 1 < batch_size else 0.5),
            ("inverting-gradients", "gradient matching with a prior", 0.3 if size == 1 < batch_size else 1.0),
        ):
            parts.append(Part(replace(base, attack=attack, title=f"{what}, {how}"), share, attack != "linear-layer"))
    return tuple(parts)


def run_parts(parts: Sequence[Part], deadline: float, stopped: Callable[[], bool], bar: Bar) -> Iterator[Record]:
    """Plays the parts until the deadline; what does not apply, or would take too long, comes back with its reason."""
    begun = time.monotonic()
    for part in parts:
        if stopped():
            return
        left = deadline - time.monotonic()
        limit = max(LEAST, left * part.share)
        assert isinstance(part.case.data, Batch)

        def tell(at: Progress, case: Case = part.case) -> None:  # noqa: ARG001 - as attacks call it
            bar.show((time.monotonic() - begun) / (deadline - begun), case.title)

        reason = _too_long(part, limit) if part.searches else None
        if reason is not None:
            yield _left_out(part.case, reason)
            continue
        try:
            yield run_case(replace(part.case, time_limit=limit), cancelled=stopped, progress=tell, keep_unsupported=True)
        except LeakgaugeError as error:
            yield _left_out(part.case, error)
        except (RuntimeError, NotImplementedError) as error:  # torch says so where an operation has no second derivative
            text = " ".join(str(error).split())[:200]
            yield _left_out(
                part.case, UnsupportedError(f"torch cannot differentiate this network as the attack needs it ({text}).")
            )


def _too_long(part: Part, limit: float) -> UnsupportedError | None:
    """Why a search would not get anywhere in its time, from the time of the client's own gradient."""
    assert isinstance(part.case.model, nn.Module)
    assert isinstance(part.case.data, Batch)
    client = Client(part.case.model, loss=part.case.loss, training=part.case.training)
    spent: list[float] = []
    while len(spent) < 2 and sum(spent) < limit / FEWEST:  # the first also warms up
        began = time.monotonic()
        client.train(part.case.data, seed=part.case.seed)
        spent.append(time.monotonic() - began)
    one = EVALUATION * min(spent)
    if one * FEWEST <= limit:
        return None
    return UnsupportedError(
        f"There is no time for it here: one evaluation takes about {one:.0f} s and a search needs hundreds, but "
        f"{limit:.0f} s are left of the minute. Use `leakgauge capture` and `leakgauge attack`, which have no such limit."
    )


def _left_out(case: Case, reason: LeakgaugeError) -> Record:
    """The record of an attack that was not run, with the reason."""
    assert isinstance(case.model, nn.Module)
    assert isinstance(case.data, Batch)
    seen = observed(case, case.model, case.data)
    return scored(case, seen, unsupported(seen, case.attack, reason), case.data, "cpu")
