"""The matching problem: objective, slope and residual of many candidates at once, as functions of flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance, SquaredL2
from leakgauge.attacks.matching.priors import Context, GroupConsistency, Prior
from leakgauge.attacks.matching.target import Target
from leakgauge.core.callables import Loss
from leakgauge.local.network import Tensors
from leakgauge.local.replay import replay
from leakgauge.randomness import rng


@dataclass(frozen=True)
class Problem:
    """What a search minimises over flat vectors: pixels first, then (where labels are open) N K label numbers.

    Args:
        target: what is matched.
        loss: the client's loss.
        distance: between the candidate's update and the target.
        priors: penalties on the candidate.
        group: pull between restarts, or None.
        context: what priors may look at.
        shape: (N, C, H, W) of a candidate.
        labels: (N,) classes or (N, K) rows; None where they are optimised jointly.
        classes: K, used where labels are optimised.
        label_form: 'linear' (soft labels of sum 1, free otherwise) or 'softmax' (as Zhu et al. 2019).
        chunk: candidates evaluated in one batch.
    """

    target: Target
    loss: Loss
    distance: Distance
    priors: tuple[Prior, ...]
    group: GroupConsistency | None
    context: Context
    shape: tuple[int, ...]
    labels: Tensor | None
    classes: int
    label_form: str
    chunk: int

    @property
    def pixels(self) -> int:
        """Number of unknown input values."""
        return torch.Size(self.shape).numel()

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.pixels + (self.shape[0] * self.classes if self.labels is None else 0)

    @cached_property
    def alone(self) -> Distance:
        """The distance for one candidate outside torch.func."""
        return self.distance.single()

    def split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """A flat vector as inputs (N, *shape) and labels as the loss takes them."""
        inputs = point[: self.pixels].reshape(self.shape)
        if self.labels is not None:
            return inputs, self.labels
        rows = point[self.pixels :].reshape(self.shape[0], self.classes)
        if self.label_form == "softmax":
            return inputs, rows.softmax(1)
        return inputs, rows - rows.mean(1, keepdim=True) + 1.0 / self.classes

    def update(self, point: Tensor, graph: str = "autograd") -> Tensors:
        """The update that a candidate would have caused."""
        inputs, labels = self.split(point)
        return replay(
            self.target.network,
            inputs,
            labels,
            loss=self.loss,
            training=self.target.training,
            parameters=self.target.parameters,
            buffers=self.target.buffers,
            trainable=tuple(self.target.tensors) if self.target.training.lr is None else None,
            graph=graph,  # type: ignore[arg-type]
        ).tensors

    def value(self, point: Tensor, graph: str = "autograd") -> Tensor:
        """The objective of one flat vector (D,)."""
        distance = self.alone if graph == "autograd" else self.distance
        total = distance(self.update(point, graph), self.target.tensors)
        inputs, _ = self.split(point)
        for prior in self.priors:
            total = total + prior(inputs, self.context)
        return total

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Objectives (A,) and gradients (A, D) of A candidates: torch.func.vmap where there are several."""
        values, slopes = [], []
        for part in torch.split(points, self.chunk):
            leaf = part.detach().clone().requires_grad_()
            with torch.enable_grad():
                stretch = 1.0
                if len(leaf) == 1:
                    stretch = self.alone.stretch
                    found = self.value(leaf[0]).reshape(1)
                else:
                    found = torch.func.vmap(lambda point: self.value(point, "func"))(leaf)
                if self.group is not None and len(points) > 1:
                    found = found + self.group.pull(leaf[:, : self.pixels])
                (slope,) = torch.autograd.grad(found.sum() * stretch, leaf)
            values.append(found.detach())
            slopes.append(slope / stretch)
        return torch.cat(values), torch.cat(slopes)

    def residual(self) -> Callable[[Tensor], Tensor] | None:
        """The vector whose squared length is the objective, as a function of one flat vector; None where there is none.

        The weight gradient of a linear layer with a bias is projected on few directions (2 N for each local step) that hold
        all of the observed one and show where a candidate leaves it; see `_bases`.
        """
        if self.priors or self.group is not None:
            return None
        if self.distance.residual(self.target.tensors, self.target.tensors) is None:
            return None
        training, count = self.target.training, self.shape[0]
        rank = count if training.lr is None else count * training.steps_for(count)
        bases = _bases(self.target.tensors, rank) if isinstance(self.distance, SquaredL2) else {}

        def project(tensors: Tensors) -> Tensors:
            return {name: bases[name].T @ tensor if name in bases else tensor for name, tensor in tensors.items()}

        target = project(self.target.tensors)
        distance = self.distance.fitted(target)

        def function(point: Tensor) -> Tensor:
            vector = distance.residual(project(self.update(point, "func")), target)
            assert vector is not None
            return vector

        return function


def _bases(target: Tensors, rank: int) -> Tensors:
    """Orthonormal directions (h, r) for each weight gradient (h, d) whose bias gradient is shared and which has more rows.

    The observed gradient has rank N, so its N left singular vectors hold all of it. A candidate's gradient may leave that
    space, also by at most N dimensions: with one example the bias gradient would show it, with several N random further
    directions do (they miss a matrix of rank N with probability zero).
    """
    bases = {}
    wanted = rank if rank == 1 else 2 * rank
    for name, tensor in target.items():
        bias = target.get(name.removesuffix("weight") + "bias")
        if name.endswith("weight") and tensor.ndim == 2 and bias is not None and len(tensor) > wanted:
            basis = torch.linalg.svd(tensor, full_matrices=False).U[:, :rank]
            if wanted > rank:
                draws = torch.randn(len(tensor), wanted - rank, generator=rng(0, "projection", name)).to(basis)
                basis = torch.linalg.qr(torch.cat([basis, draws], 1)).Q
            bases[name] = basis
    return bases
