"""What leaves the package: no number that is none, no cell that a spreadsheet runs, no line of
another width."""

import csv

import numpy as np
import pytest
import torch

import octvideo
from octvideo.data.lists.video_list import read_list
from octvideo.engine.evaluation.results import Evaluation, summarize, write_results
from octvideo.engine.prediction.named import NamedVideo, Prediction
from octvideo.engine.prediction.outputs import prediction_row
from octvideo.engine.prediction.rows import CsvLines
from octvideo.errors import CheckpointError, ListError
from octvideo.files import csv_text

HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", " =1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_that_a_spreadsheet_would_run_gets_a_quote(text):
    assert csv_text(text)[0] in "'\\"


def test_control_characters_are_escaped_and_names_stay():
    assert csv_text("a\x1b[2J\nb\x00") == "a\\x1b[2J\\nb\\x00"
    assert csv_text("naïve 視頻.mp4") == "naïve 視頻.mp4"
    assert csv_text("b\udcff.mp4") == "b\\udcff.mp4"


def test_predictions_of_unread_and_hostile_videos_are_as_wide_as_the_header(tmp_path):
    scores = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]], np.float32)
    paths = ["=1.mp4", "gone\n.mp4", "c.mp4"]
    evaluation = Evaluation(paths, [(0,), (1,), (1,)], {"1x1": scores}, {1: "no file"})
    names = ["=HYPERLINK(1)", "b"]

    write_results(tmp_path, evaluation, summarize(evaluation, names, {}))

    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[0] for row in rows[1:]] == ["'=1.mp4", "gone\\n.mp4", "c.mp4"]
    assert not any(cell.startswith("=") for row in rows for cell in row)


def test_named_videos_that_cannot_be_read_are_as_wide_as_the_header():
    named = [
        NamedVideo("a.mp4", [Prediction("=x", 0.5), Prediction("y", 0.25)]),
        NamedVideo("b.mp4", (), "broken\x07"),
    ]

    lines = CsvLines(2, ["views"])
    written = [lines.line(prediction_row(video, "1") | {"views": "1x1"}) for video in named]

    rows = list(csv.reader(line.decode() for line in [lines.head(), *written]))
    assert {len(row) for row in rows} == {8}
    assert rows[1][2] == "'=x"
    assert rows[2][1] == "broken\\x07"


def test_scores_that_are_no_numbers_are_an_error_in_every_entrance(tiny_checkpoint):
    recognizer = octvideo.load(tiny_checkpoint, device="cpu")
    with torch.no_grad():
        recognizer.model.head.fc.weight.mul_(float("nan"))
        recognizer.model.stem.conv.weight.mul_(float("nan"))
    frames = np.zeros((8, 40, 40, 3), np.uint8)

    for ask in (recognizer.predict, recognizer.scores, recognizer.features, recognizer.timeline):
        with pytest.raises(CheckpointError, match="not finite"):
            ask(frames)


@pytest.mark.parametrize(
    ("line", "format"),
    [
        ("a.mp4 99999999999999999999", "video"),
        ("a.mp4 2147483648", "video"),
        ("a 99999999999 0", "frames"),
        ("a.mp4 " + "9" * 5000, "video"),
        ("path,label\n" + "x" * 200_000 + ",1", "video"),
        ('path,label\n"' + "x,1\n" * 50_000, "video"),
    ],
)
def test_numbers_and_fields_without_bound_are_one_line(tmp_path, line, format):
    (tmp_path / "train.csv").write_text(f"{line}\n")

    with pytest.raises(ListError, match=r"train\.csv:\d+: ") as error:
        read_list(tmp_path / "train.csv", format=format)

    assert len(str(error.value)) < 2000
    assert "\n" not in str(error.value)
