"""`april`: the input of a first attention layer in closed form, where its gradient is that of a learnable position embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.check import explained, gradients_of, padded, text_target
from leakgauge.attacks.text.labels import labels_of
from leakgauge.attacks.text.network import TextNetwork, read_network
from leakgauge.attacks.verify import agrees
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import LeakgaugeError, UnsupportedError
from leakgauge.registry import described

NAME = "april"
HOLDS = 1e-6  # relative residual of the identity on a public text, in float64, where it holds (rounding leaves 1e-12)


@dataclass(frozen=True)
class April(Attack):
    """Solves X^T T = dQ W_q^T + dK W_k^T + dV W_v^T for the inputs X (L, D) of the first attention layer, one example.

    dQ, dK, dV are the gradients (D, D_out) of the weights in y = x W. T is the loss's gradient by X. Where X = E + P with a
    learnable position embedding P and nothing but the attention reads X, T is the gradient of P's rows. A residual connection
    or a norm beside or before the attention breaks that; the identity is tried on a public random text first, and the network
    refused where it does not hold.

    Source: Lu et al. 2022 (APRIL), proposition 1 and section 3.2.
    """

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        reasons = []
        if not isinstance(seen.spec, TextSpec):
            raise UnsupportedError(f"{NAME} needs a TextSpec; the observation has none.")
        if seen.num_examples != 1:
            reasons.append(f"it reads one example, and the batch has {seen.num_examples}")
        if not seen.training.is_one_gradient:
            reasons.append("it needs one gradient, and the client took several local steps")
        gradients = gradients_of(seen, NAME)
        network = read_network(seen, torch.float64, limits.device)
        if network.positions is None or network.positions not in gradients:
            reasons.append("it needs the gradient of a learnable position embedding")
        if not network.attention or any(name not in gradients for name in network.attention[0].names):
            reasons.append("it needs the gradients of the first attention layer's query, key and value weights")
        if not reasons and not _holds(network, generator):
            reasons.append(
                "a residual connection or a norm lets the position embedding's gradient pass by the first attention layer"
            )
        if reasons:
            raise UnsupportedError(f"{NAME} cannot treat this update: {'; '.join(reasons)}. Use span-check.")
        inputs, off = solved(network, gradients)
        if not len(inputs):
            return self._result(seen.spec, [], None, Outcome.NO_GRADIENT_SIGNAL, float("nan"), False, False, "", limits)
        tokens, apart = nearest(network, inputs, seen.spec.vocabulary)
        ids, mask = padded([tokens], seen.spec.length, seen.spec.padding)
        labels = self._labels(seen, network, gradients, ids, mask)
        residual, fits = float("nan"), False
        if labels is not None:
            residual = explained(seen, text_target(seen, limits), ids, mask, labels)
            fits = agrees(residual, seen, "float32" if seen.training.dtype != "float64" else "float64")
        outcome = Outcome.DETERMINED if fits else Outcome.INCONSISTENT if labels is not None else Outcome.CONVERGED
        words = (
            f"{len(tokens)} tokens; relative residual of the closed form {off:.1e}; the second nearest embedding is at least "
            f"{apart:.3g} times as far as the nearest."
        )
        return self._result(seen.spec, [tokens], labels, outcome, residual, fits, fits and apart > 2.0, words, limits)

    @staticmethod
    def _labels(
        seen: Observation, network: TextNetwork, gradients: Mapping[str, Tensor], ids: Tensor, mask: Tensor
    ) -> Tensor | None:
        assert isinstance(seen.spec, TextSpec)
        if seen.spec.task == "causal":
            return torch.where(mask == 0, IGNORED, ids)
        if seen.spec.task == "masked" or seen.labels is not None:
            return seen.labels
        try:
            return labels_of(network, gradients, ids, mask)
        except LeakgaugeError:
            return None

    @staticmethod
    def _result(
        spec: TextSpec,
        texts: list[Tensor],
        labels: Tensor | None,
        outcome: Outcome,
        residual: float,
        explains: bool,
        unique: bool,
        words: str,
        limits: Limits,
    ) -> Reconstruction:
        ids, _ = padded(texts, spec.length, spec.padding)
        certified = unverified(len(ids))
        certified[:] = unique
        return Reconstruction(
            inputs=ids,
            labels=labels,
            outcome=outcome,
            explains=explains,
            certified=certified,
            confidence=torch.full((len(ids),), 1.0 if explains else 0.5),
            stats=Stats(evaluations=1, residual=residual, notes=(words,) if words else ()),
            seconds=limits.seconds,
            attack=NAME,
        )


def solved(network: TextNetwork, gradients: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Inputs (L, D) of the first attention layer and the relative residual of the equations that give them.

    L is the number of rows of the position embedding's gradient that are not zero, counted to the last of them.
    """
    assert network.positions is not None
    rows = gradients[network.positions][network.offset :].double().to(network.device)
    used = (rows.abs().amax(1) > 0).nonzero().flatten()
    rows = rows[: int(used.max()) + 1] if len(used) else rows[:0]
    weights = {name: network.parameter(name) for name in network.attention[0].names}
    parts = zip(network.attention[0].split(gradients), network.attention[0].split(weights), strict=True)
    joint = sum((change.double().to(network.device) @ weight.T for change, weight in parts), torch.zeros(()).double())
    if not len(rows):
        return rows, float("nan")
    inputs = (joint @ torch.linalg.pinv(rows)).T
    return inputs, float((inputs.T @ rows - joint).norm() / joint.norm())


def nearest(network: TextNetwork, inputs: Tensor, vocabulary: int) -> tuple[Tensor, float]:
    """Token ids (L,) whose embedding is nearest to what is left of the inputs without position and type.

    Returns also how many times farther the second nearest is, at the least clear position.
    """
    zero = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    places = network.embedded(zero, torch.arange(len(inputs), device=inputs.device))
    table = network.parameter(network.tokens)
    distances = torch.cdist(inputs - places + table[0], table[:vocabulary])
    two, tokens = distances.topk(2, dim=1, largest=False)
    return tokens[:, 0], float((two[:, 1] / two[:, 0].clamp(min=1e-300)).min())


def _holds(network: TextNetwork, generator: torch.Generator) -> bool:
    """Whether the closed form gives a public random text's own inputs."""
    ids = torch.randint(network.vocabulary, (1, 5), generator=generator).to(network.device)
    wanted = {name: network.module.get_parameter(name) for name in {network.positions or "", *network.attention[0].names}}
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = network.module(**network.arguments(ids))
            logits = output.logits if hasattr(output, "logits") else output
            pull = torch.randn(logits.shape, generator=generator, dtype=logits.dtype).to(logits.device)
            found = torch.autograd.grad((logits * pull).sum(), list(wanted.values()), allow_unused=True)
    finally:
        for parameter in wanted.values():
            parameter.requires_grad_(False)
    gradients = {name: torch.zeros_like(wanted[name]) if part is None else part for name, part in zip(wanted, found, strict=True)}
    inputs, _ = solved(network, gradients)
    true = network.block_inputs(0, ids)[0]
    return len(inputs) == len(true) and float((inputs - true).norm() / true.norm()) < HOLDS


@described(
    needs="one example; a learnable position embedding that only the first attention layer reads, without residual or norm",
    source="Lu et al. 2022 (APRIL)",
)
def april() -> April:
    """Closed form: the first attention layer's inputs from its own and the position embedding's gradient."""
    return April()
