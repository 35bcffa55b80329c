"""Texts, pictures and histograms: what is given, what is recorded, what a cut leaves."""

from __future__ import annotations

import math
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loggers.training import MEDIA, cut_and_resumed, train

import treadle
from treadle.media import bins_of, png_of
from treadle.runs import Run, RunError
from treadle.runs.media import of_histogram, of_picture, of_text


def pixels(png: bytes) -> Any:
    """The pixels of a PNG file without filters."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    parts, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + data)
        parts[kind] = data
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", parts[b"IHDR"])
    assert depth == 8
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_all_forms_become_the_same_file(channels: int) -> None:
    array = np.arange(5 * 7 * channels, dtype=np.uint8).reshape(5, 7, channels)
    first = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    forms = [array, first, torch.from_numpy(array), torch.from_numpy(array / 255), (first / 255).astype("f4")]
    if channels == 1:
        forms += [array[:, :, 0]]
    for form in forms:
        assert np.array_equal(pixels(png_of(form)), array)
    assert png_of(png_of(array)) == png_of(array)


def test_values_out_of_range_are_clipped() -> None:
    given = torch.tensor([[-1.0, math.nan, 0.5], [2.0, math.inf, -math.inf]])
    assert pixels(png_of(given))[:, :, 0].tolist() == [[0, 0, 128], [255, 255, 0]]
    assert pixels(png_of(torch.tensor([[True, False]])))[:, :, 0].tolist() == [[255, 0]]


def test_a_figure_is_drawn() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    assert png_of(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (torch.zeros(2, 3, 4, 5), r"the shape is \(2, 3, 4, 5\); allowed are"),
        (torch.zeros(0, 3), r"the shape is \(0, 3, 1\)"),
        (torch.zeros(2, 2, dtype=torch.int64), "the values are int64; allowed are"),
        (b"GIF89a", "these bytes are no PNG file"),
        ("picture.png", "a str is none; give a tensor"),
    ],
)
def test_what_is_no_picture_is_said(given: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        png_of(given)


def test_histograms_leave_out_what_is_not_finite() -> None:
    edges, counts = bins_of(torch.tensor([0.0, 1.0, 1.0, math.nan, math.inf, 4.0]), 4)
    assert (edges, counts) == ([0, 1, 2, 3, 4], [1, 2, 0, 1])
    assert bins_of(torch.tensor([math.nan]), 4) == ([0.0, 1.0], [0])


def test_a_run_holds_them_by_step(tmp_path: Path) -> None:
    run = train(tmp_path / "run", [])
    for found in (run, treadle.Run.open(tmp_path / "run")):
        texts = found.media("text")
        assert [(one.name, one.step, one.text) for one in texts] == [
            ("train/remark", step, f"<b>step</b> {step}") for step in MEDIA
        ]
        assert [one.step for one in found.media("picture", "train/weights")] == list(MEDIA)
        assert [(one.kind, one.step) for one in found.media(newest=True, name="train/spread")] == [
            ("histogram", 12)
        ]
        assert found.media("histogram", step=4)[0].histogram == ([4, 5.8, 7.6, 9.4, 11.2, 13], [2] * 5)
        assert found.media("text", "none") == []


def test_a_cut_takes_back_what_comes_again(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", [])
    cut = cut_and_resumed(tmp_path / "cut", treadle.Callback)
    without_time = [[one._replace(time=0.0) for one in run.media()] for run in (whole, cut)]
    assert without_time[0] == without_time[1]


def test_one_of_the_same_name_and_step_is_replaced_and_memory_works() -> None:
    run = Run.create(None)
    run.add_media([of_text("a", 1, "old"), of_histogram("a", 1, [0, 1], [2])])
    run.add_media([of_text("a", 1, "new")])
    assert [(one.kind, one.data) for one in run.media()][1:] == [("text", b"new")]
    run.rewind(0)
    assert run.media() == []


def test_a_record_from_before_there_were_any_is_read_and_written_on(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run") as run:
        assert run.media() == []
        with sqlite3.connect(tmp_path / "run" / "metrics.sqlite") as connection:
            assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'medium'").fetchall()
        connection.close()
        run.rewind(0)
        run.add_media([of_text("a", 1, "new")])
    assert len(Run.open(tmp_path / "run").media()) == 1


def test_what_is_damaged_is_refused() -> None:
    with pytest.raises(RunError, match="give the bytes of a PNG file"):
        of_picture("a", 1, b"<svg>")
    with pytest.raises(RunError, match="2 edges for 2 counts"):
        of_histogram("a", 1, [0, 1], [1, 2])


def test_points_of_one_step_are_found_in_chunks_and_in_the_tail() -> None:
    run = Run.create(None)
    for step in range(2000):
        run.append_steps([("a", step, float(step)), *([("b", step, -1.0)] if step % 7 == 0 else [])])
    for step in (0, 7, 700, 701, 1995, 1999):
        expected = [("a", float(step)), *([("b", -1.0)] if step % 7 == 0 else [])]
        assert run.points_at(step) == expected
    assert run.points_at(5000) == []
