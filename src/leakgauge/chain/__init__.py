"""A network as a chain of solvable links, its layers as linear operators, and counting what its update can determine."""

from leakgauge.chain.counting import CountingBound, counting_bound, counting_bound_of
from leakgauge.chain.link import Chain, Link
from leakgauge.chain.rules import Part, rule
from leakgauge.chain.trace import trace

__all__ = ["Chain", "CountingBound", "Link", "Part", "counting_bound", "counting_bound_of", "rule", "trace"]
