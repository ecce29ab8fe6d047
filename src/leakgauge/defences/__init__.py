"""Defences: frozen records that rewrite an update before it leaves the client."""

from leakgauge.defences.base import Defence
from leakgauge.defences.compression import HalfPrecision, Prune
from leakgauge.defences.noise import GaussianNoise, LaplacianNoise

__all__ = ["Defence", "GaussianNoise", "HalfPrecision", "LaplacianNoise", "Prune"]
