"""The local training protocol: what a client does with its batch before it shares anything. Public knowledge."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from leakgauge.errors import OptionError, did_you_mean

OPTIMISERS = ("sgd", "adam", "adamw")
DTYPES = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains on its batch before it shares an update.

    With `lr=None` nothing is trained: the client shares the gradient at the received model (FedSGD). Otherwise it takes
    `steps` optimiser steps (or as many as `epochs` passes need) and shares the weight change (FedAvg).

    Args:
        steps: optimiser steps, >= 1; ignored when `epochs` is given.
        epochs: passes over the batch, >= 1, or None.
        batch_size: examples per mini-batch; None takes the whole batch.
        lr: learning rate > 0, or None for a shared gradient.
        optimiser: 'sgd', 'adam' or 'adamw', each with torch.optim's update rule.
        momentum: SGD momentum in [0, 1).
        nesterov: Nesterov's momentum; needs `momentum` > 0.
        betas: Adam's decay rates, each in [0, 1).
        weight_decay: L2 penalty as torch.optim applies it, >= 0; it belongs to the step, so a shared gradient is without it.
        schedule: factors on `lr`, one per optimiser step (the last one repeats), or None.
        accumulation: mini-batches averaged (for reduction 'sum': added) into one optimiser step, >= 1.
        clip_norm: largest 2-norm of the whole gradient (torch.nn.utils.clip_grad_norm_), or None.
        reduction: 'mean' or 'sum' over examples.
        label_smoothing: in [0, 1), cross-entropy only.
        class_weights: one weight per class, or None; cross-entropy only.
        proximal: FedProx's mu >= 0: adds mu/2 ||w - w_received||^2.
        shuffle: a fresh permutation in each epoch; False takes mini-batches in the order of the batch, round and round.
        drop_last: leave out a last mini-batch that is not full.
        mode: 'eval' or 'train' (dropout active, BatchNorm uses and updates batch statistics).
        dtype: arithmetic of the client: 'float64', 'float32', 'float16' or 'bfloat16'.
        amp: automatic mixed precision (bfloat16 on a CPU, float16 on a GPU).

    Raises:
        OptionError: if a value is outside its range or two values contradict each other.
    """

    steps: int = 1
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimiser: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: tuple[float, ...] | None = None
    accumulation: int = 1
    clip_norm: float | None = None
    reduction: str = "mean"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    proximal: float = 0.0
    shuffle: bool = True
    drop_last: bool = False
    mode: str = "eval"
    dtype: str = "float32"
    amp: bool = False

    def __post_init__(self) -> None:
        def check(held: bool, field: str, expected: str) -> None:
            if not held:
                raise OptionError(f"LocalTraining.{field} is {getattr(self, field)!r}; expected {expected}.")

        for field in ("schedule", "class_weights", "betas"):
            value = getattr(self, field)
            if value is not None:
                if isinstance(value, str) or not hasattr(value, "__iter__"):
                    check(False, field, "a list of numbers")
                try:
                    object.__setattr__(self, field, tuple(float(entry) for entry in value))
                except (TypeError, ValueError, OverflowError):
                    check(False, field, "a list of numbers")
        for field in ("steps", "accumulation"):
            check(_whole(getattr(self, field)) and getattr(self, field) >= 1, field, "a whole number >= 1")
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            check(value is None or (_whole(value) and value >= 1), field, "a whole number >= 1, or None")
        for field in ("lr", "clip_norm"):
            value = getattr(self, field)
            check(value is None or (_number(value) and value > 0), field, "a number > 0, or None")
        for field in ("weight_decay", "proximal"):
            check(_number(getattr(self, field)) and getattr(self, field) >= 0, field, "a number >= 0")
        for field in ("momentum", "label_smoothing"):
            check(_number(getattr(self, field)) and 0 <= getattr(self, field) < 1, field, "a number in [0, 1)")
        check(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers in [0, 1)")
        for field, choices in (
            ("optimiser", OPTIMISERS),
            ("mode", ("eval", "train")),
            ("reduction", ("mean", "sum")),
            ("dtype", DTYPES),
        ):
            check(getattr(self, field) in choices, field, "one of " + ", ".join(choices))
        for field in ("nesterov", "shuffle", "drop_last", "amp"):
            check(isinstance(getattr(self, field), bool), field, "True or False")
        check(self.schedule is None or len(self.schedule) > 0, "schedule", "at least one factor")
        check(not self.nesterov or self.momentum > 0, "nesterov", "momentum > 0 beside it")
        if self.lr is None and (self.epochs is not None or self.steps != 1):
            raise OptionError("LocalTraining.lr is None, so one gradient is shared; give lr for several steps or epochs.")

    @property
    def kind(self) -> str:
        """What the client shares: 'gradient' without a learning rate, else 'delta' (weights after minus before)."""
        return "gradient" if self.lr is None else "delta"

    @property
    def is_one_gradient(self) -> bool:
        """Whether the update is, up to a known factor, one gradient over the whole batch without further terms."""
        plain = self.optimiser == "sgd" and self.weight_decay == 0 and self.clip_norm is None
        whole = self.batch_size is None and self.accumulation == 1
        return whole and plain and (self.lr is None or (self.epochs or self.steps) == 1)

    def steps_for(self, num_examples: int) -> int:
        """Number of optimiser steps that a client with `num_examples` examples takes."""
        if self.epochs is None:
            return self.steps
        batch_size = min(self.batch_size or num_examples, num_examples)
        per_epoch = num_examples // batch_size if self.drop_last else math.ceil(num_examples / batch_size)
        return max(1, math.ceil(self.epochs * per_epoch / self.accumulation))

    def for_examples(self, num_examples: int) -> LocalTraining:
        """The same protocol, with `batch_size` None where one mini-batch holds all of `num_examples` examples."""
        whole = self.batch_size is not None and self.batch_size >= num_examples
        return dataclasses.replace(self, batch_size=None) if whole and not self.drop_last else self

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `training_from_json` reads it."""
        return dataclasses.asdict(self)


def training_from_json(record: dict[str, Any]) -> LocalTraining:
    """The protocol that a manifest or a TOML table describes.

    Raises:
        OptionError: for a key that LocalTraining does not have (the nearest is suggested) or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(LocalTraining)}
    for key in record:
        if key not in known:
            raise OptionError(f"The training protocol has the unknown key {key!r}.{did_you_mean(key, known)}")
    return LocalTraining(**record)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False
