"""Counting what an architecture's update can determine."""

from leakgauge.chain.counting import CountingBound, counting_bound, counting_bound_of

__all__ = ["CountingBound", "counting_bound", "counting_bound_of"]
