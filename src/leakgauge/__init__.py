"""leakgauge: how much of a client's private data can be rebuilt from what it shares in federated learning."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Adam": "leakgauge.attacks.matching.search.adam",
    "Attack": "leakgauge.attacks.base",
    "Batch": "leakgauge.truth.batch",
    "BatchNormPrior": "leakgauge.attacks.matching.priors",
    "Box": "leakgauge.attacks.matching.priors",
    "Client": "leakgauge.federated.client",
    "Cosine": "leakgauge.attacks.matching.distance",
    "GaussNewton": "leakgauge.attacks.matching.search.gauss_newton",
    "GaussianNoise": "leakgauge.defences.noise",
    "Given": "leakgauge.attacks.matching.starts",
    "GradientMatching": "leakgauge.attacks.matching.matching",
    "Grey": "leakgauge.attacks.matching.starts",
    "GroupConsistency": "leakgauge.attacks.matching.priors",
    "HalfPrecision": "leakgauge.defences.compression",
    "ImageSpec": "leakgauge.core.spec",
    "Kept": "leakgauge.attacks.matching.distance",
    "Knowledge": "leakgauge.core.observation",
    "L1": "leakgauge.attacks.matching.distance",
    "L2Norm": "leakgauge.attacks.matching.priors",
    "LBFGS": "leakgauge.attacks.matching.search.lbfgs",
    "LaplacianNoise": "leakgauge.defences.noise",
    "LayerWeighted": "leakgauge.attacks.matching.distance",
    "LeakgaugeError": "leakgauge.errors",
    "Limits": "leakgauge.attacks.base",
    "LocalTraining": "leakgauge.core.training",
    "Noise": "leakgauge.attacks.matching.starts",
    "Observation": "leakgauge.core.observation",
    "Outcome": "leakgauge.core.reconstruction",
    "Prune": "leakgauge.defences.compression",
    "Reconstruction": "leakgauge.core.reconstruction",
    "SquaredL2": "leakgauge.attacks.matching.distance",
    "ThreatModel": "leakgauge.core.threat",
    "TotalVariation": "leakgauge.attacks.matching.priors",
    "Uniform": "leakgauge.attacks.matching.starts",
    "Update": "leakgauge.core.update",
    "attack": "leakgauge.attacks.run",
    "catalogue": "leakgauge.registry",
    "counting_bound": "leakgauge.chain.counting",
    "identification": "leakgauge.measures.identification",
    "load_data": "leakgauge.data",
    "load_model": "leakgauge.models",
    "pack": "leakgauge.core.pack",
    "protocol_from_toml": "leakgauge.core.protocol_file",
    "recover_labels": "leakgauge.attacks.labels.recover",
    "rng": "leakgauge.randomness",
    "score": "leakgauge.measures.score",
    "validate": "leakgauge.federated.validate",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'leakgauge' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
