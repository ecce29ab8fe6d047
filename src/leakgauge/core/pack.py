"""`pack`: what a real federated system keeps (state dicts, gradients, lists of arrays) into an observation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss, loss_on
from leakgauge.core.engine_files import numbered, tensor_of
from leakgauge.core.observation import Observation, check_names
from leakgauge.core.spec import Spec
from leakgauge.core.state_files import load_state, once, read_state
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord, Update, refuse_nonfinite, strip_wrappers
from leakgauge.errors import ModelError, OptionError, ShapeError, UpdateError

Source = str | Path | Mapping[str, Any] | Sequence[Any]
"""A file that `read_state` reads, tensors or arrays by name (a Flower ArrayRecord, too), or an unnamed list of them."""


def pack(
    model: nn.Module,
    *,
    before: Source | None = None,
    after: Source | None = None,
    gradient: Source | None = None,
    weights: Source | None = None,
    training: LocalTraining,
    spec: Spec | None,
    loss: Loss = "cross_entropy",
    num_examples: int,
    labels: Tensor | Sequence[int] | None = None,
    withheld: Sequence[str] = (),
    batch_norm: bool = True,
    defences: Sequence[DefenceRecord] = (),
    model_name: str = "",
) -> Observation:
    """The observation behind a real system's tensors: weights before and after local training, or a gradient.

    Nothing is unpickled. Names lose the prefixes of DataParallel, torch.compile and Opacus. An unnamed list is accepted only
    where count and shapes agree, place by place, with the model's state dict, its parameters or its trainable parameters.

    Args:
        model: the architecture. Its own weights are used only for a gradient without `weights`.
        before: weights that the client received; with them the buffers, unless `weights` holds those.
        after: weights that the client sent back; may hold only the trained ones. Its buffers give the BatchNorm statistics.
        gradient: one gradient, instead of before and after.
        weights: whole state at which the gradient was computed, or that completes a `before` without buffers.
        training: the local training protocol; with `lr` for before and after, without it for a gradient.
        spec: shape and normalisation of one picture, the TextSpec of one text, or None.
        loss: name or callable.
        num_examples: examples in the client's batch, >= 1.
        labels: (num_examples, ...) if the attacker is to know them.
        withheld: names of parameters that the client deliberately did not share.
        batch_norm: whether the attacker is to see the buffers after training.
        defences: public records of the defences applied, if known.
        model_name: for the record.

    Raises:
        OptionError: if sources and protocol do not fit together, or a number is out of range.
        UpdateError: if a source is broken, incomplete, not finite or does not match the model.
        ModelError, ShapeError: if weights do not fit the model.
    """
    kind = _kind(before, after, gradient, training)
    if isinstance(num_examples, bool) or not isinstance(num_examples, int) or num_examples < 1:
        raise OptionError(f"num_examples is {num_examples!r}; expected a whole number >= 1.")
    known = None if labels is None else torch.as_tensor(labels).clone()
    if known is not None and len(known) != num_examples:
        raise ShapeError(f"There are {len(known)} labels for {num_examples} example(s); expected one per example.")
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    state = copy.deepcopy(model)
    if weights is not None:
        _load(state, read_source(weights, model, "weights"), "the weights given")
    buffers: dict[str, Tensor] = {}
    if kind == "gradient":
        assert gradient is not None
        tensors = once(read_source(gradient, model, "gradient"), model, "gradient")
        _only_parameters(tensors, model, "gradient")
    else:
        assert before is not None
        assert after is not None
        _load(state, _completed(read_source(before, model, "weights before"), state, weights, training), "the weights before")
        sent = once(read_source(after, model, "weights after"), model, "weights after")
        tensors, buffers = _difference(state, sent, trainable)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in withheld}
    frozen = [name for name, _ in model.named_parameters() if name not in trainable and name not in tensors]
    update = Update(
        tensors=tensors,
        kind=kind,
        buffers=buffers,
        loss=loss_on(loss, spec),
        training=training.for_examples(num_examples),
        num_examples=num_examples,
        labels=known,
        defences=tuple(defences),
        withheld=(*withheld, *(name for name in frozen if name not in withheld)),
    )
    check_names(update.tensors, dict(state.named_parameters()), update.withheld)
    threat = ThreatModel.honest_but_curious(labels=known is not None, batch_norm=batch_norm)
    return threat.observe(update, state, spec, model_name=model_name, give_away=True)


def read_source(source: Source, model: nn.Module, what: str) -> dict[str, Tensor]:
    """Tensors by name from a file, a mapping or an unnamed list.

    Args:
        source: see `Source`.
        model: gives the names for an unnamed list.
        what: the source in words, for the error.

    Raises:
        UpdateError: if a file is missing, broken or would need unpickling; if an entry is no array or not finite; or if an
            unnamed list does not match the model.
    """
    if isinstance(source, str | Path):
        found = read_state(source)
    else:
        entries = source if isinstance(source, Mapping) else {f"#{index}": entry for index, entry in enumerate(source)}
        found = {str(name): tensor_of(entry, str(name), f"the {what}") for name, entry in entries.items()}
        found = found if set(found) & set(model.state_dict()) else numbered(found)
    if not found:
        raise UpdateError(f"The {what} hold(s) no tensor at all; expected tensors by name.")
    if all(name == f"#{index}" for index, name in enumerate(found)):
        found = _named(list(found.values()), model, what)
    refuse_nonfinite(found, what)
    return strip_wrappers(found)


def _kind(before: Source | None, after: Source | None, gradient: Source | None, training: LocalTraining) -> str:
    if gradient is not None and before is None and after is None:
        if training.lr is not None:
            raise OptionError(
                f"A gradient is given, but the protocol has the learning rate {training.lr:g}; leave lr out for a shared "
                "gradient, or give the weights before and after."
            )
        return "gradient"
    if gradient is None and before is not None and after is not None:
        if training.lr is None:
            raise OptionError("Weights before and after are given, but the protocol has no learning rate; give it as lr.")
        return "delta"
    raise OptionError("Give either the weights before and after local training, or one gradient.")


def _named(tensors: list[Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """Names for an unnamed list, in the first of the model's own orders whose count and shapes agree everywhere."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    trained = {name: parameters[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    orders = {"entries of the state dict": shapes, "parameters": parameters, "trainable parameters": trained}
    found = [tuple(tensor.shape) for tensor in tensors]
    fitting = [list(order) for order in orders.values() if list(order.values()) == found]
    if not fitting:
        counts = ", ".join(f"{len(order)} {name}" for name, order in orders.items())
        place = next(
            (
                f" The first that differs is number {index} of {name}: {found[index]} instead of {own}."
                for name, order in orders.items()
                if len(order) == len(found)
                for index, own in enumerate(order.values())
                if found[index] != own
            ),
            "",
        )
        raise UpdateError(
            f"The {what} hold(s) {len(found)} tensors without names, and their count or shapes do not match the model's order "
            f"(it has {counts}).{place} Give tensors by name."
        )
    if any(set(order) != set(fitting[0]) or order != fitting[0] for order in fitting):
        raise UpdateError(f"The unnamed tensors of the {what} fit several orders of the model; give tensors by name.")
    return dict(zip(fitting[0], tensors, strict=True))


