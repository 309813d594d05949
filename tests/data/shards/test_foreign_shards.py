"""Shards by the webdataset package and by tar are read; webdataset and energon read ours."""

import gc
import json
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
import webdataset
from coded_videos import numbers, write_clip
from folder_handler import FolderHandler
from iopath.common.file_io import g_pathmgr
from tars import tar_of

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards import scan
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.storage.cache import RangeCache
from octvideo.data.storage.part import read_part
from octvideo.data.video.frame_source import open_entry
from octvideo.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"v{i}.mp4", 5 + i) for i in range(4)]


def _frames(entry):
    with open_entry(entry) as video:
        return numbers(video.read(range(video.info.num_frames)))


def _write(pattern, samples):
    with webdataset.ShardWriter(str(pattern), maxcount=2, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)


def test_shards_of_webdataset_are_read(tmp_path, clips):
    _write(
        tmp_path / "set-%03d.tar",
        [
            {"__key__": f"folder/{i}", "mp4": clip.read_bytes(), "cls": i, "txt": "a caption"}
            for i, clip in enumerate(clips)
        ],
    )

    videos = open_shards(str(tmp_path))

    assert [entry.labels for entry in videos] == [(0,), (1,), (2,), (3,)]
    assert videos[2].path == "set-001.tar/folder/2.mp4"
    assert [_frames(entry) for entry in videos] == [list(range(5 + i)) for i in range(4)]
    assert len(list(tmp_path.glob("*.index.safetensors"))) == 2


@pytest.mark.parametrize(
    ("label", "labels", "format"),
    [
        ({"label": 3}, (3,), "video"),
        ({"label": "wave"}, (1,), "video"),
        ({"labels": [2, 0]}, (2, 0), "multilabel"),
        ({"caption": "none"}, (), "unlabeled"),
    ],
)
def test_labels_in_json_are_numbers_or_names(tmp_path, clips, label, labels, format):
    (tmp_path / "class_names.txt").write_text("clap\nwave\n")
    _write(tmp_path / "a-%d.tar", [{"__key__": "x", "mp4": clips[0].read_bytes(), "json": label}])

    videos = open_shards(str(tmp_path))

    assert videos[0].labels == labels
    assert videos.format == format


@pytest.mark.parametrize(("several", "format"), [([1], "unlabeled"), ([2, 0], "multilabel")])
def test_shards_in_which_some_video_has_no_label_may_have_several(tmp_path, clips, several, format):
    content = clips[0].read_bytes()
    samples = [
        {"__key__": "x", "mp4": content, "json": {"labels": several}},
        {"__key__": "y", "mp4": content},
    ]
    _write(tmp_path / "a-%d.tar", samples)

    assert open_shards(str(tmp_path)).format == format


@pytest.mark.parametrize("label", [-1, 2**40, 1.5, True, "unheard of", {"a": 1}])
def test_a_label_that_is_none_is_one_line(tmp_path, clips, label):
    sample = {"__key__": "x", "mp4": clips[0].read_bytes(), "json": {"label": label}}
    _write(tmp_path / "a-%d.tar", [sample])

    with pytest.raises(DataError, match=r"a-0\.tar: x\.mp4: the label .* is neither"):
        open_shards(str(tmp_path))


def test_json_that_is_none_or_huge_is_one_line(tmp_path, clips):
    for content in (b"{", b"[" * 10**5, b" " * 2**21):
        _write(tmp_path / "a-%d.tar", [{"__key__": "x", "mp4": b"1", "json": content}])
        with pytest.raises(DataError, match=r"x\.json: "):
            open_shards(str(tmp_path))


@pytest.mark.parametrize("flags", [[], ["--format=ustar"], ["--format=gnu"], ["--format=pax"]])
def test_a_tar_of_folders_of_classes_is_read(tmp_path, clips, flags):
    for i, clip in enumerate(clips):
        folder = tmp_path / "videos" / ("clap", "wave_hands")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / f"{'long name ' * 9}{i}.mp4")
    (tmp_path / "class_names.txt").write_text("clap\nwave hands\n")
    command = [
        "tar",
        *flags,
        "-C",
        tmp_path / "videos",
        "-cf",
        tmp_path / "a.tar",
        "clap",
        "wave_hands",
    ]
    subprocess.run(command, check=True)

    videos = open_shards(str(tmp_path))

    assert sorted(entry.labels for entry in videos) == [(0,), (0,), (1,), (1,)]
    assert sorted(len(_frames(entry)) for entry in videos) == [5, 6, 7, 8]


