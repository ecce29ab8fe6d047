"""The plans that come with the package: 'plan:first', 'plan:paper/dlg', .."""

from __future__ import annotations

from pathlib import Path

from leakgauge.errors import DataError, did_you_mean

PREFIX = "plan:"
PACKAGE = Path(__file__).resolve().parents[2]  # leakgauge/
CHECKOUT = Path(__file__).resolve().parents[4]  # tests/audit/plan/test_shipped.py holds both to where they are


def plans_folder() -> Path:
    """Where they are: inside the installed package, or at the root of a checkout.

    Raises:
        DataError: if they are in neither place.
    """
    for folder in (PACKAGE / "plans", CHECKOUT / "plans"):
        if (folder / "first.toml").is_file():
            return folder
    raise DataError("This installation of leakgauge lacks its plans; reinstall it, or give the path of a plan.")


def shipped_names() -> tuple[str, ...]:
    """Names as they follow 'plan:'."""
    folder = plans_folder()
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")))


def plan_path(text: str) -> Path:
    """The file that a person means: a path, or 'plan:NAME' for one that comes with the package.

    Raises:
        DataError: for a name that is none.
    """
    if not text.startswith(PREFIX):
        return Path(text)
    name, known = text.removeprefix(PREFIX).removesuffix(".toml"), shipped_names()
    if name not in known:
        raise DataError(f"No plan called {name!r} comes with leakgauge.{did_you_mean(name, known)}")
    return plans_folder() / f"{name}.toml"
