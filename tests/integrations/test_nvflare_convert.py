"""DXO to tensors and back, bit for bit; NVFlare's own filters as functions, whose known weaknesses show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.app_common.filters.dxo_blocker import DXOBlocker
from nvflare.app_common.filters.exclude_vars import ExcludeVars
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy
from nvflare.app_common.filters.svt_privacy import SVTPrivacy

from leakgauge.errors import IntegrationError
from leakgauge.integrations.nvflare import arrays_of, filter_as_function, tensors_of_dxo

GENERATOR = torch.Generator().manual_seed(5)
BEFORE = {
    "weight": torch.randn(50, 40, generator=GENERATOR),
    "bias": torch.randn(40, generator=GENERATOR),
    "mean": torch.zeros(40),
    "count": torch.tensor(3),
}
CHANGE = {"weight": 0.02, "bias": 0.02, "mean": 0.1}
AFTER = {
    name: tensor + (CHANGE[name] * torch.randn(tensor.shape, generator=GENERATOR) if name in CHANGE else 1)
    for name, tensor in BEFORE.items()
}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (4, 3)])
def test_conversion_there_and_back_keeps_every_bit(dtype, shape):
    tensor = (torch.randn(shape, generator=GENERATOR) * 3).to(dtype)
    found = tensors_of_dxo(DXO(DataKind.WEIGHTS, data=arrays_of({"a": tensor})))["a"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found, tensor)


def test_special_values_strides_and_scalars_survive_and_nothing_is_shared():
    special = np.array([[np.nan, -np.inf], [-0.0, 1e-45]], dtype=np.float32).T
    data = {"special": special, "scalar": np.float64(5 / 3), "tensor": torch.ones(2)}
    found = tensors_of_dxo(DXO(DataKind.WEIGHTS, data=data))
    assert found["special"].numpy().tobytes() == special.tobytes()
    assert (found["scalar"].dtype, found["scalar"].item()) == (torch.float64, 5 / 3)
    special[...], data["tensor"][...] = 7, 7
    assert not bool((found["special"] == 7).any())
    assert found["tensor"].tolist() == [1, 1]


def test_an_entry_that_is_no_array_is_named():
    with pytest.raises(IntegrationError, match="'layer' of NVFlare's message is a list"):
        tensors_of_dxo(DXO(DataKind.WEIGHTS, data={"layer": [1.0]}))


def test_exclude_vars_removes_what_it_is_told_to_and_nothing_else():
    for kind in ("delta", "weights"):
        sent = filter_as_function(ExcludeVars(["bias"]), kind=kind)(BEFORE, AFTER)
        assert set(sent) == {"weight", "mean", "count"}
        assert torch.equal(sent["count"], AFTER["count"])
        torch.testing.assert_close(sent["weight"], AFTER["weight"], rtol=0, atol=1e-6)


def test_percentile_privacy_cuts_the_change_but_lets_scalars_pass():
    sent = filter_as_function(PercentilePrivacy(percentile=50, gamma=0.01))(BEFORE, AFTER)
    change = sent["weight"] - BEFORE["weight"]
    assert float(change.abs().max()) < 0.0101
    assert 0.3 < float((change.abs() < 1e-7).float().mean()) < 0.7
    assert int(sent["count"]) == 4


def test_percentile_privacy_on_full_weights_cuts_the_model_itself():
    """FedAvgRecipe sends full weights unless it is told DIFF; the same filter then clamps the weights, not their change."""
    sent = filter_as_function(PercentilePrivacy(percentile=10, gamma=0.01), kind="weights")(BEFORE, AFTER)
    assert float(sent["weight"].abs().max()) <= 0.0101
    assert float(AFTER["weight"].abs().max()) > 3


def test_svt_privacy_shares_a_fraction():
    sent = filter_as_function(SVTPrivacy(fraction=0.1, epsilon=10.0, gamma=0.01, tau=1e-6, replace=False))(BEFORE, AFTER)
    change = torch.cat([(sent[name] - BEFORE[name]).flatten() for name in ("weight", "bias", "mean")])
    assert 0 < float((change.abs() > 1e-7).float().mean()) < 0.2
    assert int(sent["count"]) == 4


def test_arguments_are_left_alone_and_each_call_starts_afresh():
    kept = {name: tensor.clone() for name, tensor in AFTER.items()}
    apply = filter_as_function(ExcludeVars(["bias"]))
    assert set(apply(BEFORE, AFTER)) == set(apply(BEFORE, AFTER)) == {"weight", "mean", "count"}
    assert all(torch.equal(AFTER[name], kept[name]) for name in kept)


def test_what_a_filter_raises_reaches_the_caller_and_a_wrong_kind_is_refused():
    with pytest.raises(Exception, match="is blocked"):
        filter_as_function(DXOBlocker(["WEIGHT_DIFF"]))(BEFORE, AFTER)
    with pytest.raises(IntegrationError, match="'delta' or 'weights'"):
        filter_as_function(ExcludeVars(["bias"]), kind="gradient")
