"""From a plan's tables to the federation's members, and what is said about each of them."""

from __future__ import annotations

from torch import nn

from leakgauge.audit.case import defences_of
from leakgauge.audit.conditions import defence_text, training_text
from leakgauge.audit.simulation.plan import ClientTable, SimulationPlan
from leakgauge.audit.simulation.record import ClientFacts
from leakgauge.audit.simulation.split import Pictures
from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.defences.guarantee import guarantee
from leakgauge.defences.private import CentralDP
from leakgauge.errors import MissingExtraError, OptionError
from leakgauge.federated.federation import Federation
from leakgauge.federated.member import Member
from leakgauge.federated.topology import Topology


def federation_of(plan: SimulationPlan, model: nn.Module, pictures: Pictures) -> Federation:
    """The federation that the plan describes.

    Raises:
        OptionError: for shared names that the model does not have, and other contradictions.
    """
    table = plan.federation
    members = tuple(
        Member(
            name=name,
            batch=pictures.batch(pictures.clients[name]),
            training=plan.training_of(client),
            batch_norm=batch_norm_of(plan, client, model),
            defences=defences_of(tuple(client.defences)),
            share=shared_names(plan, client),
        )
        for name, client in plan.members
    )
    names = tuple(name for name, _ in plan.members)
    topology = {"server": None, "ring": Topology.ring, "complete": Topology.complete}[table.topology]
    return Federation(
        model=model,
        members=members,
        loss=plan.loss,
        validation=pictures.batch(pictures.validation) if pictures.validation else None,
        fraction=table.fraction,
        server_lr=table.server_lr,
        secure_aggregation=table.secure_aggregation,
        server_defence=server_defence(plan),
        topology=None if topology is None else topology(names),
        dropout=table.dropout,
    )


def server_defence(plan: SimulationPlan) -> CentralDP | None:
    """The defence that acts at the server, or None.

    Raises:
        OptionError: for a defence that acts at the client.
    """
    text = plan.federation.server_defence
    found = defences_of((text,))[0] if text else None
    if found is not None and not isinstance(found, CentralDP):
        raise OptionError(f"federation.server_defence is {text!r}, which acts at the client; give it to the clients' defences.")
    return found


def batch_norm_of(plan: SimulationPlan, client: ClientTable, model: nn.Module) -> str:
    """The client's BatchNorm mode; 'shared' where the model has no such layer, since nothing is there to keep."""
    wanted = client.batch_norm or plan.federation.batch_norm
    return wanted if batch_norm_layers(model) or client.batch_norm else "shared"


def shared_names(plan: SimulationPlan, client: ClientTable) -> tuple[str, ...] | None:
    """Globs of what the client sends, or None for all."""
    share = client.share if client.share is not None else plan.federation.share
    return None if share is None else tuple(share)


def client_facts(plan: SimulationPlan, model: nn.Module, members: tuple[Member, ...]) -> tuple[ClientFacts, ...]:
    """What each client does, and what the accountant says about it."""
    layers, server = bool(batch_norm_layers(model)), server_defence(plan)
    found = []
    for member in members:
        training = member.protocol(model)
        every = (*member.defences, *((server,) if server is not None else ()))
        try:
            verdict = guarantee(
                model,
                training,
                every,
                num_examples=len(member.batch),
                rounds=plan.rounds,
                delta=plan.delta,
                shares_buffers=layers and member.batch_norm == "shared",
            )
            said, epsilon, uncovered, unit = verdict.verdict, verdict.epsilon, verdict.uncovered, verdict.unit
        except MissingExtraError as error:
            said, epsilon, uncovered, unit = f"no guarantee was computed: {error}", None, (), ""
        found.append(
            ClientFacts(
                name=member.name,
                examples=len(member.batch),
                training=training_text(training),
                batch_norm=member.batch_norm if layers else "none in the network",
                defence=defence_text(tuple(defence.record() for defence in every)),
                guarantee=said,
                epsilon=epsilon,
                uncovered=tuple(uncovered),
                unit=unit,
            )
        )
    return tuple(found)
