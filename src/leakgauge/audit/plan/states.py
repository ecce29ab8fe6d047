"""The states of a network: untrained, trained here for some rounds, or a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from leakgauge.audit.plan.tables import TRAINED, UNTRAINED, TrainedTable, training_of
from leakgauge.audit.toml.sentences import first_problem
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError
from leakgauge.registry import parse_call

MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class Trained:
    """Federated training: every round, each client trains on its share, and the weights are averaged.

    Args:
        rounds: how many.
        data: 'SOURCE:PATH?..', shared out among the clients.
        clients: how many.
        validation: examples held back to state the accuracy.
        seed: of the sharing out and of the clients' draws.
        training: each client's protocol; it has a learning rate.
    """

    rounds: int
    data: str
    clients: int
    validation: int
    seed: int
    training: LocalTraining

    def to_json(self) -> dict[str, Any]:
        """Strict JSON, the same for equal training."""
        return dataclasses.asdict(self)


def is_trained(state: str) -> bool:
    """Whether a state is trained here."""
    return state.partition(":")[0] == TRAINED


def is_checkpoint(state: str) -> bool:
    """Whether a state is the path of a checkpoint."""
    return state != UNTRAINED and not is_trained(state)


def trained_of(state: str, table: TrainedTable) -> Trained:
    """What 'trained:rounds=N,..' means: the fields of [training], and those given anew in the text.

    Raises:
        OptionError: for an unknown or missing field, or a value that cannot be.
    """
    _, options = parse_call(state)
    rounds = options.pop("rounds", None)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= MOST_ROUNDS:
        raise OptionError(f"The state {state!r} needs a number of rounds from 1 to {MOST_ROUNDS}, as in trained:rounds=5.")
    given = {key: value for key, value in table.model_dump().items() if value is not None} | options
    try:
        chosen = TrainedTable.model_validate(given)
    except ValidationError as error:
        _, sentence = first_problem(error, TrainedTable, {})
        raise OptionError(f"The state {state!r}: {sentence}") from error
    if not chosen.data:
        raise OptionError(f"The state {state!r} needs data to train on: give training.data.")
    if chosen.lr is None:
        raise OptionError(f"The state {state!r} needs a learning rate: give training.lr.")
    return Trained(rounds, chosen.data.strip(), chosen.clients, chosen.validation, chosen.seed, training_of(chosen))
