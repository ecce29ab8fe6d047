"""How long an attack will take at most: a few evaluations timed, times the number that is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakgauge.attacks.base import Progress
    from leakgauge.core.observation import Observation

FEW, MORE = 3, 30  # evaluations of each restart that are timed


def planned_evaluations(chosen: object, budget: str | int) -> int | None:
    """Gradient evaluations that a search plans; None for an attack without a search of ours."""
    from leakgauge.attacks.base import Limits

    named = getattr(chosen, "evaluations", None)
    return Limits(budget).evaluations(*named) if isinstance(named, tuple) and len(named) == 3 else None


def expected_seconds(
    seen: Observation, name: str, options: dict[str, Any], chosen: object, budget: str | int, device: str
) -> float | None:
    """Seconds at most, or None where that is not known. Draws of the real run are not touched.

    Raises:
        UnsupportedError, KnowledgeError: as the attack itself.
    """
    from leakgauge.attacks.control import ControlGuess
    from leakgauge.attacks.exact.linear_layer import LinearLayer
    from leakgauge.attacks.run import attack

    if isinstance(chosen, (LinearLayer, ControlGuess)):
        return attack(seen, name, device=device, **options).seconds  # a closed form is played once, to see whether it applies
    planned = planned_evaluations(chosen, budget)
    if planned is None:
        return None
    rate = seconds_per_evaluation(seen, name, options, chosen, device)
    return None if rate is None else planned * rate


def seconds_per_evaluation(seen: Observation, name: str, options: dict[str, Any], chosen: object, device: str) -> float | None:
    """Seconds of one gradient evaluation of a search, from a few of them; None where it makes none.

    A search that spends its few evaluations on a warm start, before it first tells of them, is timed by two runs as a whole.

    Raises:
        UnsupportedError, KnowledgeError: as the attack itself.
    """
    from leakgauge.attacks.run import attack

    at: list[tuple[int, float]] = []

    def note(progress: Progress) -> None:
        at.append((progress.evaluations, progress.seconds))

    restarts = max(1, int(getattr(chosen, "restarts", 1)))
    guess = attack(seen, name, budget=FEW * restarts, device=device, progress=note, cancelled=lambda: len(at) >= FEW, **options)
    if len(at) < 2 or at[-1][0] == at[0][0]:
        longer = attack(seen, name, budget=MORE * restarts, device=device, **options)
        spent = longer.stats.evaluations - guess.stats.evaluations
        return max(longer.seconds - guess.seconds, 0.0) / spent if spent > 0 else None
    return (at[-1][1] - at[0][1]) / (at[-1][0] - at[0][0])
