"""`record`: a context manager that captures the update of any PyTorch training loop, as a server would see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leakgauge.core.callables import Loss, check_loss, loss_on
from leakgauge.core.observation import Observation
from leakgauge.core.provenance import Provenance
from leakgauge.core.spec import Spec
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord, Update
from leakgauge.defences.base import Defence
from leakgauge.errors import IntegrationError
from leakgauge.integrations.recording.described import Order, described, loss_of
from leakgauge.integrations.recording.watch import Watch
from leakgauge.integrations.recording.wrappers import copied, innermost, is_private, unwrapped
from leakgauge.randomness import isolated
from leakgauge.truth.batch import Batch


class _Savable(Protocol):
    def save(self, path: str | Path) -> None: ...


@dataclass
class LoopRecorder:
    """What `record` yields: afterwards `observation`, and where it was asked for `truth`, are there. See `record`."""

    model: nn.Module
    optimiser: Optimizer | None = None
    loss: Loss = "cross_entropy"
    spec: Spec | None = None
    num_examples: int | None = None
    training: LocalTraining | None = None
    out: str | Path | None = None
    truth_file: str | Path | None = None
    defences: tuple[Defence | DefenceRecord, ...] = ()
    model_name: str = ""
    batch_norm: bool = True
    grant_labels: bool = False
    provenance: Provenance = Provenance("torch")  # noqa: RUF009 - frozen
    known: dict[str, Any] = field(default_factory=dict)  # fields of the protocol that an engine's settings state
    observation: Observation | None = field(default=None, init=False)
    truth: Batch | None = field(default=None, init=False)
    _watch: Watch | None = field(default=None, init=False, repr=False)
    _before: nn.Module | None = field(default=None, init=False, repr=False)

    def batch(self, inputs: Any, labels: Tensor) -> None:
        """Takes a mini-batch's labels, before or after its forward pass; they are kept only where the truth was asked for.

        Args:
            inputs: the mini-batch, to compare the number of rows; the inputs themselves are seen as the model takes them.
            labels: one row for each of them.

        Raises:
            IntegrationError: if the two differ in number.
        """
        rows = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
        if len(rows) != len(labels):
            raise IntegrationError(f"recorder.batch was given {len(rows)} inputs and {len(labels)} labels; expected as many.")
        self.labels(labels)

    def labels(self, labels: Tensor) -> None:
        """Takes the labels of the forward pass just made, or of the next one if that has some."""
        if self._watch is not None:
            self._watch.labels(labels)

    def __enter__(self) -> LoopRecorder:
        if self._watch is not None:
            raise IntegrationError("This recorder is already recording; make one for each round with lg.record(...).")
        self.observation = self.truth = None
        inner = unwrapped(self.model)
        self._before = copied(self.model)
        keep = self.truth_file is not None or self.grant_labels
        plain = None if self.optimiser is None else innermost(self.optimiser)
        self._watch = Watch(self.model, inner, keep=keep, optimiser=plain, private=is_private(self.optimiser))
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        watch, before = self._watch, self._before
        self._watch = self._before = None
        if watch is None or before is None:
            return
        watch.stop()
        if kind is None:
            self._finish(watch, before)

    def cancel(self) -> None:
        """Ends the recording without a result."""
        if self._watch is not None:
            self._watch.stop()
        self._watch = self._before = None

    def _finish(self, watch: Watch, before: nn.Module) -> None:
        start, end = dict(before.named_parameters()), watch.parameters
        moved = {name for name, part in end.items() if not torch.equal(part.detach(), start[name].detach())}
        kind = "delta" if watch.steps or moved else "gradient"
        if kind == "delta":
            names = watch.trained or moved
            tensors = {name: end[name].detach() - start[name].detach() for name in end if name in names}
        else:
            tensors = {name: part.grad.detach().clone() for name, part in end.items() if part.grad is not None}
        count = self.num_examples or watch.examples
        self._check(watch, kind, tensors, count)
        loss, fields = loss_of(self.loss)
        loss = loss_on(loss, self.spec)
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
        records, private = self._defences()
        told = described(watch, count, self.training, {**fields, **private, **self.known, "dtype": dtypes[0]})
        truth, missing = (None, None) if not watch.keep else _truth(watch, self.spec, told.order)
        granted = truth is not None and self.grant_labels and len(truth) == count
        update = Update(
            tensors=tensors,
            kind=kind,
            buffers={name: part.detach().clone() for name, part in watch.inner.named_buffers()},
            loss=loss,
            training=told.training,
            num_examples=count,
            labels=truth.labels if truth is not None and granted else None,
            defences=records,
            withheld=tuple(name for name in end if name not in tensors),
        )
        for name, parameter in before.named_parameters():
            parameter.requires_grad_(name in tensors)
        threat = ThreatModel.honest_but_curious(labels=granted, batch_norm=self.batch_norm)
        with isolated():
            seen = threat.observe(update, before, self.spec, model_name=self.model_name)
        assumed = (*told.assumed, *(() if self.num_examples else ("num_examples",)))
        notes = (*self.provenance.notes, *told.notes, *self._notes(watch, dtypes))
        self.observation = replace(seen, provenance=replace(self.provenance, assumed=assumed, notes=notes))
        self.truth = truth if self.truth_file is not None else None
        written: list[tuple[_Savable, str | Path]] = [] if self.out is None else [(self.observation, self.out)]
        if self.truth is not None and self.truth_file is not None:
            written.append((self.truth, self.truth_file))
        _write(written)
        if missing is not None:
            raise missing

    def _check(self, watch: Watch, kind: str, tensors: dict[str, Tensor], count: int) -> None:
        if not tensors:
            raise IntegrationError(
                "Nothing was trained inside lg.record: no optimiser took a step with the model's parameters and no gradient lies "
                "on them. Train, or call backward(), inside the with-block, with the same model."
            )
        if count == 0:
            raise IntegrationError(
                "lg.record saw no forward pass of the module it was given; give it the module that the loop calls (the "
                "DistributedDataParallel or compiled one), or state num_examples."
            )
        if kind == "delta" and not watch.steps and (self.training is None or self.training.lr is None):
            raise IntegrationError(
                "The weights changed, but no torch.optim optimiser took a step, so that the learning rate is not known; state "
                "the protocol: lg.record(..., training=lg.LocalTraining(lr=..., steps=...))."
            )

    def _defences(self) -> tuple[tuple[DefenceRecord, ...], dict[str, Any]]:
        """Public records of the defences, and the fields of the protocol that an Opacus optimiser states."""
        records = tuple(one.record() if isinstance(one, Defence) else one for one in self.defences)
        private: Any = self.optimiser
        if not is_private(private):
            return records, {}
        from leakgauge.integrations.opacus import dp_sgd_of, fields_of

        return (*records, dp_sgd_of(private).record()), fields_of(private)

    def _notes(self, watch: Watch, dtypes: list[str]) -> list[str]:
        notes = []
        if self.num_examples and watch.examples not in (0, self.num_examples) and not watch.private:
            notes.append(
                f"{watch.examples} distinct examples were seen, and {self.num_examples} were stated (augmentation, or rows that "
                "are equal)."
            )
        if len(dtypes) > 1:
            notes.append(f"Trained parameters have several dtypes ({', '.join(dtypes)}); the protocol names the first.")
        private: Any = self.optimiser
        if is_private(private):
            from leakgauge.integrations.opacus import notes_of

            notes += notes_of(private)
        elif hasattr(self.model, "to_standard_module"):
            notes.append(
                "The module makes per-example gradients (Opacus), but its optimiser was not given to lg.record, so that the "
                "defence is not on record."
            )
        return notes


def record(
    model: nn.Module,
    *,
    optimiser: Optimizer | None = None,
    loss: Loss = "cross_entropy",
    spec: Spec | None = None,
    num_examples: int | None = None,
    training: LocalTraining | None = None,
    out: str | Path | None = None,
    truth: str | Path | None = None,
    defences: Sequence[Defence | DefenceRecord] = (),
    model_name: str = "",
    batch_norm: bool = True,
    labels: bool = False,
    round: int | None = None,
    client: str = "",
) -> LoopRecorder:
    """A context manager that captures the update of whatever training happens inside.

    Weights and buffers are read on entry and on exit. In between hooks see optimiser steps, learning rates, forward passes, the
    sizes of mini-batches, modes and dtypes; they change nothing, and what they saw becomes the observation's protocol. What no
    protocol field can say stands in `recorder.observation.provenance.notes`, what could be neither seen nor stated in `.assumed`.
    Without an optimiser step, the gradient that lies on the parameters afterwards is the update.

        with lg.record(model, loss="cross_entropy", out="client.safetensors") as recorder:
            train(model)
        recorder.observation

    Args:
        model: the module that the loop calls; wrappers (DistributedDataParallel, torch.compile, Opacus) are seen through.
            Only parameters that are trained are shared, the others are withheld.
        optimiser: needed for Opacus, whose settings it holds, and where several optimisers train the model; else it is found
            by its steps.
        loss: by name, a callable, or torch's loss module, whose settings are then taken over.
        spec: shape and normalisation of one picture, or the TextSpec of one text.
        num_examples: examples in the client's data; by default the number of distinct rows that forward passes with gradients
            saw (hashes in memory, never written).
        training: the protocol's fields that cannot be seen: reduction, label_smoothing, class_weights, proximal, clip_norm.
        out: file for the observation.
        truth: file for the private batch, with the order of the mini-batches. Without it no example is kept. Labels come from
            `recorder.batch(inputs, labels)` in each iteration, or from the model's keyword 'labels'.
        defences: applied inside the loop, or their public records.
        model_name: as `load_model` takes it, for the record.
        batch_norm: whether the attacker is to see the buffers after training.
        labels: whether the attacker is to know the labels, which then are taken as for `truth`.
        round, client: for the record.

    Raises:
        OptionError: for an unknown loss.
        IntegrationError: on exit, if nothing was trained, no forward pass was seen, or labels that were asked for are missing.
        UpdateError: on exit, if the update is not finite or a file cannot be written.
    """
    check_loss(loss)
    return LoopRecorder(
        model, optimiser, loss, spec, num_examples, training, out, truth, tuple(defences), model_name, batch_norm, labels,
        Provenance("opacus" if is_private(optimiser) else "torch", round=round, client=client),
    )  # fmt: skip


def _truth(watch: Watch, spec: Spec | None, order: Order) -> tuple[Batch | None, IntegrationError | None]:
    """The private batch as it was kept, rows in the order in which they were first seen; or why there is none."""
    found: dict[int, Tensor] = {}
    passes = [one for step in watch.steps for one in step.passes] or [one for one in watch.pending if one.uses]
    for one in passes:
        if one.labels is None or len(one.labels) != len(one.rows):
            return None, IntegrationError(
                "The labels were asked for, but lg.record was not given those of every mini-batch (the observation itself is "
                "complete): call recorder.batch(inputs, labels) in each iteration of the loop."
            )
        found |= {row: one.labels[place] for place, row in enumerate(one.rows) if row not in found}
    if not found:
        return None, IntegrationError("The labels were asked for, but lg.record saw no mini-batch that was trained on.")
    rows = sorted(found)
    place = {row: index for index, row in enumerate(rows)}
    names = list(watch.kept[rows[0]])
    columns = {name: [watch.kept[row][name] for row in rows] for name in names}
    labels = [found[row] for row in rows]
    texts = isinstance(spec, TextSpec) and "input_ids" in names
    if isinstance(spec, TextSpec) and texts:
        fill = {"input_ids": spec.padding or 0, "attention_mask": 0}
        columns = {name: _filled(entries, spec.length, fill.get(name, 0)) for name, entries in columns.items()}
        labels = _filled(labels, spec.length, IGNORED)
    if any(len({entry.shape for entry in entries}) > 1 for entries in (*columns.values(), labels)):
        return None, IntegrationError(
            "The truth was asked for, but examples differ in length (padded anew in each mini-batch); give the padded length as "
            "spec=TextSpec(length=...), with at least the tokens of the longest. The observation itself is complete."
        )
    stacked = {name: torch.stack(entries) for name, entries in columns.items()}
    batch = Batch(
        inputs=stacked if len(names) > 1 else stacked[names[0]],
        labels=torch.stack(labels),
        spec=spec if len(names) == 1 or texts else None,
        order=tuple(tuple(tuple(place[row] for row in batch) for batch in step) for step in order),
    )
    return batch, None


def _filled(entries: list[Tensor], length: int, value: int) -> list[Tensor]:
    """Rows (l,) of one number per token, filled up to (length,); anything else as it is."""
    return [
        torch.cat([entry, entry.new_full((length - len(entry),), value)]) if entry.ndim == 1 and len(entry) < length else entry
        for entry in entries
    ]


def _write(files: Sequence[tuple[_Savable, str | Path]]) -> None:
    """All files, each whole or not at all."""
    parts = [(content, Path(path), Path(f"{path}.part")) for content, path in files]
    try:
        for content, path, part in parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            content.save(part)
        for _, path, part in parts:
            part.replace(path)
    finally:
        for _, _, part in parts:
            part.unlink(missing_ok=True)
