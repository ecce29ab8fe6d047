"""The plans that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leakgauge.audit.plan.expand import grid_of
from leakgauge.audit.plan.reading import read_audit_plan
from leakgauge.audit.plan.selector import matches
from leakgauge.audit.plan.shipped import plan_path, plans_folder, shipped_names
from leakgauge.core.observation import Knowledge
from leakgauge.core.threat import ThreatModel
from leakgauge.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
PAPERS = ("paper/chen-campbell", "paper/dlg", "paper/hatamizadeh", "paper/mu", "paper/r-gap")


def test_plans_are_found_by_name() -> None:
    assert plans_folder() == ROOT / "plans"
    assert set(PAPERS) <= set(shipped_names())
    assert plan_path("plan:paper/dlg") == ROOT / "plans" / "paper" / "dlg.toml" == plan_path("plan:paper/dlg.toml")
    assert plan_path("mine/plan.toml") == Path("mine/plan.toml")
    for name in ("paper/dgl", "../pyproject", "/etc/passwd", ""):
        with pytest.raises(DataError, match="comes with leakgauge"):
            plan_path(f"plan:{name}")


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_plan_is_valid_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = read_audit_plan(f"plan:{name}")
    text = plan_path(f"plan:{name}").read_text(encoding="utf-8")
    depth = "../" * name.count("/") or "./"
    assert text.startswith(f"#:schema {depth}plan.schema.json\n")
    assert re.search(rf"^#     leakgauge audit plan:{name} --store runs/\S+$", text, re.MULTILINE)
    assert plan.name == name.rpartition("/")[2]
    assert plan.about
    assert all(data.startswith("demo:") for data in plan.data)
    assert f"`plan:{name}`" in (ROOT / "docs" / "audit-plan.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_quoted_with_its_source(name: str) -> None:
    plan = read_audit_plan(f"plan:{name}")
    cells = grid_of(plan)
    assert len(plan.expect) >= 4
    for entry in plan.expect:
        assert entry.source and "memory" not in entry.source.lower()
        assert entry.relation != "about" or "read" in entry.source or "reported" in entry.source
        assert any(matches(entry.where, cell) for cell in cells), entry.what
        assert entry.versus is None or any(matches(entry.versus, cell) for cell in cells), entry.what


@pytest.mark.parametrize(("name", "sizes", "defences"), [("assumptions", {1, 16, 32}, 3), ("assumptions-small", {1, 4}, 2)])
def test_the_grid_of_assumptions_is_whole(name: str, sizes: set[int], defences: int) -> None:
    cells = grid_of(read_audit_plan(f"plan:{name}"))
    seen = set()
    for cell in cells:
        granted = ThreatModel.honest_but_curious(**dict(cell.threat)).knowledge
        statistics = {"bn-matching": "known", "bn-matching-no-statistics": "inferred", "bn-matching-eval-mode": "unknown"}
        knows = Knowledge.BATCH_NORM in granted
        assert knows == (statistics[cell.attack] == "known")
        first, _, last = cell.data.partition("indices=")[2].partition("&")[0].partition("-")
        count = int(last or first) - int(first) + 1
        seen.add((statistics[cell.attack], Knowledge.LABELS in granted, count, cell.defence))
        assert dict(cell.protocol) == {"mode": "train"}
    assert len(seen) == len(cells) == 3 * 2 * len(sizes) * defences
    assert {entry[2] for entry in seen} == sizes
