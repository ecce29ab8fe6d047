"""Which layers' gradients a span check uses, and what stands in the way where none will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.first import decoys, invented
from leakgauge.attacks.text.span.subspace import UNIT, Subspace, subspace_of
from leakgauge.attacks.text.tracing import Site

LOOKED_AT = 5  # shared layers of one kind whose spectra are compared, from the input side
PLENTY = 20.0  # decades of room beyond which more is no better
NORMED_AWAY = 2  # output directions that a LayerNorm behind a layer takes from every token's gradient: the mean, and its own


@dataclass(frozen=True)
class Checked:
    """A site, the span of its inputs, and how many numbers its layers put out."""

    site: Site
    space: Subspace
    outputs: int

    def words(self) -> str:
        """One sentence for the notes."""
        space = self.space
        return (
            f"{self.site.names[0]}: rank {space.rank} of {len(space.values)}, gap of {space.gap:.1f} decades; inputs of other "
            f"texts lie {space.nearest:.3g} times farther out than noise would carry a member."
        )


def checked_sites(
    network: TextNetwork,
    gradients: Mapping[str, Tensor],
    kind: str,
    length: int,
    dtype: str,
    generator: torch.Generator,
    *,
    drifted: bool = False,
) -> list[Checked]:
    """The first sites of one kind that were shared, in call order, each with its span.

    Args:
        network: the network.
        gradients: parameter name -> shared gradient.
        kind: of the sites.
        length: tokens of a text.
        dtype: the client's arithmetic.
        generator: source of public random texts.
        drifted: whether the gradients are sums over several steps.
    """
    found: list[Checked] = []
    for site in network.sites:
        gradient = network.gradient(site, gradients) if site.kind == kind else None
        if gradient is None or not bool((gradient != 0).any()):
            continue
        made = invented if kind == "token" else decoys
        others = made(network, site, length, generator)
        space = subspace_of(gradient, UNIT[dtype], others, drifted=drifted)
        balanced = network.gradient(site, gradients, balanced=True)
        if balanced is not None and balanced.shape[1] >= 2 * balanced.shape[0]:
            space = max(
                (space, subspace_of(balanced, UNIT[dtype], others, drifted=drifted)), key=lambda each: (each.gap, each.rank)
            )
        found.append(Checked(site, space.with_threshold(others), gradient.shape[1]))
        if len(found) == LOOKED_AT:
            break
    return found


def usable(found: list[Checked], least: int = 1) -> list[Checked]:
    """Those that separate and miss no token, best first.

    A site's rank falls short where the loss does not reach every token through it (the last block of a classifier, low-rank
    adapters): no two tokens look alike further up that differ in the first layer, so a rank below the first layer's tells.
    A layer no wider than its input stops at its own width, less what a LayerNorm behind it takes away, however many tokens
    there are. The site of the highest rank comes first; among equals one with room, then the one that separates best.

    Args:
        found: sites with their spans.
        least: rank of the first layer.
    """
    kept = []
    for each in found:
        stopped = each.outputs <= each.site.width and each.outputs - each.space.rank <= NORMED_AWAY
        if each.space.separates and each.space.rank >= least and not stopped:
            kept.append(each)
    return sorted(kept, key=lambda each: (-each.space.rank, -min(each.space.room, PLENTY), -each.space.nearest))
