"""BatchNorm bookkeeping: from running statistics before and after local training to the batch's own mean and variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and variance of one BatchNorm layer's input over the client's mini-batches.

    With one mini-batch (K = 1) these are its own. With K of them they are the averages sum_k w_k mean_k and sum_k w_k var_k,
    w_k = m (1 - m)^(K - k) / (1 - (1 - m)^K) for k = 1..K with momentum m (later mini-batches count more), or w_k = 1 / K for
    momentum None. Each mini-batch counts by its place, whatever its size, and its statistics are those under the weights of its
    own step, not under the received ones. These averages are exact for the mean; for the variance, see `difference`.

    Args:
        mean: (C,), float64.
        var: (C,) biased variance, float64; the unbiased one where the number of values per channel is unknown.
        steps: K, the number of mini-batches, read from the layer's batch counter.
        exact: whether this is one mini-batch's own statistic (K = 1) rather than an average.
        amplification: 1 / (1 - (1 - m)^K), or with momentum None (counter after) / K: the factor by which noise on a running
            statistic (a defence's, or rounding) is larger on the recovered one. 10 for one step with momentum 0.1.
    """

    mean: Tensor
    var: Tensor
    steps: int
    exact: bool
    amplification: float


def kept_share(momentum: float | None, counted_before: int, steps: int) -> float:
    """The share of the old running statistic in the new one after some steps: (1 - m)^steps, or before / after for m None.

    Args:
        momentum: the layer's momentum m, None for a cumulative average.
        counted_before: the layer's batch counter before these steps.
        steps: >= 1.
    """
    return counted_before / (counted_before + steps) if momentum is None else (1.0 - momentum) ** steps


def difference(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], layer: str, momentum: float | None, count: float | None
) -> BatchStatistics | None:
    r"""The batch statistics that moved a layer's running statistics from `before` to `after`.

    One step: $r_1 = (1-m) r_0 + m s$, so $s = (r_1 - (1-m) r_0) / m$. K steps:
    $r_K = (1-m)^K r_0 + m \sum_k (1-m)^{K-k} s_k$, so $(r_K - (1-m)^K r_0) / (1 - (1-m)^K)$ is the average of $s_1..s_K$ with
    weights proportional to $(1-m)^{K-k}$. With momentum None the running value is the plain average of all batches so far.

    The running variance averages unbiased variances $u_k = v_k n_k / (n_k - 1)$. Multiplying by (n - 1) / n is exact where all
    mini-batches have n values per channel. A smaller one (n_k < n, as the last of an epoch may be) enters too large, by the
    factor $1 + (n - n_k) / (n (n_k - 1))$ on its own part of the average.

    Args:
        before: buffers before local training, by name.
        after: buffers after it.
        layer: the layer's name among the model's modules; '' for a model that is itself the layer.
        momentum: the layer's momentum, None for a cumulative average.
        count: values per channel in one full mini-batch (n = N H W), for the (n - 1) / n correction.

    Returns:
        The statistics, or None where no batch was counted or a buffer is missing.

    Source: Hatamizadeh et al. 2023, section III-B, for one step; torch.nn.BatchNorm2d for the update rule.
    """
    prefix = f"{layer}." if layer else ""
    names = [prefix + name for name in ("running_mean", "running_var", "num_batches_tracked")]
    if any(name not in before or name not in after for name in names):
        return None
    seen_before, seen_after = int(before[names[2]]), int(after[names[2]])
    steps = seen_after - seen_before
    if steps < 1:
        return None
    keep = kept_share(momentum, seen_before, steps)
    if keep >= 1.0:
        return None

    def solve(name: str) -> Tensor:
        start, end = before[name].double(), after[name].double()
        return (end - keep * start) / (1.0 - keep)

    var = solve(names[1])
    if count is not None and count > 1:
        var = var * ((count - 1.0) / count)
    return BatchStatistics(mean=solve(names[0]), var=var, steps=steps, exact=steps == 1, amplification=1.0 / (1.0 - keep))


def batch_norm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that track running statistics, by their name in `named_modules`."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    }
