"""The picture of finished runs: which of them are one point, and which do not belong together."""

import json

import pytest

from octvideo.errors import DataError
from octvideo.files import OutputError
from octvideo.report import tradeoff
from octvideo.study import draw_runs, finished, origin
from octvideo.study.finished import Finished, means_of

NETWORK = {"name": "i3d_r50", "alpha": 0.1, "gflops_per_view": 2.0}


def a_run(folder, settings=None, protocol=None, **results):
    """The path of results.json in a folder of its own, with settings beside it."""
    folder.mkdir(parents=True)
    content = {"protocol": {"network": NETWORK, **(protocol or {})}, **results}
    (folder / "results.json").write_text(json.dumps(content))
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings))
    return folder / "results.json"


def test_seeds_of_one_network_are_one_point_wherever_they_ran(tmp_path):
    runs = [
        a_run(tmp_path / f"{seed}", {"RNG_SEED": seed, "OUTPUT_DIR": f"{seed}"}, top1_acc=top1)
        for seed, top1 in enumerate((50.0, 60.0, 70.0))
    ]

    (point,) = means_of([Finished.of(path) for path in runs])

    assert (point.accuracy, point.low, point.high) == (60.0, 50.0, 70.0)


def test_where_the_same_data_lie_and_how_they_are_tested_makes_no_other_run(tmp_path):
    of = "2 entries (ab12) of /{}/val.csv"
    runs = [
        a_run(
            tmp_path / name,
            {"DATA.PATH_TO_DATA_DIR": name, "TEST.BATCH_SIZE": size, origin.VAL: of.format(name)},
            {"list": f"{name}/test.csv"},
            data={"entries": 2, "fingerprint": "cd34"},
            top1_acc=50.0,
        )
        for name, size in (("a", 1), ("b", 8))
    ]

    assert len(means_of([Finished.of(path) for path in runs])) == 1


def test_a_curve_says_that_its_multiply_adds_leave_weights_out(tmp_path):
    run = a_run(
        tmp_path / "a", None, {"network": {**NETWORK, "uncounted": ["rnn.weight"]}}, top1_acc=50.0
    )

    assert Finished.of(run).point.family == "i3d_r50 (GFLOPs in part)"


def test_runs_that_say_nothing_of_their_settings_are_taken_for_seeds(tmp_path):
    runs = [a_run(tmp_path / name, top1_acc=top1) for name, top1 in (("a", 50.0), ("b", 60.0))]

    (point,) = means_of([Finished.of(path) for path in runs])

    assert point.accuracy == 55.0


@pytest.mark.parametrize(
    ("settings", "protocol", "difference"),
    [
        ({"SOLVER.BASE_LR": 0.01}, {}, r"SOLVER\.BASE_LR 0\.01 instead of 0\.1"),
        (
            {"TRAIN.CHECKPOINT_FILE_PATH": "image.pyth"},
            {},
            r"TRAIN\.CHECKPOINT_FILE_PATH image\.pyth instead of ''",
        ),
        ({}, {"views": "1x3"}, "test views 1x3 instead of 10x3"),
    ],
)
def test_runs_that_differ_in_more_than_their_seeds_are_no_point(
    tmp_path, settings, protocol, difference
):
    first = {"SOLVER.BASE_LR": 0.1, "RNG_SEED": 0}
    views = {"views": "10x3"}
    runs = [
        a_run(tmp_path / "a", first, views, top1_acc=30.0),
        a_run(tmp_path / "b", first | settings, views | protocol, top1_acc=60.0),
    ]

    with pytest.raises(DataError, match=rf"b/results\.json: .*a/results\.json, .*{difference}"):
        draw_runs(runs, tmp_path)

    assert not (tmp_path / "tradeoff.png").exists()


def test_runs_of_other_test_lists_are_no_point(tmp_path):
    data = [{"entries": 20, "fingerprint": text} for text in ("1c", "2d")]
    runs = [a_run(tmp_path / d["fingerprint"], data=d, top1_acc=50.0) for d in data]

    with pytest.raises(DataError, match=r"with test list 20 entries \(2d\) instead of 20 .*\(1c\)"):
        draw_runs(runs, tmp_path)


def test_several_labels_are_drawn_by_their_map(tmp_path, monkeypatch):
    drawn = []

    def draw(points, **words):
        drawn.append(([p.accuracy for p in points], words["metric"]))
        return tradeoff.draw_tradeoff(points, **words)

    monkeypatch.setattr(finished, "draw_tradeoff", draw)
    runs = [a_run(tmp_path / name, map=share) for name, share in (("a", 0.25), ("b", 0.35))]

    draw_runs(runs, tmp_path)

    assert drawn == [([pytest.approx(30.0)], "mAP")]


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ({"map": 0.5}, r"b/results\.json: has mAP, and .*a/results\.json top-1; one axis"),
        ({}, r"b/results\.json: of a test without labels, which has no accuracy to draw"),
    ],
)
def test_results_that_one_axis_cannot_show_are_refused(tmp_path, results, problem):
    runs = [a_run(tmp_path / "a", top1_acc=30.0), a_run(tmp_path / "b", **results)]

    with pytest.raises(DataError, match=problem):
        draw_runs(runs, tmp_path)


def test_another_file_is_no_results(tmp_path):
    other = tmp_path / "other.json"
    for text in ("{}", "[]", "{"):
        other.write_text(text)
        with pytest.raises(DataError, match=r"other\.json: not a results\.json of `octvideo test`"):
            draw_runs([other], tmp_path)
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        draw_runs([tmp_path / "none.json"], tmp_path)


def test_what_a_run_was_made_with_is_read_from_its_checkpoint_too(tmp_path, monkeypatch):
    trained = {name: {"SOLVER.BASE_LR": 1.0, "OUTPUT_DIR": name} for name in "bcd"}
    monkeypatch.setattr(origin, "_in_checkpoint", lambda folder: trained.get(folder.name, {}))
    settings = {"SOLVER.BASE_LR": 0.1, "OUTPUT_DIR": "else"}
    recorded = a_run(tmp_path / "a", settings, top1_acc=30.0)
    runs = [a_run(tmp_path / name, top1_acc=40.0) for name in "bc"]

    assert means_of([Finished.of(path) for path in runs])[0].accuracy == 40.0
    with pytest.raises(
        DataError, match=r"b/results\.json: .* SOLVER\.BASE_LR 1\.0 instead of 0\.1"
    ):
        draw_runs([recorded, *runs], tmp_path)
    # One that was continued with another rate has that of its checkpoint.
    continued = a_run(tmp_path / "d", settings, top1_acc=50.0)
    with pytest.raises(
        DataError, match=r"d/results\.json: .* SOLVER\.BASE_LR 1\.0 instead of 0\.1"
    ):
        draw_runs([recorded, continued], tmp_path)


def test_videos_that_a_test_could_not_read_are_said_beside_the_plot(tmp_path, caplog):
    counts = {"a": {"num_unread": 3, "num_videos": 20}, "b": {"num_unread": 0, "num_videos": 20}}
    runs = [a_run(tmp_path / name, top1_acc=50.0, **count) for name, count in counts.items()]

    draw_runs(runs, tmp_path)

    said = f"Videos that a test could not read count as wrong: 3 of 20 in {runs[0]}"
    assert caplog.messages == [said]


def test_a_plot_that_cannot_be_written_is_named(tmp_path):
    run = a_run(tmp_path / "a", top1_acc=50.0)

    with pytest.raises(OutputError, match=r"gone/tradeoff\.png: cannot be written"):
        draw_runs([run], tmp_path / "gone")
