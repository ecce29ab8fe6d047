"""Defences: frozen records of what is done to an update so that it gives less away."""

from leakgauge.defences.base import Defence, Mechanism, TrainingDefence
from leakgauge.defences.compression import BFloat16, HalfPrecision, Prune, Quantise, Sign
from leakgauge.defences.noise import GaussianNoise, LaplacianNoise, PercentileNoise
from leakgauge.defences.private import DPSGD, CentralDP
from leakgauge.defences.selection import SVT, Clip, PercentileSharing, TopK

__all__ = [
    "DPSGD",
    "SVT",
    "BFloat16",
    "CentralDP",
    "Clip",
    "Defence",
    "GaussianNoise",
    "HalfPrecision",
    "LaplacianNoise",
    "Mechanism",
    "PercentileNoise",
    "PercentileSharing",
    "Prune",
    "Quantise",
    "Sign",
    "TopK",
    "TrainingDefence",
]
