"""Shards read as the list that they were made from: the same entries, samples and views, wherever
they lie."""

import json
import pickle
import shutil
import struct

import numpy as np
import pytest
import torch
from coded_videos import write_clip
from folder_handler import FolderHandler
from iopath.common.file_io import g_pathmgr
from safetensors import safe_open

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader, reading
from octvideo.data.clips.views import VideoViews, ViewSpec
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards.shard_list import class_names_of, open_shards
from octvideo.data.storage import ranges
from octvideo.data.video.decode import open_video
from octvideo.errors import DataError, ListError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the list of seven videos, one of them bad; the folder of its three shards)."""
    folder = tmp_path_factory.mktemp("made")
    for i in range(6):
        write_clip(folder / f"v {i}.mp4", 20 + i, options={"g": "5", "bf": "0"})
    (folder / "bad.mp4").write_bytes(b"this is no video")
    names = ["v 0.mp4", "v 1.mp4", "v 2.mp4", "bad.mp4", "v 3.mp4", "v 4.mp4", "v 5.mp4"]
    (folder / "train.csv").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    (folder / "class_names.txt").write_text("clap\nwave\n")
    videos = read_list(folder / "train.csv")
    write_shards(videos, str(folder / "shards"), name="train", max_bytes=50_000, num_workers=1)
    return videos, folder / "shards"


@pytest.fixture
def shards(made, tmp_path):
    """A copy of the shards that may be damaged."""
    return shutil.copytree(made[1], tmp_path / "shards")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))


def _dataset(videos):
    return ClipDataset(videos, rule=ClipRule(4, 2), transform=ClipTransform(32, (40, 48)))


def _batches(videos, num_workers, start=0):
    loader = Loader(_dataset(videos), batch_size=2, num_workers=num_workers, max_bad_ratio=1.0)
    try:
        return list(loader.epoch(3, start))
    finally:
        loader.close()


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert a.paths == b.paths
        assert a.problems == b.problems


def test_entries_are_those_of_the_list_in_its_order(made):
    videos, folder = made
    shards = open_shards(str(folder))

    assert [entry[:2] for entry in shards] == [entry[:2] for entry in videos]
    assert shards.fingerprint() == videos.fingerprint()
    assert len(list(folder.glob("*.tar"))) == 3
    assert class_names_of(str(folder / "shards.json")) == ["clap", "wave"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_those_of_the_files_to_the_bit_bad_files_too(made, num_workers):
    videos, folder = made

    ours = _batches(open_shards(str(folder)), num_workers)

    _assert_equal(ours, _batches(videos, num_workers))
    assert any(batch.problems for batch in ours)
    _assert_equal(_batches(open_shards(str(folder)), num_workers, start=2), ours[1:])


def test_views_are_those_of_the_files_to_the_bit(made):
    videos, folder = made
    spec = ViewSpec(ClipRule(4, 2), 3, 3, short_side=48, crop_size=40)

    pairs = zip(
        VideoViews(open_shards(str(folder)), spec).read(range(7)),
        VideoViews(videos, spec).read(range(7)),
        strict=True,
    )

    for ours, theirs in pairs:
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.clips, theirs.clips)
        assert (ours.path, ours.problem) == (theirs.path, theirs.problem)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("place", ["http", "iopath"])
def test_remote_shards_give_the_same_samples(made, serve, monkeypatch, place, num_workers):
    videos, folder = made
    monkeypatch.setattr(g_pathmgr, "_path_handlers", dict(g_pathmgr._path_handlers))
    g_pathmgr.register_handler(FolderHandler(folder.parent))
    address = serve(folder).url if place == "http" else f"opens://{folder.name}"

    _assert_equal(_batches(open_shards(address), num_workers), _batches(videos, 0))


def test_a_server_that_cuts_connections_changes_nothing(made, serve, monkeypatch):
    videos, folder = made
    monkeypatch.setattr(ranges, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(ranges, "_LONGEST_PAUSE", 0.01)
    draw = np.random.default_rng(0)
    faults = [None, 100, "503", 0]
    server = serve(folder, fault=lambda path, size: faults[draw.integers(4)])

    _assert_equal(_batches(open_shards(server.url), 0), _batches(videos, 0))


def test_a_video_costs_a_worker_one_range_of_its_own_bytes(made, serve, monkeypatch):
    _, folder = made
    monkeypatch.setattr(reading, "_shared", True)
    server = serve(folder)
    dataset = _dataset(open_shards(server.url))
    server.requests.clear()

    dataset.sample(0, 1)

    part = dataset.videos[1].part
    assert server.requests == [
        ("GET", "/train-000000.tar", f"bytes={part.offset}-{part.offset + part.size - 1}")
    ]


def test_the_index_tells_keyframes_and_times_as_the_packets_do(made):
    videos, folder = made
    shards = open_shards(str(folder))

    keyframes, times = shards.frames_of(5)

    with open_video(videos[5].path) as video:
        assert times.tolist() == list(video.timing(exact_times=True).times)
    assert keyframes.tolist() == [0, 5, 10, 15, 20]
    assert [len(column) for column in shards.frames_of(3)] == [0, 0]


def test_opening_reads_each_index_once(made, serve):
    _, folder = made
    server = serve(folder)

    open_shards(server.url)

    opened = [path for verb, path, _ in server.requests if verb == "GET" and "index" in path]
    assert sorted(opened) == [f"/train-00000{i}.index.safetensors" for i in range(3)]


def test_what_is_said_of_the_number_of_videos_takes_no_memory(shards):
    described = json.loads((shards / "shards.json").read_text())
    described["shards"][0]["videos"] = 10**15
    (shards / "shards.json").write_text(json.dumps(described))

    with pytest.raises(DataError, match="says 1000000000000000"):
        open_shards(str(shards))


def test_an_index_is_a_safetensors_file(made):
    with safe_open(made[1] / "train-000000.index.safetensors", "numpy") as file:
        assert file.metadata()["octvideo"] == "1"
        assert file.get_tensor("num_frames").tolist() == [20, 21, 22, 0]
        assert len(file.get_tensor("times")) == 63


def test_a_list_of_shards_travels_to_workers(made):
    shards = open_shards(str(made[1]))

    assert list(pickle.loads(pickle.dumps(shards))) == list(shards)


def test_what_the_settings_say_of_the_list_holds_for_shards(made):
    folder = str(made[1])

    assert open_shards(folder, path_prefix="/elsewhere")[0].path == "/elsewhere/v 0.mp4"
    assert open_shards(folder, multi_label=True).format == "multilabel"
    with pytest.raises(ListError, match=r"v 1\.mp4: label 1 is outside 0\.\.0"):
        open_shards(folder, num_classes=1)


# --- What is missing, damaged or hostile


def test_no_shards_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither a shards\.json nor a tar"):
        open_shards(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="there are no shards"):
        open_shards(str(tmp_path / "nowhere"))


def test_a_shard_that_is_gone_is_a_bad_file_for_each_of_its_videos(shards, made):
    (shards / "train-000002.tar").unlink()

    batches = _batches(open_shards(str(shards)), 0)

    causes = {problem.cause for batch in batches for problem in batch.problems}
    assert "No such file or directory" in causes


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_shard_is_noticed_before_it_is_decoded(shards, made, damage):
    tar = shards / "train-000000.tar"
    part = open_shards(str(shards))[0].part
    data = bytearray(tar.read_bytes())
    data[part.offset + 4000] ^= 1
    tar.write_bytes(data if damage == "flip" else data[:4000])
    views = VideoViews(open_shards(str(shards)), ViewSpec(ClipRule(4, 2), 1, 1, 48, 40))

    (video,) = views.read([0])

    assert "holds other bytes" in video.problem or "ends before byte" in video.problem
    assert video.path == made[0][0].path


def test_an_unfinished_set_says_how_to_finish_it(shards):
    described = json.loads((shards / "shards.json").read_text())
    (shards / "shards.json").write_text(json.dumps(described | {"complete": False}))

    with pytest.raises(DataError, match="run the same `octvideo shard` again"):
        open_shards(str(shards))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "something"},
        {"shards": [{"file": "../../etc/passwd.tar", "bytes": 1, "videos": 1}]},
        {"shards": [{"file": "http://elsewhere/a.tar", "bytes": 1, "videos": 1}]},
        {"shards": [{"file": "a.tar", "bytes": -1, "videos": 1}]},
        {"shards": [{"file": "a.tar", "bytes": 1e400, "videos": 1}]},
        {"shards": 5},
        {"class_names": [1]},
        {"settings": [[[]]]},
    ],
)
def test_a_hostile_description_is_one_line(shards, change):
    described = json.loads((shards / "shards.json").read_text())
    (shards / "shards.json").write_text(json.dumps(described | change))

    with pytest.raises(DataError, match="describes no set of shards"):
        open_shards(str(shards))


@pytest.mark.parametrize("text", ["", "[" * 10**5, "{}", '"a"', "\xff"])
def test_a_description_that_is_none_is_one_line(shards, text):
    (shards / "shards.json").write_text(text, encoding="latin-1")

    with pytest.raises(DataError, match="describes no set of shards"):
        open_shards(str(shards))


def _with_column(path, name, value, row=0):
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    kind = {"I64": "<q", "I32": "<i", "F64": "<d"}[entry["dtype"]]
    at = 8 + length + entry["data_offsets"][0] + row * struct.calcsize(kind)
    struct.pack_into(kind, data, at, value)
    # Whoever makes such a file can leave the checksum out, as versions before did.
    path.write_bytes(data.replace(b"columns_crc32", b"nothing_at_al"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offset", -1),
        ("offset", 2**62),
        ("size", 2**62),
        ("size", -5),
        ("size", 20_000),  # into the next video
        ("paths_ends", 5),
        ("labels", -3),
        ("fps", float("nan")),
        ("fps", 0.0),
        ("width", 0),
        ("num_frames", -1),
    ],
)
def test_a_column_that_cannot_be_true_is_one_line(shards, name, value):
    _with_column(shards / "train-000000.index.safetensors", name, value)

    with pytest.raises(DataError, match=f"{name.removesuffix('_ends')}|labels|offset|fps"):
        open_shards(str(shards))


@pytest.mark.parametrize("length", [0, 7, 100, 2**40, 2**63])
def test_an_index_whose_header_is_none_is_one_line(shards, length):
    index = shards / "train-000000.index.safetensors"
    index.write_bytes(struct.pack("<Q", length) + index.read_bytes()[8:])

    with pytest.raises(DataError, match="of this index is damaged"):
        open_shards(str(shards))


def test_a_cut_index_is_one_line(shards):
    index = shards / "train-000000.index.safetensors"
    data = index.read_bytes()
    index.write_bytes(data[: 8 + struct.unpack("<Q", data[:8])[0] + 50])

    with pytest.raises(DataError, match="of this index is damaged"):
        open_shards(str(shards))


def test_an_index_of_another_shard_is_noticed(shards):
    shutil.copy(
        shards / "train-000001.index.safetensors", shards / "train-000000.index.safetensors"
    )

    with pytest.raises(DataError, match=r"do not fit a shard|says 4 in"):
        open_shards(str(shards))


def test_a_lost_index_is_made_anew_where_no_bad_video_is_lost_with_it(shards, made):
    videos, _ = made
    (shards / "train-000001.index.safetensors").unlink()

    again = open_shards(str(shards))

    assert again.fingerprint() == videos.fingerprint()
    assert (shards / "train-000001.index.safetensors").exists()
    _assert_equal(_batches(again, 0), _batches(videos, 0))

    (shards / "train-000000.index.safetensors").unlink()
    with pytest.raises(DataError, match=r"says \d in .* run `octvideo shard` again"):
        open_shards(str(shards))
