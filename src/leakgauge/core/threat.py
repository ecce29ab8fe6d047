"""ThreatModel: who watches, and what they are granted. It alone turns an update into an observation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakgauge.core.batch_statistics import BatchStatistics, batch_norm_layers, difference
from leakgauge.core.observation import Knowledge, Observation, check_names
from leakgauge.core.spec import ImageSpec
from leakgauge.core.update import Update


@dataclass(frozen=True)
class ThreatModel:
    """Who could attack, and what they know beyond the always granted minimum.

    Args:
        name: in plain words, for the report.
        knowledge: what is granted beyond the model and its state, loss, protocol, spec and example count.
    """

    name: str
    knowledge: frozenset[Knowledge]

    @staticmethod
    def honest_but_curious(labels: bool = False, batch_norm: bool = True, defence: bool = True) -> ThreatModel:
        """A server that follows the protocol and keeps what it receives.

        Args:
            labels: grant the true labels (a diagnostic assumption: a real server has to recover them).
            batch_norm: grant the buffers that the client shares after training.
            defence: grant name and parameters of the defence (Kerckhoffs's principle).
        """
        granted = {
            Knowledge.LABELS: labels,
            Knowledge.BATCH_NORM: batch_norm,
            Knowledge.DEFENCE: defence,
        }
        return ThreatModel("honest-but-curious server", frozenset(fact for fact, given in granted.items() if given))

    def observe(self, update: Update, model: nn.Module, spec: ImageSpec | None, *, model_name: str = "") -> Observation:
        """The update as this attacker sees it. Seeds never pass; labels, buffers and defences only if granted.

        Args:
            update: what the client shared.
            model: the module in the state that the client received.
            spec: shape and normalisation of one input (public).
            model_name: name of the model, for the record.

        Raises:
            UpdateError, ShapeError: if update and model do not fit (see `Observation`).
        """
        frozen = copy.deepcopy(model).eval()
        frozen.zero_grad(set_to_none=True)  # a gradient left on the client's module is not part of the update
        state = dict(frozen.named_parameters())
        tensors = {name: tensor.detach().clone() for name, tensor in update.tensors.items()}
        kind = update.kind
        if kind == "weights":
            check_names(tensors, state, update.withheld)
            tensors = {name: tensor - state[name].detach().to(tensor.dtype) for name, tensor in tensors.items()}
            kind = "delta"
        seen = Observation(
            model=frozen,
            tensors=tensors,
            kind=kind,
            loss=update.loss,
            training=update.training,
            spec=spec,
            num_examples=update.num_examples,
            withheld=update.withheld,
            knowledge=self.knowledge,
            threat=self.name,
            model_name=model_name,
        )
        if Knowledge.LABELS in self.knowledge and update.labels is not None:
            seen = replace(seen, labels=update.labels.detach().clone())
        if Knowledge.DEFENCE in self.knowledge:
            seen = replace(seen, defences=update.defences)
        if Knowledge.BATCH_NORM in self.knowledge and update.buffers:
            buffers = {name: tensor.detach().clone() for name, tensor in update.buffers.items()}
            seen = replace(seen, buffers=buffers, batch_norm=recover_batch_norm(seen, buffers))
        return seen


def recover_batch_norm(seen: Observation, after: Mapping[str, Tensor]) -> dict[str, BatchStatistics]:
    """The batch's statistics in each BatchNorm layer, from the model's buffers and those `after` local training.

    Values per channel are counted by a forward pass of one blank input through the public model.
    """
    layers = batch_norm_layers(seen.model)
    if not layers:
        return {}
    before = dict(seen.model.named_buffers())
    per_example = _values_per_channel(seen, list(layers))
    per_step = min(seen.training.batch_size or seen.num_examples, seen.num_examples)
    found = {}
    for name, layer in layers.items():
        positions = per_example.get(name)
        count = None if positions is None else float(positions * per_step)
        statistics = difference(before, after, name, layer.momentum, count)
        if statistics is not None:
            found[name] = statistics
    return found


def _values_per_channel(seen: Observation, names: list[str]) -> dict[str, int]:
    """Spatial positions of each named layer's input for one example; empty where no blank input can be built."""
    if seen.spec is None:
        return {}
    positions: dict[str, int] = {}
    modules = dict(seen.model.named_modules())

    def count(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            positions[name] = inputs[0].numel() // (inputs[0].shape[0] * inputs[0].shape[1])

        handles.append(modules[name].register_forward_pre_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name in names:
        count(name)
    try:
        with torch.no_grad():
            like = next(seen.model.parameters())
            seen.model(torch.zeros((1, *seen.spec.shape), dtype=like.dtype, device=like.device))
    finally:
        for handle in handles:
            handle.remove()
    return positions
