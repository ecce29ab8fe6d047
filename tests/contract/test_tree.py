"""What every file keeps to: short, no unpickling, no paths of one machine; and what the package ships."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST = 400
TEXTS = {".py", ".md", ".toml", ".yml", ".txt", ".j2", ".js", ".css", ".json", ".cfg", ""}
PLACES = ("src", "docs", "examples", "benchmarks", ".ci")
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|Users|mnt)/\w")


def name_of(call: ast.Call) -> str:
    """'pickle.load' for the call `pickle.load(...)`; '' where the function has no plain name."""
    try:
        return ast.unparse(call.func)
    except ValueError:
        return ""


def unsafe_reads(tree: ast.AST) -> list[str]:
    """Calls that could run code from a file, with their lines."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = name_of(call)
        keywords = {word.arg: word.value for word in call.keywords}
        if re.fullmatch(r"(?:[cC]?pickle|dill|cloudpickle|joblib|marshal|shelve)\.(?:loads?|open|Unpickler)", name):
            found.append(f"line {call.lineno}: {name}")
        if re.fullmatch(r"yaml\.(?:load|load_all|unsafe_load|full_load)", name):
            found.append(f"line {call.lineno}: {name}")
        only = keywords.get("weights_only")
        if name == "torch.load" and not (isinstance(only, ast.Constant) and only.value is True):
            found.append(f"line {call.lineno}: torch.load without weights_only=True")
        allowed = keywords.get("allow_pickle")
        if name.endswith(".load") and allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
            found.append(f"line {call.lineno}: {name} with allow_pickle")
        if name in ("eval", "exec"):
            found.append(f"line {call.lineno}: {name}")
    return found


def test_there_are_sources() -> None:
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_source_file_is_short_and_reads_nothing_unsafely(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST
    assert unsafe_reads(ast.parse(text)) == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(f)",
        "pickle.loads(b)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=flag)",
        "yaml.load(f)",
        "np.load(p, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_an_unsafe_read_is_found(line: str) -> None:
    assert len(unsafe_reads(ast.parse(line))) == 1


def test_a_safe_read_is_no_finding() -> None:
    assert unsafe_reads(ast.parse("torch.load(p, weights_only=True)\nnp.load(p)\njson.load(f)\nmodel.eval()")) == []


def test_no_file_names_a_place_on_one_machine() -> None:
    """Tests aside: those of redaction need such names."""
    paths = [path for place in PLACES for path in (ROOT / place).rglob("*")] + list(ROOT.iterdir())
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in paths
        if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts
        for match in MACHINE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_package_ships_its_types_and_templates() -> None:
    package = files("leakgauge")
    assert (package / "py.typed").is_file()
    assert (package / "report" / "templates" / "page.html.j2").is_file()


def test_the_licence_is_whole() -> None:
    words = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in words
    assert "END OF TERMS AND CONDITIONS" in words
    assert len(words.splitlines()) > 190


def test_the_pins_leave_out_what_must_not_be_installed() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in pins.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    assert any(line.startswith("torch==") for line in lines)
    assert not {line.partition("==")[0].lower() for line in lines} & {"torchvision", "timm", "lpips", "leakgauge"}
