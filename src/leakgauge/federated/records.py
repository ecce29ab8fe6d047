"""What a federation hands out: messages, dropped clients, rounds, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from leakgauge.core.observation import Observation
from leakgauge.core.spec import Spec
from leakgauge.core.threat import ThreatModel
from leakgauge.core.update import Update


@dataclass(frozen=True)
class Message:
    """What left one client in one round, or the sum of several clients' updates under secure aggregation.

    Args:
        sender: the client's name; 'sum' under secure aggregation.
        update: what was sent. In gossip its kind is 'weights': the receiver derives the change by itself.
        model: the model in the state that the receiver knows the sender to have started from (in eval mode).
        members: names of the clients whose data the update was computed from.
        receiver: 'server', or a neighbour's name in gossip.
        exact: whether `model` is the sender's true start in every tensor. It is an estimate where the sender keeps tensors
            for itself (FedBN, partial sharing) or, in gossip, mixes with nodes that the receiver does not see.
    """

    sender: str
    update: Update = field(repr=False)
    model: nn.Module = field(repr=False)
    members: tuple[str, ...]
    receiver: str = "server"
    exact: bool = True

    def observe(self, threat: ThreatModel, spec: Spec | None, *, model_name: str = "") -> Observation:
        """The message as an attacker sees it; see `ThreatModel.observe`."""
        return threat.observe(self.update, self.model, spec, model_name=model_name)


@dataclass(frozen=True)
class Dropped:
    """A client whose update did not count in a round.

    Args:
        name: of the client.
        reason: one sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Round:
    """One finished round.

    Args:
        index: 1 for the first.
        messages: what left the clients, in the order of the members; empty in a round read back from a folder.
        dropped: clients that were chosen and did not count, with the reason.
        accuracy: share of right classes on the validation batch after the round, in [0, 1]; NaN without one.
        loss: mean validation loss after the round; NaN without a validation batch or where it is not finite.
        state: parameters and buffers after the round, by name: the server's, or the mean over the nodes in gossip.
        seconds: wall-clock time.
        note: one sentence where something is to be said about the whole round, else ''.
    """

    index: int
    messages: tuple[Message, ...] = field(repr=False)
    dropped: tuple[Dropped, ...]
    accuracy: float
    loss: float
    state: dict[str, Tensor] = field(repr=False)
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class FederationProgress:
    """How far a run is.

    Args:
        index: the round that is being computed, from 1.
        rounds: rounds in all.
        done: clients finished in this round.
        clients: clients chosen in this round.
        name: the client that has just finished; '' when the round is complete.
        seconds: wall-clock time since this call of `run` began.
    """

    index: int
    rounds: int
    done: int
    clients: int
    name: str
    seconds: float
