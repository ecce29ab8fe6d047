"""What an audit is in MLflow's terms: parameters, metrics with steps, tags, and files. Nothing of MLflow is needed here."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leakgauge.audit.filters.record import FilterAudit
from leakgauge.audit.folder import RECORDS, load_records, strict_json
from leakgauge.audit.record import Record
from leakgauge.audit.recordings import LEAKAGE_FILE
from leakgauge.audit.simulation.record import SimulationResult
from leakgauge.audit.tradeoff.record import TradeoffResult
from leakgauge.errors import DataError
from leakgauge.integrations.recording.log import LOG_FILE, read_log

Audit = str | Path | Record | Sequence[Record] | SimulationResult | TradeoffResult | FilterAudit
MEASURES = ("psnr", "ssim", "mse", "rdlv", "rdlv_released", "probability", "token_accuracy", "rougeL")
SMALLEST = {"mse", "probability"}  # where less is worse for the client
EXACT = 999.0  # stands for the infinite PSNR of an exact reconstruction, since a metric has to be finite
FILES = {"simulation.json": "simulation", "tradeoff.json": "tradeoff", "filter.json": "filter"}
LEFT_OUT = "page and files are left out: they are not redacted; make them again with --redact, or pass redact=False"


def clean(name: str) -> str:
    """A name with nothing but letters, digits, '_', '-', '.', '/' and blanks, as MLflow wants it."""
    return re.sub(r"[^\w./ -]", "_", name)


@dataclass
class Entries:
    """What goes into one MLflow run.

    Args:
        kind: 'attack', 'simulation', 'tradeoff', 'filter' or 'recording'.
        params, tags: name -> value.
        metrics: (name, value, step).
        write: writes the artifacts into a folder.
    """

    kind: str
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    write: Callable[[Path], None] = lambda folder: None  # noqa: ARG005 - nothing to write

    def add(self, name: str, value: Any, step: int = 0) -> None:
        """A metric, where its value is a finite number."""
        if isinstance(value, int | float) and math.isfinite(value):
            self.metrics.append((clean(name), float(value), step))


def entries_of(audit: Audit, redact: bool = True) -> Entries:
    """What `log_audit` would log.

    Raises:
        DataError: if a folder holds no audit.
    """
    if isinstance(audit, str | Path):
        return _of_folder(Path(audit), redact)
    if isinstance(audit, FilterAudit):
        return _of_filter(audit.to_json())
    if isinstance(audit, SimulationResult):
        from leakgauge.report.simulation.files import simulation_to_json, write_simulation

        simulated = audit
        found = _of_simulation(simulation_to_json(simulated, redact))
        found.write = lambda folder: write_simulation(simulated, folder, redact)
        return found
    if isinstance(audit, TradeoffResult):
        from leakgauge.report.tradeoff.files import tradeoff_to_json, write_tradeoff

        swept = audit
        found = _of_tradeoff(tradeoff_to_json(swept, redact))
        found.write = lambda folder: write_tradeoff(swept, folder, redact)
        return found
    return _of_records([audit] if isinstance(audit, Record) else list(audit), redact)


def _of_folder(folder: Path, redact: bool) -> Entries:
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}.")
    name = next((name for name in FILES if (folder / name).is_file()), None)
    if name is None and (folder / RECORDS).is_dir():
        found = _of_records(load_records(folder), redact)
        _add_rounds(found, folder / LEAKAGE_FILE)
        return found
    if name is None and (folder / LOG_FILE).is_file():
        return _of_recording(read_log(folder))
    if name is None:
        raise DataError(f"The folder {str(folder)!r} holds no audit; expected {RECORDS}, {LOG_FILE} or {', '.join(FILES)}.")
    try:
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        if FILES[name] == "filter":
            return _of_filter(facts)
        safe = not redact or facts["verdict"]["redacted"] is True
        found = _of_simulation(facts, names=safe) if FILES[name] == "simulation" else _of_tradeoff(facts, names=safe)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The file {str(folder / name)!r} is damaged ({type(error).__name__}: {error}).") from error
    if safe:
        found.write = lambda target: _copy(folder, target)
    else:
        found.tags["leakgauge.note"] = LEFT_OUT
    return found


def _of_records(records: Sequence[Record], redact: bool) -> Entries:
    from leakgauge.report.html import render_page
    from leakgauge.report.json_export import page_to_json
    from leakgauge.report.page import build_page

    if not records:
        raise DataError("There are no records to log.")
    page = build_page(records, redact)
    facts = page_to_json(page)
    found = Entries(
        "attack", tags={"leakgauge.verdict": facts["verdict"]["verdict"], "leakgauge.headline": facts["verdict"]["headline"]}
    )
    conditions = [{"attack": record["attack"], **record["conditions"]} for record in facts["records"]]
    for name in dict.fromkeys(name for each in conditions for name in each):  # those of texts are absent for pictures
        values = list(dict.fromkeys(text_of(each[name]) for each in conditions if name in each))
        found.params[name] = " | ".join(values)
    for name in ("pictures", "rebuilt", "partly", "not_found", "attempts"):
        found.add(name, getattr(page.summary, name))
    for step, record in enumerate(facts["records"], start=1):
        for name, value in _worst(record["scores"]):
            found.add(f"{record['attack']}/{name}", value, step)
        for name in ("certified", "evaluations", "seconds", "residual"):
            found.add(f"{record['attack']}/{name}", record[name], step)
        found.add(f"{record['attack']}/explains", float(record["explains"]), step)

    def write(folder: Path) -> None:
        (folder / "report.html").write_text(render_page(page), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")

    found.write = write
    return found


def _add_rounds(found: Entries, path: Path) -> None:
    """Leakage by round and client, where a folder of recordings was attacked."""
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))["recordings"] if path.is_file() else []
        for line in lines:
            if line["round"] is not None:
                for name, value in (("explains", float(line["explains"])), ("certified", line["certified"]), *_worst([line])):
                    found.add(f"{name}/{line['client'] or 'client'}", value, line["round"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The file {str(path)!r} is damaged ({type(error).__name__}: {error}).") from error


def _of_simulation(facts: Mapping[str, Any], *, names: bool = True) -> Entries:
    found = Entries("simulation", tags={"leakgauge.headline": facts["verdict"]["headline"]})
    found.params = _plan(facts, names)
    for entry in facts["rounds"]:
        for name in ("accuracy", "loss", "seconds"):
            found.add(name, entry[name], entry["index"])
    rounds: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for record in facts["records"]:
        if record["variant"] in ("plain", "adaptive") and not record["skipped"]:
            attack = record["attack"] if record["variant"] == "plain" else f"{record['attack']} adaptive"
            for key in (f"{record['sender']}/{attack}", "any client"):
                rounds.setdefault((record["round"], key), []).extend(record["scores"])
    for (number, key), scores in rounds.items():
        for name, value in _worst(scores):
            found.add(f"{name}/{key}", value, number)
    return found


def _of_tradeoff(facts: Mapping[str, Any], *, names: bool = True) -> Entries:
    verdict = facts["verdict"]
    found = Entries("tradeoff", tags={"leakgauge.headline": verdict["headline"], "leakgauge.chosen": verdict["chosen"] or "none"})
    found.params = _plan(facts, names) | {"policy": verdict["policy"]}
    for step, point in enumerate(facts["points"], start=1):
        found.params[f"defence.{step}"] = point["defence"]
        for name in ("accuracy", "epsilon", "seconds"):
            found.add(name, point[name], step)
        found.add("strength", point["strength"]["value"], step)
        for entry in point["leakages"]:
            attack = entry["attack"] if entry["variant"] == "plain" else f"{entry['attack']} adaptive"
            for name, value in entry["largest"].items():
                found.add(f"{name}/{attack}", value, step)
            found.add(f"identified/{attack}", entry["identified"], step)
    return found


def _of_filter(facts: Mapping[str, Any]) -> Entries:
    found = Entries("filter", tags={"leakgauge.verdict": facts["verdict"]})
    found.params = {name: facts[name] for name in ("filter", "model", "claim", "repeats", "seed")}
    found.add("noise_std", facts["noise"]["std"])
    found.add("clip_bound", facts["clipping"]["bound"])
    for name in ("sparsity", "cosine", "calls", "seconds"):
        found.add(name, facts[name])
    for name in ("lower", "claimed"):
        found.add(f"epsilon_{name}", (facts["epsilon"] or {}).get(name))
    for severity in ("fault", "warning"):
        found.add(f"{severity}s", sum(entry["severity"] == severity for entry in facts["findings"]))
    found.write = lambda folder: _write_json(folder / "filter.json", facts)
    return found


def _of_recording(log: Sequence[Mapping[str, Any]]) -> Entries:
    """Probes and decisions of a recorder, by round and client; of its log only numbers leave."""
    found, seen = Entries("recording"), []
    for entry in log:
        number, client = entry.get("round"), str(entry.get("client", "")) or "client"
        if entry.get("event") not in ("recorded", "probe", "decision") or not isinstance(number, int):
            continue
        numbers = {name: value for name, value in entry.items() if isinstance(value, int | float) and name != "round"}
        numbers |= dict(entry.get("values") or {})
        for name, value in numbers.items():
            prefix = "" if entry["event"] == "probe" else f"{entry['event']}."
            found.add(f"{prefix}{name}/{client}", value, number)
        seen.append({"event": entry["event"], "round": number, "client": client, **numbers})
    found.params = {"clients": len({entry["client"] for entry in seen}), "messages": len(seen)}
    found.write = lambda folder: _write_json(folder / "recording.json", {"events": seen})
    return found


def _plan(facts: Mapping[str, Any], names: bool) -> dict[str, Any]:
    """The plan's entries under dotted names; without `names` what could name data or places is left out."""
    flat = dict(_flat(facts["plan"], ""))
    return flat if names else {key: value for key, value in flat.items() if not re.search(r"source|name|prior|file|path", key)}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{prefix}{key}.")
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        for place, entry in enumerate(value, start=1):
            yield from _flat(entry, f"{prefix}{place}.")
    else:
        yield prefix.rstrip("."), text_of(value)


def _worst(scores: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """For each measure the value that is worst for the clients, over those that are numbers."""
    for name in MEASURES:
        values = [EXACT if score.get(name) == "inf" else score[name] for score in scores if name in score]
        values = [value for value in values if isinstance(value, int | float)]
        if values:
            yield name, min(values) if name in SMALLEST else max(values)


def _copy(folder: Path, target: Path) -> None:
    """Page, table, JSON and figures of a folder; never its records, which hold the private pictures."""
    for path in (*folder.glob("report.html"), *folder.glob("*.json"), *folder.glob("*.csv"), *folder.glob("figures/*")):
        place = target / path.relative_to(folder)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, place)


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(strict_json(facts), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def text_of(value: Any) -> str:
    """A parameter as text: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
