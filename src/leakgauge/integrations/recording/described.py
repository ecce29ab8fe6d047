"""From what a loop was seen to do to the protocol: LocalTraining, what was assumed, and notes on what no field can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from leakgauge.core.callables import Loss
from leakgauge.core.training import LocalTraining
from leakgauge.errors import ShapeError
from leakgauge.integrations.recording.protocol import main_group, optimiser_name, training_of, unsaid_of
from leakgauge.integrations.recording.watch import Pass, Watch
from leakgauge.local.replay import draw_order

UNSEEN = ("reduction", "label_smoothing", "class_weights", "proximal")  # fields that no hook shows
SAME_NORM = 1e-5  # relative difference up to which two clipped gradients have one norm

Order = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class Described:
    """What a loop did.

    Args:
        training: the protocol.
        assumed: fields that were neither seen nor stated.
        notes: what no field can say, as sentences.
        order: numbers of the examples in each mini-batch of each step.
    """

    training: LocalTraining
    assumed: tuple[str, ...]
    notes: tuple[str, ...]
    order: Order


def described(watch: Watch, count: int, stated: LocalTraining | None, fields: dict[str, Any]) -> Described:
    """The protocol behind what was seen.

    Args:
        watch: after the loop.
        count: number of examples.
        stated: the user's word on what cannot be seen; what was seen wins over it.
        fields: further fields, such as those that a loss module states; they win over both. A 'batch_size' is the nominal one
            of a loop whose sizes vary by design (Poisson sampling).

    Raises:
        OptionError: if a value that was seen is out of LocalTraining's range.
    """
    steps = [step.passes for step in watch.steps] or [tuple(one for one in watch.pending if one.uses)]
    passes = [one for step in steps for one in step]
    order: Order = tuple(tuple(one.rows for one in step) for step in steps)
    base = stated or LocalTraining()
    said: dict[str, Any] = {name: getattr(base, name) for name in (*UNSEEN, "clip_norm")}
    assumed = [name for name in UNSEEN if stated is None and name not in fields]
    notes: list[str] = []
    if passes:
        modes, low = {one.mode for one in passes}, {one.autocast for one in passes}
        said |= {"mode": "train" if "train" in modes else "eval", "amp": low != {None}}
        notes += _notes_on_passes(watch, passes, modes, low)
    if watch.steps:
        optimiser = watch.seen_optimisers[0]
        said |= _rates(watch)
        said["clip_norm"], clipping, note = _clipping(watch, said["clip_norm"])
        assumed += clipping
        notes += [*note, *_notes_on_steps(watch)]
        training, _ = training_of(optimiser, **{**said, **fields})
        assumed += ["optimiser"] if not optimiser_name(optimiser) else []
    else:
        kept = {"lr": base.lr, "steps": base.steps, "epochs": base.epochs, "optimiser": base.optimiser}
        training = replace(base, **{**said, **kept, **fields})
    if passes:
        sizes, fits = _mini_batches(training, order, count, fields.get("batch_size"))
        training = replace(training, **sizes)
        if not fits and not watch.private:  # the size of a Poisson sample is not public: its accountant counts on that
            notes.append(_irregular(order))
    return Described(training, tuple(dict.fromkeys(assumed)), tuple(notes), order)


def loss_of(loss: Loss) -> tuple[Loss, dict[str, Any]]:
    """A loss by name, with the protocol's fields that it states, for torch's own loss modules; any other loss as it is."""
    if not isinstance(loss, nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | nn.MSELoss) or loss.reduction == "none":
        return loss, {}
    if isinstance(loss, nn.CrossEntropyLoss):
        weights = None if loss.weight is None else tuple(float(value) for value in loss.weight)
        said = {"label_smoothing": float(loss.label_smoothing), "class_weights": weights}
        return "cross_entropy", {"reduction": loss.reduction, **said}
    if isinstance(loss, nn.MSELoss):
        return "mse", {"reduction": loss.reduction, "label_smoothing": 0.0, "class_weights": None}
    if loss.weight is not None or loss.pos_weight is not None:
        return loss, {}
    return "binary_cross_entropy", {"reduction": loss.reduction, "label_smoothing": 0.0, "class_weights": None}


def _rates(watch: Watch) -> dict[str, Any]:
    """Learning rate, and its factors where it changed."""
    optimiser = watch.seen_optimisers[0]
    group = main_group(optimiser)
    place = next(index for index, one in enumerate(optimiser.param_groups) if one is group)
    rates = [step.rates[place] if place < len(step.rates) else step.rates[0] for step in watch.steps]
    start = float(group.get("initial_lr", 0.0)) or rates[0] or max(rates)
    return {"lr": start, "schedule": None if all(rate == start for rate in rates) else tuple(rate / start for rate in rates)}


def _clipping(watch: Watch, stated: float | None) -> tuple[float | None, list[str], list[str]]:
    """The clip norm, whether it was inferred, and a note where gradients were changed in another way.

    Clipping leaves the same norm, or a round one, behind: with norm n before it, C n / (n + 1e-6).
    """
    norms = [step.changed_norm for step in watch.steps if step.changed_norm]
    if stated is not None or not norms:
        return stated, [], []
    largest = max(norms)
    alike = sum(norm >= largest * (1 - SAME_NORM) for norm in norms)
    for digits in (1, 2, 3):
        value = float(f"{largest:.{digits}g}")
        if abs(largest - value) <= (SAME_NORM + 2e-6 / value) * value and (digits < 3 or alike > 1):
            return value, ["clip_norm"], []
    if alike > 1:
        return largest, ["clip_norm"], []
    if isinstance(watch.module, nn.parallel.DistributedDataParallel):
        return None, [], []  # it averages over processes in place
    return None, [], [
        "Gradients were changed between the backward pass and the step (clipping that never acted, a gradient scaler, an average "
        "over processes, noise); state clip_norm if it was clipping."
    ]  # fmt: skip


def _notes_on_passes(watch: Watch, passes: Sequence[Pass], modes: set[str], low: set[torch.dtype | None]) -> list[str]:
    notes = []
    if len(modes) > 1:
        notes.append("The model was in train mode in some forward passes and in eval mode in others.")
    if watch.frozen_modes:
        shown = sorted(watch.frozen_modes)
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        notes.append(f"The layer(s) {', '.join(shown[:3])}{more} stayed in eval mode while the model was in train mode.")
    if len(low) > 1:
        notes.append("Mixed precision was on in some forward passes and off in others.")
    if any(one.uses > 1 for one in passes):
        notes.append("The output of one forward pass was differentiated several times (several losses).")
    return notes


def _notes_on_steps(watch: Watch) -> list[str]:
    notes = list(unsaid_of(watch.seen_optimisers[0]))
    if len(watch.seen_optimisers) > 1:
        notes.append(f"{len(watch.seen_optimisers)} optimisers took steps; the protocol is that of the first.")
    if watch.carried:
        notes.append("The optimiser brought its state (momentum, averages) from earlier training; the protocol begins without.")
    if watch.stale:
        notes.append("Gradients lay on the parameters before the first forward pass, and may be part of the first step.")
    if watch.discarded:
        notes.append(
            f"The gradients of {watch.discarded} forward pass(es) were thrown away without a step, as a gradient scaler does "
            "when it overflows."
        )
    if any(one.uses for one in watch.pending):
        notes.append("The last mini-batches were not followed by a step; they are not part of the update.")
    if any(not step.passes for step in watch.steps):
        notes.append("A step was taken without a forward pass through the recorded module.")
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        notes.append(
            f"{torch.distributed.get_world_size()} processes trained together; the examples and the order are this one's only."
        )
    return notes


def _mini_batches(training: LocalTraining, order: Order, count: int, nominal: int | None) -> tuple[dict[str, Any], bool]:
    """The fields on steps and mini-batches, and whether `draw_order` makes the same from them."""
    largest = nominal or max(len(rows) for step in order for rows in step)
    fields: dict[str, Any] = {
        "batch_size": None if largest >= count else max(largest, 1),
        "accumulation": max(1, *(len(step) for step in order)),
    }
    flat = [rows for step in order for rows in step]
    recognised = len({row for rows in flat for row in rows}) == count  # not where rows are equal or augmented anew
    for drop_last in (False, True):
        for whole in (True, False):
            extent = _extent(training, flat, fields, count, drop_last, whole, len(order))
            if extent is None:
                continue
            found = {**fields, **extent, "drop_last": drop_last}
            try:
                natural = draw_order(replace(training, **found, shuffle=False), count)
            except ShapeError:
                continue
            drawn = tuple(tuple(tuple(rows.tolist()) for rows in step) for step in natural)
            if [[len(rows) for rows in step] for step in drawn] != [[len(rows) for rows in step] for step in order]:
                continue
            if drawn == order:
                return {**found, "shuffle": fields["batch_size"] is None}, True
            size = found["batch_size"] or count
            if not recognised or _are_passes(flat, count // size if drop_last else -(-count // size)):
                return {**found, "shuffle": True}, True
    steps = {} if training.lr is None else {"steps": len(order), "epochs": None}
    return {**fields, **steps}, False


def _extent(
    training: LocalTraining, flat: Sequence[tuple[int, ...]], fields: dict[str, Any], count: int, drop_last: bool, whole: bool,
    steps: int,
) -> dict[str, Any] | None:  # fmt: skip
    """Epochs where the mini-batches are whole passes over the data, or steps; None where that makes no sense."""
    if training.lr is None:
        return {} if whole else None
    if not whole or fields["batch_size"] is None:
        return {"steps": steps, "epochs": None}
    in_pass = count // fields["batch_size"] if drop_last else -(-count // fields["batch_size"])
    return {"epochs": len(flat) // in_pass} if len(flat) % in_pass == 0 else None


def _are_passes(flat: Sequence[tuple[int, ...]], in_pass: int) -> bool:
    """Whether no example comes twice within one pass of so many mini-batches."""
    for first in range(0, len(flat), in_pass):
        rows = [row for batch in flat[first : first + in_pass] for row in batch]
        if len(set(rows)) < len(rows):
            return False
    return True


def _irregular(order: Order) -> str:
    """What the protocol's fields cannot say of these mini-batches."""
    if len({len(step) for step in order}) > 1:
        return (
            f"The optimiser's steps took {_spoken([len(step) for step in order])} mini-batches; the protocol names the largest "
            "number."
        )
    return (
        "The mini-batches do not follow one size and whole passes over the data: they held "
        f"{_spoken([len(rows) for step in order for rows in step])} rows; the protocol names the largest size."
    )


def _spoken(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
