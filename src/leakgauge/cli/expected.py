"""How long an attack will take at most: two evaluations timed, times the number that is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakgauge.attacks.base import Progress
    from leakgauge.core.observation import Observation


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
    at: list[tuple[int, float]] = []

    def note(progress: Progress) -> None:
        at.append((progress.evaluations, progress.seconds))

    restarts = max(1, int(getattr(chosen, "restarts", 1)))
    attack(seen, name, budget=3 * restarts, device=device, progress=note, cancelled=lambda: len(at) >= 3, **options)
    if len(at) < 2 or at[-1][0] == at[0][0]:
        return None
    return planned * (at[-1][1] - at[0][1]) / (at[-1][0] - at[0][0])
