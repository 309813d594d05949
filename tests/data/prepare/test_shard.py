"""Writing shards: in parallel, in the order of the list, and on after any interruption."""

import filecmp
import itertools
import json
import shutil
from pathlib import Path

import fsspec
import pytest
from coded_videos import write_clip
from fsspec.implementations.memory import MemoryFileSystem
from killed_runs import run_past_kills, start

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.check import check_list
from octvideo.data.prepare.resize import resize_video
from octvideo.data.prepare.shard import Encoding, bytes_of, write_shards
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.shards.writer import ShardWriter
from octvideo.data.storage.part import read_part
from octvideo.data.video.index import read_index
from octvideo.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_clip(folder / f"v{i}.mp4", 12 + i)
    lines = "".join(f"v{i}.mp4 {i}\n" for i in range(5)) + "absent.mp4 0\n"
    (folder / "train.csv").write_text(lines)
    return read_list(folder / "train.csv")


def _write(videos, folder, **options):
    return write_shards(
        videos, str(folder), name="train", **{"max_bytes": 12_000, "num_workers": 2, **options}
    )


def _assert_equal_folders(ours, theirs):
    names = sorted(file.name for file in theirs.iterdir())
    assert sorted(file.name for file in ours.iterdir()) == names
    assert filecmp.cmpfiles(ours, theirs, names, shallow=False)[0] == names


def test_videos_are_stored_as_they_are(videos, tmp_path):
    result = _write(videos, tmp_path / "s")

    for entry in open_shards(str(tmp_path / "s"))[:5]:
        assert read_part(entry.part) == Path(entry.path).read_bytes()
    assert result.bad == {"absent.mp4": "No such file or directory"}
    assert (tmp_path / "s" / "bad.csv").read_text().splitlines()[1:] == [
        "absent.mp4,No such file or directory"
    ]


@pytest.mark.parametrize("encoding", [Encoding(-4), Encoding(64, 0), Encoding(64, 12, 52)])
def test_an_encoding_that_cannot_be_is_refused_before_there_is_a_folder(videos, tmp_path, encoding):
    with pytest.raises(ConfigError, match=r"a (short side|keyframe|crf) .*; give "):
        _write(videos, tmp_path / "s", encoding=encoding)

    assert not (tmp_path / "s").exists()


def test_a_video_that_no_tar_can_hold_is_one_that_cannot_be_stored(videos, tmp_path, monkeypatch):
    sizes = [Path(videos[i].path).stat().st_size for i in range(5)]
    largest = sizes.index(max(sizes))
    monkeypatch.setattr("octvideo.data.shards.writer.MAX_FILE", max(sizes) - 1)

    result = _write(videos, tmp_path / "s")

    cause = result.bad[videos.listed(largest)]
    assert cause.startswith(f"{max(sizes):,} bytes; a shard holds videos of at most")
    stored = open_shards(str(tmp_path / "s"))
    assert [entry.part.size for entry in stored[:5]] == [n if n < max(sizes) else 0 for n in sizes]
    for entry in stored[:5]:
        assert entry.part.problem or read_part(entry.part) == Path(entry.path).read_bytes()


def test_shards_keep_below_the_size_that_was_asked_for(videos, tmp_path):
    shards = _write(videos, tmp_path / "s").shards.shards

    assert len(shards) > 1
    for shard in shards:
        assert (tmp_path / "s" / shard.file).stat().st_size == shard.num_bytes <= 12_000
    assert len(_write(videos, tmp_path / "large", max_bytes=10**9).shards.shards) == 1
    assert len(_write(videos, tmp_path / "small", max_bytes=1).shards.shards) >= 5


def test_re_encoded_videos_are_those_that_resize_writes(videos, tmp_path):
    _write(videos, tmp_path / "s", encoding=Encoding(64, 6, 25))

    resize_video(videos[1].path, str(tmp_path / "one.mp4"), 64, 6, 25)
    entry = open_shards(str(tmp_path / "s"))[1]
    assert read_part(entry.part) == (tmp_path / "one.mp4").read_bytes()
    assert (entry.part.info.height, entry.part.info.num_frames) == (64, 13)
    assert not list((tmp_path / "s").glob(".*"))


def test_workers_change_nothing(videos, tmp_path):
    _write(videos, tmp_path / "one", num_workers=1)
    _write(videos, tmp_path / "three", num_workers=3)

    _assert_equal_folders(tmp_path / "one", tmp_path / "three")


def test_what_check_found_is_kept(videos, tmp_path):
    check_list(videos, tmp_path / "checked", num_workers=1)
    index = read_index(videos.name.replace("train.csv", "train.index.csv"))

    _write(videos, tmp_path / "s", index=index)

    info = index.get(videos[0].path)
    found = open_shards(str(tmp_path / "s"))[0].part.info
    assert (found.num_frames, found.backend, found.fps) == (info.num_frames, info.backend, info.fps)


