"""What leaves a client: its update, and the public record of each defence that rewrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.core.callables import Loss, check_loss
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError, UpdateError

KINDS = ("gradient", "delta", "weights")
WRAPPERS = ("module.", "_orig_mod.", "_module.")


@dataclass(frozen=True)
class DefenceRecord:
    """The public description of a defence: its name and its parameters, never its seed."""

    name: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Update:
    """What a client computed: one gradient, or a weight change, with the buffers it leaves behind.

    Args:
        tensors: parameter name -> tensor; the gradient, the change 'after minus before', or the weights after.
        kind: 'gradient', 'delta' or 'weights' (which `ThreatModel.observe` turns into a delta).
        buffers: buffer name -> tensor after local training, such as BatchNorm's running statistics.
        loss: name of the loss, or a callable (output, target) -> scalar.
        training: the local training protocol.
        num_examples: number of examples of the client.
        labels: the private labels; only ThreatModel reads them.
        client_seed: seed of the client's draws; recorded for reproduction, never observed.
        defences: public records of the defences applied, in order.
        withheld: names of parameters that are deliberately not shared.

    Raises:
        OptionError: if the kind is unknown.
    """

    tensors: Mapping[str, Tensor]
    kind: str
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    loss: Loss = "cross_entropy"
    training: LocalTraining = LocalTraining()  # noqa: RUF009 - frozen
    num_examples: int = 1
    labels: Tensor | None = field(default=None, repr=False)
    client_seed: int | None = field(default=None, repr=False)
    defences: tuple[DefenceRecord, ...] = ()
    withheld: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"Update.kind is {self.kind!r}; expected one of {', '.join(KINDS)}.")
        check_loss(self.loss)
        object.__setattr__(self, "tensors", strip_wrappers(self.tensors))
        object.__setattr__(self, "buffers", strip_wrappers(self.buffers))


def strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names without the prefixes of DataParallel, torch.compile and Opacus."""
    stripped = {}
    for original, tensor in tensors.items():
        name = original
        while any(name.startswith(prefix) for prefix in WRAPPERS):
            for prefix in WRAPPERS:
                name = name.removeprefix(prefix)
        stripped[name] = tensor
    return stripped


def refuse_nonfinite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises UpdateError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
            continue  # NaN and infinity survive in a sum; a sum of finite numbers that overflows is looked at below
        if not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise UpdateError(
                f"Tensor {name!r} of the {what} holds {bad} value(s) that are NaN or infinite; expected finite numbers."
            )
