"""Runs the app with `flwr run` on a server of its own, or in this process, and counts the recordings.

`flwr run` by itself would start a server that stays, keep its state in the home folder, and ask a package index for the app's
dependencies. Here a server on a free port serves this one run, from a folder that is removed afterwards; nothing is installed and
nothing outside this machine is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
CLIENTS = 2
PATIENCE = 60.0  # seconds for the server to start
LONGEST = 40  # letters of a folder in which ray can still name its sockets


def main() -> int:
    """Runs it; 0 if every client and the server recorded every round."""
    parser = argparse.ArgumentParser(description="Run this Flower app and record what leaks.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the recordings")
    parser.add_argument("--in-process", action="store_true", help="without Flower's engine, in a few seconds")
    parser.add_argument("--run-config", default="", metavar="'KEY=VALUE ...'", help="as for `flwr run`, such as 'lr=0.1'")
    options = parser.parse_args()
    out = options.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f"{out} is not empty; name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread for so small a network
    settings = f"{options.run_config} out='{out}'"
    config = {**tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"], **_read(settings)}
    if options.in_process:
        in_process(config)
    else:
        with_engine(out, settings)
    return report(out, CLIENTS * int(config["num-server-rounds"]))


def in_process(config: dict[str, object]) -> None:
    """Messages go straight to the ClientApp."""
    sys.path.insert(0, str(HERE))
    from client_app import app as client_app
    from server_app import app as server_app

    from leakgauge.integrations.flower import run_in_process

    run_in_process(server_app, client_app, CLIENTS, config)


def with_engine(out: Path, settings: str) -> None:
    """`flwr run` against a server that lives as long as the run."""
    home = Path(tempfile.mkdtemp(prefix="flwr-"))
    port = _free_port()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **({"RAY_TMPDIR": str(home)} if len(str(home)) <= LONGEST else {}),
    }
    superlink = [
        str(BIN / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1",
        "--port", str(port), "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    run = [
        str(BIN / "flwr"), "run", str(HERE), "here", "--stream", "--run-config", settings,
        "--federation-config", f"num-supernodes={CLIENTS} client-resources-num-cpus=1 init-args-num-cpus=1",
    ]  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (out / "superlink.log").open("w") as log:
        server = subprocess.Popen(superlink, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(server, port, out / "superlink.log")
            subprocess.run(run, env=environment, check=True)
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
            _end_rest(home)
            shutil.rmtree(home, ignore_errors=True)


def report(out: Path, expected: int) -> int:
    """Prints what was recorded, and what to do with it."""
    complete = True
    for side in ("clients", "server"):
        files = sorted((out / side).glob("*.safetensors"))
        print(f"{side}: {len(files)} of {expected} updates recorded in {out / side}")
        complete &= len(files) == expected
    first = next(iter(sorted((out / "clients").glob("*.safetensors"))), None)
    if first is not None:
        truth = first.parent / "truth" / f"{first.stem}.truth.safetensors"
        print(f"\nleakgauge validate {first} --model {_model(first)} --truth {truth}")
        print(f"leakgauge attack {first} --model {_model(first)} --with bn-matching --truth {truth} --out {out}-attack")
    if not complete:
        print(f"Not everything was recorded; see {out / 'clients' / 'log.jsonl'}.", file=sys.stderr)
    return 0 if complete else 1


def _model(file: Path) -> str:
    return (file.parent / "MODEL").read_text().strip()


def _read(settings: str) -> dict[str, object]:
    from flwr.common.config import parse_config_args

    return dict(parse_config_args([settings]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_rest(home: Path) -> None:
    """Ends what an interrupted run leaves: the processes whose environment names this run's own folder."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        left = []
        for process in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"FLWR_HOME={home}".encode() in process.read_bytes().split(b"\0"):
                    left.append(int(process.parent.name))
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, sign)
        if not left:
            return
        time.sleep(2)


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    sys.exit(f"Flower's server did not start within {PATIENCE:g} s; see {log}.")


if __name__ == "__main__":
    sys.exit(main())
