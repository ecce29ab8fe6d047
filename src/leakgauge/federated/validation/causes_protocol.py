"""Hypotheses that replay local training in another way: mode, loss, optimiser, steps, order, weights, inputs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.core.callables import LOSSES
from leakgauge.core.state_files import load_state, state_hash
from leakgauge.errors import InputError
from leakgauge.federated.validation.causes_tensors import dot, scaled
from leakgauge.federated.validation.recompute import Recomputed, Tensors, residual
from leakgauge.federated.validation.trial import Candidate, Trial

NORMALISING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)
REFINEMENTS = 4
Builder = Callable[[Trial], Iterator[Candidate]]


def has_dropout(trial_model: nn.Module) -> bool:
    """Whether the model drops units in train mode."""
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in trial_model.modules())


def _tell(found: Recomputed | None, sentence: str) -> Iterator[Candidate]:
    if found is not None:
        yield Candidate(sentence, found.tensors, found.residual)


def other_mode(trial: Trial) -> Iterator[Candidate]:
    """Train instead of eval mode, or the reverse."""
    if any(isinstance(module, NORMALISING) for module in trial.seen.model.modules()):
        declared = trial.setting.training.mode
        mode = "eval" if declared == "train" else "train"
        sentence = f"the client ran in {mode} mode, not in {declared} mode as the protocol says (BatchNorm or dropout)"
        yield from _tell(trial.again({"mode": mode}), sentence)


def without_dropout(trial: Trial) -> Iterator[Candidate]:
    """Train mode with dropout switched off."""
    if has_dropout(trial.seen.model):
        model = copy.deepcopy(trial.seen.model)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        yield from _tell(
            trial.again({"mode": "train"}, model=model), "dropout was off, although the client trained in train mode"
        )


def other_reduction(trial: Trial) -> Iterator[Candidate]:
    """Sum instead of mean over examples, or the reverse."""
    declared = trial.setting.training.reduction
    other = "sum" if declared == "mean" else "mean"
    sentence = f"the loss was reduced by {other} over the {trial.count} examples, not by {declared} (reduction, a factor N)"
    if isinstance(trial.setting.loss, str):
        yield from _tell(trial.again({"reduction": other}), sentence)


def other_weights(trial: Trial) -> Iterator[Candidate]:
    """Weights of the caller's model; and before and after exchanged."""
    if state_hash(trial.given) != state_hash(trial.seen.model):
        model = copy.deepcopy(trial.seen.model)
        try:
            load_state(model, trial.given.state_dict(), "the given model")
        except InputError:
            return
        yield from _tell(
            trial.again(model=model),
            "the update was computed at the weights of the given model; the observation holds other weights",
        )
    if trial.seen.kind == "delta":
        model = copy.deepcopy(trial.seen.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in trial.seen.tensors:
                    parameter.add_(trial.seen.tensors[name].to(parameter.dtype))
        found = trial.again(model=model)
        if found is not None:
            yield Candidate("the weights before and after training are exchanged", scaled(found.tensors, -1.0))


def other_inputs(trial: Trial) -> Iterator[Candidate]:
    """Another input normalisation or channel order."""
    inputs, spec = trial.setting.inputs, trial.seen.pictures
    if not isinstance(inputs, Tensor):
        return
    changes: list[tuple[str, Callable[[Tensor], Tensor]]] = []
    if spec is not None:
        pixels = spec.denormalise(inputs)
        if not torch.allclose(pixels, inputs):
            changes += [
                ("the client trained on inputs that were not normalised (pixels in [0, 1])", spec.denormalise),
                ("the inputs were normalised twice, or the batch was given as pixels in [0, 1]", spec.normalise),
            ]
        changes += [
            ("the client trained on pixels in [0, 255] instead of normalised inputs", lambda _: 255 * pixels),
            ("the client trained on inputs normalised to [-1, 1] (mean 0.5, std 0.5)", lambda _: 2 * pixels - 1),
        ]
    if inputs.ndim == 4 and inputs.shape[1] == 3:
        changes.append(("the colour channels are in reverse order (RGB and BGR)", lambda x: x.flip(1)))
    for sentence, change in changes:
        yield from _tell(trial.again(inputs=change(inputs)), sentence)


def other_loss(trial: Trial) -> Iterator[Candidate]:
    """Another built-in loss."""
    for loss in LOSSES:
        if loss != trial.setting.loss and isinstance(trial.setting.loss, str):
            yield from _tell(trial.again(loss=loss), f"the loss was {loss!r}, not {trial.setting.loss!r}")


def other_optimiser(trial: Trial) -> Iterator[Candidate]:
    """Another update rule with the same learning rate."""
    declared = trial.setting.training.optimiser
    for optimiser in ("sgd", "adam", "adamw"):
        if trial.lr is not None and optimiser != declared:
            decay = {"weight_decay": 0.01} if optimiser == "adamw" else {}
            for extra in ({}, decay) if decay else ({},):
                words = "".join(f" with torch's default {key} {value:g}" for key, value in extra.items())
                momentum = {"momentum": 0.0, "nesterov": False} if optimiser != "sgd" else {}
                found = trial.again({"optimiser": optimiser, **momentum, **extra})
                yield from _tell(found, f"the optimiser was {optimiser}{words}, not {declared}")


def other_steps(trial: Trial) -> Iterator[Candidate]:
    """More or fewer steps or epochs."""
    training = trial.setting.training
    if trial.lr is None:
        return
    if training.epochs is not None:
        for epochs in (1, 2, 3, 4, 5, 10):
            if epochs != training.epochs:
                yield from _tell(
                    trial.again({"epochs": epochs}), f"the client trained for {epochs} epoch(s), not {training.epochs}"
                )
    declared = trial.steps
    for steps in sorted({*range(1, 11), 2 * declared, 20, 50} - {declared}):
        words = f"the client took {steps} step(s), not {declared}"
        yield from _tell(trial.again({"steps": steps, "epochs": None}), words)


def other_order(trial: Trial) -> Iterator[Candidate]:
    """Mini-batches shuffled, the last one dropped or kept, rows in another order, another size."""
    training, count = trial.setting.training, trial.count
    if training.batch_size is not None and training.batch_size < count:
        dropped = not training.drop_last
        words = "dropped" if dropped else "kept"
        yield from _tell(
            trial.again({"drop_last": dropped}), f"the last mini-batch, which is not full, was {words} (drop_last={dropped})"
        )
        if not training.shuffle:
            yield from _tell(
                trial.again({"shuffle": True}),
                "the mini-batches were shuffled: their order is another than the protocol says (shuffle)",
            )
        inputs, labels = trial.setting.inputs, trial.setting.labels
        if isinstance(inputs, Tensor) and count <= 4 and not training.shuffle and labels.ndim == 1:
            yield from _rows_reordered(trial, inputs)
    for size in (None, 1, 2, 4, 8, 16, 32):
        if trial.lr is not None and size != training.batch_size and (size is None or size < count):
            words = "the whole batch" if size is None else str(size)
            found = trial.again({"batch_size": size})
            yield from _tell(found, f"the mini-batches held {words}, not {training.batch_size or 'the whole batch'} (batch_size)")


def _rows_reordered(trial: Trial, inputs: Tensor) -> Iterator[Candidate]:
    for order in list(itertools.permutations(range(trial.count)))[1:]:
        rows = torch.tensor(order)
        sentence = f"the client held the examples in another order than the batch: {list(order)}"
        yield from _tell(trial.again(inputs=inputs[rows], labels=trial.setting.labels[rows]), sentence)


def decayed_gradient(trial: Trial) -> Iterator[Candidate]:
    """A shared gradient that already contains weight decay."""
    if trial.lr is not None or not trial.base.tensors:
        return
    weights = {name: parameter.detach() for name, parameter in trial.seen.model.named_parameters() if name in trial.base.tensors}
    gap = {name: trial.seen.tensors[name].double() - trial.base.tensors[name].double() for name in weights}
    size = dot(weights, weights)
    decay = dot(gap, weights) / size if size > 0 else 0.0
    if decay > 0:
        found: Tensors = {}
        for value in (rounded(decay), decay):
            found = {name: trial.base.tensors[name].double() + value * weights[name].double() for name in weights}
            if residual(trial.seen.tensors, found) <= trial.tolerance:
                break
        yield Candidate(f"the gradient contains weight decay, {value:.4g}, which the protocol does not say", found)


def fitted(field: str, sentence: str, starts: tuple[float, ...], highest: float, **fixed: Any) -> Builder:
    """A hypothesis that one number of the protocol is another: common values, then Gauss-Newton on the replayed update.

    Args:
        field: field of LocalTraining.
        sentence: with {value} and {declared}.
        starts: common values; the nearest also begins the fit.
        highest: largest value allowed.
        fixed: other fields that change with it.
    """

    def candidates(trial: Trial) -> Iterator[Candidate]:
        training = trial.setting.training
        declared = getattr(training, field)
        if field == "label_smoothing" and trial.setting.loss != "cross_entropy":
            return
        if field != "label_smoothing" and trial.lr is None and field != "clip_norm":
            return

        def tell(value: float | None, found: Recomputed) -> Candidate:
            words = "none" if not value else f"{value:.4g}"
            said = sentence.format(value=words, declared=declared if declared else "none")
            return Candidate(said, found.tensors, found.residual)

        near, start = float("inf"), None
        for value in starts:
            chosen = None if field == "clip_norm" and value == 0 else value
            if chosen == declared and not any(getattr(training, key) != other for key, other in fixed.items()):
                continue
            found = trial.again({field: chosen, **fixed})
            if found is not None:
                yield tell(chosen, found)
                if found.residual < near:
                    near, start = found.residual, value
        if start is not None:
            yield from (tell(value, found) for value, found in _refine(trial, field, start, highest, fixed))

    return candidates


def _refine(trial: Trial, field: str, start: float, highest: float, fixed: dict[str, Any]) -> Iterator[tuple[float, Recomputed]]:
    """Values nearer to the observed update, by Gauss-Newton with a difference quotient; each also rounded."""
    value = start
    for _ in range(REFINEMENTS):
        step = max(1e-3 * abs(value), 1e-4)
        here = trial.again({field: value if field != "clip_norm" or value else None, **fixed})
        there = trial.again({field: value + step, **fixed})
        if here is None or there is None:
            return
        slope = {name: (there.tensors[name].double() - tensor.double()) / step for name, tensor in here.tensors.items()}
        gap = {name: trial.seen.tensors[name].double() - tensor.double() for name, tensor in here.tensors.items()}
        size = dot(slope, slope)
        if size == 0:
            return
        value = min(max(value + dot(slope, gap) / size, 0.0), highest)
        for chosen in (rounded(value), value):
            if chosen > 0:
                found = trial.again({field: chosen, **fixed})
                if found is not None:
                    yield chosen, found


def rounded(value: float) -> float:
    """To two significant digits: protocols hold round numbers."""
    return float(f"{value:.2g}")
