"""Exchange: one message of one client as an engine saw it, and the observation it amounts to."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.core.callables import Loss, loss_on
from leakgauge.core.observation import Observation
from leakgauge.core.pack import pack
from leakgauge.core.provenance import Provenance, array_digest
from leakgauge.core.spec import Spec
from leakgauge.core.state_files import load_state, once
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord, Update, refuse_nonfinite, strip_wrappers
from leakgauge.errors import IntegrationError
from leakgauge.integrations.recording.protocol import training_from_config

KINDS = ("weights", "delta", "gradient")


@dataclass(frozen=True)
class Exchange:
    """What a client received and what it sent back. Arrays may be tensors or numpy arrays.

    Args:
        before: name -> array of the state that the client received; buffers included where the engine sends them.
        sent: name -> array that it sent back.
        kind: of `sent`: 'weights' (after training), 'delta' (after minus before) or 'gradient'.
        num_examples: examples in the client's data, or None where the engine does not say.
        config: the engine's configuration of this round, under any key names (see `training_from_config`).
        engine: 'flower', 'nvflare', ...
        side: on whose machine it was seen, 'client' or 'server'.
        round: number of the round, or None.
        client: the client's name as the server knows it.
        run: the engine's name of the run.
        notes: what the recorder saw that no field can say.
    """

    before: Mapping[str, Any] = field(repr=False)
    sent: Mapping[str, Any] = field(repr=False)
    kind: str = "weights"
    num_examples: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    engine: str = ""
    side: str = "client"
    round: int | None = None
    client: str = ""
    run: str = ""
    notes: tuple[str, ...] = ()


def observation_of(
    exchange: Exchange,
    model: nn.Module,
    *,
    spec: Spec | None = None,
    loss: Loss = "cross_entropy",
    training: LocalTraining | None = None,
    batch_norm: bool = True,
    defences: Sequence[DefenceRecord] = (),
    model_name: str = "",
) -> Observation:
    """The observation behind an exchange: what an honest-but-curious server holds, with where it was recorded.

    Parameters that were not sent are withheld. Where neither `training` nor the configuration states the mode or the number of
    steps, BatchNorm's own counters do; where they contradict what was stated, the mode is theirs, and a note says so.

    Args:
        exchange: the message.
        model: the architecture; its own weights are not used.
        spec: shape and normalisation of one picture, or the TextSpec of one text.
        loss: name or callable.
        training: the protocol where the configuration is silent.
        batch_norm: whether the buffers after training are kept.
        defences: public records of the defences applied, if known.
        model_name: for the record.

    Raises:
        IntegrationError: if the exchange holds no array, or another kind than those named.
        UpdateError, ModelError, ShapeError: if the arrays do not fit the model or are not finite.
    """
    if exchange.kind not in KINDS:
        raise IntegrationError(f"The exchange's kind is {exchange.kind!r}; expected one of {', '.join(KINDS)}.")
    loss = loss_on(loss, spec)
    before, sent = tensors_of(exchange.before), tensors_of(exchange.sent)
    if not sent or not before:
        what = "sent back" if before else "received"
        raise IntegrationError(f"The message of client {exchange.client or '?'} holds no array that was {what}.")
    before, sent = {**_own_buffers(model, before), **before}, once(sent, model, "message")
    stated, assumed = training_from_config(exchange.config, training, gradient=exchange.kind == "gradient")
    if exchange.num_examples is None:
        assumed = (*assumed, "num_examples")
    count = exchange.num_examples or 1
    notes = exchange.notes
    if exchange.kind != "gradient":
        passes = _passes(model, before, sent, exchange.kind)
        stated, assumed, seen_otherwise = _by_counters(passes, stated, assumed, count)
        notes = (*notes, *seen_otherwise)
    stated = stated.for_examples(count)
    withheld = [name for name, _ in model.named_parameters() if name not in sent]
    if exchange.kind == "weights":
        seen = pack(
            model, before=before, after=sent, training=stated, spec=spec, loss=loss,
            num_examples=count, withheld=withheld, batch_norm=batch_norm, defences=defences, model_name=model_name,
        )  # fmt: skip
    else:
        state = copy.deepcopy(model)
        load_state(state, before, "the model that the client received")
        buffers = dict(state.named_buffers()) if exchange.kind == "delta" else {}
        refuse_nonfinite(sent, "message")
        update = Update(
            tensors={name: tensor for name, tensor in sent.items() if name not in buffers},
            kind=exchange.kind,
            buffers={name: _after(buffers[name], before[name], sent[name]) for name in buffers if name in sent},
            loss=loss, training=stated, num_examples=count, defences=tuple(defences), withheld=tuple(withheld),
        )  # fmt: skip
        seen = ThreatModel.honest_but_curious(batch_norm=batch_norm).observe(
            update, state, spec, model_name=model_name, give_away=True
        )
    provenance = Provenance(
        engine=exchange.engine, side=exchange.side, round=exchange.round, client=exchange.client, run=exchange.run,
        assumed=assumed, notes=notes, digests={name: array_digest(tensor) for name, tensor in sent.items()},
    )  # fmt: skip
    return replace(seen, provenance=provenance)


def tensors_of(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Arrays of any engine as tensors on the CPU, bit for bit, under names without wrappers' prefixes.

    Raises:
        IntegrationError: for an entry that is no array.
    """
    found = {}
    for name, entry in arrays.items():
        try:
            found[str(name)] = torch.as_tensor(entry).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise IntegrationError(f"Entry {name!r} of the message is a {type(entry).__name__}; expected an array.") from error
    return strip_wrappers(found)


