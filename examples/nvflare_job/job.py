"""An NVFlare job with leakgauge's filters: FedAvgRecipe, two simulated clients, two rounds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe  # noqa: E402
from nvflare.recipe import SimEnv  # noqa: E402
from task import CLASSES, MODEL, SHAPE, Net  # noqa: E402

from leakgauge.integrations.nvflare import record  # noqa: E402
from leakgauge.integrations.recording.log import read_log  # noqa: E402

CLIENTS, ROUNDS = 2, 2


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=Path, help="folder for the recordings and NVFlare's workspace")
    arguments.add_argument("--block", default="", help="rules of a guard, such as 'ssim > 0.6'")
    arguments.add_argument("--blocked", default="nothing", help="what leaves instead of a blocked update: nothing, unchanged")
    chosen = arguments.parse_args()
    out = chosen.out.resolve()
    if any(out.rglob("*.safetensors")):
        return fail(f"{out} already holds recordings; name a new folder.")

    recipe = FedAvgRecipe(
        name="leakgauge_example", model=Net(), min_clients=CLIENTS, num_rounds=ROUNDS, train_script=str(HERE / "client.py")
    )
    record(
        recipe,
        str(out / "{site}"),
        MODEL,
        input_shape=list(SHAPE),
        num_classes=CLASSES,
        training={"optimiser": "sgd", "mode": "train", "shuffle": False},
        private="task:private",
        keep_truth=True,
        probe="" if chosen.block else "bn-matching",
        probe_seconds=6.0,
        block=chosen.block,
        guard_attack="bn-matching",
        blocked=chosen.blocked,
    )
    trouble = ""
    try:
        recipe.execute(SimEnv(num_clients=CLIENTS, workspace_root=str(out / "workspace")))
    except RuntimeError:
        trouble = "The job failed: "

    found = sorted(path for path in out.rglob("*.safetensors") if "truth" not in path.name)
    for line in (line for number in range(CLIENTS) for line in read_log(out / f"site-{number + 1}")):
        if line["event"] in ("probe", "decision", "error"):
            print(line["words"])
    if trouble or len(found) != CLIENTS * ROUNDS:
        return fail(f"{trouble}{len(found)} recording(s) of {CLIENTS} clients and {ROUNDS} rounds; see {out / 'workspace'}.")
    print(f"{len(found)} recordings in {out}, each beside a file MODEL; the private batches are in the folders 'truth'.")
    return 0


def fail(words: str) -> int:
    print(words, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
