"""ThreatModel: who watches, and what they are granted. It alone turns an update into an observation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakgauge.core.batch_statistics import BatchStatistics, batch_norm_layers, difference
from leakgauge.core.observation import Knowledge, Observation, check_names
from leakgauge.core.spec import Spec
from leakgauge.core.update import Update
from leakgauge.errors import OptionError, ShapeError

MIXING_TOLERANCE = 1e-6  # how far a row of a mixing matrix may be from 1: rounding of float32


@dataclass(frozen=True)
class ThreatModel:
    """Who could attack, and what they know beyond the always granted minimum.

    Args:
        name: in plain words, for the report.
        knowledge: what is granted beyond the model and its state, loss, protocol, spec and example count.
        mixing: the weights with which nodes of a gossip network mix, row by row; None where there is a server.
    """

    name: str
    knowledge: frozenset[Knowledge]
    mixing: tuple[tuple[float, ...], ...] | None = None

    @staticmethod
    def honest_but_curious(labels: bool = False, batch_norm: bool = True, defence: bool = True) -> ThreatModel:
        """A server that follows the protocol and keeps what it receives.

        Args:
            labels: grant the true labels (a diagnostic assumption: a real server has to recover them).
            batch_norm: grant the buffers that the client shares after training.
            defence: grant name and parameters of the defence (Kerckhoffs's principle).
        """
        return ThreatModel("honest-but-curious server", _granted(labels, batch_norm, defence))

    @staticmethod
    def neighbour(
        mixing: Tensor | Sequence[Sequence[float]], labels: bool = False, batch_norm: bool = True, defence: bool = True
    ) -> ThreatModel:
        """A node of a gossip network that follows the protocol and keeps what its neighbours send.

        It holds its own messages and those of its neighbours, and knows the mixing weights, which are public; from both it
        works out the state that a sender started from (`Message.model`).

        Args:
            mixing: W, (nodes, nodes): x_i <- sum_j W_ij y_j; non-negative, rows sum to 1.
            labels: grant the true labels (a diagnostic assumption).
            batch_norm: grant the buffers that nodes send.
            defence: grant name and parameters of the defence.

        Raises:
            ShapeError: if the matrix is not square.
            OptionError: if an entry is negative or not a finite number, or a row does not sum to 1.

        Source: Zhu et al. 2019, section 2 (decentralised training).
        """
        return ThreatModel("neighbour in gossip", _granted(labels, batch_norm, defence), _checked_mixing(mixing))

    def observe(
        self, update: Update, model: nn.Module, spec: Spec | None, *, model_name: str = "", give_away: bool = False
    ) -> Observation:
        """The update as this attacker sees it. Seeds never pass; labels, buffers and defences only if granted.

        Args:
            update: what the client shared.
            model: the module in the state that the client received.
            spec: shape and normalisation of one input (public).
            model_name: name of the model, for the record.
            give_away: the observation may keep and change the module itself instead of a copy.

        Raises:
            UpdateError, ShapeError: if update and model do not fit (see `Observation`).
        """
        frozen = (model if give_away else copy.deepcopy(model)).eval()
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


def _granted(labels: bool, batch_norm: bool, defence: bool) -> frozenset[Knowledge]:
    given = {Knowledge.LABELS: labels, Knowledge.BATCH_NORM: batch_norm, Knowledge.DEFENCE: defence}
    return frozenset(fact for fact, granted in given.items() if granted)


def _checked_mixing(mixing: Tensor | Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    rows = mixing.detach().cpu().tolist() if isinstance(mixing, Tensor) else [list(row) for row in mixing]
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        raise ShapeError(f"The mixing matrix has {len(rows)} row(s) of other lengths; expected a square matrix.")
    found = tuple(tuple(float(entry) for entry in row) for row in rows)
    for place, row in enumerate(found):
        if not all(math.isfinite(entry) and entry >= 0 for entry in row):
            raise OptionError(f"Row {place + 1} of the mixing matrix has the entry {min(row)!r}; expected finite numbers >= 0.")
        if abs(sum(row) - 1.0) > MIXING_TOLERANCE:
            raise OptionError(f"Row {place + 1} of the mixing matrix sums to {sum(row):.6g}; expected 1.")
    return found


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
    if seen.pictures is None:
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
            seen.model(torch.zeros((1, *seen.pictures.shape), dtype=like.dtype, device=like.device))
    finally:
        for handle in handles:
            handle.remove()
    return positions
