"""Memory does not grow with a file's length, nor beyond what a network sees with its size."""

import gc
import tracemalloc

import av
import numpy as np
import pytest
import torch
from coded_videos import write_clip
from forked import Forked
from peak_memory import peak_growth_below

import octvideo
from octvideo.data import open_video
from octvideo.data.clips.views import ViewSpec, read_clips
from octvideo.data.sampling import ClipRule
from octvideo.data.transforms import resize_short_side
from octvideo.data.video.decode import look_at
from octvideo.predict import write_named_video
from octvideo.report.annotate import Label

MEASURED = """
import av, numpy, torch  # so that only the file is measured
from octvideo.data import iter_frames, open_video
from octvideo.data.clips.views import ViewSpec, read_clips
from octvideo.data.sampling import ClipRule
from octvideo.engine.training.records import peak_resident_bytes
def peak(): return peak_resident_bytes() / 2**20
before = peak()
{work}
print(peak() - before, peak())
"""
OPEN = "with open_video(path) as video: video.timing(exact_times=True)"
EVALUATE = (
    "with open_video(path, backend='pyav') as video:\n"
    "    read_clips(video, ViewSpec(ClipRule(8, 2), 10, 3, 256, 256))"
)
TRAIN = (
    "from octvideo.data import ClipDataset, ClipTransform\n"
    "from octvideo.data.lists.video_list import VideoEntry\n"
    "ClipDataset([VideoEntry(path, (0,))], rule=ClipRule(32, 2), transform={}).sample(0, 0)"
)
STREAM = "for frame in iter_frames(path): pass"


def measure(work, path):
    exec(MEASURED.format(work=work), {"path": path})


def megabytes(path, work):
    """(grown by, peak) of a process that does this with the file."""
    process = Forked(measure, work, str(path), output=path.with_suffix(".txt"))
    return tuple(map(float, process.communicate().split()))


def repeated(source, target, times):
    """The packets of a file again and again, their clock going on."""
    with av.open(str(source)) as reader:
        stream = reader.streams.video[0]
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in reader.demux(stream)
            if packet.size
        ]
        length = len(packets) * round(1 / 25 / stream.time_base)
        with av.open(str(target), "w") as writer:
            ours = writer.add_stream_from_template(stream)
            for round_number in range(times):
                for data, pts, dts, is_key in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = ours, stream.time_base
                    packet.pts = pts + round_number * length
                    packet.dts = dts + round_number * length
                    packet.is_keyframe = is_key
                    writer.mux(packet)
    return target


@pytest.mark.parametrize("work", [OPEN, STREAM])
def test_memory_does_not_grow_with_the_length(tmp_path, work):
    path = tmp_path / "noise.mp4"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "1", "bf": "0", "preset": "ultrafast"}
        )
        stream.width = stream.height = 512
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            image = noise.integers(0, 255, (512, 512, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    long = repeated(path, tmp_path / "long.mp4", 40)
    assert long.stat().st_size > 60e6

    short_growth, _ = megabytes(path, work)
    growth, _ = megabytes(long, work)

    assert growth < short_growth + 25


def traced_peak(work, *arguments, **options):
    """Bytes that Python and NumPy held at most; FFmpeg's own are not among them."""
    gc.collect()
    tracemalloc.start()
    try:
        work(*arguments, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_look_at_a_file_holds_few_bytes_of_each_packet(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 100, options={"g": "25", "bf": "2"})

    def peak_of(times):
        return traced_peak(look_at, repeated(path, tmp_path / f"{times}.mp4", times))

    peak_of(20)  # What is imported and built once is not counted.

    assert (peak_of(120) - peak_of(20)) / 10_000 < 90


@pytest.mark.parametrize("gop", [1, 25])
@pytest.mark.parametrize("work", ["timeline", "named video"])
def test_names_over_time_keep_a_few_numbers_of_each_frame(tmp_path, tiny_checkpoint, work, gop):
    recognizer = octvideo.load(tiny_checkpoint)
    windows = {"window_seconds": 2, "stride_seconds": 40}
    path = tmp_path / "tiny.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(gop), "bf": "0"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for number in range(100):
            image = np.full((128, 128, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())

    def peak_of(times):
        video = repeated(path, tmp_path / f"{times}.mp4", times)
        if work == "timeline":
            return traced_peak(recognizer.timeline, video, **windows)
        return traced_peak(
            write_named_video,
            recognizer,
            video,
            tmp_path / "named.mp4",
            label=Label(rows=1),
            **windows,
        )

    peak_of(2)  # What is imported and built once is not counted.

    short = peak_of(10)
    with peak_growth_below(10e6):  # Of FFmpeg too: 3000 of its pictures are 74 MB.
        assert (peak_of(30) - short) / 2000 < 200


@pytest.fixture(scope="module")
def large_video(tmp_path_factory):
    """A small file of large frames."""
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 4096
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((4096, 4096, 3), 128, np.uint8), "rgb24")
        frame = frame.reformat(format="yuv420p")
        for number in range(100):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert path.stat().st_size < 1e6
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        EVALUATE,
        TRAIN.format("ClipTransform(224)"),
        TRAIN.format("ClipTransform(224, area=(0.08, 1.0))"),
    ],
    ids=["evaluate", "train", "train on boxes"],
)
def test_large_frames_are_made_small_one_by_one(large_video, work):
    assert megabytes(large_video, work)[1] < 1000


@pytest.mark.parametrize(("height", "width"), [(96, 128), (75, 100), (64, 61)])
@pytest.mark.parametrize("short_side", [32, 64, 100])
def test_resizing_one_by_one_changes_no_pixel(tmp_path, height, width, short_side):
    path = tmp_path / "clip.avi"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(20):
            image = rng.integers(0, 255, (height, width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    spec = ViewSpec(ClipRule(4, 2), 3, 3, short_side, short_side)

    with open_video(path) as video:
        small, clips = read_clips(video, spec)
        whole = torch.from_numpy(video.read(np.unique(spec.clips(video.timing())).tolist()))

    expected = resize_short_side(whole.movedim(-1, 0), short_side).movedim(0, -1)
    assert torch.equal(small, expected)
    assert clips.max() == len(expected) - 1


def test_frames_of_a_known_clip_stay_those_of_one_batch(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")

    with open_video(path) as video:
        prepared = video.read([3, 7, 3], lambda frame: frame[::2, ::2])
        np.testing.assert_array_equal(prepared, video.read([3, 7, 3])[:, ::2, ::2])
