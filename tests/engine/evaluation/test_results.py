import csv
import io
import json

import numpy as np
import pytest

from octvideo.engine.evaluation.results import (
    Evaluation,
    final_line,
    headline,
    summarize,
    write_results,
)

NAMES = ["wave", "point", "kick"]
PROTOCOL = {"num_clips": 10, "num_crops": 3}


def evaluation_of(scores, labels, problems=None, **options):
    scores = np.array(scores, np.float32)
    return Evaluation(
        paths=[f"videos/{i}, take.mp4" for i in range(len(labels))],
        labels=labels,
        scores={"1x1": scores[:, ::-1], "10x3": scores},
        problems=problems or {},
        **options,
    )


@pytest.fixture
def three_videos():
    nan = float("nan")
    return evaluation_of(
        [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [nan, nan, nan]],
        [(0,), (1,), (2,)],
        {2: "moov atom not found"},
    )


def test_summary_holds_the_numbers_of_the_whole_protocol(three_videos):
    summary = summarize(three_videos, NAMES, PROTOCOL)

    assert summary["top1_acc"] == pytest.approx(100 / 3, abs=1e-4)
    assert summary["top5_acc"] == pytest.approx(200 / 3, abs=1e-4)
    assert summary["mean_class_acc"] == pytest.approx(100 / 3, abs=1e-4)
    assert summary["confusion"] == [[0, 0, 1], [1, 0, 1]]
    assert summary["views"]["1x1"]["top1_acc"] == 0.0
    assert summary["classes"][2].items() >= {"name": "kick", "videos": 1, "correct": 0}.items()


def test_every_class_counts_alike_in_the_mean_class_accuracy():
    found = evaluation_of([[0.7, 0.2, 0.1]] * 4, [(0,), (0,), (0,), (1,)])

    summary = summarize(found, NAMES, PROTOCOL)

    assert (summary["top1_acc"], summary["mean_class_acc"]) == (75.0, 50.0)


def test_classes_have_precision_recall_and_f1(three_videos):
    """Class 0 was named twice, once rightly; an unread video lowers the recall of class 2, not a
    precision."""
    first, second, third = summarize(three_videos, NAMES, PROTOCOL)["classes"]

    assert (first["precision"], first["recall"]) == (50.0, 100.0)
    assert first["f1"] == pytest.approx(66.6667)
    assert (second["f1"], third["recall"]) == (0.0, 0.0)


def test_the_loss_is_the_mean_over_what_could_be_read(three_videos):
    expected = -(np.log(0.7) + np.log(0.3)) / 2

    assert summarize(three_videos, NAMES, PROTOCOL)["log_loss"] == pytest.approx(expected, abs=1e-6)
    unread = evaluation_of([[float("nan")] * 3], [(0,)], {0: "torn"})
    assert summarize(unread, NAMES, PROTOCOL)["log_loss"] is None


def test_unread_videos_are_listed_and_counted_in_the_headline(three_videos):
    summary = summarize(three_videos, NAMES, PROTOCOL)

    assert summary["unread"] == [{"path": "videos/2, take.mp4", "problem": "moov atom not found"}]
    assert "3 videos, 1 of them unreadable (counted as wrong)" in headline(summary)


def test_last_log_line_has_pyslowfasts_keys_and_format(three_videos):
    line = final_line(summarize(three_videos, NAMES, PROTOCOL))

    assert line == {"split": "test_final", "top1_acc": "33.33", "top5_acc": "66.67"}


def test_a_multi_label_list_gives_mean_average_precision():
    found = evaluation_of([[0.9, 0.1, 0.8], [0.2, 0.7, 0.1]], [(0, 2), (1,)], multi_label=True)

    summary = summarize(found, NAMES, PROTOCOL)

    assert summary["map"] == 1.0
    assert final_line(summary) == {"split": "test_final", "map": 1.0}
    assert "top1_acc" not in summary


def test_of_several_labels_a_video_may_have_none():
    scores = [[0.9, 0.1, 0.8], [0.1, 0.2, 0.1]]
    found = evaluation_of(scores, [(0, 2), ()], multi_label=True)

    assert summarize(found, NAMES, PROTOCOL)["map"] == 1.0
    assert found.task == "multi_label"
    assert evaluation_of(scores, [(0,), ()]).task == "unlabelled"
    assert evaluation_of(scores, [(), ()], multi_label=True).task == "unlabelled"


def test_an_unlabeled_list_gives_predictions_only(tmp_path):
    found = evaluation_of([[0.9, 0.1, 0.0]], [()])

    summary = summarize(found, NAMES, PROTOCOL)
    write_results(tmp_path, found, summary)

    assert summary["task"] == "unlabelled"
    assert "top1_acc" not in summary
    assert "views" not in summary
    assert headline(summary) == "predictions for 1 videos"
    assert "0,wave,0.900000" in (tmp_path / "predictions.csv").read_text()


def test_written_files_hold_every_video_and_load_without_pickle(three_videos, tmp_path):
    write_results(tmp_path, three_videos, summarize(three_videos, NAMES, PROTOCOL))

    rows = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text())))
    assert rows[1]["path"] == "videos/1, take.mp4"
    assert (rows[1]["label_name"], rows[1]["name_1"], rows[1]["score_1"]) == (
        "point",
        "wave",
        "0.500000",
    )
    assert rows[2]["class_1"] == ""
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["scores"], three_videos.final)
        assert arrays["paths"][0] == "videos/0, take.mp4"
    assert json.loads((tmp_path / "results.json").read_text())["num_videos"] == 3


def test_equal_evaluations_write_equal_bytes(three_videos, tmp_path):
    summary = summarize(three_videos, NAMES, PROTOCOL)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, three_videos, summary)

    for name in ("results.json", "predictions.csv", "scores.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
