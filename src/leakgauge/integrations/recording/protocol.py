"""Local training as engines state it: configurations of a round, and torch optimisers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError
from leakgauge.local.optimisers import EPSILON

NAMES: dict[str, str] = {
    name: field
    for field, names in {
        "lr": "lr learning_rate local_lr client_lr",
        "epochs": "epochs local_epochs num_epochs num_local_epochs aggregation_epochs num_train_epochs",
        "steps": "steps local_steps num_steps max_steps num_local_steps",
        "batch_size": "batch_size local_batch_size train_batch_size per_device_train_batch_size",
        "momentum": "momentum",
        "nesterov": "nesterov",
        "weight_decay": "weight_decay",
        "optimiser": "optimiser optimizer optim",
        "proximal": "proximal proximal_mu mu fedprox_mu",
        "label_smoothing": "label_smoothing",
        "clip_norm": "clip_norm max_grad_norm grad_clip gradient_clip_val",
        "accumulation": "accumulation gradient_accumulation_steps accumulate_grad_batches",
        "drop_last": "drop_last",
        "shuffle": "shuffle",
        "mode": "mode",
    }.items()
    for name in names.split()
}
WHOLE = ("epochs", "steps", "batch_size", "accumulation")
SWITCHES = ("nesterov", "drop_last", "shuffle")
WORDS = ("optimiser", "mode")
DECISIVE = ("lr", "steps", "batch_size", "optimiser", "mode")  # what an attack cannot do without


def training_from_config(
    config: Mapping[str, object], training: LocalTraining | None = None, *, gradient: bool = False
) -> tuple[LocalTraining, tuple[str, ...]]:
    """The protocol that a round's configuration states, over `training`; and which decisive fields nobody stated.

    Keys are read in any case, with '-' or '_', under their usual names: lr or learning-rate, local-epochs, batch-size,
    proximal-mu, max_grad_norm, ... A value that cannot be read counts as not stated. Where no learning rate is stated, 1 is
    assumed for a weight change: directions are then right, and lengths are not.

    Args:
        config: any mapping.
        training: what the user stated once, where the configuration is silent; nothing is assumed then.
        gradient: whether a gradient is shared, which needs no learning rate.
    """
    said: dict[str, Any] = {}
    for key, value in config.items():
        field = NAMES.get(str(key).strip().lower().replace("-", "_"))
        read = None if field is None else _read(field, value)
        if field is not None and read is not None:
            said.setdefault(field, read)
    if gradient:
        said = {field: value for field, value in said.items() if field not in ("lr", "epochs", "steps")}
    if "steps" in said and "epochs" not in said and training is not None:
        said["epochs"] = None
    start = training or LocalTraining()
    known = {*said, *(DECISIVE if training is not None else ())} | ({"steps"} if "epochs" in said else set())
    assumed = [field for field in DECISIVE if field not in known]
    if gradient:
        assumed = [field for field in assumed if field == "mode"]
        start = replace(start, lr=None, epochs=None, steps=1)
    elif "lr" not in said and start.lr is None:
        said["lr"] = 1.0
        assumed = ["lr", *(field for field in assumed if field != "lr")]
    try:
        return replace(start, **said), tuple(assumed)
    except OptionError:
        single = {field: value for field, value in said.items() if _valid(start, field, value)}
        lost = [field for field in said if field not in single]
        base = start if start.lr is not None or gradient else replace(start, lr=1.0)
        return replace(base, **single), tuple(dict.fromkeys([*assumed, *lost]))


def _read(field: str, value: object) -> Any:
    """A value as LocalTraining takes it, or None."""
    if field in WORDS:
        word = str(value).strip().lower()
        return {"adam": "adam", "adamw": "adamw", "sgd": "sgd", "train": "train", "eval": "eval"}.get(word)
    if field in SWITCHES:
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(str(value).strip().lower())
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number) or (field in WHOLE and number != int(number)) or number < 0:
        return None
    if field in ("lr", "clip_norm", *WHOLE) and number == 0:
        return None
    return int(number) if field in WHOLE else number


def _valid(start: LocalTraining, field: str, value: Any) -> bool:
    changes: dict[str, Any] = {"lr": start.lr or 1.0, field: value}
    try:
        replace(start, **changes)
    except OptionError:
        return False
    return True


def training_of(optimiser: Optimizer, **rest: Any) -> tuple[LocalTraining, tuple[str, ...]]:
    """The protocol that a torch optimiser's settings state, and which decisive fields nobody stated.

    Of several parameter groups the one with the most numbers counts; `unsaid_of` names what this leaves out.

    Args:
        optimiser: SGD, Adam or AdamW; another one is taken for SGD, and 'optimiser' is then assumed.
        rest: further fields of LocalTraining.

    Raises:
        OptionError: if a value is out of range.
    """
    group = main_group(optimiser)
    name = optimiser_name(optimiser)
    lr = float(group.get("initial_lr", group.get("lr", 0.0))) or float(group.get("lr", 0.0))
    said: dict[str, Any] = {"optimiser": name or "sgd", "lr": lr or None, "weight_decay": float(group.get("weight_decay") or 0.0)}
    if name in ("adam", "adamw"):
        said["betas"] = tuple(float(beta) for beta in group["betas"])
    else:
        said |= {"momentum": float(group.get("momentum", 0.0)), "nesterov": bool(group.get("nesterov", False))}
    said |= rest
    known = {*said} - (set() if name or "optimiser" in rest else {"optimiser"}) | ({"steps"} if "epochs" in said else set())
    return LocalTraining(**said), tuple(field for field in DECISIVE if field not in known)


def optimiser_name(optimiser: Optimizer) -> str:
    """'sgd', 'adam' or 'adamw'; '' for a rule that LocalTraining does not have."""
    if isinstance(optimiser, torch.optim.AdamW) or (
        isinstance(optimiser, torch.optim.Adam) and main_group(optimiser).get("decoupled_weight_decay")
    ):
        return "adamw"
    return {torch.optim.SGD: "sgd", torch.optim.Adam: "adam"}.get(type(optimiser), "")


def main_group(optimiser: Optimizer) -> dict[str, Any]:
    """The parameter group with the most numbers."""
    return max(optimiser.param_groups, key=lambda group: sum(parameter.numel() for parameter in group["params"]))


def unsaid_of(optimiser: Optimizer) -> tuple[str, ...]:
    """What LocalTraining cannot say of an optimiser's settings, one sentence each."""
    group, name = main_group(optimiser), optimiser_name(optimiser)
    notes = []
    if not name:
        notes.append(f"The optimiser was {type(optimiser).__name__}, which the protocol cannot say.")
    if group.get("amsgrad"):
        notes.append("The optimiser used AMSGrad, which the protocol cannot say.")
    if name in ("adam", "adamw") and float(group["eps"]) != EPSILON:
        notes.append(f"Adam's eps was {float(group['eps']):g}, not {EPSILON:g}, which the protocol cannot say.")
    if group.get("dampening"):
        notes.append(f"SGD's dampening was {float(group['dampening']):g}, which the protocol cannot say.")
    if group.get("maximize"):
        notes.append("The optimiser maximised, which the protocol cannot say.")
    for key in ("lr", "weight_decay", "momentum", "betas", "eps"):
        counts: dict[str, int] = {}
        for one in optimiser.param_groups:
            if key in one:
                counts[str(one[key])] = counts.get(str(one[key]), 0) + len(one["params"])
        if len(counts) > 1:
            told = ", ".join(f"{value} for {count} parameter(s)" for value, count in counts.items())
            notes.append(f"The parameter groups differ in {key}: {told}; the protocol says that of the largest group.")
    return tuple(notes)
