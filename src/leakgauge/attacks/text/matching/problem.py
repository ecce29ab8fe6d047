"""The matching problem for text: objective and slope in the space of summed embeddings, and the objective of discrete tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance
from leakgauge.attacks.matching.target import Target
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.subspace import Subspace
from leakgauge.attacks.verify import relative_residual
from leakgauge.core.callables import Loss
from leakgauge.core.text_spec import IGNORED
from leakgauge.errors import UnsupportedError
from leakgauge.local.network import Inputs, Tensors
from leakgauge.local.replay import replay


@dataclass
class TextProblem:
    """What a search minimises. A slot is one place (text, position) of the batch; slots held fixed are no unknowns.

    The unknowns of a slot are its summed embedding s = e + p + type (E numbers, in units of `unit`) or, with a span, the
    coordinates c (r numbers) of the first layer's input in that span and a logarithmic scale: s = exp(tau) (B c - b) / g, where
    g and b belong to the norm between s and the first layer, which takes scale and mean away.

    Args:
        target: what is matched.
        network: where embeddings, positions and the norm are found.
        loss: the client's loss.
        distance: between the candidate's update and the target, over `matched`.
        mask: (N, L) of 0 and 1: tokens that are no padding.
        padding: id of the token in the other places.
        causal: labels are the token ids themselves.
        span: of the first layer's inputs, or None.
        norm_weight: weight of (mean ||e|| - mean norm of the embedding's rows)^2.
        labels: (N,) or (N, L), as the loss takes them.
        totals: (N, L, E) summed embeddings; those of free slots are replaced by the unknowns.
        free: (N, L) slots that are searched.
    """

    target: Target
    network: TextNetwork
    loss: Loss
    distance: Distance
    mask: Tensor
    padding: int
    causal: bool
    span: Subspace | None
    norm_weight: float
    labels: Tensor
    totals: Tensor
    free: Tensor
    places: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        length = self.mask.shape[1]
        like = next(iter(self.target.parameters.values()))
        where = torch.arange(length, device=self.network.device)
        zero = torch.zeros_like(where)
        table = self.network.parameter(self.network.tokens)
        self.places = (self.network.embedded(zero, where) - table[0]).to(like)  # (L, E): what a position adds
        self.unit = float(table.std())
        self.row = float(table.norm(dim=1).mean())
        self.matched = {name: tensor for name, tensor in self.target.tensors.items() if name != self.network.tokens}
        if not self.matched:
            raise UnsupportedError(
                "There is nothing to match: only the token embedding's gradient was shared, which embeddings as inputs bypass."
            )
        self.distance = self.distance.fitted(self.matched)
        self.alone = self.distance.single()
        self.basis: Tensor | None = None
        if self.span is not None:
            self.basis = self.span.basis[:, : self.span.rank].to(like)
        norm = None if self.network.norm is None else self.network.module.get_submodule(self.network.norm)
        gain, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
        self.gain = torch.ones_like(self.places[0]) if gain is None else gain.detach().to(like)
        self.shift = torch.zeros_like(self.places[0]) if shift is None else shift.detach().to(like)

    @property
    def width(self) -> int:
        """Unknowns of one slot."""
        return self.places.shape[1] if self.basis is None else self.basis.shape[1] + 1

    def tokens_as_totals(self, ids: Tensor) -> Tensor:
        """(N, L, E) summed embeddings of token ids (N, L)."""
        where = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return self.network.embedded(ids, where).to(self.places)

    def point(self) -> Tensor:
        """(1, D) the unknowns that stand for the free slots' present totals."""
        totals = self.totals[self.free]
        if self.basis is None:
            return (totals / self.unit).reshape(1, -1)
        inputs = self.network.normed(totals.to(self.network.dtype)).to(totals) @ self.basis
        bare = (inputs @ self.basis.T - self.shift) / self.gain
        scale = (totals.std(1) / bare.std(1).clamp(min=1e-12)).log()
        return torch.cat([inputs, scale[:, None]], 1).reshape(1, -1)

    def filled(self, point: Tensor) -> Tensor:
        """(N, L, E) totals with a flat vector of unknowns in the free slots."""
        rows = point.reshape(-1, self.width)
        if self.basis is None:
            found = rows * self.unit
        else:
            found = rows[:, -1:].exp() * ((rows[:, :-1] @ self.basis.T - self.shift) / self.gain)
        return self.totals.masked_scatter(self.free[:, :, None], found)

    def update(self, inputs: Inputs, labels: Tensor, graph: str = "none") -> Tensors:
        """The update that these inputs would have caused.

        Raises:
            UnsupportedError: if the network does not take embeddings as inputs, or cannot be differentiated twice.
        """
        whole = self.target.training.lr is not None
        try:
            found: Tensors = replay(
                self.target.network,
                inputs,
                labels,
                loss=self.loss,
                training=self.target.training,
                parameters=self.target.parameters,
                buffers=self.target.buffers,
                trainable=tuple(self.target.tensors if whole else self.matched),
                graph=graph,  # type: ignore[arg-type]
            ).tensors
            return found
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UnsupportedError(
                f"Gradient matching calls the network with 'inputs_embeds' and 'attention_mask', which fails: {error}"
            ) from error

    def embedded_inputs(self, totals: Tensor) -> Inputs:
        """The network's keyword arguments for summed embeddings (N, L, E)."""
        return {"inputs_embeds": totals - self.places, "attention_mask": self.mask}

    def value(self, totals: Tensor, graph: str = "none") -> Tensor:
        """The objective of summed embeddings (N, L, E)."""
        found = self.update(self.embedded_inputs(totals), self.labels, graph)
        distance: Tensor = (self.alone if graph == "autograd" else self.distance)(found, self.matched)
        if self.norm_weight == 0:
            return distance
        sizes = (totals - self.places).norm(dim=2)[self.mask == 1]
        pull: Tensor = (sizes.mean() / self.row - 1).square()
        return distance + self.norm_weight * pull

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Objectives (A,) and slopes (A, D) of A candidates, one by one."""
        values, slopes = [], []
        for point in points:
            leaf = point.detach().clone().requires_grad_()
            with torch.enable_grad():
                value = self.value(self.filled(leaf), "autograd")
                try:
                    (slope,) = torch.autograd.grad(value * self.alone.stretch, leaf, materialize_grads=True, allow_unused=True)
                except (RuntimeError, NotImplementedError) as error:
                    if "derivative" not in str(error):
                        raise
                    raise UnsupportedError(
                        "The network has an operation that cannot be differentiated twice (fused attention?); load it with "
                        f"attn_implementation='eager'. torch says: {str(error).splitlines()[0]}"
                    ) from error
            values.append(value.detach().double())
            slopes.append(slope / self.alone.stretch)
        return torch.stack(values), torch.cat([slope[None] for slope in slopes])

    def discrete(self, ids: Tensor, labels: Tensor) -> tuple[float, float]:
        """The objective of token ids (N, L), and how far the update recomputed from them is off in relative norm."""
        found = self.update(self.arguments(ids), labels)
        return float(self.distance(found, self.matched)), relative_residual(found, self.matched)

    def arguments(self, ids: Tensor) -> Inputs:
        """The network's keyword arguments for token ids."""
        return {"input_ids": ids, "attention_mask": self.mask}

    def labels_for(self, ids: Tensor) -> Tensor:
        """Labels where they follow from the tokens (causal), else the present ones."""
        return torch.where(self.mask == 1, ids, IGNORED) if self.causal else self.labels
