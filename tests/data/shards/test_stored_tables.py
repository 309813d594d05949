"""What an index keeps of a video's packets is what a look at them tells, and is not trusted when it
is damaged."""

import dataclasses
import json
import logging
import shutil
import struct
from fractions import Fraction

import numpy as np
import pytest
from coded_videos import numbers, write_clip

from octvideo.data import reading
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.storage.part import read_part
from octvideo.data.video import examine, in_memory, packets
from octvideo.data.video.container import opened
from octvideo.data.video.decode import probe, read_frames
from octvideo.data.video.examine import frame_table, layout_of
from octvideo.data.video.frame_source import open_entry, prefetch_entry
from octvideo.data.video.frame_table import FrameTable, decode_table
from octvideo.errors import DataError

B_FRAMES = {"g": "8", "bf": "2"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=8:min-keyint=4:bframes=3:b-adapt=0"}
VIDEOS = {
    "a.mp4": {"options": B_FRAMES},
    "a.mov": {"options": B_FRAMES},
    "a.mkv": {"options": B_FRAMES},
    "a.ts": {"options": B_FRAMES},
    "a.flv": {"options": {"g": "8", "bf": "0"}},
    "a.avi": {"options": {"g": "8"}, "codec": "mpeg4"},
    "a.webm": {"options": {"g": "8"}, "codec": "libvpx-vp9"},
    "open.mp4": {"options": OPEN_GOP},
    "turned.mp4": {"options": B_FRAMES, "rotation": 90},
    "uneven.mp4": {"options": B_FRAMES, "pts": [40 * k + 7 * (k % 3) for k in range(24)]},
}
INDICES = [17, 3, 21, 3, 0, 20, 11, 12]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a list of one video per container and kind, the folder of its shards)."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, options in VIDEOS.items():
        write_clip(folder / name, 24, **options)
    (folder / "train.csv").write_text("".join(f"{name} 0\n" for name in VIDEOS))
    videos = read_list(folder / "train.csv")
    write_shards(videos, str(folder / "shards"), name="train", num_workers=1)
    return videos, folder / "shards"


@pytest.fixture
def shards(made, tmp_path):
    """A copy of the shards that may be damaged."""
    return shutil.copytree(made[1], tmp_path / "shards")


@pytest.fixture
def no_scan(monkeypatch):
    """A look at the packets of a file, or a decode to find out its times, is an error."""

    def refuse(*_, **__):
        raise AssertionError("the packets were looked at")

    for name in ("look_through", "decode_all"):
        monkeypatch.setattr(examine, name, refuse)
    monkeypatch.setattr(packets, "look_through", refuse)


@pytest.fixture(params=VIDEOS)
def number(request):
    """Of a video in the list."""
    return list(VIDEOS).index(request.param)


def _read(entry, backend="auto"):
    with open_entry(entry, backend=backend) as video:
        return video.read(INDICES), list(video.timing(exact_times=True).times)


def _scanned(entry):
    with opened(entry.path) as container:
        return layout_of(container, probe(entry.path))


