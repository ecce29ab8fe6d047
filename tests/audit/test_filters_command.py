"""`leakgauge filter` on plain functions, Flower mods and NVFlare filters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leakgauge.cli import main

MODEL = "mlp:hidden=16,activation=sigmoid"
MODULE = """
import torch


def leaky(before, after):
    keep = {name: torch.rand(tensor.shape) < 0.05 for name, tensor in after.items()}
    return {name: torch.where(keep[name], tensor, tensor + 0.01 * torch.randn(tensor.shape)) for name, tensor in after.items()}


def sound(before, after):
    return {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in after.items()}


NUMBER = 3
"""
FLOWER = """
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod

local_dp = LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=100.0, delta=1e-5)
"""
NVFLARE = """
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy
from nvflare.app_common.filters.svt_privacy import SVTPrivacy

percentile = PercentilePrivacy(percentile=30, gamma=0.005)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with modules of filters, under names of this test alone."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("own_filters", MODULE), ("own_mods", FLOWER), ("own_dxo_filters", NVFLARE)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["filter", *words, "--model", MODEL, "--input", "1x4x4"])
    return code, *capsys.readouterr()


def test_a_faulty_filter_gives_exit_code_1_and_sentences(capsys: pytest.CaptureFixture[str], own_folder: Path) -> None:
    code, out, _ = ask(capsys, "own_filters:leaky", "--claim", "gaussian-noise:std=0.01", "--out", "found")
    assert code == 1
    assert "fault: " in out
    assert "leave bit for bit as they were planted" in out
    assert "Faulty" in out.splitlines()[-1]
    written = json.loads((own_folder / "found" / "filter.json").read_text(encoding="utf-8"))
    assert written["filter"] == "own_filters:leaky"
    assert "un-noised" in [finding["kind"] for finding in written["findings"]]


def test_a_sound_filter_gives_exit_code_0_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "own_filters:sound", "--claim", "gaussian-noise:std=0.01", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["noise"]["std"] == pytest.approx(0.01, rel=0.03)
    assert facts["claim"] == "gaussian-noise:std=0.01"


def test_flowers_own_mods_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    """LocalDpMod adds Gaussian noise of sensitivity sqrt(2 ln(1.25 / delta)) / epsilon; both fail on an update of zeros."""
    pytest.importorskip("flwr")
    code, out, error = ask(
        capsys,
        "own_mods:local_dp",
        "--engine",
        "flower",
        "--claim",
        "clip:norm=1",
        "--claim",
        "gaussian-noise:std=0.04845",
        "--json",
    )
    facts = json.loads(out)
    assert code == 0, facts["findings"]
    assert facts["noise"]["family"] == "gaussian"
    assert facts["noise"]["std"] == pytest.approx(0.04845, rel=0.03)
    assert "ZeroDivisionError" in facts["failures"]["zero"]
    assert "INFO" not in error, "the engine's own lines, one for each call, are kept back"
    code, out, _ = ask(capsys, "own_mods:fixedclipping_mod", "--engine", "flower", "--set", "clipping_norm=0.5", "--json")
    assert json.loads(out)["clipping"]["scope"] == "whole update"
    assert json.loads(out)["clipping"]["bound"] == pytest.approx(0.5, rel=1e-3)
    code, out, _ = ask(
        capsys,
        "own_mods:fixedclipping_mod",
        "--engine",
        "flower",
        "--set",
        "clipping_norm=5.0",
        "--claim",
        "clip:norm=0.5",
        "--json",
    )
    assert code == 1
    assert [finding["kind"] for finding in json.loads(out)["findings"] if finding["severity"] == "fault"] == ["clip-too-wide"]


def test_nvflares_own_filters_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    """PercentilePrivacy zeroes and bounds without noise; SVTPrivacy sends a tenth under Laplace noise of scale 2 gamma / 0.1."""
    pytest.importorskip("nvflare")
    code, out, _ = ask(capsys, "own_dxo_filters:percentile", "--engine", "nvflare", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["noise"]["std"] == 0
    assert facts["sparsity"] == pytest.approx(0.3, abs=0.03)
    assert (facts["clipping"]["scope"], facts["clipping"]["bound"]) == ("each entry", pytest.approx(0.005, rel=1e-3))
    assert not facts["uses_weights"]
    code, out, _ = ask(capsys, "own_dxo_filters:SVTPrivacy", "--engine", "nvflare", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["sparsity"] == pytest.approx(0.9, abs=0.03)
    assert facts["noise"]["family"] == "laplacian"
    assert facts["noise"]["std"] == pytest.approx(2**0.5 * 2e-4, rel=0.1)
    assert facts["cosine"] < 0.2
    code, out, _ = ask(capsys, "own_dxo_filters:percentile", "--engine", "nvflare", "--set", "kind=weights", "--json")
    assert json.loads(out)["uses_weights"]
    assert "clips-weights" in [finding["kind"] for finding in json.loads(out)["findings"]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("own_filters",), "expected pkg.mod:name"),
        (("own_filters:leakey",), "Did you mean 'leaky'"),
        (("no_such_module:f",), "neither installed nor in the current folder"),
        (("own_filters:NUMBER",), "The filter 'own_filters:NUMBER' is a int, which cannot be called"),
        (("own_filters:sound", "--engine", "flowers"), "Did you mean 'flower'"),
        (("own_filters:sound", "--set", "a=1"), "a plain filter takes before and after alone"),
        (("own_filters:sound", "--claim", "prune:fraction=0.5"), "cannot be checked"),
        (("own_dxo_filters:percentile", "--engine", "nvflare", "--set", "kinds=weights"), "Did you mean 'kind'"),
        (("own_mods:LocalDpMod", "--engine", "flower"), "cannot be made without arguments"),
    ],
)
def test_wrong_use_is_one_sentence(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str) -> None:
    code, out, error = ask(capsys, *words)
    assert (code, out) == (2, "")
    assert len(error.strip().splitlines()) == 1, error
    assert sentence in error
