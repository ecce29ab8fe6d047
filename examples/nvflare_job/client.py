"""The clients' training script: NVFlare's Client API, plain SGD, no leakgauge call in sight."""

from __future__ import annotations

import nvflare.client as flare
import torch
from task import BATCH_SIZE, LR, Net, examples
from torch.nn.functional import cross_entropy


def main() -> None:
    torch.set_num_threads(1)
    flare.init()
    batch = examples(flare.get_site_name())
    model = Net()
    while flare.is_running():
        received = flare.receive()
        model.load_state_dict(received.params)
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=LR)
        steps = 0
        for inputs, labels in zip(batch.inputs.split(BATCH_SIZE), batch.labels.split(BATCH_SIZE), strict=True):
            optimiser.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimiser.step()
            steps += 1
        about = {"NUM_STEPS_CURRENT_ROUND": steps, "num_examples": len(batch), "batch_size": BATCH_SIZE, "lr": LR}
        flare.send(flare.FLModel(params=model.state_dict(), meta=about))


main()
