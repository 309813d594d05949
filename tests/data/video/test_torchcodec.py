"""torchcodec gives the frames that PyAV gives, or leaves the file to it; what needs no torchcodec
is tested without."""

import csv
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from coded_videos import numbers, write_clip

from octvideo.data import DecodeError, open_video, read_frames, reading
from octvideo.data.clips.dataset import ClipDataset, ClipTransform
from octvideo.data.lists.video_list import VideoEntry, read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.sampling import ClipRule
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.video import examine
from octvideo.data.video.container import opened
from octvideo.data.video.examine import know, layout_of
from octvideo.data.video.frame_source import open_entry
from octvideo.data.video.torchcodec_engine import (
    TorchCodecEngine,
    decoder_of,
    frame_mappings,
    require_torchcodec,
)
from octvideo.errors import ConfigError, OctvideoError

INDICES = [17, 3, 29, 3, 0, 28, 11, 12]
FAKE = """
import av, io, numpy, torch
from types import SimpleNamespace
LATE = {late}  # one frame
class VideoDecoder:
    def __init__(self, source, *, stream_index, dimension_order, num_ffmpeg_threads, device,
                 transforms, custom_frame_mappings):
        assert (dimension_order, num_ffmpeg_threads, transforms) == ("NHWC", 1, None)
        self.device = device
        with av.open(source) as container:
            frames = list(container.decode(container.streams[stream_index]))
        self.frames = [frame.to_ndarray(format="rgb24") for frame in frames]
        self.times = [frame.time + LATE * (k == 29) for k, frame in enumerate(frames)]
    def get_frames_at(self, indices):
        data = torch.from_numpy(numpy.stack([self.frames[k] for k in indices]))
        return SimpleNamespace(data=data, pts_seconds=torch.tensor([self.times[k] for k in indices]))
"""


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", options={"g": "10", "bf": "2"})


