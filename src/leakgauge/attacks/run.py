"""`attack`: any registered attack on an observation, by name."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from leakgauge.attacks.base import Attack, Limits, Progress, resolve_device
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.randomness import isolated, rng
from leakgauge.registry import make


def attack(
    seen: Observation,
    name: str,
    seed: int = 0,
    budget: str | int = "fast",
    time_limit: float | None = None,
    device: str = "auto",
    *,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Reconstruction:
    """Runs an attack on what an attacker holds.

    Args:
        seen: the observation.
        name: as in `catalogue("attacks")`.
        seed: of the attack's own draws; the result records it.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        time_limit: seconds, or None; what was best by then comes back with the outcome TIMEOUT.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        cancelled: polled during the search; True ends it with what was best so far.
        progress: called now and then.
        options: the attack's own options.

    Raises:
        OptionError: for an unknown attack, option, budget or device.
        UnsupportedError, KnowledgeError: see `Attack`.
    """
    chosen: Attack = make("attacks", name, **options)
    where = resolve_device(device)
    limits = Limits(budget, time_limit, where, cancelled or (lambda: False), progress or (lambda _: None))
    with isolated():
        guess = chosen(dataclasses.replace(seen, model=copy.deepcopy(seen.model)), rng(seed, "attack"), limits)
    stats = dataclasses.replace(guess.stats, seed=seed, options={**guess.stats.options, **options})
    return dataclasses.replace(guess, attack=name, stats=stats)
