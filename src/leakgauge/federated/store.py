"""Rounds on disk: a folder from which a run continues where it stopped, bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from leakgauge.errors import DataError, OptionError
from leakgauge.federated.fingerprint import differing
from leakgauge.federated.records import Dropped, Round
from leakgauge.federated.state import State, Tensors, View

FORMAT = 1
PLAN, LINES = "federation.json", "rounds.jsonl"


@dataclass(frozen=True)
class Store:
    """A folder with one state file per round and one line of JSON per round.

    A round counts as finished when its line is written; the state file is in place by then. Every file is written under
    another name and renamed, so an interruption at any point leaves whole files only.

    Args:
        folder: made where it is missing.
        members: names of the members; files name them by number.
    """

    folder: Path
    members: tuple[str, ...]

    def open(self, plan: Mapping[str, str]) -> None:
        """Claims the folder for a plan.

        Raises:
            OptionError: if it holds rounds of another plan.
            DataError: if it cannot be written or its description is damaged.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / PLAN
            if not path.is_file():
                _write(path, json.dumps({"format": FORMAT, "plan": dict(plan)}, indent=1))
                return
            held = json.loads(path.read_text(encoding="utf-8"))
            different = differing(held["plan"], plan) if held["format"] == FORMAT else [f"its format {held['format']!r}"]
        except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"The folder {self.folder} cannot be used for the rounds of a federation ({error}).") from error
        if different:
            raise OptionError(
                f"The folder {self.folder} holds rounds of another plan ({', '.join(different[:3])} differ(s)); "
                "give another folder, or the plan that it was made with."
            )

    def finished(self) -> list[dict[str, Any]]:
        """The lines of the finished rounds, 1 to n without a gap."""
        path = self.folder / LINES
        lines: list[dict[str, Any]] = []
        if not path.is_file():
            return []
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if line.get("round") != len(lines) + 1 or not self._state_path(line["round"]).is_file():
                break
            lines.append(line)
        return lines

    def write(self, finished: Round, state: State) -> None:
        """Adds a round, in place of that round and any later one."""
        tensors = {f"shared/{name}": tensor for name, tensor in state.shared.items()}
        for name, own in state.own.items():
            tensors |= {f"own/{self.members.index(name)}/{key}": tensor for key, tensor in own.items()}
        views = []
        for (sender, receiver), view in state.views.items():
            pair = (self.members.index(sender), self.members.index(receiver))
            whole = view.tensors is state.own[sender]
            views.append([*pair, view.exact, whole])
            if not whole:
                tensors |= {f"view/{pair[0]}/{pair[1]}/{key}": tensor for key, tensor in view.tensors.items()}
        line = {
            "round": finished.index,
            "accuracy": None if math.isnan(finished.accuracy) else finished.accuracy,
            "loss": None if math.isnan(finished.loss) else finished.loss,
            "dropped": [{"name": entry.name, "reason": entry.reason} for entry in finished.dropped],
            "note": finished.note,
            "messages": len(finished.messages),
            "views": views,
            "seconds": finished.seconds,
        }
        earlier = self.finished()[: finished.index - 1]
        path = self._state_path(finished.index)
        part = path.with_suffix(".part")
        try:
            save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, str(part))
            part.replace(path)
            _write(self.folder / LINES, "".join(json.dumps(entry) + "\n" for entry in [*earlier, line]))
        except (OSError, SafetensorError) as error:
            raise DataError(f"Round {finished.index} cannot be written to {self.folder} ({error}).") from error

    def state(self, line: Mapping[str, Any], like: Mapping[str, Tensor]) -> State:
        """The state after a finished round; tensors on the devices of `like`."""
        path = self._state_path(int(line["round"]))
        try:
            tensors = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read as safetensors ({error}).") from error

        def part(prefix: str) -> Tensors:
            """Tensors below a prefix, in the order of the model."""
            return {name: tensors[prefix + name].to(like[name].device) for name in like if prefix + name in tensors}

        own = {name: found for place, name in enumerate(self.members) if (found := part(f"own/{place}/"))}
        views = {}
        for sender, receiver, exact, whole in line["views"]:
            names = self.members[sender], self.members[receiver]
            views[names] = View(own[names[0]] if whole else part(f"view/{sender}/{receiver}/"), bool(exact))
        return State(part("shared/"), own, views)

    def round(self, line: Mapping[str, Any], like: Mapping[str, Tensor]) -> Round:
        """A finished round, without its messages."""
        return Round(
            index=int(line["round"]),
            messages=(),
            dropped=tuple(Dropped(entry["name"], entry["reason"]) for entry in line["dropped"]),
            accuracy=float("nan") if line["accuracy"] is None else float(line["accuracy"]),
            loss=float("nan") if line["loss"] is None else float(line["loss"]),
            state=self.state(line, like).shared,
            seconds=float(line["seconds"]),
            note=line["note"],
        )

    def _state_path(self, index: int) -> Path:
        return self.folder / f"round-{index:05d}.safetensors"


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
