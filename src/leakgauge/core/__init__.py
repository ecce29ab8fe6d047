"""The records that travel along the line: specs, protocols, updates, observations, reconstructions."""

from leakgauge.core.batch_statistics import BatchStatistics
from leakgauge.core.observation import Knowledge, Observation
from leakgauge.core.provenance import Provenance
from leakgauge.core.reconstruction import CurvePoint, Frame, Outcome, Reconstruction, Stats
from leakgauge.core.spec import ImageSpec
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord, Update

__all__ = [
    "BatchStatistics",
    "CurvePoint",
    "DefenceRecord",
    "Frame",
    "ImageSpec",
    "Knowledge",
    "LocalTraining",
    "Observation",
    "Outcome",
    "Provenance",
    "Reconstruction",
    "Stats",
    "ThreatModel",
    "Update",
]
