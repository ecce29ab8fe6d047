"""`list`, `doctor`, `--help` and `--version`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_run import Leakgauge

import leakgauge as package
from leakgauge.cli.app import COMMANDS


@pytest.mark.parametrize(
    ("kind", "name"),
    [("attacks", "idlg"), ("defences", "gaussian-noise"), ("measures", "psnr"), ("models", "lenet-dlg"), ("data", "demo:cat")],
)
def test_everything_can_be_listed(kind: str, name: str, leakgauge: Leakgauge) -> None:
    shown = leakgauge("list", kind)
    assert shown.code == 0, shown.err
    assert name in shown.out
    entries = {entry["name"]: entry for entry in leakgauge("list", kind, "--json").json[kind]}
    assert entries[name]["summary"]
    assert set(entries[name]) == {"name", "summary", "needs", "source", "options"}


def test_the_doctor_sees_a_healthy_installation(leakgauge: Leakgauge) -> None:
    found = leakgauge("doctor", "--json").json
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"]
    assert {"threads", "device", "torchvision", "extras", "data_folder", "temporary_folder", "browser", "problems"} <= set(found)
    assert leakgauge("doctor").code == 0


def test_the_doctor_names_a_broken_torchvision(leakgauge: Leakgauge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    found = leakgauge("doctor", "--json").json
    assert found["torchvision"].startswith("broken: RuntimeError")
    assert found["extras"]["vision"] == "broken"
    assert any("torchvision is installed but cannot be imported" in problem for problem in found["problems"])
    assert "Problem: torchvision" in leakgauge("doctor").out


def test_the_version_and_the_help(leakgauge: Leakgauge) -> None:
    assert leakgauge("--version").out == f"leakgauge {package.__version__}\n"
    shown = leakgauge("--help").out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, leakgauge: Leakgauge) -> None:
    done = leakgauge(command, "--help")
    assert done.code == 0, done.err
    assert len(done.out) > 100


def test_an_unexpected_error_is_a_bug_with_its_traceback(leakgauge: Leakgauge, monkeypatch: pytest.MonkeyPatch) -> None:
    from leakgauge.cli import doctor

    def fail() -> None:
        raise ZeroDivisionError("never expected")

    monkeypatch.setattr(doctor, "findings", fail)
    done = leakgauge("doctor")
    assert done.code == 70
    assert "ZeroDivisionError: never expected" in done.err
    assert "bug in leakgauge" in done.err
