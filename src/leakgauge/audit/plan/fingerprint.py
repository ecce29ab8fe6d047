"""Fingerprints: hashes over the contents of the files that a cell reads, so that a changed file makes another cell."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from leakgauge.audit.case import attack_call
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.states import is_checkpoint, is_trained, trained_of
from leakgauge.audit.plan.tables import AuditPlan
from leakgauge.audit.prior import names_picture
from leakgauge.data.spec import parse_data_spec
from leakgauge.data.text import DEMO_TEXTS, is_text, parse_text_data
from leakgauge.errors import DataError
from leakgauge.models.foreign import current_folder_importable
from leakgauge.models.name import ModelName

WHOLE = 2**30  # bytes of a file or folder that are read in full
MOST_FILES = 100_000
CHUNK = 2**20


class Fingerprints:
    """The fingerprints of one plan's cells; every file is read once."""

    def __init__(self, plan: AuditPlan) -> None:
        self.training = plan.training
        self.known: dict[tuple[Callable[[str], str], str], str] = {}

    def of(self, cell: Cell) -> str:
        """16 hex digits, or '' where the cell reads no file and trains nothing here.

        Raises:
            DataError: if a file is not there or cannot be read.
        """
        parts = {
            "data": self._once(of_data, cell.data),
            "model": self._once(of_model, cell.model),
            "state": self._once(self._of_state, cell.state),
            "attack": self._once(_of_attack, cell.attack),
            "decoys": "" if cell.decoys in ("auto", "none") else self._once(of_data, cell.decoys),
            "prior": self._once(of_data, cell.prior) if cell.prior else "",
        }
        held = {name: text for name, text in parts.items() if text}
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16] if held else ""

    def _once(self, make: Callable[[str], str], text: str) -> str:
        if (make, text) not in self.known:
            self.known[make, text] = make(text)
        return self.known[make, text]

    def _of_state(self, state: str) -> str:
        if is_trained(state):
            trained = trained_of(state, self.training)
            return json.dumps(trained.to_json(), sort_keys=True) + of_data(trained.data)
        return of_path(state) if is_checkpoint(state) else ""


def of_data(text: str) -> str:
    """Hash over the files that data is read from; '' for bundled ones."""
    if is_text(text):
        data = parse_text_data(text)
        own = "" if data.path == DEMO_TEXTS else of_path(data.path)
        return own + (of_path(data.tokeniser) if data.tokeniser not in ("", "demo") else "")
    spec = parse_data_spec(text)
    return "" if spec.source == "demo" else of_path(spec.path)


def of_model(name: str) -> str:
    """Hash over a Hugging Face folder, or over the file that a callable of one's own stands in; '' for others."""
    parsed = ModelName.parse(name)
    if parsed.place == "hf":
        place = Path(parsed.name).expanduser()
        return of_path(str(place if place.is_dir() else place.parent)) if place.exists() else ""
    if parsed.place == "callable":
        with current_folder_importable():
            try:
                found = importlib.util.find_spec(parsed.name.partition(":")[0])
            except (ImportError, ValueError):  # a module that stands in no file
                return ""
        return of_path(found.origin) if found is not None and found.has_location and found.origin is not None else ""
    return ""


def _of_attack(text: str) -> str:
    _, options = attack_call(text)
    if names_picture(options):
        return of_data(options["prior"])
    prior = options.get("prior")
    return of_model(prior) if isinstance(prior, str) and prior.startswith("hf:") else ""


@cache
def _of_path(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    whole = sum(size for _, size, _ in stamp) <= WHOLE
    for name, size, _ in stamp:
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        with (path / name if name else path).open("rb") as stream:
            if whole:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
            else:
                digest.update(stream.read(CHUNK if len(stamp) < MOST_FILES else 0))
    return digest.hexdigest()[:32]


def of_path(text: str) -> str:
    """Hash over a file, or over a folder's files with their names. Beyond a gigabyte only sizes and beginnings are read.

    Raises:
        DataError: if there is no such file or folder, or it cannot be read.
    """
    path = Path(text).expanduser()
    try:
        if path.is_file():
            found = path.stat()
            return _of_path(path.resolve(), (("", found.st_size, found.st_mtime_ns),))
        if not path.is_dir():
            raise DataError(f"There is no file or folder {text}.")
        stamp = []
        for file in sorted(path.rglob("*")):
            if file.is_file():
                found = file.stat()
                stamp.append((file.relative_to(path).as_posix(), found.st_size, found.st_mtime_ns))
        return _of_path(path.resolve(), tuple(stamp))
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
