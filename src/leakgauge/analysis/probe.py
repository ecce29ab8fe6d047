"""The pictures that a score is taken at, and the labels they get."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.analysis.image_prior import ImagePrior
from leakgauge.core.callables import Loss
from leakgauge.core.spec import ImageSpec
from leakgauge.errors import ModelError, ShapeError
from leakgauge.local.network import Network, cast


def probe_shape(probe: Tensor | None, input_shape: tuple[int, ...] | None, spec: ImageSpec | None) -> tuple[int, ...]:
    """The shape of one example, (C, H, W) or (D,): of `input_shape`, else of the spec, else of the probe.

    Raises:
        ShapeError: if none of them is given, two disagree, or it is neither a picture nor a row.
    """
    if probe is not None and not (isinstance(probe, Tensor) and probe.is_floating_point()):
        kind = str(probe.dtype) if isinstance(probe, Tensor) else type(probe).__name__
        raise ShapeError(f"leakage_score's probe is {kind}; expected a floating-point tensor (1, *shape).")
    shape: tuple[int, ...]
    if input_shape is not None:
        shape = tuple(int(side) for side in input_shape)
    elif spec is not None:
        shape = spec.shape
    elif probe is not None:
        shape = tuple(probe.shape[1:] if probe.ndim in (2, 4) else probe.shape)
    else:
        raise ShapeError("leakage_score needs a probe (1, *shape), or input_shape, such as (3, 32, 32).")
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ShapeError(f"leakage_score takes pictures (C, H, W) or rows (D,); the shape is {shape}.")
    if spec is not None and spec.shape != shape:
        raise ShapeError(f"leakage_score's spec has shape {spec.shape}; input_shape is {shape}.")
    if probe is not None:
        if tuple(probe.shape) not in (shape, (1, *shape)):
            raise ShapeError(f"leakage_score's probe has shape {tuple(probe.shape)}; expected one example, {(1, *shape)}.")
        if not bool(torch.isfinite(probe).all()):
            raise ShapeError("leakage_score's probe holds values that are not finite.")
    return shape


def probe_pictures(
    probe: Tensor | None,
    shape: tuple[int, ...],
    spec: ImageSpec | None,
    prior: ImagePrior,
    count: int,
    generator: torch.Generator,
) -> list[Tensor]:
    """The probe in pixel units, or `count` draws from the prior; each (*shape), float64."""
    if probe is None:
        return [picture.reshape(shape) for picture in prior.draw(count, generator)]
    picture = probe.detach().double().reshape(shape)
    return [picture if spec is None else spec.denormalise(picture)]


def default_label(
    model: nn.Module, picture: Tensor, spec: ImageSpec | None, loss: Loss, label: int | Tensor | None
) -> tuple[Tensor, int | None]:
    """The label with one row as the loss takes it, and its class if it is one: the one given, else what the model predicts.

    Raises:
        ModelError: if the model does not take the picture or returns no tensor of one row.
        ShapeError: if the label given has more than one row, or is no class of the model.
    """
    network = Network(model, "eval")
    parameters = cast(network.parameters(), torch.float64)
    device = next(iter(parameters.values()), picture).device
    example = (picture if spec is None else spec.normalise(picture))[None].to(device, torch.float64)
    try:
        with torch.no_grad():
            output, _ = network(parameters, cast(network.buffers(), torch.float64), example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The model does not take one example of shape {tuple(example.shape)}: {reason}") from error
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != 1:
        raise ModelError("The model's output is no tensor with one row per example, which leakage_score needs.")
    if isinstance(label, Tensor):
        target = label.reshape(1, *label.shape[1:]) if label.ndim and len(label) == 1 else label[None]
        if label.ndim and len(label) != 1:
            raise ShapeError(f"leakage_score's label has {len(label)} rows; expected one.")
        return target, int(target) if target.numel() == 1 and not target.is_floating_point() else None
    if loss == "mse" and output.numel() == 1:
        raise ShapeError("leakage_score with the loss 'mse' and one output needs its label, a tensor with one row.")
    single = loss == "binary_cross_entropy" or output.numel() == 1
    classes = 2 if single else output.shape[-1]
    if label is None:
        number = int(output.reshape(-1)[0] > 0) if single else int(output.reshape(-1, classes)[0].argmax())
    else:
        number = int(label)
    if not 0 <= number < classes:
        raise ShapeError(f"leakage_score's label is {number}; the model has {classes} classes.")
    rows = torch.tensor([number])
    return (functional.one_hot(rows, classes).double() if loss == "mse" else rows), number
