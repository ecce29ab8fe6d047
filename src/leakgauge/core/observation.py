"""What an attacker holds: the observation. It cannot contain the batch, a seed, or where the data came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from torch import Tensor, nn

from leakgauge.core.batch_statistics import BatchStatistics
from leakgauge.core.callables import Loss
from leakgauge.core.provenance import Provenance
from leakgauge.core.spec import ImageSpec, Spec
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord, refuse_nonfinite
from leakgauge.errors import ShapeError, UpdateError


class Knowledge(Enum):
    """What a threat model may grant beyond the model, its state, the loss, the protocol, the spec and the example count."""

    LABELS = "the labels of the batch"
    BATCH_NORM = "the BatchNorm statistics after local training"
    DEFENCE = "which defence was applied, with its parameters"


@dataclass(frozen=True)
class Observation:
    """One update as an attacker sees it.

    Args:
        model: the module with the state at which the update was computed (a private copy, in eval mode); parameters that
            local training leaves alone have requires_grad False.
        tensors: parameter name -> tensor of the gradient or of the change 'after minus before'.
        kind: 'gradient' or 'delta'.
        loss: name of the loss, or a callable.
        training: the local training protocol, as granted.
        spec: what one input looks like, a picture or a text; None where that is not known.
        num_examples: number of examples in the batch.
        labels: (N,) if granted, else None.
        buffers: buffer name -> tensor after local training, if granted.
        batch_norm: layer name -> statistics of the batch, recovered from the buffers; absent when not granted.
        defences: public records of the defences, if granted.
        withheld: names of parameters that were not shared (partial sharing).
        knowledge: what was granted beyond the minimum.
        threat: name of the threat model.
        model_name: name or path of the model, for the record.
        provenance: where it was recorded, for one from a running system.

    Raises:
        UpdateError: if a tensor is not finite, is missing undeclared, or belongs to no parameter; or if kind or count is wrong.
        ShapeError: if a tensor does not have its parameter's shape.
    """

    model: nn.Module = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)
    kind: str
    loss: Loss
    training: LocalTraining
    spec: Spec | None
    num_examples: int
    labels: Tensor | None = field(default=None, repr=False)
    buffers: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    batch_norm: Mapping[str, BatchStatistics] = field(default_factory=dict, repr=False)
    defences: tuple[DefenceRecord, ...] = ()
    withheld: tuple[str, ...] = ()
    knowledge: frozenset[Knowledge] = frozenset()
    threat: str = "honest-but-curious server"
    model_name: str = ""
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("gradient", "delta"):
            raise UpdateError(f"The observation's kind is {self.kind!r}; expected 'gradient' or 'delta'.")
        if self.num_examples < 1:
            raise UpdateError(f"The observation counts {self.num_examples} example(s); expected at least one.")
        parameters = dict(self.model.named_parameters())
        check_names(self.tensors, parameters, self.withheld)
        refuse_nonfinite(self.tensors, "update")
        refuse_nonfinite(self.buffers, "update's buffers")
        object.__setattr__(self, "tensors", {name: self.tensors[name] for name in parameters if name in self.tensors})

    @property
    def pictures(self) -> ImageSpec | None:
        """The spec where inputs are pictures; None where they are texts or not known."""
        return self.spec if isinstance(self.spec, ImageSpec) else None

    def save(self, path: str | Path, *, include_state: bool = True) -> None:
        """Writes one safetensors file with its manifest; see `leakgauge.core.files.save_observation`."""
        from leakgauge.core.files import save_observation

        save_observation(self, path, include_state=include_state)

    @staticmethod
    def load(path: str | Path, model: nn.Module, weights: str | Path | None = None, loss: Loss | None = None) -> Observation:
        """Reads a saved observation; see `leakgauge.core.files.load_observation`."""
        from leakgauge.core.files import load_observation

        return load_observation(path, model, weights, loss)


def check_names(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], withheld: tuple[str, ...]) -> None:
    """Compares an update's tensors with a model's parameters.

    Raises:
        UpdateError: for a tensor that belongs to no parameter, or one that is absent without being declared withheld.
        ShapeError: for a tensor of the wrong shape.
    """
    unknown = [name for name in tensors if name not in parameters]
    missing = [name for name in parameters if name not in tensors and name not in withheld]
    if unknown or (missing and len(missing) == len(parameters)):
        raise UpdateError(
            f"The update does not fit the model: {_few(unknown) or 'none of its tensors'} is no parameter of it"
            f"{f', and the parameter(s) {_few(missing)} have no tensor' if missing else ''}. Is it the right model?"
        )
    if missing:
        raise UpdateError(
            f"The update lacks the tensor(s) {_few(missing)}, which the model has; list them as withheld if they were "
            "deliberately not shared."
        )
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise ShapeError(
                f"Tensor {name!r} of the update has shape {tuple(tensor.shape)}; the model's parameter has "
                f"{tuple(parameters[name].shape)}. Is it the right model, with the right number of classes?"
            )


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
