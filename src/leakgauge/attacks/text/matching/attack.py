"""TextMatching: gradient matching in the space of embeddings, read off as tokens, and what can be said without the truth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.labels.recover import unit_displacement
from leakgauge.attacks.matching.distance import Distance, adapts
from leakgauge.attacks.matching.search.base import Search
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.matching.target import Target, target_of
from leakgauge.attacks.text.bag import bag_of
from leakgauge.attacks.text.check import explained
from leakgauge.attacks.text.matching.balanced import Balanced
from leakgauge.attacks.text.matching.labels import labels_of
from leakgauge.attacks.text.matching.language import language_prior
from leakgauge.attacks.text.matching.moves import Tokens
from leakgauge.attacks.text.matching.problem import TextProblem
from leakgauge.attacks.text.matching.reading import read_update
from leakgauge.attacks.text.matching.run import Run
from leakgauge.attacks.text.network import TextNetwork, read_network
from leakgauge.attacks.verify import ROUNDING, agrees, has_signal, no_texts
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError

STARTS = ("span", "tokens", "noise")
HEAD_NUMBERS = 100_000_000  # numbers held while labels are placed


@dataclass(frozen=True)
class TextMatching(Attack):
    """Looks for embeddings whose update equals the observed one, and for the tokens they are (Zhu et al. 2019).

    Args:
        distance: between updates.
        search: how the minimum is sought.
        start: 'span' (tokens whose first-layer input lies in the span of its gradient, matching only what they leave open),
            'tokens' (random ones) or 'noise' (Gaussian, of the size of embeddings).
        span: search within that span, where it can be read.
        positions: read tokens off together with their position; an encoder's slots are assigned to positions.
        snap: hold sure slots at their tokens and search the rest again, round by round.
        discrete: moves of tokens that are kept if the recomputed update comes nearer.
        rearrange: random rearrangements tried after each round (LAMP); 0 leaves them out.
        prior: a causal language model of the same vocabulary, such as 'hf:FOLDER'; '' for none.
        prior_weight: of its mean negative log-likelihood beside the objective.
        norm_weight: of (mean embedding norm / public mean norm - 1)^2.
        rounds: stretches that the continuous search is cut into.
        bag: 'auto' allows only tokens whose embedding row has a gradient, where the embedding trains; 'off' allows all.
        evaluations: gradient evaluations for the budgets 'fast', 'paper' and 'max'.
        tolerance: objective at which a stretch ends.
        dtype: 'float32' or 'float64'.
        name: of the preset.
    """

    distance: Distance = field(default_factory=Balanced)
    search: Search = field(default_factory=LBFGS)
    start: str = "span"
    span: bool = True
    positions: bool = True
    snap: bool = True
    discrete: bool = True
    rearrange: int = 0
    prior: str = ""
    prior_weight: float = 0.0
    norm_weight: float = 0.0
    rounds: int = 5
    bag: str = "auto"
    evaluations: tuple[int, int, int] = (600, 2_400, 10_000)
    tolerance: float = 1e-13
    dtype: str = "float32"
    name: str = "dlg-text"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise OptionError(f"{self.name}.start is {self.start!r}; expected one of {', '.join(STARTS)}.")
        if self.bag not in ("auto", "off"):
            raise OptionError(f"{self.name}.bag is {self.bag!r}; expected auto or off.")
        if self.dtype not in ("float32", "float64"):
            raise OptionError(f"{self.name}.dtype is {self.dtype!r}; expected float32 or float64.")
        if self.rounds < 1 or self.rearrange < 0:
            raise OptionError(f"{self.name}.rounds must be at least 1 and .rearrange at least 0.")
        if self.prior_weight < 0 or self.norm_weight < 0:
            raise OptionError(f"{self.name}.prior_weight and .norm_weight must not be negative.")

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        spec = seen.spec
        if not isinstance(spec, TextSpec):
            raise no_texts(seen, self.name)
        if not has_signal(seen):
            return self._silent(seen, spec, limits)
        network = read_network(seen, torch.float64, limits.device)
        target = target_of(seen, "eval", getattr(torch, self.dtype), limits.device)
        allowed, bag_note = self._allowed(seen, network, generator)
        known = labels_of(seen, network, generator)
        fit = self.start == "span"
        reading = read_update(seen, network, target.tensors, allowed, generator, self.span, fit, lambda: limits.expired)
        labels = known.labels
        problem = TextProblem(
            target=target,
            network=network,
            loss=seen.loss,
            distance=self.distance,
            mask=reading.mask,
            padding=0 if spec.padding is None else spec.padding,
            causal=spec.task == "causal",
            span=reading.space if self.span else None,
            norm_weight=self.norm_weight,
            labels=torch.zeros(0) if labels is None else labels.to(limits.device),
            totals=torch.zeros(0),
            free=reading.mask == 1,
        )
        rounding = max(ROUNDING["bfloat16" if seen.training.amp else seen.training.dtype], ROUNDING[self.dtype])
        run = Run(
            attack=self,
            problem=problem,
            reading=reading,
            known=known,
            allowed=allowed,
            head=_head(seen, network, target),
            rounding=rounding,
            generator=generator,
            limits=limits,
            prior=language_prior(self.prior, network.vocabulary),
            padded=spec.padding is not None,
        )
        run()
        notes = [known.note, reading.note, bag_note, self._difference()]
        if seen.training.mode == "train":
            notes.append(
                "The client trains in train mode; where dropout is active the attack, which has none, cannot explain it."
            )
        return self._concluded(seen, run, spec, limits, tuple(note for note in notes if note))

    def _allowed(self, seen: Observation, network: TextNetwork, generator: torch.Generator) -> tuple[Tensor, str]:
        """(V,) tokens that may occur, and how that is known."""
        allowed = torch.ones(network.vocabulary, dtype=torch.bool)
        if self.bag == "off" or network.tied or network.causal:  # tied: no row is zero; causal: the last token leaves no row
            return allowed, ""
        bag = bag_of(seen, network, generator)
        if bag is None or not bag.consistent or len(bag.tokens) == 0:
            return allowed, ""
        allowed[:] = False
        allowed[bag.tokens.cpu()] = True
        return allowed, f"Bag of tokens: {len(bag.tokens)}, from the embedding's gradient."

    def _difference(self) -> str:
        """Which parts are not the published attack's."""
        ours = [
            ("distance=balanced", "every tensor weighed by its own size", isinstance(self.distance, Balanced)),
            ("start=span", "tokens that fit the span of the first layer's gradient (DAGER's first check)", self.start == "span"),
            ("span", "a search within that span", self.span),
            ("positions", "tokens read off with their positions", self.positions),
            ("snap", "sure slots held at their tokens", self.snap),
            ("discrete", "token moves on the recomputed update", self.discrete),
        ]
        used = [f"{option}: {what}" for option, what, on in ours if on]
        return f"Beyond the published attack: {'; '.join(used)}." if used else ""

    def _silent(self, seen: Observation, spec: TextSpec, limits: Limits) -> Reconstruction:
        return Reconstruction(
            inputs=torch.full((seen.num_examples, spec.length), spec.padding or 0, dtype=torch.int64),
            labels=None,
            outcome=Outcome.NO_GRADIENT_SIGNAL,
            explains=False,
            certified=unverified(seen.num_examples),
            confidence=torch.zeros(seen.num_examples),
            stats=Stats(cause="All shared tensors are zero; there is nothing to attack."),
            seconds=limits.seconds,
            attack=self.name,
        )

    def _concluded(self, seen: Observation, run: Run, spec: TextSpec, limits: Limits, notes: tuple[str, ...]) -> Reconstruction:
        """The best discrete candidate, checked against every shared tensor."""
        best = run.best
        count = seen.num_examples
        if best is None:
            ids = torch.full((count, spec.length), spec.padding or 0, dtype=torch.int64)
            best = Tokens(ids, run.problem.mask, run.problem.labels, float("nan"), float("nan"))
            residual, explains = float("nan"), False
        else:
            residual = explained(seen, run.problem.target, best.ids, best.mask, best.labels)
            explains = agrees(residual, seen, self.dtype)
        outcome, cause = run.outcome, f"The recomputed update is {residual:.1e} away from the observed one (relative norm)."
        noisy = [record.name for record in seen.defences if adapts(record.name)]
        if explains:
            outcome = Outcome.CONVERGED
        elif noisy and residual < 1 and outcome is not Outcome.TIMEOUT:
            outcome, cause = Outcome.INCONSISTENT, f"The update was rewritten by {', '.join(noisy)}. {cause}"
        elif outcome is Outcome.CONVERGED:
            outcome = Outcome.STEP_LIMIT
        stats = Stats(
            evaluations=round(run.evaluations),
            objective=best.value,
            residual=residual,
            curve=tuple(run.curve),
            cause=cause,
            notes=notes,
            options={part.name: str(getattr(self, part.name)) for part in dataclasses.fields(self)},
        )
        return Reconstruction(
            inputs=best.ids.detach().cpu(),
            labels=best.labels.detach().cpu() if len(best.labels) else None,
            outcome=outcome,
            explains=explains,
            certified=unverified(count),
            confidence=torch.full((count,), 1.0 if explains else 0.0),
            stats=stats,
            seconds=limits.seconds,
            attack=self.name,
        )


def _head(seen: Observation, network: TextNetwork, target: Target) -> dict[str, Tensor]:
    """Gradients of the last parameters, as one gradient of the mean loss: what labels are placed by."""
    spec = seen.spec
    assert isinstance(spec, TextSpec)
    factor = 1.0 if target.training.lr is None else unit_displacement(target.training, seen.num_examples)
    room = HEAD_NUMBERS // (seen.num_examples * spec.length)
    found: dict[str, Tensor] = {}
    for name, tensor in reversed(list(target.tensors.items())):
        if name == network.tokens or len(tensor) >= network.vocabulary:
            continue
        if tensor.numel() > room or len(found) == 4:
            break
        room -= tensor.numel()
        found[name] = tensor.to(network.dtype) / factor
    return found
