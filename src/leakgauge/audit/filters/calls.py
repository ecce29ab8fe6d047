"""One call of a filter, reduced to what the measurements need, so that large models need little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakgauge.audit.filters.planted import Planted
from leakgauge.core.update import strip_wrappers
from leakgauge.errors import IntegrationError
from leakgauge.randomness import rng

Filter = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]
KEPT, HEAD = 4096, 512  # entries of a tensor that are kept: its first ones, and others at random


@dataclass(frozen=True)
class Piece:
    """One tensor of one reply.

    Args:
        sample: change that leaves, at the kept entries, (M,) float64.
        planted: change that was planted there, (M,) float64.
        size: all entries of the tensor.
        changed: entries whose planted change is not zero.
        same: of those, how many leave bit for bit as planted.
        zeroed: of those, how many leave unchanged from before.
        empty: entries whose planted change is zero and that leave so.
        along: inner product of what leaves and what was planted, over all entries.
        square: squared 2-norm of the change that leaves; planted_square: of the planted one.
        negative, positive: entries whose change leaves below, above zero.
        digest: of all bytes that leave.
    """

    sample: Tensor
    planted: Tensor
    size: int
    changed: int
    same: int
    zeroed: int
    empty: int
    along: float
    square: float
    planted_square: float
    negative: int
    positive: int
    digest: bytes


Reply = dict[str, Piece]


class Caller:
    """Calls a filter on planted updates, and remembers what went wrong on the way."""

    def __init__(self, filter: Filter, seed: int, called: Callable[[int], None] | None = None) -> None:
        self._filter = filter
        self._called = called
        self._seed = seed
        self._kept: dict[tuple[str, int], Tensor] = {}
        self.calls = 0
        self.failures: dict[str, str] = {}
        self.changed_in_place: set[str] = set()
        self.dropped: set[str] = set()
        self.added: set[str] = set()
        self.misshapen: set[str] = set()
        self.not_finite: set[str] = set()

    def repeat(self, probe: str, planted: Planted, times: int) -> list[Reply]:
        """Replies to the same planted update; none where the filter raises."""
        replies = []
        for _ in range(times):
            sent = self.send(probe, planted)
            if sent is None:
                return []
            replies.append(self._reduced(planted, sent))
        return replies

    def send(self, probe: str, planted: Planted) -> dict[str, Tensor] | None:
        """What leaves, by name; None where the filter raises.

        Raises:
            IntegrationError: if the filter returns no mapping of arrays.
        """
        before = {name: tensor.clone() for name, tensor in planted.before.items()}
        after = {name: tensor.clone() for name, tensor in planted.after.items()}
        self.calls += 1
        if self._called is not None:
            self._called(self.calls)
        try:
            returned: Any = self._filter(before, after)
        except Exception as error:  # noqa: BLE001 - a foreign filter may raise anything; what it raised is a finding
            self.failures.setdefault(probe, " ".join(f"{type(error).__name__}: {error}".split())[:200])
            return None
        if not isinstance(returned, Mapping):
            raise IntegrationError(
                f"The filter returned {type(returned).__name__}; expected a mapping of names to the arrays that leave the client."
            )
        for word, handed, kept in (("before", before, planted.before), ("after", after, planted.after)):
            if any(not torch.equal(handed[name], kept[name]) for name in kept):
                self.changed_in_place.add(word)
        return self._checked(planted, returned)

    def _checked(self, planted: Planted, returned: Mapping[Any, Any]) -> dict[str, Tensor]:
        sent: dict[str, Tensor] = {}
        try:
            arrays = {str(name): torch.as_tensor(array).detach().cpu() for name, array in returned.items()}
        except (TypeError, ValueError, RuntimeError) as error:
            raise IntegrationError(f"The filter returned something else than arrays by name ({error}).") from error
        arrays = strip_wrappers(arrays)
        self.added |= set(arrays) - set(planted.after)
        self.dropped |= set(planted.after) - set(arrays)
        for name, tensor in arrays.items():
            if name not in planted.after:
                continue
            if tensor.shape != planted.after[name].shape:
                self.misshapen.add(name)
                continue
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                self.not_finite.add(name)
            sent[name] = torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0) if name in self.not_finite else tensor
        return sent

    def _reduced(self, planted: Planted, sent: Mapping[str, Tensor]) -> Reply:
        reply = {}
        for name, tensor in sent.items():
            wide, change = tensor.double().reshape(-1), planted.change[name].reshape(-1)
            leaves = wide - planted.before[name].double().reshape(-1)
            changed = change != 0
            kept = self._entries(name, len(leaves))
            zero = leaves == 0
            reply[name] = Piece(
                sample=leaves[kept],
                planted=change[kept],
                size=len(leaves),
                changed=int(changed.sum()),
                same=int(((wide == planted.after[name].double().reshape(-1)) & changed).sum()),
                zeroed=int((zero & changed).sum()),
                empty=int((zero & ~changed).sum()),
                along=float(leaves @ change),
                square=float(leaves.square().sum()),
                planted_square=float(change.square().sum()),
                negative=int((leaves < 0).sum()),
                positive=int((leaves > 0).sum()),
                digest=hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).digest(),
            )
        return reply

    def _entries(self, name: str, size: int) -> Tensor:
        key = (name, size)
        if key not in self._kept:
            if size <= KEPT:
                self._kept[key] = torch.arange(size)
            else:
                others = torch.randperm(size - HEAD, generator=rng(self._seed, "kept", name))[: KEPT - HEAD] + HEAD
                self._kept[key] = torch.cat([torch.arange(HEAD), others.sort().values])
        return self._kept[key]
