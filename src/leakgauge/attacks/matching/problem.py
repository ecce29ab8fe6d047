"""The matching problem: objective, slope and residual of many candidates at once, as functions of flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance, SquaredL2
from leakgauge.attacks.matching.priors import Context, GroupConsistency, Prior
from leakgauge.attacks.matching.statistics import Statistics
from leakgauge.attacks.matching.target import Target
from leakgauge.core.callables import Loss
from leakgauge.local.derivatives import lacks_derivative
from leakgauge.local.network import Tensors
from leakgauge.local.replay import Replayed, replay
from leakgauge.randomness import rng


@dataclass(frozen=True)
class Problem:
    """What a search minimises over flat vectors: pixels, then (where labels are open) N K label numbers, then (where the client's
    path is replaced by a surrogate point) one number for the place of that point.

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
        gradient: weight of the distance between updates; 0 leaves it out.
        statistics: the BatchNorm term, or None.
        exact: no defence rewrote the update, so that its gradients have the rank they were computed with.
        one_by_one: not empty once the network turned out to have an operation that cannot be batched over candidates.
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
    gradient: float = 1.0
    statistics: Statistics | None = None
    exact: bool = True
    one_by_one: list[bool] = field(default_factory=list, repr=False, compare=False)

    @property
    def pixels(self) -> int:
        """Number of unknown input values."""
        return torch.Size(self.shape).numel()

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.pixels + self.label_numbers + (self.target.drift is not None)

    @property
    def label_numbers(self) -> int:
        """Number of unknowns that stand for labels."""
        return self.shape[0] * self.classes if self.labels is None else 0

    @cached_property
    def alone(self) -> Distance:
        """The distance for one candidate outside torch.func."""
        return self.distance.single()

    def split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """A flat vector as inputs (N, *shape) and labels as the loss takes them."""
        inputs = point[: self.pixels].reshape(self.shape)
        if self.labels is not None:
            return inputs, self.labels
        rows = point[self.pixels : self.pixels + self.label_numbers].reshape(self.shape[0], self.classes)
        if self.label_form == "softmax":
            return inputs, rows.softmax(1)
        return inputs, rows - rows.mean(1, keepdim=True) + 1.0 / self.classes

    def replayed(self, point: Tensor, graph: str = "autograd") -> Replayed:
        """What local training on a candidate would have left behind."""
        inputs, labels = self.split(point)
        return replay(
            self.target.network,
            inputs,
            labels,
            loss=self.loss,
            training=self.target.training,
            parameters=self.target.parameters if self.target.drift is None else self.target.at(point[-1]),
            buffers=self.target.buffers,
            trainable=tuple(self.target.tensors) if self.target.training.lr is None else None,
            graph=graph,  # type: ignore[arg-type]
            example_clip=self.target.example_clip,
        )

    def update(self, point: Tensor, graph: str = "autograd") -> Tensors:
        """The update that a candidate would have caused."""
        return self.replayed(point, graph).tensors

    def value(self, point: Tensor, graph: str = "autograd") -> Tensor:
        """The objective of one flat vector (D,)."""
        inputs, _ = self.split(point)
        total = inputs.new_zeros(())
        if self.gradient > 0 or self.statistics is not None:
            replayed = self.replayed(point, graph)
            if self.gradient > 0:
                distance = self.alone if graph == "autograd" else self.distance
                total = total + self.gradient * distance(replayed.tensors, self.target.tensors)
            if self.statistics is not None:
                total = total + self.statistics.residual(self.target.buffers, replayed.buffers).square().sum()
        for prior in self.priors:
            total = total + prior(inputs, self.context)
        return total

    def values(self, points: Tensor) -> Tensor:
        """Objectives (A,) of several candidates at once; one by one where the network has an operation without a batched form."""
        if not self.one_by_one:
            try:
                found: Tensor = torch.func.vmap(lambda point: self.value(point, "func"))(points)
                return found
            except (RuntimeError, NotImplementedError) as error:
                if not lacks_derivative(error):
                    raise
                self.one_by_one.append(True)
        return torch.stack([self.value(point) for point in points])

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Objectives (A,) and gradients (A, D) of A candidates."""
        values, slopes = [], []
        for part in torch.split(points, self.chunk):
            leaf = part.detach().clone().requires_grad_()
            with torch.enable_grad():
                stretch = 1.0
                if len(leaf) == 1:
                    stretch = self.alone.stretch
                    found = self.value(leaf[0]).reshape(1)
                else:
                    found = self.values(leaf)
                if self.group is not None and len(points) > 1:
                    found = found + self.group.pull(leaf[:, : self.pixels].reshape(len(leaf), *self.shape))
                (slope,) = torch.autograd.grad(found.sum() * stretch, leaf, allow_unused=True, materialize_grads=True)
            values.append(found.detach())
            slopes.append(slope / stretch)
        return torch.cat(values), torch.cat(slopes)

    def residual(self) -> Callable[[Tensor], Tensor] | None:
        """The vector whose squared length is the objective, as a function of one flat vector.

        None where there is none, as under priors or a distance that is no sum of squares.

        The weight gradient of a linear layer with a bias is projected on few directions (2 N for each local step) that hold
        all of the observed one and show where a candidate leaves it; see `_bases`.
        """
        if self.priors or self.group is not None or self.gradient <= 0 or self.target.drift is not None:
            return None
        if self.distance.residual(self.target.tensors, self.target.tensors) is None:
            return None
        training, count = self.target.training, self.shape[0]
        rank = count if training.lr is None else count * training.steps_for(count)
        bases = _bases(self.target.tensors, rank) if isinstance(self.distance, SquaredL2) and self.exact else {}

        def project(tensors: Tensors) -> Tensors:
            return {name: bases[name].T @ tensor if name in bases else tensor for name, tensor in tensors.items()}

        target = project(self.target.tensors)
        distance = self.distance.fitted(target)

        def function(point: Tensor) -> Tensor:
            replayed = self.replayed(point, "func")
            off = distance.residual(project(replayed.tensors), target)
            assert off is not None
            vector: Tensor = off * self.gradient**0.5
            if self.statistics is None:
                return vector
            return torch.cat([vector, self.statistics.residual(self.target.buffers, replayed.buffers)])

        return function

    def bare(self) -> Problem:
        """The same without priors and in squared distance: what a least-squares refinement minimises."""
        return replace(self, distance=SquaredL2().fitted(self.target.tensors), priors=(), group=None, gradient=1.0)


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