def test_a_second_run_keeps_what_is_there(videos, tmp_path):
    _write(videos, tmp_path / "s")
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "s").glob("*.tar")}

    result = _write(videos, tmp_path / "s")

    assert result.kept == 6
    assert times == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "s").glob("*.tar")}


def test_shards_of_another_list_or_with_other_settings_are_not_touched(videos, tmp_path):
    _write(videos, tmp_path / "s")

    with pytest.raises(DataError, match="of another list or with other settings"):
        _write(videos, tmp_path / "s", encoding=Encoding(64))
    with pytest.raises(DataError, match="of another list or with other settings"):
        _write(videos, tmp_path / "s", max_bytes=5_000)


def test_shards_of_the_same_list_in_another_folder_are_not_touched(videos, tmp_path):
    """As behind `--path-prefix`: once of the originals, once of smaller copies."""
    root, moved = tmp_path / "videos", tmp_path / "moved"
    shutil.copytree(videos.root, root)
    _write(read_list(videos.name, path_prefix=root), tmp_path / "s", num_workers=1)

    with pytest.raises(DataError, match=f"of the videos below {root}, not below {videos.root}; "):
        _write(videos, tmp_path / "s")
    root.rename(moved)
    result = _write(read_list(videos.name, path_prefix=moved), tmp_path / "s")

    assert (result.kept, result.shards.root) == (6, str(moved))


def test_a_list_of_frame_folders_is_refused(videos, tmp_path):
    (tmp_path / "frames.csv").write_text("folder 3 0\n")

    with pytest.raises(DataError, match="a list of frame folders"):
        _write(read_list(tmp_path / "frames.csv", format="frames"), tmp_path / "s")


def test_shards_are_written_to_a_store_of_fsspec(videos, tmp_path):
    _write(videos, "memory://bucket/train")
    _write(videos, tmp_path / "local")

    store = fsspec.filesystem("memory")
    for file in (tmp_path / "local").iterdir():
        assert store.cat_file(f"/bucket/train/{file.name}") == file.read_bytes()
    assert len(open_shards("memory://bucket/train")) == 6


@pytest.fixture
def interrupted(videos, monkeypatch):
    """The address of a folder into which a run had begun to write its first shard, which the
    storage did not remove, as it does not after a kill."""
    folder, add, calls = "memory://interrupted", ShardWriter.add, itertools.count()

    def interrupted_add(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        add(*args)

    monkeypatch.setattr(ShardWriter, "add", interrupted_add)
    monkeypatch.setattr(MemoryFileSystem, "_rm", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        _write(videos, folder, max_bytes=10**9, num_workers=1)
    monkeypatch.undo()
    yield folder
    fsspec.filesystem("memory").rm("/interrupted", recursive=True)


def test_what_an_interrupted_run_left_is_not_trained_on(interrupted):
    assert fsspec.filesystem("memory").exists("/interrupted/train-000000.tar")

    with pytest.raises(DataError, match=r"0 videos are written, .* again to finish"):
        open_shards(interrupted)


def test_a_run_interrupted_in_its_first_shard_goes_on_also_with_other_settings(videos, interrupted):
    result = _write(videos, interrupted, num_workers=1)

    assert (result.kept, len(open_shards(interrupted))) == (0, 6)
    assert len(result.shards.shards) > 1


def test_a_shard_that_cannot_be_completed_is_discarded(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("octvideo.data.shards.writer._END", "no bytes")

    with pytest.raises(TypeError):
        _write(videos, tmp_path / "s", max_bytes=10**9)

    assert [file.name for file in (tmp_path / "s").iterdir()] == ["shards.json"]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(videos, tmp_path):
    arguments = ["shard", videos.name, "--size", "12KB", "--short-side", "64", "--workers", "1"]
    assert start([*arguments, "--out", tmp_path / "whole"], tmp_path / "whole").wait() == 0

    run_past_kills([*arguments, "--out", tmp_path / "killed"], tmp_path / "killed")

    _assert_equal_folders(tmp_path / "killed", tmp_path / "whole")
    assert json.loads((tmp_path / "killed" / "shards.json").read_text())["complete"]


def test_sizes_are_written_as_people_write_them():
    assert [bytes_of(text) for text in ("1GB", "500MB", "1.5 g", "12kb", "7")] == [
        10**9,
        5 * 10**8,
        15 * 10**8,
        12_000,
        7,
    ]
    for text in ("", "GB", "-1GB", "1XB", "0"):
        with pytest.raises(ConfigError, match="is no size"):
            bytes_of(text)
