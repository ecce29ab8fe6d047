"""What is claimed of a filter: a bound on the update's 2-norm, and noise of a stated size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import log_ndtr

from leakgauge.defences.base import Defence
from leakgauge.errors import OptionError
from leakgauge.registry import make, parse_call

CHECKED = ("clip", "gaussian-noise", "laplacian-noise")
Claimed = str | Defence | Sequence[str | Defence]


@dataclass(frozen=True)
class Claim:
    """A claim in numbers.

    Args:
        text: as it was given.
        clip_norm: bound on the 2-norm of all parameters together, or None.
        std: standard deviation of the noise, or None.
        family: 'gaussian' or 'laplacian', or ''.
        buffers: whether buffers are claimed to get noise too.
        private: whether Gaussian noise follows a clip, so that an epsilon follows.
    """

    text: str = ""
    clip_norm: float | None = None
    std: float | None = None
    family: str = ""
    buffers: bool = False
    private: bool = False


def read_claim(claim: Claimed | None) -> Claim:
    """A claim from defences in order, or from their names as on the command line ('clip:norm=1', 'gaussian-noise:std=0.01').

    Raises:
        OptionError: for a defence that no measurement of one filter can confirm, or an unknown one.
    """
    if claim is None:
        return Claim()
    parts = [claim] if isinstance(claim, str | Defence) else list(claim)
    found, words = Claim(), []
    for part in parts:
        defence = part
        if isinstance(part, str):
            name, options = parse_call(part)
            if name not in CHECKED:
                raise OptionError(f"The claim {part!r} cannot be checked on a filter; expected one of {', '.join(CHECKED)}.")
            defence = make("defences", name, **options)
        if not isinstance(defence, Defence) or defence.name not in CHECKED:
            raise OptionError(f"The claim {part!r} cannot be checked on a filter; expected one of {', '.join(CHECKED)}.")
        record = defence.record()
        words.append(f"{record.name}:{','.join(f'{key}={value:g}' for key, value in record.parameters.items())}")
        found = _with(found, defence)
    return Claim(" then ".join(words), found.clip_norm, found.std, found.family, found.buffers, found.private)


def _with(claim: Claim, defence: Defence) -> Claim:
    if defence.name == "clip":
        norm = float(defence.norm)  # type: ignore[attr-defined]
        bound = norm if claim.clip_norm is None else min(norm, claim.clip_norm)
        return Claim("", bound, claim.std, claim.family, claim.buffers, claim.private)
    if claim.std is not None:
        raise OptionError("A claim holds noise twice; expected at most one clip and one kind of noise.")
    buffers = bool(defence.buffers)  # type: ignore[attr-defined]
    if defence.name == "gaussian-noise":
        std = float(defence.std)  # type: ignore[attr-defined]
        return Claim("", claim.clip_norm, std, "gaussian", buffers, claim.clip_norm is not None and std > 0)
    scale = float(defence.scale)  # type: ignore[attr-defined]
    return Claim("", claim.clip_norm, math.sqrt(2) * scale, "laplacian", buffers)


def gaussian_epsilon(distance: float, std: float, delta: float) -> float:
    """The smallest epsilon of one Gaussian mechanism, for neighbours whose 2-norm distance is given.

    Solves $\\delta = \\Phi(\\mu/2 - \\epsilon/\\mu) - e^\\epsilon \\Phi(-\\mu/2 - \\epsilon/\\mu)$ with $\\mu$ = distance / std.

    Args:
        distance: >= 0.
        std: of the noise, >= 0; 0 gives infinity.
        delta: in (0, 1).

    Source: Balle & Wang 2018, theorem 8.
    """
    if distance == 0:
        return 0.0
    if std == 0:
        return math.inf
    mu = distance / std

    def excess(epsilon: float) -> float:
        first, second = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
        return float(math.exp(first) - math.exp(second) - delta)

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high))
