"""Clients and, later, rounds."""

from leakgauge.federated.client import Client

__all__ = ["Client"]
