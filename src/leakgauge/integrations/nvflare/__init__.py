"""NVIDIA FLARE: a pair of DXO filters that record what a client shares, and NVFlare's own filters as functions."""

from leakgauge.models.optional import import_optional

import_optional("nvflare", "nvflare", "leakgauge.integrations.nvflare")

from leakgauge.integrations.nvflare.convert import arrays_of, filter_as_function, tensors_of_dxo  # noqa: E402
from leakgauge.integrations.nvflare.filters import ReceivedModel, RecordUpdate  # noqa: E402
from leakgauge.integrations.nvflare.recipe import record  # noqa: E402

__all__ = ["ReceivedModel", "RecordUpdate", "arrays_of", "filter_as_function", "record", "tensors_of_dxo"]
