"""What stands in the way where no text can be read: one sentence that names the wall."""

from __future__ import annotations

from torch import nn

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.sites import Checked
from leakgauge.core.observation import Observation

NOISED = (
    "The smallest singular values of the gradient are as even as independent noise makes them: the update was noised, and the "
    "directions of its weaker tokens drowned."
)


def wall(network: TextNetwork, seen: Observation, first: list[Checked], later: list[Checked], *, told: bool) -> str:
    """Why the spans leave no room.

    Args:
        network: the network.
        seen: the observation.
        first: shared layers that see single tokens.
        later: shared layers further up.
        told: whether a layer of `first` could be used.
    """
    if not first and not later:
        return "No linear layer that sees tokens was shared, so there is no span to check."
    if not first:
        room = max(min(each.outputs, each.site.width) for each in later)
        return (
            "No linear layer that sees single tokens, before attention mixes them, was shared, and the spans of what was shared, "
            f"such as {later[0].site.names[0]}, hold no text: either rank {room} is too low for the tokens of the batch, or the "
            "loss does not reach all tokens through them, or the network looks both ways, where texts cannot grow."
        )
    looked = later if told else first
    where = "At every layer further up" if told else "At the first layer"
    if not looked:
        return "No layer further up was shared, so tokens cannot be put together to texts."
    room = max(min(each.outputs, each.site.width) for each in looked)
    if room < network.hidden:
        return (
            f"{where} what was shared, such as {looked[0].site.names[0]}, has at most rank {room}: the adapter's rank is the "
            f"wall, not the width of {network.hidden}, and the batch of {seen.num_examples} has as many tokens or more, or the "
            "loss does not reach all of them through it."
        )
    best = max(each.space.rank for each in looked)
    if told and best < first[0].space.rank:
        return (
            f"{where} the gradient has at most rank {best}, and {first[0].space.rank} at the first: the loss does not reach "
            "every token through what was shared there, so tokens cannot be put together to texts."
        )
    return (
        f"{where} the span of the gradient leaves no room: either the batch of {seen.num_examples} has as many tokens as the "
        f"layer is wide ({network.hidden}) or more, so that every text lies in the span, or the update was rounded until its "
        "small singular values drowned."
    )


def dropped(seen: Observation) -> str:
    """A sentence where the client trained with dropout; empty otherwise."""
    rates = {part.p for part in seen.model.modules() if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0}
    if seen.training.mode != "train" or not rates:
        return ""
    return (
        f"The client trained with dropout (p {', '.join(f'{rate:g}' for rate in sorted(rates))}): behind a dropout every layer's "
        "inputs were changed by draws that nobody shares, so no text's inputs lie in the span, and no update can be recomputed."
    )
