"""Defence: a frozen record of something that a client, or the server, does so that an update gives less away."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from leakgauge.core.update import DefenceRecord, Update
from leakgauge.errors import OptionError

STAGES = ("training", "update", "server")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Mechanism:
    """What an accountant has to know of a defence.

    Args:
        kind: 'clip' (the 2-norm of the whole update is bounded), 'gaussian' (noise on every shared parameter), 'dp-sgd' (examples
            clipped, Gaussian noise on their sum) or 'central' (clients clipped, Gaussian noise on their mean, at the server).
        clip_norm: bound C on the 2-norm, or None.
        std: standard deviation of Gaussian noise; for 'dp-sgd' and 'central' that on the sum of clipped vectors.
    """

    kind: str
    clip_norm: float | None = None
    std: float | None = None


class Defence(ABC):
    """Base of all defences; final classes are frozen dataclasses of their strengths.

    A defence has a `name`, a `stage` ('training': inside local training; 'update': on the finished update; 'server': on the
    aggregate), and one sentence, `adaptive`, on how an attack that knows of it adapts.
    """

    name: ClassVar[str]
    stage: ClassVar[str] = "update"
    adaptive: ClassVar[str] = "The attack knows no adaptation to this defence; it matches the update as it is."

    @abstractmethod
    def protect(self, update: Update, *, generator: torch.Generator) -> Update:
        """The update as it leaves the client; the caller's tensors and buffers stay as they are.

        Args:
            update: what the client computed.
            generator: source of the defence's own draws; it is not recorded in the update.

        Raises:
            OptionError: for a defence of another stage than 'update', with where it belongs.
        """

    def mechanism(self) -> Mechanism | None:
        """What a privacy accountant may count on; None where the defence claims nothing."""
        return None

    def record(self) -> DefenceRecord:
        """The public description: name and strengths (switches only where they differ from their default)."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return DefenceRecord(
            self.name,
            {name: float(value) for name, (value, usual) in values.items() if not (isinstance(value, bool) and value == usual)},
        )


class TensorDefence(Defence):
    """A defence that rewrites each shared tensor by itself."""

    of_change: ClassVar[bool] = False  # whether it makes sense on a gradient or change only, not on the weights themselves

    @abstractmethod
    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """One shared tensor after the defence; the same shape and dtype. The tensor handed in is a copy."""

    def protect(self, update: Update, *, generator: torch.Generator) -> Update:
        if self.of_change:
            refuse_weights(self, update)
        tensors = {name: self.rewrite(tensor, generator) for name, tensor in copied(update.tensors).items()}
        return rewritten(self, update, tensors)


class UpdateDefence(Defence):
    """A defence that looks at the whole gradient or weight change at once."""

    @abstractmethod
    def rewrite_all(self, tensors: Tensors, generator: torch.Generator) -> Tensors:
        """All shared tensors after the defence; the same names, shapes and dtypes. The tensors handed in are copies."""

    def protect(self, update: Update, *, generator: torch.Generator) -> Update:
        refuse_weights(self, update)
        return rewritten(self, update, self.rewrite_all(copied(update.tensors), generator))


class TrainingDefence(Defence):
    """A defence that acts inside local training, where single examples can still be told apart."""

    stage: ClassVar[str] = "training"

    @property
    @abstractmethod
    def example_clip(self) -> float:
        """Largest 2-norm of one example's gradient."""

    @property
    @abstractmethod
    def noise_std(self) -> float:
        """Standard deviation of the Gaussian noise on the sum of the clipped gradients of one optimiser step."""

    def protect(self, update: Update, *, generator: torch.Generator) -> NoReturn:  # noqa: ARG002 - refused
        raise OptionError(
            f"{type(self).__name__} acts inside local training, where each example is clipped; a finished update cannot be "
            f"protected by it. Give it to the client: Client(..., defences=({type(self).__name__}(...),))."
        )


class ServerDefence(Defence):
    """A defence that the server applies to what its clients sent."""

    stage: ClassVar[str] = "server"

    def protect(self, update: Update, *, generator: torch.Generator) -> NoReturn:  # noqa: ARG002 - refused
        raise OptionError(
            f"{type(self).__name__} acts at the server, on the average over clients; one client's update cannot be protected "
            f"by it. Give it to the federation: Federation(..., server_defence={type(self).__name__}(...))."
        )


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Detached copies."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def rewritten(defence: Defence, update: Update, tensors: Tensors, buffers: Tensors | None = None) -> Update:
    """The update with new tensors (and buffers, where given) and the defence's record appended."""
    after = copied(update.buffers) if buffers is None else buffers
    return dataclasses.replace(update, tensors=tensors, buffers=after, defences=(*update.defences, defence.record()))


def refuse_weights(defence: Defence, update: Update) -> None:
    """Raises OptionError where an update holds the weights themselves, whose size says nothing about the change."""
    if update.kind == "weights":
        raise OptionError(
            f"{type(defence).__name__} works on a gradient or a weight change; this update holds the weights themselves. "
            "Subtract the weights that the client received first."
        )


def check(defence: Defence, field: str, held: bool, expected: str) -> None:
    """Raises OptionError naming the field of a defence that is out of range."""
    if not held:
        raise OptionError(f"{type(defence).__name__}.{field} is {getattr(defence, field)!r}; expected {expected}.")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def switched(defence: Defence, field: str) -> None:
    """Turns 0 and 1, as a record or a command line writes them, into the truth value of a switch."""
    value = getattr(defence, field)
    check(defence, field, isinstance(value, int | float) and value in (0, 1), "True or False")
    object.__setattr__(defence, field, bool(value))