@pytest.fixture
def in_a_worker(monkeypatch):
    monkeypatch.setattr(reading, "_shared", True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a torchcodec of these lines in the place of an installed one."""
    for name in ("torchcodec", "torchcodec.decoders", "torchcodec.transforms"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    require_torchcodec.cache_clear()

    def write(init, decoders=""):
        folder = tmp_path / "site" / "torchcodec"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(init)
        (folder / "decoders.py").write_text(decoders)
        monkeypatch.syspath_prepend(folder.parent)

    yield write
    for name in ("torchcodec", "torchcodec.decoders"):
        sys.modules.pop(name, None)
    require_torchcodec.cache_clear()


@pytest.fixture
def real():
    require_torchcodec.cache_clear()
    if find_spec("torchcodec") is None:
        pytest.skip("no torchcodec")
    require_torchcodec("cpu")


def test_torchcodec_that_is_missing_is_named_before_anything_is_read(clip, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)

    with pytest.raises(OctvideoError, match=r"is missing; pip install octvideo\[torchcodec\]$"):
        read_frames(clip, [0], backend="torchcodec")
    with pytest.raises(OctvideoError, match="torchcodec is missing"):
        ClipDataset(
            [VideoEntry(str(clip))],
            rule=ClipRule(4, 2),
            transform=ClipTransform(32),
            backend="torchcodec",
        )


def test_torchcodec_that_does_not_load_says_what_it_needs(clip, package):
    package("raise RuntimeError('Could not load libtorchcodec.\\nmany\\nlines')")

    with pytest.raises(OctvideoError, match="it needs FFmpeg's shared libraries") as error:
        read_frames(clip, [0], backend="torchcodec")
    assert "\n" not in str(error.value)


def test_cuda_decoding_is_refused_where_there_is_no_gpu(clip, package, monkeypatch):
    package("")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match=r"no CUDA device; use torchcodec$"):
        read_frames(clip, [0], backend="torchcodec:cuda")


def test_cuda_decoding_asks_torchcodec_for_the_gpu(clip, package, in_a_worker, monkeypatch):
    package("", FAKE.format(late=0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    for backend, device in (("torchcodec:cuda", "cuda"), ("torchcodec", "cpu")):
        with open_video(clip, backend=backend) as video:
            assert video._engine._decoder.device == device
            assert numbers(video.read(INDICES)) == INDICES


def test_the_index_tells_torchcodec_every_frame_and_where_decoding_may_begin(clip):
    with opened(str(clip)) as container:
        layout = layout_of(container, know(str(clip), None))

    frames = json.loads(frame_mappings(layout))["frames"]

    assert [frame["pts"] for frame in frames] == layout.pts.tolist()
    assert [k for k, frame in enumerate(frames) if frame["key_frame"]] == [0, 10, 20]
    assert all(frame["duration"] > 0 for frame in frames)


def test_workers_read_with_it_and_others_with_pyav(clip, package, in_a_worker, monkeypatch):
    package("", FAKE.format(late=0))

    with open_video(clip, backend="torchcodec") as video:
        assert isinstance(video._engine, TorchCodecEngine)
        assert numbers(video.read(INDICES)) == INDICES
        halves = video.read(INDICES, lambda frame: frame[::2, ::2])
        np.testing.assert_array_equal(halves, video.read(INDICES)[:, ::2, ::2])
    monkeypatch.setattr(reading, "_shared", False)
    with open_video(clip, backend="torchcodec") as video:
        assert not isinstance(video._engine, TorchCodecEngine)


def test_a_frame_of_another_time_sends_the_file_to_pyav(clip, package, in_a_worker):
    package("", FAKE.format(late=0.04))

    with open_video(clip, backend="torchcodec") as video:
        assert numbers(video.read(INDICES)) == INDICES
        assert not isinstance(video._engine, TorchCodecEngine)


def test_what_decord_reads_wrongly_is_pyavs(tmp_path, package, in_a_worker):
    package("", FAKE.format(late=0))
    params = "open-gop=1:keyint=8:min-keyint=4:bframes=3:b-adapt=0"
    path = write_clip(tmp_path / "open.mp4", options={"x264-params": params})

    with open_video(path, backend="torchcodec") as video:
        assert not isinstance(video._engine, TorchCodecEngine)
        assert numbers(video.read(INDICES)) == INDICES


def test_real_frames_come_from_paths_bytes_and_ranges(clip, tmp_path, real):
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"x" * 1000 + clip.read_bytes() + b"y" * 1000)
    with opened(str(clip)) as container:
        layout = layout_of(container, know(str(clip), None))
    expected = read_frames(clip, INDICES, backend="pyav")

    with archive.open("rb") as file:
        member = _Range(file, 1000, clip.stat().st_size)
        for source in (str(clip), clip.read_bytes(), member):
            decoder = decoder_of(source, layout, stream_index=0)
            np.testing.assert_array_equal(decoder.get_frames_at(INDICES).data.numpy(), expected)


def test_real_members_of_shards_are_read_from_their_bytes_without_a_scan(
    clip, tmp_path, real, in_a_worker, monkeypatch
):
    entry = _member(clip, tmp_path)
    expected = read_frames(clip, INDICES, backend="pyav")
    _refuse_looks(monkeypatch)

    with open_entry(entry, backend="torchcodec") as video:
        np.testing.assert_array_equal(video.read(INDICES), expected)
        assert isinstance(video._engine, TorchCodecEngine)


def test_members_of_shards_go_to_torchcodec_as_bytes_without_a_scan(
    clip, tmp_path, package, in_a_worker, monkeypatch
):
    package("", FAKE.format(late=0).replace("av.open(source)", "av.open(io.BytesIO(source))"))
    entry = _member(clip, tmp_path)
    _refuse_looks(monkeypatch)

    with open_entry(entry, backend="torchcodec") as video:
        assert numbers(video.read(INDICES)) == INDICES
        assert isinstance(video._engine, TorchCodecEngine)


def test_a_damaged_table_goes_to_torchcodec_no_more_than_a_missing_one(
    clip, tmp_path, package, in_a_worker
):
    package("", FAKE.format(late=0).replace("av.open(source)", "av.open(io.BytesIO(source))"))
    entry = _member(clip, tmp_path)
    table = entry.part.table._replace(crc32=1)

    with open_entry(
        entry._replace(part=entry.part._replace(table=table)), backend="torchcodec"
    ) as video:
        assert numbers(video.read(INDICES)) == INDICES


def _member(clip, tmp_path):
    """The clip as a video of a shard."""
    (tmp_path / "list.csv").write_text(f"{clip} 0\n")
    write_shards(read_list(tmp_path / "list.csv"), str(tmp_path / "set"), name="a", num_workers=1)
    return open_shards(str(tmp_path / "set"))[0]


def _refuse_looks(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the packets were looked at")

    monkeypatch.setattr(examine, "look_through", refuse)


class _Range:
    """Part of a file, as a file."""

    def __init__(self, file, start, length):
        self._file, self._start, self._length, self._place = file, start, length, 0

    def read(self, size=-1):
        rest = self._length - self._place
        self._file.seek(self._start + self._place)
        data = self._file.read(rest if size < 0 else min(size, rest))
        self._place += len(data)
        return data

    def seek(self, offset, whence=0):
        self._place = offset + (0, self._place, self._length)[whence]
        return self._place


def test_real_frames_are_resized_while_decoding(clip, real, in_a_worker):
    with open_video(clip, backend="torchcodec", short_side=48) as video:
        assert isinstance(video._engine, TorchCodecEngine)
        assert video.read([5, 3]).shape == (2, 48, 64, 3)


def test_real_frames_of_files_from_everywhere_are_those_of_pyav(shared, real, in_a_worker):
    zoo = shared / "data" / "decoder_zoo"
    engines = set()
    with (zoo / "frames.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["frames"] != "0"]

    for row in rows:
        count = int(row["frames"])
        indices = [count // 2, 0, count - 1, count // 3]
        try:
            expected = read_frames(zoo / row["file"], indices, backend="pyav")
        except DecodeError:
            continue
        for chosen in (indices, sorted(indices), indices[:1]):
            with open_video(zoo / row["file"], backend="torchcodec") as video:
                frames = video.read(chosen)
                engines.add(type(video._engine).__name__)
            order = [indices.index(k) for k in chosen]
            np.testing.assert_array_equal(frames, expected[order], row["file"])

    assert engines == {"TorchCodecEngine", "PyAVEngine"}
