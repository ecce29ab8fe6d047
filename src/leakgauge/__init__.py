"""leakgauge: how much of a client's private data can be rebuilt from what it shares in federated learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakgauge.analysis.leakage_score import LeakageScore as LeakageScore
    from leakgauge.analysis.leakage_score import leakage_score as leakage_score
    from leakgauge.analysis.rank_profile import RankProfile as RankProfile
    from leakgauge.analysis.rank_profile import rank_profile as rank_profile
    from leakgauge.analysis.recommend import Recommendation as Recommendation
    from leakgauge.analysis.recommend import recommendations as recommendations
    from leakgauge.analysis.security import Security as Security
    from leakgauge.analysis.security import security as security
    from leakgauge.attacks.base import Attack as Attack
    from leakgauge.attacks.base import Limits as Limits
    from leakgauge.attacks.labels.recover import recover_labels as recover_labels
    from leakgauge.attacks.matching.likelihood import (
        Kept as Kept,
    )
    from leakgauge.attacks.matching.matching import GradientMatching as GradientMatching
    from leakgauge.attacks.matching.norms import (
        L1 as L1,
    )
    from leakgauge.attacks.matching.norms import (
        Cosine as Cosine,
    )
    from leakgauge.attacks.matching.norms import (
        LayerWeighted as LayerWeighted,
    )
    from leakgauge.attacks.matching.norms import (
        SquaredL2 as SquaredL2,
    )
    from leakgauge.attacks.matching.priors import (
        BatchNormPrior as BatchNormPrior,
    )
    from leakgauge.attacks.matching.priors import (
        Box as Box,
    )
    from leakgauge.attacks.matching.priors import (
        GroupConsistency as GroupConsistency,
    )
    from leakgauge.attacks.matching.priors import (
        L2Norm as L2Norm,
    )
    from leakgauge.attacks.matching.priors import (
        TotalVariation as TotalVariation,
    )
    from leakgauge.attacks.matching.search.adam import Adam as Adam
    from leakgauge.attacks.matching.search.gauss_newton import GaussNewton as GaussNewton
    from leakgauge.attacks.matching.search.lbfgs import LBFGS as LBFGS
    from leakgauge.attacks.matching.starts import Given as Given
    from leakgauge.attacks.matching.starts import Grey as Grey
    from leakgauge.attacks.matching.starts import Mixed as Mixed
    from leakgauge.attacks.matching.starts import Noise as Noise
    from leakgauge.attacks.matching.starts import Uniform as Uniform
    from leakgauge.attacks.run import attack as attack
    from leakgauge.audit.audit import Audit as Audit
    from leakgauge.audit.audit import AuditReport as AuditReport
    from leakgauge.audit.filters.record import FilterAudit as FilterAudit
    from leakgauge.audit.filters.run import audit_filter as audit_filter
    from leakgauge.audit.guard.guard import Decision as Decision
    from leakgauge.audit.guard.guard import Guard as Guard
    from leakgauge.audit.guard.probe import Finding as Finding
    from leakgauge.audit.guard.probe import Private as Private
    from leakgauge.audit.guard.probe import Probe as Probe
    from leakgauge.chain.counting import counting_bound as counting_bound
    from leakgauge.core.observation import Knowledge as Knowledge
    from leakgauge.core.observation import Observation as Observation
    from leakgauge.core.pack import pack as pack
    from leakgauge.core.protocol_file import protocol_from_toml as protocol_from_toml
    from leakgauge.core.provenance import Provenance as Provenance
    from leakgauge.core.reconstruction import Outcome as Outcome
    from leakgauge.core.reconstruction import Reconstruction as Reconstruction
    from leakgauge.core.spec import ImageSpec as ImageSpec
    from leakgauge.core.text_spec import TextSpec as TextSpec
    from leakgauge.core.threat import ThreatModel as ThreatModel
    from leakgauge.core.training import LocalTraining as LocalTraining
    from leakgauge.core.update import Update as Update
    from leakgauge.data import load_data as load_data
    from leakgauge.defences.accounting import epsilon as epsilon
    from leakgauge.defences.base import Defence as Defence
    from leakgauge.defences.compression import BFloat16 as BFloat16
    from leakgauge.defences.compression import HalfPrecision as HalfPrecision
    from leakgauge.defences.compression import Prune as Prune
    from leakgauge.defences.compression import Quantise as Quantise
    from leakgauge.defences.compression import Sign as Sign
    from leakgauge.defences.guarantee import Guarantee as Guarantee
    from leakgauge.defences.guarantee import guarantee as guarantee
    from leakgauge.defences.noise import GaussianNoise as GaussianNoise
    from leakgauge.defences.noise import LaplacianNoise as LaplacianNoise
    from leakgauge.defences.noise import PercentileNoise as PercentileNoise
    from leakgauge.defences.private import DPSGD as DPSGD
    from leakgauge.defences.private import CentralDP as CentralDP
    from leakgauge.defences.selection import SVT as SVT
    from leakgauge.defences.selection import Clip as Clip
    from leakgauge.defences.selection import PercentileSharing as PercentileSharing
    from leakgauge.defences.selection import TopK as TopK
    from leakgauge.errors import LeakgaugeError as LeakgaugeError
    from leakgauge.federated.client import Client as Client
    from leakgauge.federated.federation import Federation as Federation
    from leakgauge.federated.member import Member as Member
    from leakgauge.federated.records import Message as Message
    from leakgauge.federated.records import Round as Round
    from leakgauge.federated.topology import Topology as Topology
    from leakgauge.federated.validation.validate import validate as validate
    from leakgauge.integrations.recording.exchange import Exchange as Exchange
    from leakgauge.integrations.recording.loop import record as record
    from leakgauge.integrations.recording.recorder import Recorded as Recorded
    from leakgauge.integrations.recording.recorder import Recorder as Recorder
    from leakgauge.measures.identification import identification as identification
    from leakgauge.measures.rdlv import RDLV as RDLV
    from leakgauge.measures.rdlv import rdlv as rdlv
    from leakgauge.measures.score import score as score
    from leakgauge.models import load_model as load_model
    from leakgauge.randomness import rng as rng
    from leakgauge.registry import catalogue as catalogue
    from leakgauge.truth.batch import Batch as Batch

__version__ = "0.1.0"

_WHERE = {
    "Adam": "leakgauge.attacks.matching.search.adam",
    "Attack": "leakgauge.attacks.base",
    "Audit": "leakgauge.audit.audit",
    "AuditReport": "leakgauge.audit.audit",
    "BFloat16": "leakgauge.defences.compression",
    "Batch": "leakgauge.truth.batch",
    "BatchNormPrior": "leakgauge.attacks.matching.priors",
    "Box": "leakgauge.attacks.matching.priors",
    "CentralDP": "leakgauge.defences.private",
    "Client": "leakgauge.federated.client",
    "Clip": "leakgauge.defences.selection",
    "Cosine": "leakgauge.attacks.matching.norms",
    "DPSGD": "leakgauge.defences.private",
    "Decision": "leakgauge.audit.guard.guard",
    "Defence": "leakgauge.defences.base",
    "Exchange": "leakgauge.integrations.recording.exchange",
    "Federation": "leakgauge.federated.federation",
    "Finding": "leakgauge.audit.guard.probe",
    "FilterAudit": "leakgauge.audit.filters.record",
    "GaussNewton": "leakgauge.attacks.matching.search.gauss_newton",
    "GaussianNoise": "leakgauge.defences.noise",
    "Given": "leakgauge.attacks.matching.starts",
    "GradientMatching": "leakgauge.attacks.matching.matching",
    "Grey": "leakgauge.attacks.matching.starts",
    "GroupConsistency": "leakgauge.attacks.matching.priors",
    "Guarantee": "leakgauge.defences.guarantee",
    "Guard": "leakgauge.audit.guard.guard",
    "HalfPrecision": "leakgauge.defences.compression",
    "ImageSpec": "leakgauge.core.spec",
    "Kept": "leakgauge.attacks.matching.likelihood",
    "Knowledge": "leakgauge.core.observation",
    "L1": "leakgauge.attacks.matching.norms",
    "L2Norm": "leakgauge.attacks.matching.priors",
    "LBFGS": "leakgauge.attacks.matching.search.lbfgs",
    "LaplacianNoise": "leakgauge.defences.noise",
    "LayerWeighted": "leakgauge.attacks.matching.norms",
    "LeakageScore": "leakgauge.analysis.leakage_score",
    "LeakgaugeError": "leakgauge.errors",
    "Limits": "leakgauge.attacks.base",
    "LocalTraining": "leakgauge.core.training",
    "Member": "leakgauge.federated.member",
    "Message": "leakgauge.federated.records",
    "Mixed": "leakgauge.attacks.matching.starts",
    "Noise": "leakgauge.attacks.matching.starts",
    "Observation": "leakgauge.core.observation",
    "Outcome": "leakgauge.core.reconstruction",
    "PercentileNoise": "leakgauge.defences.noise",
    "PercentileSharing": "leakgauge.defences.selection",
    "Private": "leakgauge.audit.guard.probe",
    "Probe": "leakgauge.audit.guard.probe",
    "Provenance": "leakgauge.core.provenance",
    "Prune": "leakgauge.defences.compression",
    "Quantise": "leakgauge.defences.compression",
    "RDLV": "leakgauge.measures.rdlv",
    "RankProfile": "leakgauge.analysis.rank_profile",
    "Recommendation": "leakgauge.analysis.recommend",
    "Reconstruction": "leakgauge.core.reconstruction",
    "Recorded": "leakgauge.integrations.recording.recorder",
    "Recorder": "leakgauge.integrations.recording.recorder",
    "Round": "leakgauge.federated.records",
    "SVT": "leakgauge.defences.selection",
    "Security": "leakgauge.analysis.security",
    "Sign": "leakgauge.defences.compression",
    "SquaredL2": "leakgauge.attacks.matching.norms",
    "TextSpec": "leakgauge.core.text_spec",
    "ThreatModel": "leakgauge.core.threat",
    "TopK": "leakgauge.defences.selection",
    "Topology": "leakgauge.federated.topology",
    "TotalVariation": "leakgauge.attacks.matching.priors",
    "Uniform": "leakgauge.attacks.matching.starts",
    "Update": "leakgauge.core.update",
    "attack": "leakgauge.attacks.run",
    "audit_filter": "leakgauge.audit.filters.run",
    "catalogue": "leakgauge.registry",
    "counting_bound": "leakgauge.chain.counting",
    "epsilon": "leakgauge.defences.accounting",
    "guarantee": "leakgauge.defences.guarantee",
    "identification": "leakgauge.measures.identification",
    "leakage_score": "leakgauge.analysis.leakage_score",
    "load_data": "leakgauge.data",
    "load_model": "leakgauge.models",
    "pack": "leakgauge.core.pack",
    "protocol_from_toml": "leakgauge.core.protocol_file",
    "rank_profile": "leakgauge.analysis.rank_profile",
    "rdlv": "leakgauge.measures.rdlv",
    "recommendations": "leakgauge.analysis.recommend",
    "record": "leakgauge.integrations.recording.loop",
    "recover_labels": "leakgauge.attacks.labels.recover",
    "rng": "leakgauge.randomness",
    "score": "leakgauge.measures.score",
    "security": "leakgauge.analysis.security",
    "validate": "leakgauge.federated.validation.validate",
}

__all__ = [
    "DPSGD",
    "L1",
    "LBFGS",
    "RDLV",
    "SVT",
    "Adam",
    "Attack",
    "Audit",
    "AuditReport",
    "BFloat16",
    "Batch",
    "BatchNormPrior",
    "Box",
    "CentralDP",
    "Client",
    "Clip",
    "Cosine",
    "Decision",
    "Defence",
    "Exchange",
    "Federation",
    "Finding",
    "GaussNewton",
    "GaussianNoise",
    "Given",
    "GradientMatching",
    "Grey",
    "GroupConsistency",
    "Guarantee",
    "Guard",
    "HalfPrecision",
    "ImageSpec",
    "Kept",
    "Knowledge",
    "L2Norm",
    "LaplacianNoise",
    "LayerWeighted",
    "LeakageScore",
    "LeakgaugeError",
    "Limits",
    "LocalTraining",
    "Member",
    "Message",
    "Mixed",
    "Noise",
    "Observation",
    "Outcome",
    "PercentileNoise",
    "PercentileSharing",
    "Private",
    "Probe",
    "Provenance",
    "Prune",
    "Quantise",
    "RankProfile",
    "Recommendation",
    "Reconstruction",
    "Recorded",
    "Recorder",
    "Round",
    "Security",
    "Sign",
    "SquaredL2",
    "TextSpec",
    "ThreatModel",
    "TopK",
    "Topology",
    "TotalVariation",
    "Uniform",
    "Update",
    "attack",
    "audit_filter",
    "catalogue",
    "counting_bound",
    "epsilon",
    "guarantee",
    "identification",
    "leakage_score",
    "load_data",
    "load_model",
    "pack",
    "protocol_from_toml",
    "rank_profile",
    "rdlv",
    "recommendations",
    "record",
    "recover_labels",
    "rng",
    "score",
    "security",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'leakgauge' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
