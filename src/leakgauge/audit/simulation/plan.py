"""SimulationPlan: what `leakgauge simulate` and `leakgauge tradeoff` play, as tables of a TOML file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError

TRAINING_KEYS = tuple(item.name for item in fields(LocalTraining))
Positive = Field(ge=1)
BatchNormMode = Literal["shared", "local", "frozen"]


class Table(BaseModel):
    """A table of the plan: its keys are known, and its values keep their type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TrainingTable(Table):
    """Fields of LocalTraining, as far as they are given; `LocalTraining` itself checks the values."""

    steps: Any = None
    epochs: Any = None
    batch_size: Any = None
    lr: Any = None
    optimiser: Any = None
    momentum: Any = None
    nesterov: Any = None
    betas: Any = None
    weight_decay: Any = None
    schedule: Any = None
    accumulation: Any = None
    clip_norm: Any = None
    reduction: Any = None
    label_smoothing: Any = None
    class_weights: Any = None
    proximal: Any = None
    shuffle: Any = None
    drop_last: Any = None
    mode: Any = None
    dtype: Any = None
    amp: Any = None

    def given(self) -> dict[str, Any]:
        """The fields of LocalTraining that stand in the table; lists as tuples."""
        found = {name: getattr(self, name) for name in TRAINING_KEYS if getattr(self, name) is not None}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


class DataTable(Table):
    """Where the pictures come from, and how many are held back.

    Args:
        source: 'SOURCE:PATH?..' as `load_data` reads it; '' for bundled pictures.
        otherwise: 'bundled' takes bundled pictures where the source is not on this machine (the result says so).
        validation: pictures on which accuracy is measured, seen by no client.
        public: pictures that the attacker knows: for priors and controls.
        decoys: pictures for the line-up of identification, seen by nobody else.
    """

    source: str = ""
    otherwise: Literal["", "bundled"] = ""
    validation: int = Field(default=0, ge=0)
    public: int = Field(default=0, ge=0)
    decoys: int = Field(default=0, ge=0)


class FederationTable(Table):
    """How the clients' updates become the next model."""

    batch_norm: BatchNormMode = "shared"
    fraction: float = Field(default=1.0, gt=0, le=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    secure_aggregation: bool = False
    share: list[str] | None = None
    topology: Literal["server", "ring", "complete"] = "server"
    server_lr: float = Field(default=1.0, gt=0)
    server_defence: str = ""


class ClientTable(TrainingTable):
    """One client, or `count` alike; every field of [training] may be given anew."""

    name: str = ""
    count: int = Field(default=1, ge=1)
    examples: int = Field(ge=1)
    batch_norm: BatchNormMode | None = None
    defences: list[str] = Field(default_factory=list)
    share: list[str] | None = None


class AttackTable(Table):
    """Who is attacked when, with what.

    Args:
        attacks: 'NAME:k=v,..' each; the key in the file is `with`.
        rounds: numbers of rounds, from 1; or
        every: each so-and-so-many rounds, beginning with the first.
        clients: names; all by default.
        prior: the attacker's idea of a picture: 'class mean' or 'mean' of public pictures, 'grey', or data of one picture.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        time_limit: seconds per attack.
        examples_at_most: messages that hold more examples are listed and not attacked.
    """

    attacks: list[str] = Field(alias="with", min_length=1)
    rounds: list[int] | None = None
    every: int | None = Field(default=None, ge=1)
    clients: list[str] | None = None
    prior: str = "class mean"
    budget: str | int = "fast"
    time_limit: float | None = Field(default=None, gt=0)
    examples_at_most: int | None = Field(default=None, ge=1)


class ThreatTable(Table):
    """What the attacker is granted beyond the minimum."""

    labels: bool = False
    batch_norm: bool = True
    defence: bool = True


class TradeoffTable(Table):
    """Which defences are compared, and by which rule one of them is named.

    Args:
        defences: 'NAME:k=v,..' each; 'none' for no defence.
        rounds: numbers of the rounds that are attacked; those of [attack] by default.
        policy: rules that must hold together, such as 'rdlv <= 0.1' or 'identification >= 0.05'.
        measure: by which leakage is drawn and compared: 'rdlv', 'ssim', 'psnr' or 'identification'.
    """

    defences: list[str] = Field(min_length=1)
    rounds: list[int] | None = None
    policy: str | list[str] = ""
    measure: Literal["rdlv", "ssim", "psnr", "identification"] = "rdlv"


class SimulationPlan(Table):
    """A whole simulation: pictures, clients, rounds, attackers."""

    name: str = ""
    seed: int = 0
    model: str
    input: str
    classes: int = Field(ge=1)
    loss: str = "cross_entropy"
    rounds: int = Positive
    delta: float = Field(default=1e-5, gt=0, lt=1)
    data: DataTable = DataTable()
    training: TrainingTable = TrainingTable()
    federation: FederationTable = FederationTable()
    clients: list[ClientTable] = Field(min_length=1)
    attack: AttackTable
    threat: ThreatTable = ThreatTable()
    tradeoff: TradeoffTable | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        channels, height, width = (int(side) for side in self.input.lower().split("x"))
        return channels, height, width

    @property
    def members(self) -> tuple[tuple[str, ClientTable], ...]:
        """Every client by name; `count` alike are numbered."""
        found: list[tuple[str, ClientTable]] = []
        for client in self.clients:
            for copy in range(client.count):
                base = client.name or "site"
                alone = client.count == 1 and client.name
                found.append((base if alone else f"{base}-{copy + 1 if client.name else len(found) + 1}", client))
        return tuple(found)

    @property
    def attacked_rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds that are attacked, in order."""
        if self.attack.rounds is not None:
            return tuple(sorted(set(self.attack.rounds)))
        return tuple(range(1, self.rounds + 1, self.attack.every or 1))

    @property
    def attacked_clients(self) -> tuple[str, ...]:
        """Names of the clients that are attacked, in the order of the plan."""
        names = [name for name, _ in self.members]
        return tuple(names if self.attack.clients is None else [name for name in names if name in self.attack.clients])

    def training_of(self, client: ClientTable) -> LocalTraining:
        """The client's protocol: its own fields before those of [training].

        Raises:
            OptionError: for a value out of range.
        """
        own, common = client.given(), self.training.given()
        if "steps" in own and "epochs" not in own:
            common.pop("epochs", None)
        return LocalTraining(**(common | own))


def check_training(plan: SimulationPlan) -> None:
    """Raises OptionError, with the key's path, where a protocol cannot be."""
    for position, client in enumerate(plan.clients):
        try:
            plan.training_of(client)
        except OptionError as error:
            text = str(error)
            key = text.removeprefix("LocalTraining.").split(" ", 1)[0].rstrip(".,")
            place = f"clients[{position}]" if key in client.given() else "training"
            raise OptionError(text.replace("LocalTraining.", f"{place}.")) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"clients[{position}] or training holds a value of the wrong kind ({error}).") from error
