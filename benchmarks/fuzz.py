"""`python -m benchmarks.fuzz [--plans 400] [--observations 600] [--seed 0]`: mutated input at the command line.

Each plan goes to `leakgauge audit`, each observation to `leakgauge attack`, as whole commands. Every one must end with exit code
2 and one sentence, or as a valid run (0, or 1 where an expectation is not held); never in a traceback, and within the time limit.
After each, a store that was filled before must still hold its results. Exits with 1 where anything else happens.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table
from leakgauge.audit.store.store import Store
from leakgauge.cli import main as leakgauge

LIMIT = 300  # seconds
PLAN = """
name = "fuzz"
seeds = [0]
data = ["demo:digits?indices=0&size=8"]
models = ["mlp:hidden=16"]
attacks = ["linear-layer", "idlg:restarts=1"]
defences = ["none", "clip:norm=1 + gaussian-noise:std=1e-3"]
protocols = [{}, { lr = 0.1, steps = 2 }]
num_classes = 10
budget = 5
time_limit = 5.0

[verdict]
false_alarm = 0.05

[[expect]]
what = "It leaks"
measure = "psnr"
relation = "at least"
value = 1.0
"""
SIGNS = "[]{}\"'=,.:#-+*?&\\\n\t \x00é€019abcxyz"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**30, 0.5, 1e308, "", "x", "nan", "../..", "none", [], [0], [[]], {}, {"a": 1}, "float16", "sgd",
    "mse", "train",
)  # fmt: skip


class Hang(BaseException):
    """Raised by the clock; no `except Exception` catches it."""


def changed_plan(draw: random.Random) -> str:
    text = PLAN
    for _ in range(draw.randint(1, 3)):
        at, kind = draw.randrange(len(text)), draw.randrange(4)
        lines = text.split("\n")
        where = draw.randrange(len(lines))
        if kind == 0:
            text = text[:at] + draw.choice(SIGNS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randint(1, 8) :]
        elif kind == 2:
            lines[where] = draw.choice(lines)
            text = "\n".join(lines)
        else:
            key, sign, _ = lines[where].partition("=")
            value = draw.choice(VALUES)
            lines[where] = f"{key}= {json.dumps(value) if value is not None else ''}" if sign else lines[where]
            text = "\n".join(lines)
    return text


def changed_observation(good: bytes, draw: random.Random) -> bytes:
    """Bytes flipped or cut, or an entry of the header or of its manifest replaced or removed."""
    kind = draw.randrange(4)
    if kind == 0:
        data = bytearray(good)
        for _ in range(draw.randint(1, 20)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data)
    if kind == 1:
        return good[: draw.randrange(len(good))]
    (size,) = struct.unpack("<Q", good[:8])
    header, body = json.loads(good[8 : 8 + size]), bytearray(good[8 + size :])
    if kind == 2:
        return packed(replaced(header, draw), body)
    metadata = header["__metadata__"]
    name = draw.choice([key for key, value in metadata.items() if value[:1] in "{["])
    metadata[name] = json.dumps(replaced(json.loads(metadata[name]), draw))
    if draw.random() < 0.3:  # a number that is none
        at = 4 * draw.randrange(len(body) // 4)
        body[at : at + 4] = struct.pack("<f", draw.choice([float("nan"), float("inf"), 1e38, 0.0]))
    return packed(header, body)


def packed(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def replaced(value: Any, draw: random.Random) -> Any:
    """A nested value with one entry replaced or removed."""
    if isinstance(value, dict) and value:
        key = draw.choice(list(value))
        found = dict(value)
        if draw.random() < 0.2:
            del found[key]
        else:
            found[key] = replaced(value[key], draw)
        return found
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], replaced(value[at], draw), *value[at + 1 :]]
    return draw.choice(VALUES)


@contextlib.contextmanager
def clock() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def played(*words: str) -> tuple[str, str]:
    """How a command ended ('sentence', 'run' or what is wrong), and what it said."""
    said = io.StringIO()
    try:
        with clock(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = leakgauge(list(words))
    except Hang:
        return "hang", ""
    except BaseException as error:  # noqa: BLE001 - the point is that nothing gets here
        return "exception", f"{type(error).__name__}: {error}"
    text = said.getvalue()
    if "Traceback" in text:
        return "traceback", text
    if code in (0, 1):
        return "run", text
    last = text.strip().splitlines()[-1:] or [""]
    return ("sentence" if code == 2 and last[0].rstrip().endswith((".", "?", "help")) else f"exit code {code}"), last[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("plans", 400), ("observations", 600), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    draw, ends, wrong = random.Random(asked.seed), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan, store, file = folder / "plan.toml", folder / "store", folder / "client.safetensors"
        plan.write_text(PLAN, encoding="utf-8")
        assert played("audit", str(plan), "--store", str(store), "--workers", "1")[0] == "run"
        assert played("capture", "mlp:hidden=16", "--data", "demo:digit?size=8", "--out", str(file))[0] == "run"
        good, kept = file.read_bytes(), held(store)
        for kind, count in (("plan", asked.plans), ("observation", asked.observations)):
            for number in range(count):
                out = folder / "out"
                shutil.rmtree(out, ignore_errors=True)
                if kind == "plan":
                    plan.write_text(changed_plan(draw), encoding="utf-8")
                    where = store if number % 2 else out
                    end, text = played("audit", str(plan), "--store", str(where), "--workers", "1")
                else:
                    file.write_bytes(changed_observation(good, draw))
                    model = ("--model", "mlp:hidden=16", "--with", "linear-layer", "--budget", "5", "--out", str(out))
                    end, text = played("attack", str(file), *model)
                if not kept <= held(store):
                    end = "lost results"
                ends[kind, end] += 1
                if end not in ("sentence", "run"):
                    wrong += 1
                    print(f"  {kind} {number}: {end}: {text[-400:]}", flush=True)
    print(f"Machine: {machine()}\n")
    print(table(["input", "end", "how many"], [[*key, str(count)] for key, count in sorted(ends.items())]))
    sys.exit(1 if wrong else 0)


def held(store: Path) -> set[str]:
    """Keys of all results in a store, also those of earlier plans."""
    with Store.open(store, write=False) as opened:
        return {str(row[0]) for row in opened.connection.execute("SELECT key FROM results")}


if __name__ == "__main__":
    main()
