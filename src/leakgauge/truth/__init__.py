"""The private examples. Only data, federated, measures, audit and the command line may import this package."""

from leakgauge.truth.batch import Batch

__all__ = ["Batch"]
