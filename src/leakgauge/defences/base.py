"""Defence: a frozen record that rewrites an update before it leaves the client."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.core.update import DefenceRecord, Update


class Defence(ABC):
    """Rewrites the tensors of an update; never touches the caller's. Subclasses are frozen dataclasses of their strengths."""

    name: ClassVar[str]

    @abstractmethod
    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """One shared tensor after the defence; the same shape."""

    def protect(self, update: Update, *, generator: torch.Generator) -> Update:
        """The update as it leaves the client.

        Args:
            update: what the client computed.
            generator: source of the defence's own draws; it is not recorded in the update.
        """
        tensors = {name: self.rewrite(tensor.detach().clone(), generator) for name, tensor in update.tensors.items()}
        return dataclasses.replace(update, tensors=tensors, defences=(*update.defences, self.record()))

    def record(self) -> DefenceRecord:
        """The public description: name and strengths."""
        fields = {field.name: float(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return DefenceRecord(self.name, fields)
