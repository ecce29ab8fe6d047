"""The import rules read from the syntax tree: slow, obvious, and independent of the linter's configuration."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "leakgauge"
LAYERS = (
    {"errors"},
    {"core", "linalg", "randomness"},
    {"local", "chain", "models"},
    {"truth"},
    {"defences", "data"},
    {"federated", "measures", "attacks", "analysis"},
    {"audit"},
    {"report"},
    {"cli", "integrations"},
)
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
STRANGERS = {"federated", "measures", "attacks", "analysis"}
BLIND = {"attacks", "analysis", "chain"}
SEEING = {"truth", "data", "federated", "measures"}


def violations(source: Path) -> list[str]:
    """Every broken rule in the tree below `source` (the folder that holds the package), one sentence each."""
    graph = imports_by_module(source)
    return sorted({*_upward(graph), *_meetings(graph), *_hidden(source)})


def imports_by_module(source: Path) -> dict[str, set[str]]:
    """Module name -> names of the package's modules that it imports anywhere in the file."""
    files = {_module_name(path, source): path for path in (source / PACKAGE).rglob("*.py")}
    return {name: set(_imports(path, name, files)) for name, path in files.items()}


def part_of(module: str) -> str:
    """'leakgauge.core.files' -> 'core'; '' for the root."""
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def _module_name(path: Path, source: Path) -> str:
    return ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path, name: str, known: dict[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            if _ours(base):
                inner = {f"{base}.{alias.name}" for alias in node.names}
                yield from inner & set(known)
                if inner - set(known):
                    yield base


def _ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _upward(graph: dict[str, set[str]]) -> Iterator[str]:
    for module, imported in graph.items():
        own = part_of(module)
        if own not in HEIGHT:
            continue
        for other in imported:
            target = part_of(other)
            strangers = {own, target} <= STRANGERS and own != target
            if target == "" or HEIGHT.get(target, -1) > HEIGHT[own] or strangers:
                yield f"{module} imports {other}"


def _meetings(graph: dict[str, set[str]]) -> Iterator[str]:
    """Rule 1, also through other modules; importing a module runs the packages around it, the lazy root aside."""
    for module in graph:
        if part_of(module) not in BLIND:
            continue
        reached, open_modules = {module}, [module]
        while open_modules:
            for other in graph.get(open_modules.pop(), ()):
                parts = other.split(".")
                for around in (".".join(parts[:depth]) for depth in range(2, len(parts) + 1)):
                    if around not in reached:
                        reached.add(around)
                        open_modules.append(around)
        for other in sorted(reached):
            if part_of(other) in SEEING:
                yield f"{module} reaches {other}"


def _hidden(source: Path) -> Iterator[str]:
    """Modules named in text, as a dynamic import would name them."""
    banned = tuple(f"{PACKAGE}.{part}" for part in SEEING)
    for part in BLIND:
        for path in (source / PACKAGE / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(banned):
                    yield f"{_module_name(path, source)} names {node.value!r} in a text"
