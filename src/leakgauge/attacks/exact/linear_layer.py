"""The closed form for a linear first layer with a bias: one example's input is a ratio of two gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.labels.recover import recover_labels
from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.verify import ROUNDING, agrees, no_pictures, recomputed, relative_residual
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.errors import LeakgaugeError, UnsupportedError
from leakgauge.registry import described


@dataclass(frozen=True)
class LinearLayer(Attack):
    """x = (dL/dW_j) / (dL/db_j) for any row j with a bias gradient.

    One example: every row gives the same input, and the best-conditioned combination of all rows is taken. Several
    examples: each row gives a mixture; rows whose neuron was active for one example only give that example, and are
    recognised where two or more rows agree. Without such rows the mixtures are returned for nothing: none is.

    Args:
        agreement: largest relative difference of two rows that count as the same example.

    Source: Phong et al. 2017, section III; Boenisch et al. 2023 for several examples.
    """

    agreement: float = 1e-3

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:  # noqa: ARG002
        limits = limits or Limits()
        weight, bias = self._first_layer(seen)
        assert seen.pictures is not None
        if seen.num_examples == 1:
            inputs = ((bias @ weight) / (bias @ bias)).reshape(1, *seen.pictures.shape)
            consistent = relative_residual({"w": bias[:, None] * inputs.reshape(1, -1)}, {"w": weight})
        else:
            inputs, consistent = self._isolated(weight, bias, seen), float("nan")
        labels, explains, residual = self._verify(seen, inputs, limits)
        certified = unverified(len(inputs))
        if seen.num_examples == 1 and explains and consistent < ROUNDING[seen.training.dtype]:
            certified[:] = True
        return Reconstruction(
            inputs=inputs.float(),
            labels=labels,
            outcome=self._outcome(seen, len(inputs), bool(certified.any())),
            explains=explains,
            certified=certified,
            confidence=certified.float(),
            stats=Stats(evaluations=1, residual=residual, notes=(self._note(consistent, len(inputs), seen.num_examples),)),
            seconds=limits.seconds,
            attack="linear-layer",
        )

    def _first_layer(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """Weight (h, d) and bias (h,) gradient of a linear layer that sees the flat input, in float64."""
        if seen.pictures is None:
            raise no_pictures(seen, "linear-layer")
        if not seen.training.is_one_gradient:
            raise UnsupportedError("linear-layer needs one gradient over the whole batch; the client took several local steps.")
        carrying = [(name, module) for name, module in seen.model.named_modules() if any(True for _ in module.parameters(False))]
        name, module = carrying[0]
        if not isinstance(module, nn.Linear) or module.in_features != seen.pictures.size:
            raise UnsupportedError(
                f"linear-layer needs a linear layer that sees the input itself; the first layer with weights is {name!r} "
                f"({type(module).__name__}). Use a matching attack."
            )
        prefix = f"{name}." if name else ""
        if prefix + "weight" not in seen.tensors or prefix + "bias" not in seen.tensors:
            raise UnsupportedError(f"linear-layer needs weight and bias gradient of {name!r}; they were not both shared.")
        weight, bias = seen.tensors[prefix + "weight"].double().cpu(), seen.tensors[prefix + "bias"].double().cpu()
        if not bool((bias != 0).any()):
            raise UnsupportedError(f"The bias gradient of {name!r} is zero: no neuron of it was active.")
        return weight, bias

    def _isolated(self, weight: Tensor, bias: Tensor, seen: Observation) -> Tensor:
        """Distinct inputs on which at least two rows agree, most supported first; (M, C, H, W)."""
        assert seen.pictures is not None
        usable = bias.abs() > 1e-7 * bias.abs().max()
        rows = weight[usable] / bias[usable, None]
        close = torch.cdist(rows, rows) <= self.agreement * rows.norm(dim=1, keepdim=True)
        support = close.sum(1)
        found: list[Tensor] = []
        free = torch.ones(len(rows), dtype=torch.bool)
        for index in support.argsort(descending=True).tolist():
            if support[index] < 2 or len(found) == seen.num_examples:
                break
            if bool(free[index]):
                found.append(rows[close[index]].mean(0))
                free &= ~close[index]
        return torch.stack(found).reshape(-1, *seen.pictures.shape) if found else rows.new_zeros((0, *seen.pictures.shape))

    def _verify(self, seen: Observation, inputs: Tensor, limits: Limits) -> tuple[Tensor | None, bool, float]:
        if seen.num_examples != 1 or len(inputs) != 1:
            return None, False, float("nan")
        try:
            labels = seen.labels if seen.labels is not None else recover_labels(seen).labels
        except LeakgaugeError:
            return None, False, float("nan")
        target = target_of(seen, "observed", torch.float64, limits.device)
        residual = recomputed(seen, target, inputs.to(limits.device), labels)
        return labels, agrees(residual, seen, "float64"), residual

    @staticmethod
    def _outcome(seen: Observation, found: int, certified: bool) -> Outcome:
        if seen.num_examples == 1:
            return Outcome.DETERMINED if certified else Outcome.INCONSISTENT
        return Outcome.CONVERGED if found == seen.num_examples else Outcome.UNDERDETERMINED

    @staticmethod
    def _note(consistent: float, found: int, wanted: int) -> str:
        if wanted == 1:
            return f"All rows of the layer agree on one input to {consistent:.1e}."
        return f"{found} of {wanted} examples were isolated: two or more neurons were active for them alone."


@described(
    needs="a linear first layer with a bias; one gradient; exact for one example",
    source="Phong et al. 2017; Boenisch et al. 2023",
)
def linear_layer(agreement: float = 1e-3) -> LinearLayer:
    """Closed form: the input as the ratio of a first linear layer's weight and bias gradient."""
    return LinearLayer(agreement=agreement)
