"""One attack on one observed message: the attacker's prior, plain and adaptive forms, control, and the scored record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakgauge.attacks.base import Progress
from leakgauge.attacks.labels.recover import recover_labels
from leakgauge.attacks.run import attack
from leakgauge.audit.case import attack_call
from leakgauge.audit.conditions import conditions_of
from leakgauge.audit.making import calibration, unsupported
from leakgauge.audit.prior import names_picture, with_picture
from leakgauge.audit.simulation.pictures import located
from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.audit.simulation.record import ADAPTIVE, CONTROL, PLAIN, PRIOR, Leak, LeakPictures, PictureScore, Setting
from leakgauge.audit.simulation.scores import scored_pictures
from leakgauge.audit.simulation.split import Pictures
from leakgauge.audit.simulation.store import Heard
from leakgauge.core.observation import Knowledge, Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.data.load import list_items
from leakgauge.data.pictures import one_shape
from leakgauge.data.spec import parse_data_spec
from leakgauge.errors import KnowledgeError, OptionError, UnsupportedError
from leakgauge.registry import find


@dataclass(frozen=True)
class Target:
    """A message to be attacked.

    Args:
        number: of the round.
        heard: sender, receiver, members.
        seen: what the attacker holds, the defence included.
        model_state: in words.
        setting: conditions beyond those of the observation.
    """

    number: int
    heard: Heard
    seen: Observation
    model_state: str
    setting: Setting


@dataclass(frozen=True)
class Attacker:
    """Whoever plays the plan's attacks, with what they know about pictures in general.

    Args:
        plan: names attacks, budget and prior.
        pictures: the public ones are known to the attacker; the rest is only used to score.
        beside: folder of the plan's file, for a prior that is a file.
    """

    plan: SimulationPlan
    pictures: Pictures
    beside: Path | None = None

    def variants(self, text: str, defended: bool) -> tuple[str, ...]:
        """The forms of an attack: plain, and where there is a defence also the one that is fitted to it."""
        return (PLAIN, ADAPTIVE) if defended and adapts(text) else (PLAIN,)

    def controls(self, target: Target, key: Callable[[str, str], str]) -> tuple[Leak, ...]:
        """What a fixed rule gives without the update, and the attacker's prior itself, as records."""
        public = self.pictures.public_pixels
        known = public if len(public) > 1 else calibration(self.pictures.pool.spec.shape)
        guess = attack(target.seen, "control", seed=self.plan.seed, device="cpu", public=known)
        prior, words = self.prior(target.seen)
        shape = self.pictures.pool.spec.shape
        pixels = torch.full(shape, 0.5) if prior is None else prior
        inputs = self.pictures.pool.spec.normalise(pixels).expand(target.seen.num_examples, *shape)
        alone = replace(guess, inputs=inputs, stats=replace(guess.stats, notes=(f"The prior itself: {words}.",), options={}))
        return (
            self._record(target, "control", CONTROL, guess, key("control", CONTROL)),
            self._record(target, "prior", PRIOR, alone, key("prior", PRIOR)),
        )

    def play(
        self,
        target: Target,
        text: str,
        variant: str,
        key: str,
        cancelled: Callable[[], bool],
        progress: Callable[[Progress], None],
    ) -> Leak:
        """One attack in one form; one that does not apply comes back with the reason."""
        name, options = attack_call(text)
        seen, setting = target.seen, target.setting
        if variant == PLAIN and seen.defences:
            if not self.plan.threat.defence:
                seen = replace(seen, defences=(), knowledge=seen.knowledge - {Knowledge.DEFENCE})
            if "adaptive" in parameters(name):
                options["adaptive"] = False
        elif variant == ADAPTIVE:
            options["adaptive"] = True
        words = "not used by this attack"
        if "prior" in parameters(name) and "prior" not in options:
            prior, words = self.prior(seen)
            if prior is not None:
                options["prior"] = prior
        elif names_picture(options):
            words = f"the picture {options['prior']}"
            options = with_picture(options, seen.pictures, lambda data: located(data, self.beside) or data)
        target = replace(target, seen=seen, setting=replace(setting, prior=words))
        try:
            guess = attack(
                seen,
                name,
                seed=self.plan.seed,
                budget=self.plan.attack.budget,
                time_limit=self.plan.attack.time_limit,
                device="cpu",
                cancelled=cancelled,
                progress=progress,
                **options,
            )
        except (UnsupportedError, KnowledgeError) as reason:
            record = self._record(target, text, variant, unsupported(seen, name, reason), key, scored=False)
            return replace(record, skipped=f"does not apply: {str(reason).rstrip('.')}")
        return self._record(target, text, variant, guess, key)

    def not_attacked(self, target: Target, text: str, reason: str, key: str) -> Leak:
        """The entry of a message that the plan does not attack."""
        nothing = unsupported(target.seen, text, OptionError(reason))
        return replace(self._record(target, text, PLAIN, nothing, key, scored=False), skipped=reason, outcome="", outcome_text="")

    def prior(self, seen: Observation) -> tuple[Tensor | None, str]:
        """The attacker's idea of the pictures, (C, H, W) or (N, C, H, W) in [0, 1], and what it is; None for mid-grey."""
        wanted = self.plan.attack.prior
        if wanted not in ("class mean", "mean", "grey"):
            return self._given_prior(wanted), f"the picture {wanted}"
        mean = self.pictures.public_mean()
        if wanted == "grey" or mean is None:
            return None, "mid-grey" + ("" if wanted == "grey" else ", since no picture is public")
        count = len(self.pictures.public)
        if wanted == "mean":
            return mean, f"the mean of {count} public pictures"
        labels, how = seen.labels, "known"
        if labels is None:
            try:
                labels, how = recover_labels(seen).labels, "recovered"
            except (UnsupportedError, KnowledgeError):
                return mean, f"the mean of {count} public pictures, since no label could be recovered"
        means = [self.pictures.public_mean(int(label)) for label in labels.reshape(len(labels), -1)[:, 0].tolist()]
        return torch.stack([entry for entry in means if entry is not None]), f"the mean of the public pictures of the {how} class"

    def _given_prior(self, text: str) -> Tensor:
        spec = located(parse_data_spec(text), self.beside)
        if spec is None:
            raise OptionError(f"attack.prior is {text!r}, which is not on this machine.")
        items = list_items(spec)
        chosen = [items[index] for index in spec.select(len(items))]
        if len(chosen) != 1:
            raise OptionError(f"attack.prior is {text!r}, which holds {len(chosen)} pictures; expected one, as with ?indices=0.")
        channels, height, width = self.plan.shape
        return one_shape([chosen[0].pixels()], [chosen[0].name], (height, width), channels)[0]

    def _record(self, target: Target, text: str, variant: str, guess: Reconstruction, key: str, *, scored: bool = True) -> Leak:
        conditions = conditions_of(
            target.seen,
            guess,
            model=self.plan.model,
            model_state=target.model_state,
            budget=self.plan.attack.budget,
            seeds={"plan": self.plan.seed, "attack": self.plan.seed},
        )
        scores: tuple[PictureScore, ...] = ()
        shown: LeakPictures | None = None
        if scored:
            scores, shown = scored_pictures(self.pictures, target.heard.members, guess.inputs, guess.labels)
        return Leak(
            key=key,
            round=target.number,
            sender=target.heard.sender,
            receiver=target.heard.receiver,
            members=target.heard.members,
            attack=text,
            variant=variant,
            skipped="",
            outcome=guess.outcome.name,
            outcome_text=guess.outcome.value,
            cause=guess.stats.cause,
            notes=guess.stats.notes,
            evaluations=guess.stats.evaluations,
            seconds=guess.seconds,
            scores=scores,
            conditions=conditions,
            setting=target.setting,
            pictures=shown,
        )


def parameters(name: str) -> dict[str, Any]:
    """Options that an attack takes, by name."""
    return dict(inspect.signature(find("attacks", name)).parameters)


def adapts(text: str) -> bool:
    """Whether an attack has a form that is fitted to a defence."""
    name, options = attack_call(text)
    return "adaptive" in parameters(name) and "adaptive" not in options


def check_adaptive(plan: SimulationPlan) -> None:
    """A defence is never shown with non-adaptive attacks alone.

    Raises:
        OptionError: if the plan has a defence and no attack that can be fitted to it.
    """
    defended = any(client.defences for client in plan.clients) or bool(plan.federation.server_defence)
    if plan.tradeoff is not None:
        defended = defended or any(text != "none" for text in plan.tradeoff.defences)
    if defended and not any(adapts(text) for text in plan.attack.attacks):
        raise OptionError(
            "attack.with has no attack that adapts to a defence, and the plan has defences; add one that does, such as "
            "bn-matching, inverting-gradients or dlg."
        )
