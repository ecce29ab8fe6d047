"""BatchNorm bookkeeping: from running statistics before and after local training to the batch's own mean and variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and variance of one BatchNorm layer's input over the client's mini-batches.

    Args:
        mean: (C,); over several steps the average with weights (1 - m)^(K - k), k = 1..K, m the momentum.
        var: (C,) biased variance, averaged in the same way; None where the number of values per channel is unknown.
        steps: K, the number of mini-batches averaged over, read from the layer's batch counter.
        exact: whether this is one mini-batch's own statistic (K = 1) rather than an average.
    """

    mean: Tensor
    var: Tensor
    steps: int
    exact: bool


def difference(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], layer: str, momentum: float | None, count: float | None
) -> BatchStatistics | None:
    """The batch statistics that moved a layer's running statistics from `before` to `after`.

    One step: $r_1 = (1-m) r_0 + m s$, so $s = (r_1 - (1-m) r_0) / m$; K steps leave the weighted average
    $(r_K - (1-m)^K r_0) / (1 - (1-m)^K)$. With momentum None the running value is the plain average of all batches so far.

    Args:
        before: buffers before local training, by name.
        after: buffers after it.
        layer: the layer's name among the model's modules; '' for a model that is itself the layer.
        momentum: the layer's momentum, None for a cumulative average.
        count: values per channel in one mini-batch (N H W), for the (n - 1) / n correction of the unbiased running variance.

    Returns:
        The statistics, or None where no batch was counted or a buffer is missing.

    Source: Hatamizadeh et al. 2023, section III-B; torch.nn.BatchNorm2d for the update rule.
    """
    prefix = f"{layer}." if layer else ""
    names = [prefix + name for name in ("running_mean", "running_var", "num_batches_tracked")]
    if any(name not in before or name not in after for name in names):
        return None
    seen_before, seen_after = int(before[names[2]]), int(after[names[2]])
    steps = seen_after - seen_before
    if steps < 1:
        return None
    keep = seen_before / seen_after if momentum is None else (1.0 - momentum) ** steps
    if keep >= 1.0:
        return None

    def solve(name: str) -> Tensor:
        start, end = before[name].double(), after[name].double()
        return (end - keep * start) / (1.0 - keep)

    var = solve(names[1])
    if count is not None and count > 1:
        var = var * ((count - 1.0) / count)
    return BatchStatistics(mean=solve(names[0]), var=var, steps=steps, exact=steps == 1)


def batch_norm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that track running statistics, by their name in `named_modules`."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    }
