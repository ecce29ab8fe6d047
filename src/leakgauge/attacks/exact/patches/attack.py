"""`april` on a picture: patches from the position embedding's gradient, one example, in closed form."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leakgauge.attacks.base import Limits
from leakgauge.attacks.exact.patches.layer import PatchLayer, gradients_at, patch_layer
from leakgauge.attacks.exact.patches.positions import positions_of, reading_of
from leakgauge.attacks.exact.patches.solve import Patches, solve_patches
from leakgauge.attacks.labels.recover import recover_labels
from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.text.check import arithmetic_of, gradients_of
from leakgauge.attacks.text.span.subspace import UNIT
from leakgauge.attacks.verify import agrees, has_signal, no_signal, recomputed
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.spec import ImageSpec
from leakgauge.errors import LeakgaugeError, UnsupportedError

NAME = "april"
INSTEAD = "Use inverting-gradients."


def picture_of(seen: Observation, spec: ImageSpec, generator: torch.Generator, limits: Limits) -> Reconstruction:
    """One picture from a network that adds a learnable position embedding to its patches.

    The layer that reads patches P (T, K) makes tokens x_t = W p_t + b + (position t), so that the loss's gradient by x_t is the
    position embedding's row D_t, and the weight's gradient is G = sum_t D_t p_t^T = D^T P. Whatever follows, P is known where D
    has rank T, which needs T <= width. Both sides add up over steps of SGD on one picture.

    Where the patches' layer was not shared: the first attention layer's inputs by the identity of Lu et al. 2022, if that layer
    alone reads the tokens, and from them the patches, if a patch has no more numbers than a token.

    Source: the gradient of a linear layer (Phong et al. 2017, section III), with the output gradients read off the position
    embedding as in Lu et al. 2022 (APRIL), section 3.2.
    """
    if not has_signal(seen):
        return no_signal(seen, NAME, limits.seconds)
    if seen.num_examples != 1:
        raise UnsupportedError(
            f"april reads one example, and the batch has {seen.num_examples}: the position embedding's gradient adds them up. "
            f"{INSTEAD}"
        )
    gradients = {name: tensor.to(limits.device) for name, tensor in gradients_of(seen, NAME).items()}
    module = copy.deepcopy(seen.model).eval().to(device=limits.device, dtype=torch.float64)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    like = torch.zeros((), dtype=torch.float64, device=limits.device)
    layer = patch_layer(module, spec.shape, like)
    if layer is None:
        raise UnsupportedError(f"april needs a layer that reads patches of the picture's pixels; the network has none. {INSTEAD}")
    unit = UNIT[arithmetic_of(seen)]
    middle = spec.normalise(torch.full(spec.shape, 0.5)).to(like)
    public = torch.randn((1, *spec.shape), generator=generator, dtype=torch.float64).to(limits.device)
    probe = gradients_at(module, public, None, generator)
    found, words = _solved(module, layer, probe, public, gradients, unit, middle)
    picture = layer.joined(found.patches, spec.shape)
    count = len(layer.pixels)
    unread = layer.seen(spec.size).reshape(spec.shape).to(picture.device) == 0
    picture = torch.where(unread, middle, picture)[None].cpu()
    labels, residual = _checked(seen, picture, limits)
    fits = labels is not None and agrees(residual, seen, "float64")
    whole = found.rank == count and not bool(unread.any())
    notes = [words, f"{found.rank} of {count} patches are determined; smallest over largest singular value {found.weakest:.1e}."]
    if found.rank < count:
        notes.append(
            f"The position embedding's gradient has rank {found.rank} (the network is {layer.width} wide): "
            f"{count - found.rank} combinations of patches are open, and the smoothest picture was taken."
        )
    if not whole:
        outcome = Outcome.UNDERDETERMINED
    else:
        outcome = Outcome.DETERMINED if fits else Outcome.CONVERGED if labels is None else Outcome.INCONSISTENT
    certified = unverified(1)
    certified[:] = fits and whole
    return Reconstruction(
        inputs=picture.float(),
        labels=labels,
        outcome=outcome,
        explains=fits,
        certified=certified,
        confidence=torch.tensor([1.0 if fits and whole else 0.5]),
        stats=Stats(evaluations=2, residual=residual, notes=tuple(notes)),
        seconds=limits.seconds,
        attack=NAME,
    )


def _solved(
    module: nn.Module,
    layer: PatchLayer,
    probe: Mapping[str, Tensor],
    public: Tensor,
    gradients: Mapping[str, Tensor],
    unit: float,
    middle: Tensor,
) -> tuple[Patches, str]:
    """The patches, and which equations gave them."""
    shape = tuple(public.shape[1:])
    positions = positions_of(layer, probe, layer.cut(public[0])) if layer.weight in probe else None
    if positions is not None and positions.name in gradients and layer.weight in gradients:
        weight = gradients[layer.weight].reshape(layer.width, -1)
        found = solve_patches(layer, shape, positions.rows(gradients, layer), weight, unit, middle)
        return found, f"Patches from the gradients of {layer.weight!r} and {positions.name!r}."
    reasons = []
    if positions is None:
        reasons.append("no learnable position embedding is added to the patches as they leave their layer")
    elif positions.name not in gradients:
        reasons.append(f"the gradient of the position embedding {positions.name!r} was not shared")
    else:
        reasons.append(f"the gradient of the patches' layer {layer.weight!r} was not shared")
        reading = reading_of(module, layer, probe, public)
        patch = layer.pixels.shape[1]
        if reading is None:
            reasons.append("more than the first attention layer reads the tokens (a residual connection, a norm)")
        elif any(name not in gradients for name in reading.attention.names):
            reasons.append("the gradients of the first attention layer were not shared either")
        elif patch > layer.width:
            reasons.append(f"a patch has {patch} numbers and a token {layer.width}, so that tokens do not tell patches")
        else:
            inputs, off = reading.inputs(module, gradients, layer.width)
            tokens = inputs[reading.positions.ahead :] - reading.positions.rows(dict(module.named_parameters()), layer).detach()
            part = module.get_submodule(layer.name)
            bias = part.bias if isinstance(part.bias, Tensor) else torch.zeros(layer.width).to(tokens)
            weight = module.get_parameter(layer.weight).detach().reshape(layer.width, -1)
            patches = torch.linalg.lstsq(weight, (tokens - bias.detach()).T).solution.T
            rank = min(int(torch.linalg.matrix_rank(weight)) == patch and len(tokens), len(tokens))
            return Patches(patches, rank, off), f"Tokens by the attention's identity, to {off:.1e}, and patches from them."
    raise UnsupportedError(f"april cannot treat this update: {'; '.join(reasons)}. {INSTEAD}")


def _checked(seen: Observation, picture: Tensor, limits: Limits) -> tuple[Tensor | None, float]:
    """Labels and the relative residual of the recomputed update; None and NaN where the labels cannot be told."""
    try:
        labels = seen.labels if seen.labels is not None else recover_labels(seen).labels
    except LeakgaugeError:
        return None, float("nan")
    target = target_of(seen, "observed", torch.float64, limits.device)
    return labels, recomputed(seen, target, picture.to(limits.device), labels)