def test_the_index_is_made_once_and_again_for_another_tar(tmp_path, clips, serve, monkeypatch):
    _write(tmp_path / "a-%d.tar", [{"__key__": "x", "mp4": clips[0].read_bytes(), "cls": 1}])
    assert len(open_shards(str(tmp_path))) == 1
    index = tmp_path / "a-0.index.safetensors"
    before = index.stat().st_mtime_ns

    assert len(open_shards(str(tmp_path))) == 1
    assert index.stat().st_mtime_ns == before

    samples = [{"__key__": k, "mp4": clips[0].read_bytes(), "cls": 1} for k in "xy"]
    _write(tmp_path / "a-%d.tar", samples)
    assert len(open_shards(str(tmp_path))) == 2


def test_where_nothing_can_be_written_the_index_goes_to_the_cache(tmp_path, clips, monkeypatch):
    folder = tmp_path / "set"
    folder.mkdir()
    _write(folder / "a-%d.tar", [{"__key__": "x", "mp4": clips[0].read_bytes(), "cls": 1}])
    # A folder in the index's place: root may write anywhere.
    (folder / "a-0.index.safetensors").mkdir()

    assert len(open_shards(str(folder))) == 1

    assert len(list((tmp_path / "home" / "shards").glob("*.index.safetensors"))) == 1


def test_a_link_in_a_tar_is_refused(tmp_path, clips):
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "a.tar", "link.mp4"], check=True)

    with pytest.raises(DataError, match=r"'link\.mp4' is a link; pack it with tar --dereference"):
        open_shards(str(tmp_path))


def test_names_of_any_kind_are_only_names(tmp_path, clips):
    sample = {"__key__": "../../../etc/passwd", "mp4": clips[0].read_bytes(), "cls": 0}
    _write(tmp_path / "a-%d.tar", [sample])

    videos = open_shards(str(tmp_path))

    assert videos[0].part.file == str(tmp_path / "a-0.tar")
    assert _frames(videos[0]) == list(range(5))


def test_a_broken_video_in_a_foreign_shard_is_a_bad_file(tmp_path):
    _write(tmp_path / "a-%d.tar", [{"__key__": "x", "mp4": b"no video", "cls": 0}])

    with (
        pytest.raises(DataError, match=r"^a-0\.tar/x\.mp4: Invalid data"),
        open_entry(open_shards(str(tmp_path))[0]),
    ):
        pass


