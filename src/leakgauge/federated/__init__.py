"""Clients, and rounds of training with a server or among neighbours."""

from leakgauge.federated.client import Client
from leakgauge.federated.federation import Federation
from leakgauge.federated.member import Member
from leakgauge.federated.records import Dropped, FederationProgress, Message, Round
from leakgauge.federated.topology import Topology
from leakgauge.federated.validation.validate import Validation, validate

__all__ = [
    "Client",
    "Dropped",
    "Federation",
    "FederationProgress",
    "Member",
    "Message",
    "Round",
    "Topology",
    "Validation",
    "validate",
]