def test_members_are_read_without_a_scan_and_to_the_bit(made, number, no_scan):
    videos, folder = made

    frames, times = _read(open_shards(str(folder))[number])

    assert numbers(frames) == INDICES or videos[number].path.endswith("turned.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examine, "look_through", packets_look_through)
        patch.setattr(examine, "decode_all", examine_decode_all)
        np.testing.assert_array_equal(frames, read_frames(videos[number].path, INDICES))
        assert times == list(frame_table(videos[number].path, probe(videos[number].path)).times)


packets_look_through, examine_decode_all = packets.look_through, examine.decode_all


def test_the_stored_map_is_the_one_that_the_packets_give(made, number):
    videos, folder = made
    entry = open_shards(str(folder))[number]

    stored = decode_table(read_part(entry.part.table), entry.part.info).layout

    scanned = _scanned(videos[number])
    assert bool(stored.unclear) == bool(scanned.unclear)
    if not scanned.unclear:
        for field in dataclasses.fields(scanned):
            np.testing.assert_array_equal(getattr(stored, field.name), getattr(scanned, field.name))


def test_workers_with_decord_do_not_fetch_the_table(made, monkeypatch):
    entry = open_shards(str(made[1]))[0]
    monkeypatch.setattr(reading, "_shared", True)
    asked = []
    monkeypatch.setattr(in_memory, "_table_of", lambda part: asked.append(part))

    with open_entry(entry) as video:
        assert numbers(video.read(INDICES)) == INDICES

    assert not asked


# --- What is damaged, of another file, or of an earlier version


def _damage(folder, number, change):
    """`change` the bytes of a stored table."""
    table = open_shards(str(folder))[number].part.table
    index = folder / "train-000000.index.safetensors"
    data = bytearray(index.read_bytes())
    place = slice(table.offset, table.offset + table.size)
    data[place] = change(bytes(data[place]))
    index.write_bytes(data)


@pytest.mark.parametrize("at", [0, 8, 40, 100, 700])
def test_a_damaged_table_is_looked_up_in_the_file_again_and_named(shards, made, caplog, at):
    in_memory._warn_of.cache_clear()
    _damage(shards, 0, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    with caplog.at_level(logging.WARNING, "octvideo"):
        frames, times = _read(open_shards(str(shards))[0])

    np.testing.assert_array_equal(frames, read_frames(made[0][0].path, INDICES))
    assert times == list(frame_table(made[0][0].path, probe(made[0][0].path)).times)
    assert "train-000000.index.safetensors: it is damaged (" in caplog.text


def test_a_table_of_another_video_is_not_taken(shards, made, caplog):
    in_memory._warn_of.cache_clear()
    index = shards / "train-000000.index.safetensors"
    columns = open_shards(str(shards))
    first, other = columns[0].part.table, columns[1].part.table
    assert first.size == other.size
    data = bytearray(index.read_bytes())
    data[first.offset : first.offset + first.size] = data[other.offset : other.offset + first.size]
    index.write_bytes(data)

    frames, _ = _read(open_shards(str(shards))[0])

    np.testing.assert_array_equal(frames, read_frames(made[0][0].path, INDICES))


@pytest.mark.parametrize("name", ["fps", "width", "num_frames", "crc32", "table_size", "decord"])
def test_a_column_that_was_changed_is_refused_even_where_it_could_be_true(shards, name):
    index = shards / "train-000000.index.safetensors"
    data = bytearray(index.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start = json.loads(data[8 : 8 + length])[name]["data_offsets"][0]
    data[8 + length + start] ^= 1
    index.write_bytes(data)

    with pytest.raises(DataError, match="a column of this index is damaged"):
        open_shards(str(shards))


def test_an_index_without_tables_is_read_as_before(shards, made, monkeypatch):
    """As versions before wrote them: the header knows neither tables nor a checksum."""
    index = shards / "train-000000.index.safetensors"
    data = index.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header = {name: place for name, place in header.items() if not name.startswith("table")}
    del header["__metadata__"]["columns_crc32"]
    text = json.dumps(header).encode().ljust(length)
    index.write_bytes(data[:8] + text + data[8 + length :])

    entry = open_shards(str(shards))[0]

    assert entry.part.table is None
    np.testing.assert_array_equal(_read(entry)[0], read_frames(made[0][0].path, INDICES))


def test_tables_of_remote_shards_are_one_range_each(made, serve):
    server = serve(made[1])
    entry = open_shards(server.url)[0]
    server.requests.clear()

    frames, _ = _read(entry)

    assert numbers(frames) == INDICES
    assert [path for _, path, _ in server.requests] == [
        "/train-000000.tar",
        "/train-000000.index.safetensors",
    ]


def test_where_it_is_needed_the_table_is_fetched_ahead_with_the_video(made, serve, monkeypatch):
    server = serve(made[1])
    entry = open_shards(server.url)[0]
    server.requests.clear()

    prefetch_entry(entry, backend="pyav")
    with open_entry(entry, backend="pyav") as video:
        video.read([0])
    monkeypatch.setattr(reading, "_shared", True)
    prefetch_entry(entry)
    read_part(entry.part)

    assert sorted(path.rpartition(".")[2] for _, path, _ in server.requests) == [
        *("safetensors", "tar", "tar"),
    ]


@pytest.mark.parametrize("cut", [0, 30, 79, 81, -1])
def test_a_table_that_is_cut_is_an_error(made, cut):
    entry = open_shards(str(made[1]))[0]
    data = read_part(entry.part.table)

    with pytest.raises(ValueError, match="frame table"):
        decode_table(data[:cut], entry.part.info)


@pytest.mark.parametrize("num_frames", [23, 25])
def test_a_table_of_other_frames_is_an_error(made, num_frames):
    part = open_shards(str(made[1]))[0].part

    with pytest.raises(ValueError, match="another file"):
        decode_table(read_part(part.table), dataclasses.replace(part.info, num_frames=num_frames))


@pytest.mark.parametrize("field", range(9))
@pytest.mark.parametrize("value", [-1, 0, 2**40, -(2**63)])
def test_a_hostile_head_is_an_error_or_harmless(made, field, value):
    part = open_shards(str(made[1]))[0].part
    data = bytearray(read_part(part.table))
    struct.pack_into("<q", data, 8 + 8 * field, value)

    try:
        table = decode_table(bytes(data), part.info)
    except ValueError:
        return
    assert isinstance(table, FrameTable)
    assert isinstance(table.time_base, Fraction)