def test_webdataset_reads_ours(tmp_path, clips):
    lines = "".join(f"{clip} {i}\n" for i, clip in enumerate(clips))
    (tmp_path / "train.csv").write_text(lines)
    (tmp_path / "class_names.txt").write_text("a\nb\nc\nd\n")
    write_shards(
        read_list(tmp_path / "train.csv"),
        str(tmp_path / "s"),
        name="train",
        max_bytes=9000,
        num_workers=1,
    )

    files = sorted(map(str, (tmp_path / "s").glob("*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # It leaves its files to the collector.
        samples = list(webdataset.WebDataset(files, shardshuffle=False))
        gc.collect()

    assert len(files) > 1
    assert [sample["mp4"] for sample in samples] == [clip.read_bytes() for clip in clips]
    assert [json.loads(sample["json"]) for sample in samples] == [
        {"label": i, "classes": ["abcd"[i]], "path": str(clip)} for i, clip in enumerate(clips)
    ]


@pytest.mark.slow
def test_energon_reads_ours(tmp_path, clips, repo):
    if find_spec("megatron") is None or find_spec("megatron.energon") is None:
        pytest.skip("no energon")
    (tmp_path / "train.csv").write_text("".join(f"{clip} {i}\n" for i, clip in enumerate(clips)))
    videos, folder = read_list(tmp_path / "train.csv"), str(tmp_path / "s")
    write_shards(videos, folder, name="train", max_bytes=9000, num_workers=1)
    program = Path(sys.executable).with_name("energon")
    options = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
    subprocess.run([program, "prepare", folder, *options], check=True, capture_output=True)

    command = [sys.executable, repo / "docs" / "recipes" / "energon_read.py", folder]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert sorted(told.splitlines()) == [
        f"{clip} {i} {clip.stat().st_size} bytes" for i, clip in enumerate(clips)
    ]
    assert [entry.path for entry in open_shards(folder)] == [str(clip) for clip in clips]


def test_labels_follow_the_class_names_that_are_there_now(tmp_path, clips):
    sample = {"__key__": "x", "mp4": clips[0].read_bytes(), "json": {"label": "wave"}}
    _write(tmp_path / "a-%d.tar", [sample])
    names = tmp_path / "class_names.txt"

    found = []
    for text in ("clap\nwave\n", "wave\nclap\n"):
        names.write_text(text)
        found.append(open_shards(str(tmp_path))[0].labels)

    assert found == [(1,), (0,)]


# --- Tars elsewhere: corrected ones have the size of those before


@pytest.fixture(params=["fsspec", "handler"])
def upload(request, tmp_path, monkeypatch):
    """upload(bytes) puts a.tar into a folder elsewhere, whose address it returns."""
    if request.param == "fsspec":
        store = fsspec.filesystem("memory")

        def to_store(data):
            store.pipe("/corrected/a.tar", data)
            return "memory://corrected"

        yield to_store
        store.rm("/corrected", recursive=True)
        return
    monkeypatch.setattr(g_pathmgr, "_path_handlers", dict(g_pathmgr._path_handlers))
    (tmp_path / "elsewhere").mkdir()
    g_pathmgr.register_handler(FolderHandler(tmp_path))

    def to_handler(data):
        (tmp_path / "elsewhere" / "a.tar").write_bytes(data)
        return "opens://elsewhere"

    yield to_handler


def test_corrected_labels_of_a_tar_elsewhere_are_read(upload):
    before, after = (tar_of({"x.mp4": b"video", "x.cls": label}) for label in (b"3", b"7"))

    assert len(before) == len(after)
    assert open_shards(upload(before))[0].labels == (3,)
    assert open_shards(upload(after))[0].labels == (7,)


def test_a_corrected_video_of_a_tar_elsewhere_is_not_read_from_the_cache(upload, tmp_path):
    cache = RangeCache(str(tmp_path / "cache"), 10**6)

    for video in (b"one video", b"other one"):
        entry = open_shards(upload(tar_of({"x.mp4": video, "x.cls": b"0"})), cache=cache)[0]
        assert read_part(entry.part) == read_part(entry.part) == video


def test_what_is_known_of_a_tar_elsewhere_is_kept_where_its_version_can_be_told(tmp_path, upload):
    folder = upload(tar_of({"x.mp4": b"video", "x.cls": b"0"}))
    cache = RangeCache(str(tmp_path / "cache"), 10**6)

    read_part(open_shards(folder, cache=cache)[0].part)

    tells = folder.startswith("memory")
    assert bool(list((tmp_path / "home").rglob("*.index.safetensors"))) == tells
    assert any(file.is_file() for file in (tmp_path / "cache").rglob("*")) == tells


def test_names_beside_shards_in_a_store_number_their_labels():
    store = fsspec.filesystem("memory")
    store.pipe("/named/class_names.txt", b"clap\nwave\n")
    store.pipe("/named/a.tar", tar_of({"x.mp4": b"video", "x.json": b'"wave"'}))

    assert open_shards("memory://named")[0].labels == (1,)


def test_files_of_attributes_in_a_tar_of_a_mac_are_no_videos_and_no_labels(tmp_path):
    attributes = bytes.fromhex("00051607")
    files = {
        "wave/._a.mp4": attributes,
        "wave/a.mp4": b"video",
        "wave/._a.cls": attributes,
        "wave/a.cls": b"3",
        "./._b.mp4": attributes,
        "./b.mp4": b"video",
        "__MACOSX/._b.mp4": attributes,
    }
    (tmp_path / "a.tar").write_bytes(tar_of(files))

    videos = open_shards(str(tmp_path))

    assert [(entry.path, entry.labels) for entry in videos] == [
        ("a.tar/wave/a.mp4", (3,)),
        ("a.tar/./b.mp4", ()),
    ]


def test_an_index_by_other_rules_is_made_anew(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tar_of({"x.mp4": b"video", "x.cls": b"0"}))
    index = tmp_path / "a.index.safetensors"
    monkeypatch.setattr(scan, "_RULES", 1)
    open_shards(str(tmp_path))
    before = index.read_bytes()
    monkeypatch.undo()

    open_shards(str(tmp_path))

    assert index.read_bytes() != before
