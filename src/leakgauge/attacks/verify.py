"""Does a reconstruction explain the update? Necessary for a certificate, never sufficient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.local.network import Inputs
from leakgauge.local.replay import replay

if TYPE_CHECKING:
    from leakgauge.attacks.matching.target import Target

PICTURE_ATTACKS = "inverting-gradients, recursive, or april for a network with learnable position embeddings"
TEXT_ATTACKS = "span-check, bag-of-tokens, april, dlg-text, tag, lamp"
ROUNDING = {"float64": 1e-10, "float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}


def relative_residual(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> float:
    """||found - target|| / ||target|| over all tensors of the target, in float64."""
    off = sum(float((found[name].double() - tensor.double()).square().sum()) for name, tensor in target.items())
    size = sum(float(tensor.double().square().sum()) for tensor in target.values())
    return float((off / max(size, 1e-300)) ** 0.5)


def recomputed(seen: Observation, target: Target, inputs: Inputs, labels: Tensor) -> float:
    """Relative residual of the update recomputed from inputs (N, *shape), or a dict of them, and labels, by the replay."""
    device = (inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))).device
    found = replay(
        target.network,
        inputs,
        labels.to(device),
        loss=seen.loss,
        training=target.training,
        parameters=target.parameters,
        buffers=target.buffers,
        trainable=tuple(target.tensors),
        graph="none",
    ).tensors
    return relative_residual(found, target.tensors)


def agrees(residual: float, seen: Observation, dtype: str) -> bool:
    """Whether a relative residual is no more than rounding in the coarser of the client's and the attack's arithmetic."""
    client = "bfloat16" if seen.training.amp else seen.training.dtype
    return residual <= max(ROUNDING[client], ROUNDING[dtype])


def no_pictures(seen: Observation, method: str) -> UnsupportedError:
    """The error for an attack on pictures where the observation is of texts, or of nobody knows what."""
    if isinstance(seen.spec, TextSpec):
        return UnsupportedError(f"{method} needs an ImageSpec; the observation is of texts. Use one of: {TEXT_ATTACKS}.")
    return UnsupportedError(f"{method} needs an ImageSpec; the observation has none.")


def no_texts(seen: Observation, method: str) -> UnsupportedError:
    """The error for an attack on texts where the observation is of pictures, or of nobody knows what."""
    if seen.pictures is not None:
        return UnsupportedError(f"{method} needs a TextSpec; the observation is of pictures. Use one of: {PICTURE_ATTACKS}.")
    return UnsupportedError(f"{method} needs a TextSpec, which says what a text looks like; the observation has none.")


def has_signal(seen: Observation) -> bool:
    """Whether any shared number differs from zero."""
    return any(bool((tensor != 0).any()) for tensor in seen.tensors.values())


def no_signal(seen: Observation, name: str, seconds: float) -> Reconstruction:
    """The result for an update that is zero throughout: mid-grey pictures that claim nothing.

    Raises:
        UnsupportedError: if the observation has no ImageSpec.
    """
    if seen.pictures is None:
        raise no_pictures(seen, name)
    inputs = seen.pictures.normalise(torch.full((seen.num_examples, *seen.pictures.shape), 0.5))
    return Reconstruction(
        inputs=inputs,
        labels=None,
        outcome=Outcome.NO_GRADIENT_SIGNAL,
        explains=False,
        certified=unverified(len(inputs)),
        confidence=torch.zeros(len(inputs)),
        stats=Stats(cause="All shared tensors are zero; there is nothing to attack."),
        seconds=seconds,
        attack=name,
    )
