"""Topology: who talks to whom in decentralised training, and the weights with which they mix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Topology:
    """An undirected graph of nodes.

    Args:
        nodes: names, each once.
        edges: pairs of names; each pair once, in either order.

    Raises:
        OptionError: for no node, a name given twice, or an edge to itself or to an unknown node.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        nodes = tuple(self.nodes)
        if not nodes:
            raise OptionError("The topology has no nodes; expected at least one.")
        twice = [name for name in nodes if nodes.count(name) > 1]
        if twice:
            raise OptionError(f"The topology names the node {twice[0]!r} twice; expected each once.")
        ordered: dict[tuple[str, str], None] = {}
        for edge in self.edges:
            if isinstance(edge, str) or len(tuple(edge)) != 2:
                raise OptionError(f"The topology has the edge {edge!r}; expected two names.")
            first, second = edge
            for name in (first, second):
                if name not in nodes:
                    raise OptionError(f"The topology has an edge to {name!r}, which is no node.{did_you_mean(str(name), nodes)}")
            if first == second:
                raise OptionError(f"The topology has an edge from {first!r} to itself; every node mixes with itself anyway.")
            ordered[(first, second) if nodes.index(first) < nodes.index(second) else (second, first)] = None
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "edges", tuple(ordered))

    @staticmethod
    def ring(names: Sequence[str]) -> Topology:
        """Each node talks to the next and to the one before."""
        names = tuple(names)
        pairs = [(name, names[(place + 1) % len(names)]) for place, name in enumerate(names)]
        return Topology(names, tuple(pair for pair in pairs if pair[0] != pair[1]))

    @staticmethod
    def complete(names: Sequence[str]) -> Topology:
        """Everybody talks to everybody."""
        names = tuple(names)
        return Topology(names, tuple((a, b) for place, a in enumerate(names) for b in names[place + 1 :]))

    @staticmethod
    def star(names: Sequence[str]) -> Topology:
        """The first node talks to each of the others, which do not talk to one another."""
        names = tuple(names)
        return Topology(names, tuple((names[0], other) for other in names[1:]))

    @staticmethod
    def of(edges: Iterable[tuple[str, str]], nodes: Sequence[str] | None = None) -> Topology:
        """A graph by its edges; the nodes in order of first mention, or as given."""
        edges = tuple(edges)
        return Topology(tuple(nodes) if nodes is not None else tuple(dict.fromkeys(n for edge in edges for n in edge)), edges)

    def neighbours(self, node: str) -> tuple[str, ...]:
        """Names of the nodes that talk to this one, in the order of the nodes."""
        near = {a if b == node else b for a, b in self.edges if node in (a, b)}
        return tuple(name for name in self.nodes if name in near)

    def view(self, node: str) -> tuple[str, ...]:
        """The node and its neighbours, in the order of the nodes: those whose messages it holds."""
        near = {node, *self.neighbours(node)}
        return tuple(name for name in self.nodes if name in near)

    def mixing(self) -> Tensor:
        """Metropolis-Hastings weights, (nodes, nodes) float64: symmetric, non-negative, rows and columns sum to 1.

        W_ij = 1 / (1 + max(d_i, d_j)) for an edge, d the number of neighbours; W_ii takes what is left of 1.

        Source: Xiao, Boyd and Kim 2007, section 2 (Metropolis weights).
        """
        place = {name: index for index, name in enumerate(self.nodes)}
        degree = {name: len(self.neighbours(name)) for name in self.nodes}
        weights = torch.zeros(len(self.nodes), len(self.nodes), dtype=torch.float64)
        for first, second in self.edges:
            weight = 1.0 / (1 + max(degree[first], degree[second]))
            weights[place[first], place[second]] = weights[place[second], place[first]] = weight
        return weights + torch.diag(1.0 - weights.sum(1))
