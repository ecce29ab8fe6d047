"""Clients and, later, rounds."""

from leakgauge.federated.client import Client
from leakgauge.federated.validate import Validation, validate

__all__ = ["Client", "Validation", "validate"]
