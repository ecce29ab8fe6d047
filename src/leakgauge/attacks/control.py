"""The control: what a fixed rule gives without the update. Every attack's figure is shown beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.control_text import control_tokens
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.spec import ImageSpec
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, ShapeError, UnsupportedError
from leakgauge.registry import described

RULES = ("best", "grey", "mean", "picture")


@dataclass(frozen=True)
class ControlGuess(Attack):
    """Guesses without looking at the update.

    Rules: 'grey' (mid-range, the optimum of the priors total variation and box), 'mean' (mean of the public pictures),
    'picture' (that public picture which is nearest to the others), 'best' (of the three, the one with the smallest mean
    squared error on the public pictures, each left out of its own mean). For texts see `control_tokens`.

    Args:
        rule: one of the rules.
        public: (M, C, H, W) public pictures in [0, 1], or (M, L) token ids of public texts; without them 'best' is 'grey', or
            one token throughout.
    """

    rule: str = "best"
    public: Tensor | None = None

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:  # noqa: ARG002
        limits = limits or Limits()
        if isinstance(seen.spec, TextSpec):
            name, tokens = control_tokens(seen.spec, self.rule, self.public)
            inputs = tokens.expand(seen.num_examples, -1).clone()
        elif seen.pictures is None:
            raise UnsupportedError("The control needs an ImageSpec or a TextSpec; the observation has none.")
        else:
            name, pixels = control_pixels(seen.pictures, self.rule, self.public)
            inputs = seen.pictures.normalise(pixels).expand(seen.num_examples, *seen.pictures.shape).clone()
        return Reconstruction(
            inputs=inputs,
            labels=None,
            outcome=Outcome.UNDERDETERMINED,
            explains=False,
            certified=unverified(len(inputs)),
            confidence=torch.zeros(len(inputs)),
            stats=Stats(notes=(f"Control without the update: {name}.",)),
            seconds=limits.seconds,
            attack="control",
        )


def control_pixels(spec: ImageSpec, rule: str = "best", public: Tensor | None = None) -> tuple[str, Tensor]:
    """The control's name in words and its picture (C, H, W) in [0, 1].

    Raises:
        OptionError: for an unknown rule, or one that needs public pictures without any.
        ShapeError: if the public pictures have another shape than the spec.
    """
    if rule not in RULES:
        raise OptionError(f"There is no control rule {rule!r}; expected one of {', '.join(RULES)}.")
    grey = torch.full(spec.shape, 0.5)
    if public is None or len(public) == 0:
        if rule in ("mean", "picture"):
            raise OptionError(f"The control rule {rule!r} needs public pictures.")
        return "mid-grey", grey
    if tuple(public.shape[1:]) != spec.shape:
        raise ShapeError(f"The public pictures have shape {tuple(public.shape[1:])}; expected {spec.shape}.")
    flat = public.reshape(len(public), -1).double()
    mean = flat.mean(0)
    count = len(public)
    others = (count * mean - flat) / max(count - 1, 1)
    between = torch.cdist(flat, flat).square() / flat.shape[1]
    medoid = int(between.sum(1).argmin())
    errors = {
        "grey": float((flat - 0.5).square().mean()),
        "mean": float((flat - others).square().mean()),
        "picture": float(between[medoid].sum() / max(count - 1, 1)),
    }
    chosen = min(errors, key=lambda key: errors[key]) if rule == "best" else rule
    pictures = {
        "grey": ("mid-grey", grey),
        "mean": (f"the mean of {count} public pictures", mean.reshape(spec.shape).float()),
        "picture": (f"the most central of {count} public pictures", public[medoid]),
    }
    return pictures[chosen]


@described(
    needs="nothing but the shape; public pictures or texts make it stronger",
    source="audit practice; Huang et al. 2021, Balle et al. 2022",
)
def control(rule: str = "best", public: Tensor | None = None) -> ControlGuess:
    """No attack: the best guess by a fixed rule that never looks at the update."""
    return ControlGuess(rule=rule, public=public)
