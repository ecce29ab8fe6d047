"""What the embedding gradients say of each place, and what they would say if given tokens stood there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.check import gradients_of
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError

NAME = "embedding-rows"
TOGETHER = 64  # texts in one backward pass
SAME = 3  # texts of one length that are thought of
DRAWS = 4  # random texts of each length that show what a last token's gradient looks like


@dataclass(frozen=True)
class Rows:
    """Gradient rows of a batch: at place s the loss has derivative d_s by the embeddings' sum.

    Args:
        network: in the attack's arithmetic.
        bag: (V,) ids of the tokens that were read.
        words: (V, D) row of each: the sum of d_s over the places where it stands.
        places: (T, D) row of each position: the sum of d_s over the texts that reach it.
        examples: N.
        classes: K.
    """

    network: TextNetwork
    bag: Tensor
    words: Tensor
    places: Tensor
    examples: int
    classes: int

    def derivatives(self, ids: Tensor, labels: Tensor) -> Tensor:
        """d_s for whole texts without padding: token ids (n, L) and classes (n,), gives (n, L, D)."""
        table = self.network.module.get_submodule(self.network.tokens.removesuffix(".weight"))
        held: list[Tensor] = []

        def keep(_: nn.Module, __: tuple[object, ...], output: Tensor) -> Tensor:
            held.append(output.detach().requires_grad_(True))
            return held[-1]

        found, hook = [], table.register_forward_hook(keep)
        try:
            for texts, classes in zip(torch.split(ids, TOGETHER), torch.split(labels, TOGETHER), strict=True):
                with torch.enable_grad():
                    output = self.network.module(**self.network.arguments(texts))
                    logits = output.logits if hasattr(output, "logits") else output
                    loss = nn.functional.cross_entropy(logits, classes, reduction="sum") / self.examples
                    found.append(torch.autograd.grad(loss, held.pop())[0])
        finally:
            hook.remove()
        return torch.cat(found)


def read_rows(seen: Observation, network: TextNetwork) -> Rows:
    """The rows of an observation of a causal classifier whose embeddings were trained.

    Raises:
        UnsupportedError: naming every reason why there are none.
    """
    spec, reasons = seen.spec, []
    if not isinstance(spec, TextSpec) or spec.task != "classification" or not network.causal:
        reasons.append("a causal network that classifies")
    if network.tokens not in seen.tensors or network.tied:
        reasons.append("the gradient of a token embedding apart from the head")
    if network.positions is None or network.positions not in seen.tensors:
        reasons.append("the gradient of a position embedding")
    if reasons or network.positions is None or not isinstance(spec, TextSpec):
        raise UnsupportedError(f"{NAME} needs {', '.join(reasons)}.")
    gradients = gradients_of(seen, NAME)
    words = gradients[network.tokens].to(device=network.device, dtype=network.dtype)
    places = gradients[network.positions][network.offset :].to(device=network.device, dtype=network.dtype)
    read = words.abs().amax(1) > 0
    if spec.padding is not None:
        read[spec.padding] = False
    bag = read.nonzero().flatten()
    reached = (places.abs().amax(1) > 0).nonzero().flatten()
    if not len(bag) or not len(reached):
        raise UnsupportedError(f"{NAME} needs a gradient that is not zero.")
    with torch.no_grad():
        output = network.module(**network.arguments(bag[None, :1]))
    classes = (output.logits if hasattr(output, "logits") else output).shape[-1]
    return Rows(network, bag, words[bag], places[: int(reached.max()) + 1], seen.num_examples, classes)


def lengths_and_labels(rows: Rows, generator: torch.Generator) -> list[tuple[int, int]]:
    """Length and class of each text, from the position rows alone.

    The classifier reads the last token's hidden state, so that d_s is many times larger there than elsewhere, and its direction
    is that of the class. Each position row is compared with sums of what last tokens of random texts give; a dynamic program
    picks N of them.
    """
    span = len(rows.places)
    shape = torch.zeros(span, rows.classes, rows.places.shape[1], dtype=rows.places.dtype)
    for length, label in itertools.product(range(1, span + 1), range(rows.classes)):
        ids = rows.bag[torch.randint(len(rows.bag), (DRAWS, length), generator=generator)]
        shape[length - 1, label] = rows.derivatives(ids, torch.full((DRAWS,), label))[:, -1].mean(0)
    size = float(shape.norm(dim=-1).mean())
    options = [
        kinds for count in range(SAME + 1) for kinds in itertools.combinations_with_replacement(range(rows.classes), count)
    ]
    best: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}
    for place in range(span):
        costs = [float((rows.places[place] - shape[place, list(kinds)].sum(0)).square().sum()) / size**2 for kinds in options]
        grown: dict[int, tuple[float, list[tuple[int, int]]]] = {}
        for count, (spent, texts) in best.items():
            for cost, kinds in zip(costs, options, strict=True):
                total = count + len(kinds)
                if total <= rows.examples and (total not in grown or spent + cost < grown[total][0]):
                    grown[total] = (spent + cost, texts + [(place + 1, kind) for kind in kinds])
        best = grown
    if rows.examples not in best:
        raise UnsupportedError(f"{NAME} found no {rows.examples} texts of at most {SAME} of one length each.")
    return best[rows.examples][1]
