"""Flower: a client mod and a server's grid that record what leaves a client, a mod as a filter, a run without a server.

    from leakgauge.integrations.flower import RecordingMod

    app = ClientApp(mods=[RecordingMod(Recorder("recordings", "resnet18-cifar"))])

Written for the message API (`@app.train`, `Message`, `RecordDict`); the older `client_fn` works too.
"""

from leakgauge.models.optional import import_optional

import_optional("flwr", "flower", "Recording a Flower job")

from leakgauge.integrations.flower.arrays import to_record, to_tensors  # noqa: E402
from leakgauge.integrations.flower.filter import mod_as_filter  # noqa: E402
from leakgauge.integrations.flower.grid import RecordingGrid  # noqa: E402
from leakgauge.integrations.flower.in_process import InProcessGrid, run_in_process  # noqa: E402
from leakgauge.integrations.flower.mod import RecordingMod  # noqa: E402
from leakgauge.integrations.flower.reply import Payload  # noqa: E402

__all__ = [
    "InProcessGrid",
    "Payload",
    "RecordingGrid",
    "RecordingMod",
    "mod_as_filter",
    "run_in_process",
    "to_record",
    "to_tensors",
]
