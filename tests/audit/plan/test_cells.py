"""Cells: which, in which order, with which keys."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from audit_plans import plain, table
from PIL import Image
from safetensors.torch import save_file

from leakgauge.audit.plan import fingerprint
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.expand import cells_of, grid_of, plan_hash
from leakgauge.audit.plan.reading import parse_audit_plan
from leakgauge.audit.plan.selector import matches
from leakgauge.audit.plan.states import trained_of
from leakgauge.audit.plan.tables import TrainedTable, defence_calls
from leakgauge.errors import DataError, OptionError


def test_the_grid_is_every_combination_in_order_but_for_those_excluded() -> None:
    cells = cells_of(parse_audit_plan(table()))
    assert len(cells) == 2 * 2 * 2 * 2 * (2 * 2 - 1) * 2  # data, states, protocols, threats, defences x attacks less one, seeds
    assert [cell.seed for cell in cells[:4]] == [0, 1, 0, 1]
    assert [cell.attack for cell in cells[:6]] == ["idlg", "idlg", "control", "control", "idlg", "idlg"]
    assert [cell.data for cell in cells] == sorted((cell.data for cell in cells), key=["demo:face?size=16"].count, reverse=True)
    assert cells[0].protocol == () and ("lr", 0.1) in cells[-1].protocol
    assert cells[-1].threat == (("labels", True),)
    assert not any(cell.attack == "control" and cell.defence != "none" for cell in cells)
    assert len({cell.key for cell in cells}) == len(cells)


def test_equal_cells_are_played_once_however_they_are_written() -> None:
    plan = parse_audit_plan(
        plain(
            seeds=[0, 0],
            attacks=["idlg", " idlg "],
            protocols=[{}, {"steps": 1, "mode": "eval"}, {"lr": 1}, {"lr": 1.0, "momentum": 0}],
            threats=[{}, {"labels": False, "batch_norm": True}],
            defences=["none", " none "],
        )
    )
    cells = cells_of(plan)
    assert len(cells) == 2 * 2  # data, and a gradient or one step
    assert [cell.protocol for cell in cells[:2]] == [(), (("lr", 1.0),)]


def test_a_cell_survives_json() -> None:
    for cell in cells_of(parse_audit_plan(table())):
        assert Cell.from_json(cell.to_json()) == cell
        assert Cell.from_json(cell.to_json()).key == cell.key


def test_keys_follow_what_determines_a_result() -> None:
    plans = [plain(), plain(budget=21), plain(loss="mse"), plain(decoys="none"), plain(num_classes=7)]
    keys = [cells_of(parse_audit_plan(each))[0].key for each in plans]
    assert len(set(keys)) == len(keys)
    same = [cells_of(parse_audit_plan(each))[0].key for each in (plain(), plain(name="other", verdict={"seed": 3}))]
    assert same[0] == same[1] == keys[0]


def test_the_plan_hash_follows_plan_and_cells() -> None:
    plans = [parse_audit_plan(each) for each in (plain(), plain(), plain(verdict={"seed": 3}), plain(seeds=[1]))]
    hashes = [plan_hash(plan, cells_of(plan)) for plan in plans]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert all(len(text) == 16 for text in hashes)


def test_changed_files_make_other_cells(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(2):
        Image.effect_noise((16, 16), 60 + number).save(folder / f"{number}.png")
    plan = parse_audit_plan(plain(data=[f"folder:{folder}?indices=0", "demo:face?size=16"]))
    before = cells_of(plan)
    assert before[0].fingerprint != "" and before[-1].fingerprint == ""
    assert cells_of(plan) == before
    Image.effect_noise((16, 16), 90).save(folder / "1.png")  # a decoy
    after = cells_of(plan)
    assert after[0].key != before[0].key and after[-1].key == before[-1].key


def test_networks_and_checkpoints_count_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\n\ndef own_net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))\n"
    (tmp_path / "own_networks_of_a_test.py").write_text(code, encoding="utf-8")
    save_file({"1.weight": torch.zeros(10, 256), "1.bias": torch.zeros(10)}, tmp_path / "weights.safetensors")
    changes = {"models": ["own_networks_of_a_test:own_net"], "states": ["untrained", "weights.safetensors"]}
    plan = parse_audit_plan(plain(data=["demo:face?size=16"], attacks=["linear-layer"], **changes))
    first, second = cells_of(plan)
    assert first.fingerprint != "" and second.fingerprint not in ("", first.fingerprint)
    save_file({"1.weight": torch.ones(10, 256), "1.bias": torch.zeros(10)}, tmp_path / "weights.safetensors")
    assert [cell.key == old.key for cell, old in zip(cells_of(plan), (first, second), strict=True)] == [True, False]
    (tmp_path / "own_networks_of_a_test.py").write_text(f"{code}# changed\n", encoding="utf-8")
    assert cells_of(plan)[0].key != first.key


def test_beyond_a_gigabyte_names_sizes_and_beginnings_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE", 10)
    monkeypatch.setattr(fingerprint, "CHUNK", 4)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"0123456789")
    seen = [fingerprint.of_path(str(tmp_path))]
    (tmp_path / "a").write_bytes(b"01X3456789")
    seen.append(fingerprint.of_path(str(tmp_path)))
    (tmp_path / "b").rename(tmp_path / "c")
    seen.append(fingerprint.of_path(str(tmp_path)))
    (tmp_path / "c").write_bytes(b"0123")
    seen.append(fingerprint.of_path(str(tmp_path)))
    assert len(set(seen)) == 4
    with pytest.raises(DataError, match="There is no file or folder"):
        fingerprint.of_path(str(tmp_path / "none"))


def test_trained_states_are_told_apart_by_their_training() -> None:
    first, second = (
        cells_of(parse_audit_plan(plain(states=["trained:rounds=1"], training={"data": "demo:digits?size=16", "lr": lr})))[0]
        for lr in (0.1, 0.2)
    )
    assert first.state == second.state and first.fingerprint != second.fingerprint


def test_options_of_a_state_come_before_those_of_the_table() -> None:
    held = TrainedTable(data="demo:faces", lr=0.1, clients=4)
    found = trained_of("trained:rounds=3,clients=2,data=demo:faces?indices=0,2-5&size=16,steps=2", held)
    assert (found.rounds, found.clients, found.data) == (3, 2, "demo:faces?indices=0,2-5&size=16")
    assert (found.training.lr, found.training.steps) == (0.1, 2)
    for text, words in (("trained:rounds=3,client=2", "unknown key 'client'"), ("trained:", "number of rounds")):
        with pytest.raises(OptionError, match=words):
            trained_of(text, held)


def test_selectors() -> None:
    cell = Cell("demo:faces?indices=0-1&size=16", "mlp", "bn-matching", 0, protocol=(("lr", 0.1),), threat=(("labels", True),))
    held = [
        {"attacks": "bn-matching"}, {"attacks": ["idlg", "bn-*"]}, {"data": "demo:*&size=16"}, {"data": "*faces*0-1*"}, {},
        {"seeds": [0, 1], "states": "untrained"}, {"protocols": {"lr": 0.1, "steps": 1}}, {"threats": [{"labels": True}]},
        {"threats": {"batch_norm": True}}, {"models": "*m*l*p*"},
    ]  # fmt: skip
    missed = [
        {"attacks": "bn"}, {"data": "demo:faces"}, {"data": "demo:faces?ndices*"}, {"protocols": {"lr": 0.2}}, {"seeds": 1},
        {"threats": {"labels": False}}, {"attacks": "bn-matching", "seeds": [1]}, {"data": "*16*16"}, {"data": "*6&size=16"},
    ]  # fmt: skip
    assert all(matches(selector, cell) for selector in held)
    assert not any(matches(selector, cell) for selector in missed)


def test_defences_are_taken_apart() -> None:
    assert defence_calls(" none ") == ()
    assert defence_calls("clip:norm=1 + gaussian-noise:std=1e-3") == ("clip:norm=1", "gaussian-noise:std=1e-3")


def test_grids_of_random_sizes_have_the_cells_that_counting_says() -> None:
    draw = random.Random(0)
    for _ in range(20):
        seeds = draw.sample(range(100), draw.randint(1, 4))
        attacks = draw.sample(["idlg", "dlg", "control", "recursive"], draw.randint(1, 4))
        left_out = [{"attacks": attacks[0], "seeds": seeds[0]}] if len(seeds) * len(attacks) > 1 else []
        plan = parse_audit_plan(plain(seeds=seeds, attacks=attacks, exclude=left_out))
        assert len(grid_of(plan)) == 2 * (len(seeds) * len(attacks) - len(left_out))
