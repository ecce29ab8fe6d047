"""Member: one client of a federation, with what it trains on, how, and what it keeps for itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leakgauge.core.training import LocalTraining
from leakgauge.defences.base import Defence
from leakgauge.errors import DataError, OptionError, did_you_mean
from leakgauge.truth.batch import Batch

BATCH_NORM = ("shared", "local", "frozen")


@dataclass(frozen=True)
class Member:
    """One client of a federation.

    Where the model has BatchNorm layers, `batch_norm` decides the mode of local training, whatever `training.mode` says:

    - 'shared': trains in train mode; its running statistics are sent and averaged by the server.
    - 'local' (FedBN): trains in train mode; parameters and statistics of BatchNorm layers never leave the client, and
      persist with it from round to round.
    - 'frozen': trains in eval mode: layers normalise by the statistics received and leave them as they are (weight and bias
      of the layers are trained). Eval mode also switches dropout off. No statistics are sent.

    Without BatchNorm layers `training.mode` stands.

    Args:
        name: unique in the federation.
        batch: its private examples.
        training: its local training protocol.
        batch_norm: 'shared', 'local' or 'frozen'.
        defences: applied in order: those of the training stage while it trains, the others to what it sends.
        share: names or globs ('stem.*') of the parameters and buffers that it sends; None sends all. What matches none stays
            with the client, persists from round to round, and is declared in `Update.withheld`.

    Raises:
        DataError: if it has no data.
        OptionError: for an empty name, an unknown BatchNorm mode, an empty `share`, a defence of the server, or two of training.

    Source: McMahan et al. 2017 (FedAvg); Li et al. 2021 (FedBN); Arivazhagan et al. 2019 (layers kept by the client).
    """

    name: str
    batch: Batch = field(repr=False)
    training: LocalTraining
    batch_norm: str = "shared"
    defences: tuple[Defence, ...] = ()
    share: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise OptionError(f"Member.name is {self.name!r}; expected a text that is not empty.")
        if not isinstance(self.batch, Batch):
            raise DataError(f"Member {self.name!r} has no data; expected a Batch of at least one example.")
        if self.batch_norm not in BATCH_NORM:
            hint = did_you_mean(str(self.batch_norm), BATCH_NORM)
            raise OptionError(f"Member {self.name!r} has the BatchNorm mode {self.batch_norm!r}.{hint}")
        if self.share is not None:
            given: Any = self.share
            share = (given,) if isinstance(given, str) else tuple(given)
            object.__setattr__(self, "share", share)
            if not share:
                raise OptionError(f"Member {self.name!r} shares nothing; name at least one parameter, or None for all.")
        object.__setattr__(self, "defences", tuple(self.defences))
        if sum(defence.stage == "training" for defence in self.defences) > 1:
            raise OptionError(f"Member {self.name!r} has more than one defence that acts inside local training; expected one.")
        for defence in self.defences:
            if defence.stage == "server":
                raise OptionError(
                    f"Member {self.name!r} has the defence {defence.name!r}, which acts at the server; give it to the "
                    "federation as server_defence."
                )

    def protocol(self, model: nn.Module) -> LocalTraining:
        """The protocol as it is run on this model: `training`, with the mode that `batch_norm` asks for."""
        if not batch_norm_names(model):
            return self.training
        return dataclasses.replace(self.training, mode="eval" if self.batch_norm == "frozen" else "train")

    def kept(self, model: nn.Module) -> frozenset[str]:
        """Names of the parameters and buffers that stay with this client and persist from round to round.

        Raises:
            OptionError: if a name in `share` matches nothing or no parameter is left to share; or for a BatchNorm mode other
                than 'shared' on a model without BatchNorm layers.
        """
        names, layers = state_names(model), batch_norm_names(model)
        if self.batch_norm != "shared" and not layers:
            raise OptionError(
                f"Member {self.name!r} has the BatchNorm mode {self.batch_norm!r}, but the model has no BatchNorm layer."
            )
        kept = set(layers) if self.batch_norm == "local" else set()
        if self.share is not None:
            for pattern in self.share:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise OptionError(
                        f"Member {self.name!r} shares {pattern!r}, which is no parameter of the model."
                        f"{did_you_mean(pattern, names)}"
                    )
            kept |= {name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.share)}
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained - kept:
            raise OptionError(f"Member {self.name!r} shares no parameter that is trained; nothing would leave the client.")
        return frozenset(kept)

    def silent(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors that this client does not send: what it keeps, and frozen BatchNorm statistics."""
        kept = self.kept(model)
        if self.batch_norm != "frozen":
            return kept
        buffers = {name for name, _ in model.named_buffers()}
        return kept | (batch_norm_names(model) & buffers)


def state_names(model: nn.Module) -> tuple[str, ...]:
    """Names of a model's parameters and persistent buffers, in order, each tensor once."""
    persistent = model.state_dict().keys()
    return (
        *(name for name, _ in model.named_parameters()),
        *(name for name, _ in model.named_buffers() if name in persistent),
    )


def batch_norm_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters and buffers of all BatchNorm layers."""
    found = set()
    for layer, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            prefix = f"{layer}." if layer else ""
            found |= {prefix + name for name in module.state_dict()}
    return frozenset(found)
