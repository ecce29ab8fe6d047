"""A redacted page or JSON holds no pixel of an original, nothing near one, no name and no place."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from report_examples import control, everything, four_pictures, hostile, noisy, one_rebuilt, record, scene, sweep, without_truth

from leakgauge.audit.record import Pictures, Record
from leakgauge.report.html import render_html
from leakgauge.report.json_export import to_json
from leakgauge.report.pictures import data_uri
from leakgauge.report.redaction import LEFT_OUT, scrub_text, strip_pixels

SECRETS = ("/home/anna/patients/mueller.png", "folder:/data/clinic?indices=0-4", "mueller", "C:\\scans\\a.dcm", "../../up/x.csv")


def decoded(page: str) -> list[np.ndarray]:
    """Every picture of a page as (H, W, C) in [0, 1]."""
    uris = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))), dtype=float) / 255 for uri in uris]
    return [image if image.ndim == 3 else image[..., None] for image in images]


def originals(records: list[Record]) -> list[np.ndarray]:
    truths = [entry.pictures.truth for entry in records if entry.pictures is not None and entry.pictures.truth is not None]
    return [picture.permute(1, 2, 0).numpy() for truth in truths for picture in truth]


def test_no_picture_on_the_page_comes_within_20_db_of_any_original(records: list[Record]) -> None:
    images, private = decoded(render_html(records, redact=True)), originals(records)
    assert images, "reconstructions below 20 dB and controls stay"
    for image in images:
        for truth in private:
            if image.shape == truth.shape:
                assert ((image - truth) ** 2).mean() > 1e-2


def test_no_byte_of_an_original_or_a_good_reconstruction_remains(records: list[Record]) -> None:
    page = render_html(records, redact=True)
    text = json.dumps(to_json(records, redact=True))
    plain = render_html(records)
    for entry in records:
        assert entry.pictures is not None
        for score in entry.scores:
            assert entry.pictures.truth is not None
            truth = data_uri(entry.pictures.truth[score.index])
            assert truth in plain
            assert truth not in page
            assert truth not in text
            guess = data_uri(entry.pictures.guess[score.guess])
            if entry.attack != "control":
                assert (guess in page) == (score.psnr < 20)
    for picture in [] if (blind := without_truth().pictures) is None else blind.guess:
        assert data_uri(picture) not in page


def test_the_empty_boxes_are_labelled() -> None:
    page = render_html([one_rebuilt()], redact=True)
    assert 'aria-label="Original of example 1: left out: redacted"' in page
    assert page.count('class="empty"') == 3 + 2
    assert "This page is redacted" in page
    assert "Filmstrip" not in page


def test_json_lists_only_what_is_shown(records: list[Record]) -> None:
    exported = to_json(records, redact=True)
    listed = [*exported["verdict"]["pictures"], *(picture for entry in exported["records"] for picture in entry["pictures"])]
    assert exported["verdict"]["redacted"] is True
    assert not {picture["what"] for picture in listed} & {"original", "difference"}
    assert len(listed) == len(decoded(render_html(records, redact=True)))


def test_counts_and_scores_stay_the_same(records: list[Record]) -> None:
    plain, redacted = to_json(records)["verdict"], to_json(records, redact=True)["verdict"]
    for name in ("pictures", "worst"):
        plain.pop(name), redacted.pop(name)
    assert redacted["headline"] == plain["headline"]
    assert redacted["attacks"] == plain["attacks"] or hostile() in records
    assert len(decoded(render_html(records, redact=True))) < len(decoded(render_html(records)))


def test_names_commands_and_places_are_left_out() -> None:
    one = one_rebuilt()
    told = replace(
        one,
        key="mueller-0",
        title="mueller.png under attack",
        notes=tuple(f"seen at {secret}" for secret in SECRETS),
        cause=f"file {SECRETS[0]} ended",
        scores=(replace(one.scores[0], name="patients/mueller.png"),),
        reproduce=f"leakgauge capture --data {SECRETS[1]}",
        conditions=replace(one.conditions, model="pkg.mod:callable", threat=f"reader of {SECRETS[0]}"),
    )
    for text in (render_html([told], redact=True), json.dumps(to_json([told], redact=True))):
        for secret in (*SECRETS, "clinic", "anna", "scans"):
            assert secret not in text
            assert secret.replace("\\", "\\\\") not in text
        assert LEFT_OUT in text
        assert "pkg.mod:callable" in text
    assert "mueller" in render_html([told])


def test_ordinary_words_survive() -> None:
    plain = replace(one_rebuilt(), title="8/255 and/or 5 SGD steps, lr 0.1 (hf:google/vit)", notes=("std 1e-3.", "a / b"))
    (scrubbed,) = scrub_text([plain])
    assert (scrubbed.title, scrubbed.notes) == (plain.title, plain.notes)


def test_a_poor_reconstruction_with_a_good_frame_loses_the_frame() -> None:
    truth = scene(1)[None]
    bad = record("bad", truth, noisy(truth, 0.6), frames=3)
    assert bad.pictures is not None
    assert bad.pictures.frames is not None
    frames = bad.pictures.frames.clone()
    frames[1] = noisy(truth, 0.02)
    stripped = strip_pixels(replace(bad, pictures=replace(bad.pictures, frames=frames))).pictures
    assert stripped is not None
    assert stripped.frames is not None
    assert stripped.frames.isnan().flatten(1).all(dim=1).tolist() == [False, True, False]


def test_a_reconstruction_near_another_original_of_the_batch_is_left_out() -> None:
    truth = torch.stack([scene(2), scene(3)])
    crossed = record("crossed", truth, truth.flip(0))
    assert all(score.psnr < 20 for score in crossed.scores)
    stripped = strip_pixels(crossed).pictures
    assert stripped is not None
    assert bool(stripped.guess.isnan().all())


@pytest.mark.parametrize("psnr", [float("nan"), 20.0, float("inf")])
def test_doubtful_scores_are_left_out(psnr: float) -> None:
    one = record("doubt", scene(1)[None], noisy(scene(1)[None], 0.6))
    doubtful = strip_pixels(replace(one, scores=(replace(one.scores[0], psnr=psnr),))).pictures
    assert doubtful is not None
    assert bool(doubtful.guess.isnan().all())


def test_scores_alone_decide_where_the_pixels_of_the_original_are_absent() -> None:
    four = four_pictures()
    assert four.pictures is not None
    stripped = strip_pixels(replace(four, pictures=replace(four.pictures, truth=None))).pictures
    assert stripped is not None
    hidden = stripped.guess.isnan().flatten(1).all(dim=1).tolist()
    assert [hidden[score.guess] for score in four.scores] == [True, True, True, False]
    assert stripped.frames is not None
    assert bool(stripped.frames.isnan().all())


def test_the_given_records_are_untouched() -> None:
    before = everything()
    render_html(before, redact=True)
    for one, other in zip(before, everything(), strict=True):
        assert repr(one) == repr(other)
        assert one.pictures is not None
        assert other.pictures is not None
        assert torch.equal(one.pictures.guess, other.pictures.guess)


def test_records_without_pictures_pass() -> None:
    bare = [replace(entry, pictures=None) for entry in (*sweep(), control())]
    assert "<img" not in render_html(bare, redact=True)
    assert "<img" not in render_html(bare)
    integer = replace(one_rebuilt(), pictures=Pictures(torch.ones(1, 3, 4, 4, dtype=torch.uint8)))
    render_html([integer], redact=True)