def _load(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    own = model.state_dict()
    for name, tensor in state.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            raise UpdateError(f"Tensor {name!r} of {origin} holds {tensor.dtype}; expected floating-point weights.")
    load_state(model, state, origin)


def _completed(before: dict[str, Tensor], model: nn.Module, weights: Source | None, training: LocalTraining) -> dict[str, Tensor]:
    """The weights before, with the buffers of `model` where they are missing and that is safe."""
    own = model.state_dict()
    buffers = {name for name, _ in model.named_buffers()} & set(own)
    missing = sorted(name for name in buffers - set(before) if own[name].is_floating_point())
    if missing and weights is None and training.mode == "eval":
        raise UpdateError(
            f"The weights before lack the buffer {missing[0]!r}, which a client in eval mode uses; give the whole state dict, or "
            "the rest as `weights`."
        )
    return {**{name: own[name] for name in buffers if name not in before}, **before}


def _difference(model: nn.Module, after: dict[str, Tensor], trainable: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after minus before, and the buffers after."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    unknown = [name for name in after if name not in parameters and name not in buffers]
    if unknown:
        raise ModelError(
            f"The weights after hold {unknown[0]!r}, which the model does not have{_more(unknown)}. Is it the right model?"
        )
    check_shapes = {name: tensor for name, tensor in after.items() if name in buffers}
    for name, tensor in {**check_shapes, **{name: after[name] for name in parameters if name in after}}.items():
        wanted = (parameters.get(name) if name in parameters else buffers[name]).shape  # type: ignore[union-attr]
        if tensor.shape != wanted:
            raise ShapeError(
                f"Tensor {name!r} of the weights after has shape {tuple(tensor.shape)}; the model has {tuple(wanted)}."
            )
    change = {}
    for name, parameter in parameters.items():
        if name in after:
            wide = torch.promote_types(after[name].dtype, parameter.dtype)
            change[name] = after[name].to(wide) - parameter.detach().to(wide)
    if change and all(bool((tensor == 0).all()) for tensor in change.values()):
        raise UpdateError(
            "The weights before and after are identical: nothing was trained, or the same file was given twice; expected the "
            "weights before and after local training."
        )
    change = {name: tensor for name, tensor in change.items() if name in trainable or bool((tensor != 0).any())}
    return change, {name: tensor for name, tensor in after.items() if name in buffers}


def _only_parameters(tensors: Mapping[str, Tensor], model: nn.Module, what: str) -> None:
    names = {name for name, _ in model.named_parameters()}
    unknown = [name for name in tensors if name not in names]
    if unknown:
        raise UpdateError(
            f"The {what} holds {unknown[0]!r}, which is no parameter of the model{_more(unknown)}. Is it the right model?"
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
