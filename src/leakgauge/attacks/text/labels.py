"""Which label belongs to which recovered text: the head's gradient is linear in what each example contributes to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.errors import UnsupportedError

SEVERAL = 4  # tensors that are looked at where the head was not shared


def labels_of(network: TextNetwork, gradients: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """The class of each text, (N,).

    A gradient is sum_ik c_ik d logit_ik / dW with c_i = softmax_i - onehot(y_i) up to a positive factor: least squares for c,
    and y_i where c_i is lowest. Without the head the same is done with other tensors, each on its own; the one that fits best
    decides.

    Args:
        network: the network.
        gradients: parameter name -> shared gradient.
        ids: (N, L) recovered token ids.
        mask: (N, L) attention mask.

    Raises:
        UnsupportedError: where nothing that was shared tells the labels.

    Source: linear in the output gradient, as Zhao et al. 2020 (iDLG), equation 5, with all inputs known.
    """
    ids, mask = ids.to(network.device), mask.to(network.device)
    heads = [name for name, part in network.module.named_modules() if isinstance(part, nn.Linear)]
    head = f"{heads[-1]}.weight" if heads else ""
    names = [head] if head in gradients else [key for key in gradients if bool((gradients[key] != 0).any())][-SEVERAL:]
    best: tuple[float, Tensor] | None = None
    for name in names:
        found = _solved(network, name, gradients[name].to(network.device), ids, mask, name == head)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    if best is None:
        raise UnsupportedError("The labels cannot be told: no shared tensor has as many numbers as there are label scores.")
    return best[1].argmin(1).cpu()


def _solved(
    network: TextNetwork, name: str, gradient: Tensor, ids: Tensor, mask: Tensor, is_head: bool
) -> tuple[float, Tensor] | None:
    """Relative residual and coefficients c (N, K) of the least squares; None where there are too few equations."""
    weight = network.module.get_parameter(name)
    weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = network.module(**network.arguments(ids, mask))
            logits = output.logits if hasattr(output, "logits") else output
            count, classes = logits.shape
            if is_head and weight.shape[0] == classes:
                rows = [torch.autograd.grad(logits[i, 0], weight, retain_graph=True)[0][0] for i in range(count)]
                features = torch.stack(rows)
                solved = torch.linalg.lstsq(features.T, gradient.T, driver="gelsd").solution  # (N, K)
                off = (features.T @ solved - gradient.T).norm() / gradient.norm()
                return float(off), solved
            if gradient.numel() < count * classes:
                return None
            columns = [
                torch.autograd.grad(logits[i, k], weight, retain_graph=True)[0].flatten()
                for i in range(count)
                for k in range(classes)
            ]
    finally:
        weight.requires_grad_(False)
    matrix = torch.stack(columns, dim=1)
    solved = torch.linalg.lstsq(matrix.cpu(), gradient.flatten()[:, None].cpu(), driver="gelsd").solution
    off = (matrix.cpu() @ solved - gradient.flatten()[:, None].cpu()).norm() / gradient.norm().cpu()
    return float(off), solved.reshape(count, classes)
