"""Byte search and image search of redacted files: no original, nothing within 20 dB of one, no name, place or hash."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from grid_examples import DECOYS, HARDER, batch, digest, findings, grid, played
from PIL import Image
from report_examples import noisy, record
from text_examples import LETTER, NOTE, three_texts

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.report.exports.junit import junit_cases, junit_text
from leakgauge.report.exports.latex import latex_table
from leakgauge.report.exports.lines import lines_of
from leakgauge.report.exports.table_files import csv_text
from leakgauge.report.grid.export import grid_to_json
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.html import render_annex, render_grid_page
from leakgauge.report.grid.page import GridPage, build_grid_page
from leakgauge.report.grid.redaction import redacted
from leakgauge.report.pictures import data_uri

SECRETS = ("clinic", "ward7", "scan-", "P50", "P100", "folder:", "/secret/model.pt", "anna")


def cases() -> list[CellResult]:
    """The grid, a large picture whose reconstruction is near only once shrunk, a checkpoint, and reasons that name files."""
    results = grid()
    truth, names, patients = batch(500, 1, 160)
    cell = Cell("folder:/clinic/large", "lenet-dlg", "dlg", 0, state="/secret/model.pt", fingerprint="f" * 64)
    results.append(played(cell, truth, 0.35, names=names, patients=patients, notes=("seen in /clinic/anna/scan-500.png",)))
    results.append(
        CellResult(replace(cell, seed=1), "failed", "The file '/clinic/large/scan-500.png' of patient P250 is broken.")
    )
    return results


@pytest.fixture(scope="module")
def found() -> Findings:
    given = findings(cases())
    return replace(given, plan={**given.plan, "data": ["folder:/clinic/ward7?indices=0"], "states": ["/secret/model.pt"]})


@pytest.fixture(scope="module")
def page(found: Findings) -> GridPage:
    return build_grid_page(found, redact=True)


@pytest.fixture(scope="module")
def plain(found: Findings) -> GridPage:
    return build_grid_page(found)


@pytest.fixture(scope="module")
def files(page: GridPage) -> dict[str, str]:
    shown = page.findings
    return {
        "page": render_grid_page(page),
        "annex": render_annex(page),
        "json": json.dumps(grid_to_json(page), ensure_ascii=False),
        "csv": csv_text(lines_of(shown)),
        "latex": latex_table(shown),
        "junit": junit_text(junit_cases(shown)),
    }


def pictures_in(text: str) -> Iterator[np.ndarray]:
    """Every raster picture of a file as (H, W, 3) in [0, 1]."""
    for uri in re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", text):
        yield np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"), dtype=float) / 255
    for uri in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text):
        yield from pictures_in(base64.b64decode(uri).decode())


def originals(found: Findings) -> dict[bytes, torch.Tensor]:
    truths = [result.record.pictures.truth for result in found.results if result.record and result.record.pictures]
    return {one.numpy().tobytes(): one for truth in truths if truth is not None for one in truth}


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(picture[..., c].astype(np.float32)).resize(size[::-1], Image.Resampling.BOX) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(((one - other) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def test_no_picture_in_the_file_is_within_20_db_of_any_original(found: Findings, files: dict[str, str]) -> None:
    shown = list(pictures_in(files["page"]))
    private = [truth.permute(1, 2, 0).numpy() for truth in originals(found).values()]
    assert len(shown) > 10, "reconstructions that show nothing stay"
    assert len(private) == 5
    for picture in shown:
        for truth in private:
            assert psnr(picture, resized(truth, picture.shape[:2])) < 20


def test_the_search_finds_what_it_looks_for(found: Findings, plain: GridPage) -> None:
    shown = list(pictures_in(render_grid_page(plain)))
    private = [truth.permute(1, 2, 0).numpy() for truth in originals(found).values()]
    best = [max(psnr(picture, resized(truth, picture.shape[:2])) for picture in shown) for truth in private]
    assert min(best) > 40


def test_no_byte_of_an_original_or_of_a_near_reconstruction_is_in_any_file(
    found: Findings, plain: GridPage, files: dict[str, str]
) -> None:
    unredacted = render_grid_page(plain)
    small = [truth for truth in originals(found).values() if truth.shape[-1] <= 128]
    for truth in small:
        assert data_uri(truth) in unredacted
        for text in files.values():
            assert data_uri(truth) not in text
            assert base64.b64encode(truth.numpy().tobytes()).decode()[:200] not in text
    for result in found.results:
        if result.record is not None and result.record.pictures is not None:
            for score in result.record.picture_scores:
                uri = data_uri(result.record.pictures.guess[score.guess])
                assert score.psnr < 20 or uri not in files["page"]


def test_names_patients_places_and_hashes_are_in_no_file(found: Findings, plain: GridPage, files: dict[str, str]) -> None:
    unredacted = render_grid_page(plain) + csv_text(lines_of(found)) + json.dumps(grid_to_json(plain))
    hashes = {entry.record for entry in found.judgement.records}
    keys = {result.cell.key for result in found.results}
    for secret in (*SECRETS, *hashes, *keys, "f" * 64):
        assert secret in unredacted, secret
        for name, text in files.items():
            assert secret not in text, (secret, name)
    assert "record-1" in files["json"]
    assert "patient 1" in files["page"]
    assert "This page is redacted" in files["page"]


def test_numbers_and_verdicts_stay(found: Findings, plain: GridPage, page: GridPage) -> None:
    assert [view.verdict for view in page.records] == [view.verdict for view in plain.records]
    assert [view.level for view in page.cells] == [view.level for view in plain.cells]
    assert [view.rank for view in page.cells] == [view.rank for view in plain.cells]
    assert page.front.headline == plain.front.headline
    assert [view.cell for view in page.records] == [view.cell for view in plain.records]
    assert len({result.cell.key for result in page.findings.results}) == len(found.results)


def test_a_picture_that_is_near_only_once_it_is_shrunk_is_left_out(found: Findings, page: GridPage) -> None:
    number = len(found.results) - 1
    large = found.results[number - 1]
    assert large.record is not None
    assert large.record.picture_scores[0].psnr < 15
    assert [picture.uri for picture in page.cells[number - 1].pictures if picture.what == "reconstruction"] == [""]


def test_what_is_far_but_ranks_first_for_an_identified_record_is_left_out() -> None:
    """A noisy reconstruction that no eye recognises, and that still points to its record."""
    truth, names, patients = batch(800, 1, 16)
    cells = [Cell("demo:cat", "lenet-dlg", attack, 0) for attack in HARDER]
    results = [played(cell, truth, 0.35, names=names, patients=patients) for cell in cells]
    told = findings(results)
    assert told.judgement.records[0].verdict == "identified"
    assert all(result.record is not None and result.record.picture_scores[0].psnr < 15 for result in results)
    for result in redacted(told).results:
        assert result.record is not None
        assert result.record.pictures is not None
        assert result.record.pictures.guess.isnan().all()


def test_a_picture_of_one_cell_that_shows_an_original_of_another_is_left_out() -> None:
    first, names, patients = batch(900, 1, 16)
    second, others, more = batch(910, 1, 16)
    one = played(Cell("demo:cat", "lenet-dlg", "dlg", 0), first, 0.6, names=names, patients=patients)
    swapped = record("swapped", second, noisy(first, 0.01), attack="dlg")
    line_ups = (LineUp(0, digest(second[0]), others[0], more[0], "mse", 0.3, tuple(0.1 for _ in range(DECOYS))),)
    other = CellResult(Cell("demo:dog", "lenet-dlg", "dlg", 0), "ok", "", swapped, line_ups)
    assert swapped.picture_scores[0].psnr < 20
    shown = redacted(findings([one, other])).results[1].record
    assert shown is not None
    assert shown.pictures is not None
    assert shown.pictures.guess.isnan().all()


def test_no_private_text_and_no_half_of_one_is_in_any_file() -> None:
    line_ups = tuple(
        LineUp(
            place, f"{place:032x}", f"notes.tsv#{place}", "", "tokens", distance, tuple(0.8 + step / 100 for step in range(20))
        )
        for place, distance in enumerate((0.0, 0.4, 0.9))
    )
    cell = Cell("text:/clinic/notes.tsv", "hf:bert", "dlg-text", 0)
    page = build_grid_page(findings([CellResult(cell, "ok", "", three_texts(), line_ups)]), redact=True)
    for text in (render_grid_page(page), json.dumps(grid_to_json(page)), csv_text(lines_of(page.findings))):
        for secret in ("anna.keller", "020 7946", "1961", "sleeps", "tablet", "notes.tsv", "gave two pills"):
            assert secret not in text
    assert all(word in render_grid_page(build_grid_page(findings([CellResult(cell, "ok", "", three_texts(), line_ups)])))
               for word in (*LETTER.split()[1:4], *NOTE.split()[1:4]))  # fmt: skip
