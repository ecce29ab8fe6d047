"""`leakgauge attack` on a folder of recordings: one attack on each, and leakage per round and client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakgauge.audit.recordings import Leakage
    from leakgauge.core.observation import Observation
    from leakgauge.core.reconstruction import Reconstruction


def attack_recordings(
    source: str,
    model: str,
    text: str,
    folder: Path,
    *,
    play: Callable[[Observation, dict[str, Any]], Reconstruction],
    truth: str | None,
    weights: str | None,
    classes: int | None,
    model_seed: int,
    model_state: str | None,
    budget: str | int,
    seed: int,
    tokeniser: str | None,
    as_json: bool,
) -> None:
    """Attacks every observation below `source`; an interruption, or a file that cannot be read, keeps what is done.

    Args:
        source: folder of recordings.
        model, text, truth, weights, classes, model_seed, model_state, budget, seed, tokeniser, as_json: as on the command
            line; `truth` is a folder here.
        folder: where records and `leakage.json` go.
        play: runs the attack with its options on one observation.

    Raises:
        DataError: at the end, if some recordings could not be read or do not fit the model; the others are done.
    """
    from leakgauge.audit.case import attack_call
    from leakgauge.audit.folder import save_record
    from leakgauge.audit.making import record_of, unsupported
    from leakgauge.audit.prior import names_picture, prior_picture, with_picture
    from leakgauge.audit.recordings import find_recordings, leakage_of, mean_of_others, save_leakage, title_of
    from leakgauge.audit.text_case import check_truth, tokeniser_for, with_public
    from leakgauge.cli.console import remark
    from leakgauge.cli.networks import observation_and_model, state_in_words
    from leakgauge.core.files import client_of
    from leakgauge.errors import DataError, KnowledgeError, LeakgaugeError, UnsupportedError
    from leakgauge.truth import Batch

    if truth is not None and not Path(truth).is_dir():
        raise DataError(f"--truth {truth} is no folder; for a folder of recordings expected the folder of their truths.")
    name, options = attack_call(text)
    found = find_recordings(source, truth)
    batches = {entry.path.name: Batch.load(entry.truth) for entry in found if entry.truth is not None}
    whose = {entry.path.name: client_of(entry.path) or entry.path.name for entry in found if entry.truth is not None}
    lines: list[Leakage] = []
    unread: list[str] = []
    stopped = False
    for place, entry in enumerate(found, start=1):
        if not as_json:
            remark(f"{place} of {len(found)}: {entry.path.name}")
        try:
            seen, fresh = observation_and_model(str(entry.path), model, weights=weights, classes=classes, seed=model_seed)
            reader = tokeniser_for(seen.spec, model, tokeniser)
            check_truth(seen.spec, batches.get(entry.path.name), str(entry.truth))
        except LeakgaugeError as error:
            unread.append(f"{entry.path.name}: {error}")
            continue
        try:
            guess = play(seen, with_public(name, with_picture(options, seen.pictures), seen.spec, reader))
        except (UnsupportedError, KnowledgeError) as reason:
            guess = unsupported(seen, name, reason)
        except KeyboardInterrupt:
            stopped = True
            break
        record = record_of(
            seen,
            guess,
            batches.get(entry.path.name),
            model=model,
            model_state=state_in_words(model, fresh, seen.model, model_state),
            budget=budget,
            seeds={"attack": seed},
            title=title_of(seen, entry.path, text),
            identity=(entry.path.name, text),
            tokeniser=reader,
        )
        save_record(record, folder)
        prior = mean_of_others(batches, entry.path.name, whose)
        if names_picture(options) and seen.pictures is not None:
            prior = prior_picture(options["prior"], seen.pictures)
        lines.append(leakage_of(seen, record, entry.path, prior))
        save_leakage(lines, text, folder)
    _tell(lines, text, folder, len(found), stopped, as_json)
    if unread:
        raise DataError(f"{len(unread)} of {len(found)} recordings cannot be attacked; the first is {unread[0]}")


def _tell(lines: list[Leakage], text: str, folder: Path, planned: int, stopped: bool, as_json: bool) -> None:
    from leakgauge.audit.recordings import LEAKAGE_FILE
    from leakgauge.cli.console import print_json, result_console, say
    from leakgauge.report.recordings import leakage_table

    if as_json:
        recordings = [line.to_json() for line in lines]
        print_json({"attack": text, "recordings": recordings, "planned": planned, "out": str(folder)})
        return
    if lines:
        result_console().print(leakage_table(lines))
    if stopped:
        say(f"Stopped after {len(lines)} of {planned} recordings; what is done is kept.")
    say(f"Records, and {LEAKAGE_FILE} with one line per recording: {folder}")
    say(f"For a page: leakgauge report {folder} --html {folder / 'report.html'}")
