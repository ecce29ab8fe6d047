"""The server: an ordinary ServerApp whose grid records what it receives."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from task import NETWORK, PROTOCOL, SPEC, build

import leakgauge as lg
from leakgauge.integrations.flower import RecordingGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federated averaging over all clients."""
    config = context.run_config
    recorder = lg.Recorder(Path(str(config["out"])) / "server", NETWORK, spec=SPEC, training=PROTOCOL)
    FedAvg(fraction_evaluate=0.0).start(
        grid=RecordingGrid(grid, recorder, config),
        initial_arrays=ArrayRecord(build().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
    )
    recorder.close()
