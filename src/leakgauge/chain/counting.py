"""The counting bound: can a batch be determined by its update at all? A necessary condition, known before any attack."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from leakgauge.core.observation import Observation
from leakgauge.errors import ShapeError


@dataclass(frozen=True)
class CountingBound:
    """Unknowns against equations.

    Args:
        unknowns: input values in the batch, N times the size of one input.
        equations: independent numbers that the update carries at most about the inputs.
        determinable: False where there are more unknowns than equations: then no attack can be exact without a prior.
            True promises nothing: equations may depend on each other.
        largest_batch: largest batch that the count allows.
        verdict: the same in one sentence.
    """

    unknowns: int
    equations: int
    determinable: bool
    largest_batch: int
    verdict: str


def counting_bound(
    model: nn.Module,
    input_shape: tuple[int, ...],
    batch_size: int,
    *,
    shared: Collection[str] | None = None,
    statistics: int = 0,
    steps: int = 1,
) -> CountingBound:
    """Counts unknown inputs against the numbers that one shared update carries.

    The weight gradient of a linear layer with d inputs is a sum of N rank-one terms, so it determines at most min(h, N) d
    numbers about its inputs (h its outputs; the other factor, and the bias gradient, are spent on the unknown output
    gradients); over several local steps the rank may grow with each. Every other parameter counts once.

    Args:
        model: any module.
        input_shape: shape of one input, without the batch.
        batch_size: N >= 1.
        shared: names of the parameters that are shared; all by default.
        statistics: further numbers seen, such as BatchNorm means and variances.
        steps: how often an example takes part in a local step, at most; 1 for one gradient.

    Raises:
        ShapeError: for a batch size below 1.

    Source: derived; the rank argument is that of Zhu & Blaschko 2021, section 3.
    """
    if batch_size < 1:
        raise ShapeError(f"The batch size is {batch_size}; expected at least 1.")
    size = torch.Size(input_shape).numel()

    def equations(count: int) -> int:
        return statistics + sum(_carried(module, name, count * steps, shared) for name, module in model.named_modules())

    largest = 0
    limit = max(batch_size, 4096)
    while largest < limit and (largest + 1) * size <= equations(largest + 1):
        largest += 1
    unknowns, found = batch_size * size, equations(batch_size)
    determinable = unknowns <= found
    shown = f"{largest}" if largest < limit else f"{limit} and more"
    if determinable:
        verdict = (
            f"Counting does not rule out exact recovery: {unknowns:,} unknown input values, up to {found:,} independent "
            f"equations (batches up to {shown}). This is necessary, not sufficient."
        )
    else:
        verdict = (
            f"This batch cannot be determined from the update without a prior: {unknowns:,} unknown input values, at most "
            f"{found:,} independent equations"
            + (f" (batches up to {shown} could be)." if largest else " (no batch size could be).")
        )
    return CountingBound(unknowns, found, determinable, largest, verdict)


def counting_bound_of(seen: Observation) -> CountingBound:
    """The counting bound for what an attacker holds: only shared tensors count, and BatchNorm statistics where granted.

    Raises:
        ShapeError: if the observation has no spec.
    """
    if seen.pictures is None:
        raise ShapeError("The counting bound needs the shape of an input; the observation has no spec.")
    statistics = sum(2 * len(entry.mean) for entry in seen.batch_norm.values())
    return counting_bound(
        seen.model,
        seen.pictures.shape,
        seen.num_examples,
        shared=set(seen.tensors),
        statistics=statistics,
        steps=1 if seen.training.lr is None else seen.training.steps_for(seen.num_examples),
    )


def _carried(module: nn.Module, name: str, terms: int, shared: Collection[str] | None) -> int:
    prefix = f"{name}." if name else ""
    total = 0
    for own, parameter in module.named_parameters(recurse=False):
        if shared is not None and prefix + own not in shared:
            continue
        if isinstance(module, nn.Linear):
            if own == "weight":
                total += min(module.out_features, terms) * module.in_features
        else:
            total += parameter.numel()
    return total
