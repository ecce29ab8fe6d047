"""The loop of text matching: span, continuous search, decoding, discrete moves, snapping, within one budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.driver import Trail, drive
from leakgauge.attacks.text.matching.decode import Decoded, alternatives, decode
from leakgauge.attacks.text.matching.labels import TextLabels, place_labels
from leakgauge.attacks.text.matching.language import LanguagePrior
from leakgauge.attacks.text.matching.last import complete
from leakgauge.attacks.text.matching.moves import Candidates, Tokens, descend, rearranged
from leakgauge.attacks.text.matching.problem import TextProblem
from leakgauge.attacks.text.matching.reading import Reading, first_guess
from leakgauge.core.reconstruction import CurvePoint, Outcome

if TYPE_CHECKING:
    from leakgauge.attacks.text.matching.attack import TextMatching

HEAD_COST = 0.1  # gradient evaluations that one gradient of the head alone counts for
SURE = 0.9  # cosine from which a slot may be snapped to its token before the last round
NEAREST = 3  # tokens nearest to a slot that are tried in its place
RESTARTS = 8  # random shares of candidates among the texts of a batch


@dataclass
class Run:
    """One attack under way.

    Args:
        attack: its options.
        problem: what is minimised.
        reading: facts from the update.
        known: labels as far as known.
        allowed: (V,) tokens that may occur.
        head: gradients after the last attention block, to place labels by.
        rounding: relative distance of a candidate that explains the update.
        generator: of every draw.
        limits: budget and clock.
        prior: language model, or None.
        padded: whether texts may be shorter than their longest.
    """

    attack: TextMatching
    problem: TextProblem
    reading: Reading
    known: TextLabels
    allowed: Tensor
    head: dict[str, Tensor]
    rounding: float
    generator: torch.Generator
    limits: Limits
    prior: LanguagePrior | None
    padded: bool = False
    evaluations: float = 0.0
    best: Tokens | None = None
    outcome: Outcome = Outcome.STEP_LIMIT
    curve: list[CurvePoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = self.limits.evaluations(*self.attack.evaluations)

    @property
    def over(self) -> bool:
        """Whether budget or clock have run out, or a candidate explains the update."""
        if self.limits.expired:
            self.outcome = Outcome.TIMEOUT
        return self.limits.expired or self.evaluations >= self.total or self.done

    @property
    def done(self) -> bool:
        """Whether a candidate explains the update."""
        return self.best is not None and self.best.residual <= self.rounding

    def evaluate(self, ids: Tensor, mask: Tensor, labels: Tensor) -> Tokens:
        """A discrete candidate with its objective; the best one is kept."""
        self.problem.mask = mask
        ids = torch.where(mask == 1, ids, self.problem.padding)
        labels = self.problem.labels_for(ids) if self.problem.causal else labels
        value, residual = self.problem.discrete(ids, labels)
        self.evaluations += 1
        found = Tokens(ids, mask, labels, value, residual)
        if self.best is None or (not self.done and (value < self.best.value or residual <= self.rounding)):
            self.best = found
            self.curve.append(CurvePoint(round(self.evaluations), value))
        return found

    def placed(self, ids: Tensor | None, totals: Tensor | None = None) -> Tensor:
        """Labels for a candidate: granted, its tokens, or the multiset placed by least squares."""
        problem = self.problem
        if self.known.labels is not None:
            return self.known.labels.to(problem.mask.device)
        if self.known.multiset is None:
            assert ids is not None
            return problem.labels_for(ids)
        arguments = problem.arguments(ids) if ids is not None else problem.embedded_inputs(totals)  # type: ignore[arg-type]
        like = problem.network.dtype
        given = {name: part.to(like) if part.is_floating_point() else part for name, part in arguments.items()}  # type: ignore[union-attr]
        self.evaluations += HEAD_COST * int(problem.mask.sum()) * len(torch.unique(self.known.multiset))
        return place_labels(problem.network, given, problem.mask, self.known.multiset.to(problem.mask.device), self.head)

    def completed(self, ids: Tensor) -> Tensor:
        """The same with the last token of each causal text by its label alone."""
        problem = self.problem
        if not problem.causal:
            return ids
        self.evaluations += HEAD_COST * problem.network.hidden * len(ids)
        return complete(problem.network, ids, problem.mask, self.head, self.allowed)

    def __call__(self) -> None:
        """Runs until done."""
        start = first_guess(self.reading, self.problem.padding, self.problem.network, self.generator)
        if self.attack.start == "span" and self.reading.complete:
            start = self._from_span(start)
        noise, mask = self.attack.start == "noise", self.problem.mask
        while not self.over:
            before = self.evaluations
            self.problem.mask = mask
            self._search(start, noise)
            start, noise = first_guess(self.reading, self.problem.padding, self.problem.network, self.generator), True
            if self.evaluations - before < 2:
                break  # nothing to search for
        if self.done:
            self.outcome = Outcome.CONVERGED

    def _from_span(self, ids: Tensor) -> Tensor:
        """Tokens that fit each position, and discrete moves from there; for a batch from several random shares."""
        count, best = len(ids), None
        for restart in range(RESTARTS if count > 1 else 1):
            if restart:
                ids = self._reshared(ids)
            found = self._tokens(ids, [list(self.reading.choices)] * count)
            best = found if best is None or found.value < best.value else best
            if self.over or self.evaluations > 0.7 * self.total:
                break
        assert best is not None
        self.problem.mask = best.mask
        return best.ids

    def _reshared(self, ids: Tensor) -> Tensor:
        mask, drawn = self.reading.mask, ids.clone()
        for position in range(ids.shape[1]):
            rows = mask[:, position].nonzero().flatten()
            fits = self.reading.choices[position]
            if len(fits) >= len(rows):
                order = torch.randperm(len(fits), generator=self.generator)[: len(rows)]
            else:
                order = torch.randint(len(fits), (len(rows),), generator=self.generator)
            drawn[rows, position] = fits[order.to(fits.device)]
        self.problem.mask = mask
        return drawn

    def _tokens(self, ids: Tensor, choices: Candidates | None) -> Tokens:
        """A discrete candidate with labels placed, and (where wanted) moves among the tokens worth a try at each place."""
        mask = self.problem.mask
        ids = self.completed(ids)
        tokens = self.evaluate(ids, mask, self.placed(ids))
        if choices is None or not self.attack.discrete:
            return tokens
        for _ in range(3):
            before = tokens.value
            tokens = descend(tokens, choices, self.evaluate, lambda _: self.over, self.padded)
            if self.over or (self.known.multiset is None and not self.problem.causal):
                break
            self.problem.mask = tokens.mask
            moved = self.completed(tokens.ids)
            again = self.evaluate(moved, tokens.mask, self.placed(moved))
            tokens = again if again.value < tokens.value else tokens
            if tokens.value >= before:
                break
        return tokens

    def _begin(self, ids: Tensor, noise: bool) -> None:
        """Continuous start in all slots: the given tokens, or noise of the size of embeddings."""
        problem = self.problem
        problem.free = problem.mask == 1
        problem.totals = problem.tokens_as_totals(ids)
        if noise:
            drawn = torch.randn(problem.totals.shape, generator=self.generator).to(problem.totals) * problem.unit + problem.places
            problem.totals = torch.where(problem.free[:, :, None], drawn, problem.totals)

    def _search(self, ids: Tensor, noise: bool) -> None:
        """Rounds of continuous search, decoding, moves and snapping."""
        problem, attack = self.problem, self.attack
        self._begin(ids, noise)
        for index in range(attack.rounds):
            if self.over or not bool(problem.free.any()):
                break
            problem.labels = self.placed(ids if self.known.multiset is None else None, problem.totals)
            left = attack.rounds - index
            share = max(1, int((self.total - self.evaluations) / left * (0.8 if attack.rearrange or attack.discrete else 1.0)))
            self._drive(share)
            decoded = self._decoded()
            if attack.rearrange and left > 1:
                problem.totals, spent = rearranged(
                    problem, problem.totals, decoded.ids, self.prior, attack.prior_weight, attack.rearrange, self.generator,
                    lambda: self.limits.expired,
                )  # fmt: skip
                self.evaluations += spent
                decoded = self._decoded()
            ids, mask = decoded.ids, problem.mask
            near = attack.discrete and left == 1
            choices = alternatives(problem, problem.totals, decoded.slot, self.allowed, NEAREST) if near else None
            self._tokens(ids, choices)
            problem.mask = mask
            if attack.snap and left > 1:
                self._snap(decoded, left)

    def _decoded(self) -> Decoded:
        positions = self.attack.positions
        return decode(
            self.problem, self.problem.totals, self.allowed, positions=positions, assign=positions and not self._ordered
        )

    @property
    def _ordered(self) -> bool:
        """Whether slots of a continuous candidate have an order: a decoder, or the positions' own gradient in the match."""
        network = self.problem.network
        return network.causal or network.positions is None or network.positions in self.problem.matched

    def _drive(self, budget: int) -> None:
        """One stretch of continuous search from the present totals."""
        start = self.problem.point()
        trail = Trail.begun(start)
        trail.evaluations = self.evaluations
        state = self.attack.search.begin(start, None, None, budget)
        drive(self.problem, state, trail, self.limits, budget, self.attack.tolerance)
        self.evaluations = trail.evaluations
        if bool(torch.isfinite(trail.values[0])):
            self.problem.totals = self.problem.filled(trail.best[0]).detach()
        elif self.best is None:
            self.outcome = Outcome.NONFINITE

    def _snap(self, decoded: Decoded, left: int) -> None:
        """Holds the slots with the highest cosines at their tokens: a share of the free ones each round, if they are sure."""
        problem = self.problem
        exact = problem.tokens_as_totals(decoded.ids)
        free = problem.free.nonzero().tolist()
        order = []
        for row, position in problem.mask.nonzero().tolist():
            place = int(decoded.slot[row, position])
            if [row, place] in free:
                order.append((float(decoded.cosine[row, position]), row, position, place))
        order.sort(reverse=True)
        wanted = -(-len(order) // left)
        for value, row, position, place in order[:wanted]:
            if value >= SURE:
                problem.totals[row, place] = exact[row, position]
                problem.free[row, place] = False
