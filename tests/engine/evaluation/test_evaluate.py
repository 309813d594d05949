import time
from dataclasses import replace
from pathlib import Path

import evaluation_run
import numpy as np
import pytest
import torch
from evaluation_run import NUM_CLASSES, SPEC, MadeVideos, made_score, made_video, prepare
from forked import Forked, forked_ranks

from octvideo.data.clips.views import VideoViews, ViewSpec, view_batches
from octvideo.data.lists.video_list import read_list
from octvideo.data.sampling import ClipRule
from octvideo.data.video.encode import write_video
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import combine, default_view_chunk, evaluate
from octvideo.engine.evaluation.journal import Journal
from octvideo.errors import CheckpointError, ConfigError, DataError
from octvideo.models import create_model

FILES = ("results.json", "predictions.csv", "scores.npz")


def run(score=made_score, videos=None, **options):
    return evaluate(
        score, videos or MadeVideos(), num_classes=NUM_CLASSES, prepare=prepare, **options
    )


def views_one_by_one(index):
    """(views, C): every view of a made video cut and scored by itself."""
    video = made_video(index)
    height, width = video.frames.shape[1:3]
    scores = []
    for clip in video.clips:
        for place in range(3):
            spare = max(height, width) - 24
            offset = (0, -(-spare // 2), spare)[place]
            top, left = (offset, 0) if height > width else (0, offset)
            view = video.frames[clip, top : top + 24, left : left + 24].permute(3, 0, 1, 2)
            scores.append(made_score(prepare(view[None])))
    return torch.cat(scores).detach().numpy()


def test_a_videos_score_is_the_mean_over_its_views_scored_one_by_one():
    found = run(view_chunk=4)

    for index in (0, 3, 10):
        np.testing.assert_allclose(
            found.final[index], views_one_by_one(index).mean(axis=0), atol=1e-5
        )


def test_the_mean_of_equal_views_is_their_score_to_the_last_bit():
    scores = np.random.default_rng(0).random((1, 400), np.float32)

    assert np.array_equal(combine(scores.repeat(30, axis=0), "sum"), scores[0])


def test_max_takes_the_best_view_of_each_class():
    found = run(ensemble="max")

    np.testing.assert_allclose(found.final[3], views_one_by_one(3).max(axis=0), atol=1e-5)


def test_the_same_pass_scores_the_smaller_protocols():
    found = run()

    views = views_one_by_one(5)
    assert list(found.scores) == ["1x1", "1x3", "3x1", "5x1", "5x3"]
    np.testing.assert_allclose(found.scores["1x1"][5], views[1], atol=1e-5)
    np.testing.assert_allclose(found.scores["1x3"][5], views[:3].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.scores["5x1"][5], views[1::3].mean(axis=0), atol=1e-5)


def test_a_forward_pass_holds_one_chunk_of_one_video():
    sizes = []

    def score(views):
        sizes.append(len(views))
        return made_score(views)

    run(score, MadeVideos(2), view_chunk=6)

    assert sizes == [6, 6, 3] * 2


def test_scores_do_not_depend_on_how_views_are_chunked():
    one, all_views = run(view_chunk=1), run(view_chunk=15)

    np.testing.assert_allclose(one.final, all_views.final, atol=1e-6)


def test_videos_of_several_views_share_no_forward_pass():
    np.testing.assert_array_equal(run(batch_size=4, view_chunk=6).final, run(view_chunk=6).final)


def test_the_default_chunk_is_decided_by_the_views_alone():
    assert default_view_chunk(ViewSpec(ClipRule(8, 8))) == 10
    assert default_view_chunk(ViewSpec(ClipRule(32, 2))) == 2
    assert default_view_chunk(SPEC) == SPEC.num_views


def test_an_unreadable_video_has_no_scores_and_its_reason_is_kept():
    found = run()

    assert found.problems == {6: "no video stream"}
    assert np.isnan(found.final[6]).all()
    assert not np.isnan(np.delete(found.final, 6, axis=0)).any()


def test_where_no_video_can_be_read_no_accuracy_is_given():
    videos = MadeVideos()
    videos.read = lambda indices: (replace(made_video(6), index=i) for i in indices)

    with pytest.raises(
        DataError, match=r"11 of 11 videos cannot be read, the first made/0\.mp4 \("
    ):
        run(videos=videos)


def test_scores_that_are_not_finite_stop_with_the_video_named():
    with pytest.raises(CheckpointError, match=r"made/0\.mp4.*not finite"):
        run(lambda views: made_score(views) * float("nan"))


def test_an_unknown_ensemble_is_refused():
    with pytest.raises(ConfigError, match="sum, max"):
        run(ensemble="mean")


def test_a_networks_video_score_is_the_mean_of_its_views_window_scores(tmp_path):
    """Oct-I3D with PySlowFast's sliding-window head, from a file: 30 views in chunks against 30
    views one by one."""
    frames = (
        np.random.default_rng(0)
        .integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)
        .repeat(8, 1)
        .repeat(8, 2)
    )
    write_video(tmp_path / "noise.mp4", frames)
    (tmp_path / "val.csv").write_text("noise.mp4 0\n")
    spec = ViewSpec(ClipRule(4, 4), short_side=64, crop_size=64)
    videos = VideoViews(read_list(tmp_path / "val.csv"), spec)
    model = create_model(
        "i3d_r26", alpha=0.5, num_classes=5, width_per_group=16, crop_size=32
    ).eval()

    found = evaluate(model.window_scores, videos, num_classes=5, prepare=prepare, view_chunk=7)

    (video,) = videos.read([0])
    with torch.inference_mode():
        views = torch.cat(
            [
                model.window_scores(prepare(view))
                for view in view_batches(video.frames, video.clips, spec, 1)
            ]
        )
    assert views.shape == (30, 5)
    np.testing.assert_allclose(found.final[0], views.mean(dim=0), atol=1e-5)


class TwoRanks(Processes):
    """Rank 0 of two, whose peer sends what the test says."""

    peer: dict[int, object] = {}  # noqa: RUF012 - set by the test

    def gather(self, value):
        return [value, self.peer]


@pytest.mark.parametrize(
    ("peer", "message"), [({0: "again", 1: ""}, "twice"), ({}, "not evaluated")]
)
def test_the_gather_proves_that_each_video_came_once(peer, message):
    ranks = TwoRanks(world_size=2)
    object.__setattr__(ranks, "peer", peer)

    with pytest.raises(RuntimeError, match=message):
        run(videos=MadeVideos(2), processes=ranks)


def test_videos_in_the_journal_are_not_decoded_again(tmp_path):
    whole = run(journal=Journal(tmp_path, "f"))

    asked = []
    videos = MadeVideos()
    videos.read = lambda indices: asked.extend(indices) or [made_video(i) for i in indices]
    again = run(videos=videos, journal=Journal(tmp_path, "f", rank=3))

    assert asked == [6]
    np.testing.assert_array_equal(again.final, whole.final)


def test_of_the_journal_only_videos_that_were_replaced_are_decoded_again(tmp_path):
    videos, asked = MadeVideos(3), []
    videos.paths = [str(tmp_path / f"{i}.mp4") for i in range(3)]
    videos.read = lambda indices: asked.append(list(indices)) or [made_video(i) for i in indices]
    for path in videos.paths:
        Path(path).write_bytes(b"video")
    run(videos=videos, journal=Journal(tmp_path, "f"))
    Path(videos.paths[1]).write_bytes(b"another")

    run(videos=videos, journal=Journal(tmp_path, "f"))

    assert asked == [[0, 1, 2], [1]]


def run_whole(folder, processes=1):
    folder.mkdir(exist_ok=True)
    ranks = forked_ranks(processes, evaluation_run.main, folder, outputs=folder)
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * processes, outputs


@pytest.mark.slow
def test_one_two_and_three_processes_write_the_same_bytes(tmp_path):
    for count in (1, 2, 3):
        run_whole(tmp_path / str(count), count)

    for name in FILES:
        first, *others = [(tmp_path / str(count) / name).read_bytes() for count in (1, 2, 3)]
        assert others == [first, first], name


@pytest.mark.slow
def test_a_killed_evaluation_continues_to_the_same_bytes(tmp_path):
    run_whole(tmp_path / "whole")

    folder = tmp_path / "killed"
    folder.mkdir()
    for _ in range(2):
        noted = lines_in(folder)
        run = Forked(evaluation_run.main, folder, 0.5, output=tmp_path / "killed.txt")
        wait_until(lambda noted=noted: lines_in(folder) >= noted + 2)
        run.kill()
        assert run.wait() == -9
    assert not (folder / "results.json").exists()
    run_whole(folder)

    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(folder.glob("evaluation_*"))


def lines_in(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("evaluation_*/rank_*.jsonl"))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
