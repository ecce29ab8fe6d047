"""NVFlare's data objects (DXO) to tensors and back, bit for bit, and an NVFlare filter as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLMetaKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from torch import Tensor

from leakgauge.errors import IntegrationError

KINDS: dict[str, str] = {DataKind.WEIGHTS.value: "weights", DataKind.WEIGHT_DIFF.value: "delta"}


def tensors_of_dxo(dxo: DXO) -> dict[str, Tensor]:
    """Copies of a DXO's arrays as tensors on the CPU, bit for bit.

    Args:
        dxo: its data are numpy arrays, numpy scalars (FedAvg turns BatchNorm's counter into one) or tensors, by name.

    Raises:
        IntegrationError: for an entry that is no array.
    """
    found = {}
    for name, value in dxo.data.items():
        if isinstance(value, Tensor):
            found[str(name)] = value.detach().to("cpu", copy=True)
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            found[str(name)] = torch.from_numpy(np.array(value))
        else:
            raise IntegrationError(f"Entry {name!r} of NVFlare's message is a {type(value).__name__}; expected an array.")
    return found


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Copies of tensors as numpy arrays, bit for bit; bfloat16, which numpy lacks, stays a tensor."""
    return {
        name: tensor.detach().to("cpu", copy=True) if tensor.dtype == torch.bfloat16 else tensor.detach().cpu().numpy().copy()
        for name, tensor in tensors.items()
    }


def filter_as_function(
    dxo_filter: Any, *, kind: str = "delta", meta: Mapping[str, object] | None = None, site: str = "site-1", round: int = 0
) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]:
    """A deployed NVFlare filter, stock or your own, as a black box: weights before and after training in, what leaves out.

    The filter is called as a client calls it on the way out: with a shareable that holds copies of the arrays.

    Args:
        dxo_filter: any `nvflare.apis.filter.Filter`.
        kind: what the client sends: 'delta' (transfer type DIFF) or 'weights' (FULL, FedAvgRecipe's default). Filters act on
            the numbers they are given, so the same filter protects differently in the two.
        meta: of the DXO; by default one local step (NUM_STEPS_CURRENT_ROUND).
        site, round: as the filter sees them.

    Returns:
        A function (before, after) -> weights as the server would reconstruct them (for 'delta', before plus what was sent).
        A name that the filter removed is absent; nothing at all is left of a blocked result.

    Raises:
        IntegrationError: if the kind is unknown.
    """
    data_kinds = {name: data_kind for data_kind, name in KINDS.items()}
    if kind not in data_kinds:
        raise IntegrationError(f"filter_as_function got the kind {kind!r}; expected 'delta' or 'weights'.")
    contexts = FLContextManager(engine=None, identity_name=site, job_id="audit")

    def apply(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
        change = {name: tensor - before[name] for name, tensor in after.items()} if kind == "delta" else after
        about = {FLMetaKey.NUM_STEPS_CURRENT_ROUND: 1} if meta is None else dict(meta)
        shareable = DXO(data_kinds[kind], data=arrays_of(change), meta=about).to_shareable()
        shareable.set_header(AppConstants.CURRENT_ROUND, round)
        with contexts.new_context() as context:
            result = _filtered(dxo_filter, shareable, context)
        sent = {} if result is None else tensors_of_dxo(result)
        return {name: before[name] + tensor for name, tensor in sent.items()} if kind == "delta" else sent

    return apply


def _filtered(dxo_filter: Any, shareable: Shareable, context: FLContext) -> DXO | None:
    """What a filter lets pass, or None where it answers with an error code."""
    result = dxo_filter.process(shareable, context)
    return from_shareable(result) if result.get_return_code() == ReturnCode.OK else None