def _own_buffers(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Buffers that the engine did not send, as the architecture has them."""
    own = model.state_dict()
    return {name: own[name] for name, _ in model.named_buffers() if name in own and name not in before}


def _after(own: Tensor, before: Tensor, change: Tensor) -> Tensor:
    """A buffer after training. A server that averages makes fractions of counters: the client loads one as a whole number, and
    the engine takes its difference from the fraction."""
    if own.is_floating_point():
        return own + change.to(own.dtype)
    return (before.double() + change.double()).round().to(own.dtype)


def _passes(model: nn.Module, before: Mapping[str, Tensor], sent: Mapping[str, Tensor], kind: str) -> int | None:
    """Mini-batches that BatchNorm's counters saw in train mode; None where there are no counters or they differ."""
    taken = set()
    for name in batch_norm_layers(model):
        key = f"{name}.num_batches_tracked" if name else "num_batches_tracked"
        if key in sent and key in before:
            after = float(sent[key]) + (float(before[key]) if kind == "delta" else 0.0)
            taken.add(round(after) - int(before[key]))
    return taken.pop() if len(taken) == 1 else None


def _by_counters(
    passes: int | None, training: LocalTraining, assumed: tuple[str, ...], count: int
) -> tuple[LocalTraining, tuple[str, ...], tuple[str, ...]]:
    """Protocol and assumed fields after the counters had their say, and sentences on what they contradict."""
    if passes is None:
        return training, assumed, ()
    notes = []
    mode = "train" if passes > 0 else "eval"
    if "mode" not in assumed and training.mode != mode:
        notes.append(f"The protocol says {training.mode} mode, but BatchNorm's counters saw {mode} mode, which is recorded.")
    training = replace(training, mode=mode)
    assumed = tuple(name for name in assumed if name != "mode")
    if passes > 0 and "steps" in assumed:
        training = replace(training, steps=max(1, passes // training.accumulation))
        assumed = tuple(name for name in assumed if name != "steps")
    elif passes > 0:
        stated = training.steps_for(count) * training.accumulation
        if training.epochs is None and passes != stated:
            notes.append(f"The protocol says {stated} mini-batch(es), but BatchNorm's counters saw {passes}.")
    return training, assumed, tuple(notes)
