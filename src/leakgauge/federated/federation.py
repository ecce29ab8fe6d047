"""Federation: members, a model, and the rules by which rounds are run."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from leakgauge.core.callables import Loss, check_loss
from leakgauge.defences.private import CentralDP
from leakgauge.errors import OptionError
from leakgauge.federated.evaluate import evaluate
from leakgauge.federated.fingerprint import fingerprint
from leakgauge.federated.gossip import first_gossip_state, gossip_round
from leakgauge.federated.member import Member
from leakgauge.federated.records import FederationProgress, Round
from leakgauge.federated.server import Played, server_round
from leakgauge.federated.state import State, module_at, state_of
from leakgauge.federated.store import Store
from leakgauge.federated.topology import Topology
from leakgauge.truth.batch import Batch


@dataclass(frozen=True)
class Federation:
    """Clients that train one model together, round by round.

    Clients whose protocol has a learning rate send weight changes (FedAvg: w + server_lr x their mean); clients without one
    send gradients (FedSGD: w - server_lr x their mean). Means are weighted by example counts, each tensor over the clients that
    sent it. Running statistics are averaged with the same weights and replace the server's; of batch counters the largest is
    taken. With a `topology` there is no server: see `gossip_round`.

    Args:
        model: the initial model; never changed.
        members: the clients, with different names.
        loss: 'cross_entropy', 'binary_cross_entropy', 'mse', or a callable (output, target) -> scalar.
        validation: examples on which accuracy and loss are taken after each round, in eval mode. Where every member keeps
            tensors for itself there is no complete model at the server, and the mean over the members' own models, weighted by
            their example counts, is reported.
        fraction: share of the members that takes part in each round, in (0, 1]; at least one member.
        server_lr: factor on the mean, > 0; for FedSGD the learning rate itself.
        secure_aggregation: the server sees one weighted mean per round instead of each client's update.
        server_defence: CentralDP: clips each update, averages them with equal weights and adds noise (running statistics are
            averaged without either). Without secure aggregation the server has still seen every update as it was sent; with it,
            the message is what is released: the noisy mean.
        topology: who talks to whom without a server; None for a server.
        dropout: probability in [0, 1) that a client drops out of a round before it sends anything.

    Raises:
        OptionError: if a value is out of range, names are not unique, members do not fit together or to the model.
    """

    model: nn.Module = field(repr=False)
    members: tuple[Member, ...]
    loss: Loss = "cross_entropy"
    validation: Batch | None = field(default=None, repr=False)
    fraction: float = 1.0
    server_lr: float = 1.0
    secure_aggregation: bool = False
    server_defence: CentralDP | None = None
    topology: Topology | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        check_loss(self.loss)
        names = [member.name for member in self.members]
        if not names:
            raise OptionError("The federation has no members; expected at least one.")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise OptionError(f"Two members of the federation are called {twice[0]!r}; expected different names.")
        for value, name, held, expected in (
            (self.fraction, "fraction", 0 < self.fraction <= 1, "a number in (0, 1]"),
            (self.server_lr, "server_lr", 0 < self.server_lr < math.inf, "a number > 0"),
            (self.dropout, "dropout", 0 <= self.dropout < 1, "a number in [0, 1)"),
        ):
            if not held:
                raise OptionError(f"Federation.{name} is {value!r}; expected {expected}.")
        for member in self.members:
            member.kept(self.model)
        self._refuse_mixed_kinds()
        if self.topology is not None:
            self._refuse_for_gossip(self.topology)
        if self.secure_aggregation:
            self._refuse_for_secure_aggregation()
        if self.server_defence is not None:
            self._refuse_for_server_defence(self.server_defence)

    def run(
        self,
        rounds: int,
        seed: int = 0,
        folder: Path | str | None = None,
        progress: Callable[[FederationProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        *,
        start: int | None = None,
    ) -> Iterator[Round]:
        """Runs rounds, and yields each one as soon as it is finished (and written).

        Every draw is keyed by the seed, the round and the client, so the same call gives the same rounds, bit for bit, and so
        does one that was interrupted and continued. Messages are not kept in the folder: a finished round is yielded only by
        the call that computes it, and `start` computes it again from the state before it.

        Args:
            rounds: number of the last round, counted from the initial model.
            seed: of all draws.
            folder: where finished rounds are written; a run with the same plan continues after the last one.
            progress: called after each client and each round.
            cancelled: polled before each client; True ends the run with the finished rounds kept.
            start: first round to compute; at most one after the last finished round. None: the one after it.

        Raises:
            OptionError: if the folder belongs to another plan, or `rounds` or `start` is out of range.
            DataError: if the folder cannot be used.
        """
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise OptionError(f"The number of rounds is {rounds!r}; expected a whole number >= 1.")
        store, state, done = None, self._first_state(), 0
        if folder is not None:
            store = self._store(folder)
            store.open(fingerprint(self, seed))
            lines = store.finished()
            done = len(lines)
            if start is not None and start - 1 <= done:
                done = start - 1
            if done > 0:
                state = store.state(lines[done - 1], state_of(self.model))
        if start is not None and (start < 1 or start != done + 1):
            raise OptionError(f"The run cannot start at round {start}: {done} round(s) are finished; expected 1 to {done + 1}.")
        return self._rounds(range(done + 1, rounds + 1), state, seed, store, progress, cancelled or (lambda: False))

    def finished(self, folder: Path | str, seed: int = 0) -> Iterator[Round]:
        """The rounds that a folder holds, without their messages.

        Raises:
            OptionError: if the folder belongs to another plan.
        """
        store = self._store(folder)
        store.open(fingerprint(self, seed))
        like = state_of(self.model)
        return (store.round(line, like) for line in store.finished())

    def _rounds(
        self,
        indices: range,
        state: State,
        seed: int,
        store: Store | None,
        progress: Callable[[FederationProgress], None] | None,
        cancelled: Callable[[], bool],
    ) -> Iterator[Round]:
        began = time.monotonic()
        for index in indices:
            started = time.monotonic()

            def tell(done: int, clients: int, name: str, index: int = index) -> None:
                if progress is not None:
                    progress(FederationProgress(index, indices.stop - 1, done, clients, name, time.monotonic() - began))

            play = server_round if self.topology is None else gossip_round
            played = play(self, state, index, seed, tell, cancelled)
            if played is None or cancelled():
                return
            state = played.state
            accuracy, loss = self._validated(state)
            finished = Round(
                index=index,
                messages=played.messages,
                dropped=played.dropped,
                accuracy=accuracy,
                loss=loss,
                state={name: tensor.clone() for name, tensor in state.shared.items()},
                seconds=time.monotonic() - started,
                note=played.note,
            )
            if store is not None:
                store.write(finished, state)
            tell(_clients(played), _clients(played), "")
            yield finished

    def _first_state(self) -> State:
        shared = state_of(self.model)
        if self.topology is not None:
            return first_gossip_state(self, shared)
        kept = {member.name: member.kept(self.model) for member in self.members}
        return State(shared, {name: {key: shared[key] for key in shared if key in keys} for name, keys in kept.items() if keys})

    def _store(self, folder: Path | str) -> Store:
        return Store(Path(folder), tuple(member.name for member in self.members))

    def _validated(self, state: State) -> tuple[float, float]:
        if self.validation is None:
            return float("nan"), float("nan")
        personal = self.topology is None and all(member.kept(self.model) for member in self.members)
        if not personal:
            return evaluate(module_at(self.model, state.shared), self.validation, self.loss)
        total = sum(len(member.batch) for member in self.members)
        accuracy = loss = 0.0
        for member in self.members:
            own = module_at(self.model, {**state.shared, **state.own[member.name]})
            found = evaluate(own, self.validation, self.loss)
            accuracy += found[0] * len(member.batch) / total
            loss += found[1] * len(member.batch) / total
        return accuracy, loss

    def _refuse_mixed_kinds(self) -> None:
        gradients = [member.name for member in self.members if member.training.lr is None]
        changes = [member.name for member in self.members if member.training.lr is not None]
        if gradients and changes:
            raise OptionError(
                f"The federation mixes members that share gradients ({gradients[0]!r}) and members that share weight changes "
                f"({changes[0]!r}); give all of them a learning rate, or none."
            )

    def _refuse_for_gossip(self, topology: Topology) -> None:
        names = {member.name for member in self.members}
        if set(topology.nodes) != names:
            odd = sorted(set(topology.nodes) ^ names)[0]
            raise OptionError(f"The topology's nodes and the members differ, in {odd!r} for one; expected the same names.")
        if any(member.training.lr is None for member in self.members):
            raise OptionError("In gossip nodes exchange weights, so every member needs LocalTraining.lr; it is None.")
        defaults = {entry.name: entry.default for entry in dataclasses.fields(self)}
        for name in ("fraction", "server_lr", "secure_aggregation", "server_defence"):
            if getattr(self, name) != defaults[name]:
                raise OptionError(f"Federation.{name} belongs to a server, and a topology has none; leave it out.")

    def _refuse_for_server_defence(self, defence: CentralDP) -> None:
        if not isinstance(defence, CentralDP):
            raise OptionError(
                f"Federation.server_defence is {defence!r}; expected CentralDP. Other defences belong to the members."
            )
        first = self.members[0]
        for member in self.members[1:]:
            if member.silent(self.model) != first.silent(self.model):
                raise OptionError(
                    f"CentralDP clips and averages whole updates, so all members need to share the same tensors; those of "
                    f"{first.name!r} and {member.name!r} differ."
                )

    def _refuse_for_secure_aggregation(self) -> None:
        first = self.members[0]
        for member in self.members[1:]:
            if (member.training, member.silent(self.model)) != (first.training, first.silent(self.model)) or (
                member.protocol(self.model) != first.protocol(self.model)
            ):
                raise OptionError(
                    f"Under secure aggregation members send one sum, so all need one protocol, one BatchNorm mode and one list "
                    f"of shared tensors; those of {first.name!r} and {member.name!r} differ."
                )


def _clients(played: Played) -> int:
    return len({name for message in played.messages for name in message.members}) + len(played.dropped)
